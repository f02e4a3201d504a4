"""The workflow webhook's decision: judge every memoize block of an object, take opted-in templates over.

Pure. The command line's `lint` asks the same function, and its `restore` the counterpart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from argo.fields import FieldError
from argo.shape import mapping
from argo.templates import (
    CLUSTER_WORKFLOW_TEMPLATE,
    CRON_WORKFLOW,
    TemplateRef,
    defaults_site,
    sites,
    workflow_spec,
)
from kube.jsonpatch import Op
from memoize import names, opt_in
from memoize.reasons import Reason
from webhook.submit import conversion, hostnodes, reach, validation
from webhook.submit import warnings as advice
from webhook.submit.conversion import Form, Nearby
from webhook.submit.validation import Validation

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
    errors = list(reach.errors(kind, obj))
    warnings = [advice.warning(*remark) for remark in reach.remarks(kind, obj)]
    ops: list[Op] = []
    silent = not errors
    uses = hostnodes.uses(kind, obj)
    judged = list(_judged_templates(kind, obj, _nearby(kind, obj, namespace_labels), uses))
    around = advice.surroundings(workflow_spec(kind, obj))
    for template in judged:
        silent = silent and template.finding.silent
        errors += template.finding.errors
        warnings += advice.advise(template.site, template.finding, template.written, around)
        if template.form is None:
            continue
        warnings += advice.advise_of_outcome(
            template.site, template.finding, template.written, template.form, around
        )
        if kind != CRON_WORKFLOW:  # the Workflows made from it are changed, each at its own admission
            ops += conversion.changes(template.site, template.form)
    warnings += _of_the_whole(kind, obj, judged, uses)
    silent = silent and not ops
    # What several templates inherit from templateDefaults is wrong once.
    distinct = list({str(error): error for error in errors}.values())
    return _verdict(opt_in.validation(namespace_labels, validate), silent, distinct, warnings, ops)


def restore(kind: str, obj: Mapping[str, Any], *, config_map_key: bool = False) -> list[Op]:
    """The operations that undo every take-over in the object, whatever the words around it say.

    `config_map_key`: write a `configMap.key` where a block had none, which full CRDs require up to Argo 3.7.
    """
    return [
        op
        for site in _all_sites(kind, obj)
        for op in conversion.changes(site, conversion.restored(site, config_map_key=config_map_key))
    ]


def edited(kind: str, obj: Mapping[str, Any]) -> list[str]:
    """Paths of templates whose annotations were ours and were edited since: `restore` leaves those."""
    return [site.path for site in _all_sites(kind, obj) if conversion.authored(site).edited]


def _all_sites(kind: str, obj: Mapping[str, Any]) -> Iterator[TemplateRef]:
    defaults = defaults_site(kind, obj)
    if defaults is not None:
        yield defaults
    yield from sites(kind, obj)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One template: as its author wrote it, what that says, and what becomes of it (None: it has errors)."""

    site: TemplateRef
    written: Form
    finding: Validation
    form: Form | None


def _judged_templates(
    kind: str, obj: Mapping[str, Any], nearby: Nearby, uses: hostnodes.Uses
) -> Iterator[_Judged]:
    """`templateDefaults` first: the other templates are judged under what becomes of it."""
    defaults, merged = defaults_site(kind, obj), None
    if defaults is not None:
        judged = _judge(defaults, nearby)
        yield judged
        form = judged.form or Form(defaults.template.get("memoize"), defaults.annotations)
        merged = conversion.with_form(defaults.template, form)
        nearby = replace(nearby, defaults_block=form.block is not None)
    for site in sites(kind, obj, merged):
        yield _judge(site, nearby, uses.templates.get(site.parts, ""))


def _judge(site: TemplateRef, nearby: Nearby, needs_node: str = "") -> _Judged:
    written = conversion.authored(site)
    finding = validation.judge(site, written.annotations)
    form = None if finding.errors else conversion.wanted(site, written, nearby, needs_node)
    return _Judged(site, written, finding, form)


def _of_the_whole(
    kind: str, obj: Mapping[str, Any], judged: Sequence[_Judged], uses: hostnodes.Uses
) -> Iterator[str]:
    """Warnings that one template alone gives no reason for."""
    own = any(not template.finding.silent for template in judged)
    for remark in reach.behind_references(kind, obj, own=own):
        yield advice.warning(*remark)
    if left := next((t for t in judged if t.site.is_defaults and t.form and t.form.block is not None), None):
        where = f"{left.site.path}.memoize"
        if any(template.form is not None and template.form.blocked for template in judged):
            yield advice.warning(where, "left to Argo's controller, and with it every block of this spec")
        elif reach.calls_elsewhere(kind, obj):
            yield advice.warning(
                where, "Argo uses it for opted-in templates of a templateRef too: opt in here"
            )
    opted_in = opt_in.of_holder({"metadata": _metadata_that_counts(kind, obj)})
    if opted_in or any(template.form is not None and template.form.memoized for template in judged):
        for path in uses.elsewhere:
            yield advice.warning(
                path, f'its hostNodeName is used: if memoized, it needs {names.GATED}: "false"'
            )


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
    return [workflow_spec(kind, obj), reach.metadata_of_runs(kind, obj), opt_in.in_metadata(obj)]


def _metadata_that_counts(kind: str, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata whose word counts for the object's templates: of a CronWorkflow, its runs'."""
    return reach.metadata_of_runs(kind, obj) if kind == CRON_WORKFLOW else mapping(obj.get("metadata"))


def _nearby(kind: str, obj: Mapping[str, Any], namespace_labels: Mapping[str, str] | None) -> Nearby:
    namespaced = kind != CLUSTER_WORKFLOW_TEMPLATE
    return Nearby(
        holder=opt_in.of_holder({"metadata": _metadata_that_counts(kind, obj)}),
        namespace=opt_in.of_labels(namespace_labels or {}) if namespaced else None,
        namespace_known=not namespaced or namespace_labels is not None,
    )
