"""The workflow webhook's decision: judge every memoize block of an object, take opted-in templates over.

Pure. The command line's `lint` asks the same function, and its `restore` the counterpart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memoize import names
from memoize.fields import FieldError
from memoize.reasons import Reason
from memoize.shape import mapping
from webhook import advice, rules, takeover, words
from webhook.patch import Op
from webhook.takeover import Nearby
from webhook.templates import CLUSTER_WORKFLOW_TEMPLATE, CRON_WORKFLOW, sites, workflow_spec

ENFORCE, WARN, OFF = "enforce", "warn", "off"
"""What to do about errors: deny, admit with warnings, do not look."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer: any error denies; warnings are told; ops change the object that is admitted."""

    reason: Reason
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)


def review(
    kind: str,
    obj: Mapping[str, Any],
    old: Mapping[str, Any] | None,
    operation: str,
    namespace_labels: Mapping[str, str] | None,
    validate: str,
) -> Verdict:
    """The verdict on one object of templates.KINDS.

    `old` is the object before an UPDATE; `namespace_labels` are None where the Namespace could not be read
    (and for what lies in none); `validate` is the server's word, which the Namespace's label overrules.
    """
    if operation == "UPDATE" and not _concerns_us(kind, obj, old):
        return Verdict(Reason.UNCHANGED)
    errors = list(_word_errors(obj))
    warnings = list(_word_warnings(kind, obj))
    ops: list[Op] = []
    silent = not errors
    artifact_gc = str(mapping(workflow_spec(kind, obj).get("artifactGC")).get("strategy") or "")
    nearby = _nearby(kind, obj, namespace_labels)
    for site in sites(kind, obj):
        written = takeover.authored(site)
        finding = rules.judge(site, written.annotations)
        silent = silent and finding.silent
        errors += finding.errors
        warnings += advice.advise(site, finding, written, artifact_gc)
        if finding.errors or site.is_defaults or kind == CRON_WORKFLOW:
            continue
        form = takeover.wanted(site, written, nearby)
        ops += takeover.changes(site, form)
        if form.block is not None:
            warnings += advice.advise_unless_opted_in(finding)
    silent = silent and not ops
    # What several templates inherit from templateDefaults is wrong once.
    distinct = list({str(error): error for error in errors}.values())
    return _verdict(words.validation(namespace_labels, validate), silent, distinct, warnings, ops)


def restore(kind: str, obj: Mapping[str, Any]) -> list[Op]:
    """The operations that undo every take-over in the object, whatever the words around it say."""
    return [op for site in sites(kind, obj) for op in takeover.changes(site, takeover.authored(site))]


def edited(kind: str, obj: Mapping[str, Any]) -> list[str]:
    """Paths of templates whose annotations were ours and were edited since: `restore` leaves those."""
    return [site.path for site in sites(kind, obj) if takeover.authored(site).edited]


def _verdict(
    validate: str, silent: bool, errors: list[FieldError], warnings: list[str], ops: list[Op]
) -> Verdict:
    sound = Reason.NOT_MEMOIZED if silent else Reason.ACCEPTED
    if validate == OFF:
        return Verdict(sound, ops=ops)
    if not errors:
        return Verdict(sound, warnings=warnings, ops=ops)
    if validate == WARN:
        told = [advice.warning(error.field, error.message) for error in errors]
        return Verdict(Reason.INVALID_MEMOIZE, warnings=told + warnings, ops=ops)
    return Verdict(Reason.INVALID_MEMOIZE, errors=errors, warnings=warnings)


def _concerns_us(kind: str, obj: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    """Whether an UPDATE touches what is judged here: Argo's own writes of a status are UPDATEs as well.

    Of a CronWorkflow that is not its schedule: one with a bad block can still be suspended.
    """
    if mapping(obj.get("metadata")).get("deletionTimestamp") is not None:
        return False
    return old is None or _judged(kind, obj) != _judged(kind, old)


def _judged(kind: str, obj: Mapping[str, Any]) -> list[Any]:
    return [workflow_spec(kind, obj), _metadata_of_runs(obj), *words.opt_in_metadata(obj)]


def _metadata_of_runs(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the object gives to the metadata of the Workflows made from it."""
    return mapping(mapping(obj.get("spec")).get("workflowMetadata"))


def _nearby(kind: str, obj: Mapping[str, Any], namespace_labels: Mapping[str, str] | None) -> Nearby:
    namespaced = kind != CLUSTER_WORKFLOW_TEMPLATE
    return Nearby(
        holder=words.of_holder(obj),
        namespace=words.of_labels(namespace_labels or {}) if namespaced else None,
        namespace_known=not namespaced or namespace_labels is not None,
        defaults_memoize=mapping(workflow_spec(kind, obj).get("templateDefaults")).get("memoize") is not None,
    )


def _word_errors(obj: Mapping[str, Any]) -> Iterator[FieldError]:
    for metadata, path in ((mapping(obj.get("metadata")), "metadata"), (_metadata_of_runs(obj), _RUNS)):
        for field_name in ("annotations", "labels"):
            found = mapping(metadata.get(field_name))
            yield from words.errors(found, f"{path}.{field_name}", may_hold_tags=False)


_RUNS = "spec.workflowMetadata"


def _word_warnings(kind: str, obj: Mapping[str, Any]) -> Iterator[str]:
    if kind == CRON_WORKFLOW and any(word is not None for word in words.opt_in_metadata(obj)):
        yield advice.warning(
            "metadata", f"{names.DOMAIN} words do not reach a CronWorkflow's runs: use {_RUNS}"
        )
