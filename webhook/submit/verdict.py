"""The workflow webhook's decision: check every memoize block of an object, take opted-in templates over.

Pure. The command line's `lint` asks the same function, and its `restore` the counterpart.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from argo.fields import FieldError
from argo.shape import mapping
from argo.templates import (
    CLUSTER_WORKFLOW_TEMPLATE,
    CRON_WORKFLOW,
    TemplateRef,
    defaults_ref,
    template_refs,
    workflow_spec,
)
from kube.jsonpatch import Op
from memoize import names, opt_in
from memoize.reasons import Reason
from webhook.submit import budget, conversion, hostnodes, reach
from webhook.submit.conversion import Form, Nearby
from webhook.submit.findings import MOST, Findings, Remark
from webhook.submit.validation import Validation, validate_template
from webhook.submit.warnings import outcome_warnings, surroundings, template_warnings

ENFORCE, WARN, OFF = "enforce", "warn", "off"
"""What to do about errors: deny, admit with warnings, do not look."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer."""

    reason: Reason
    errors: list[FieldError] = field(default_factory=list)
    """Any of them denies the object."""
    more_errors: int = 0
    """Errors beyond those in `errors`."""
    warnings: list[str] = field(default_factory=list)
    """Shown to who submits it."""
    ops: list[Op] = field(default_factory=list)
    """They change the object that is admitted."""


def review_object(
    kind: str,
    obj: Mapping[str, Any],
    old: Mapping[str, Any] | None,
    operation: str,
    namespace_labels: Mapping[str, str] | None,
    validate: str,
    most: int = MOST,
    size: int = sys.maxsize,
) -> Verdict:
    """The verdict on one object of templates.KINDS, with `most` errors and warnings at most.

    `old` is the object before an UPDATE; `namespace_labels` are None where the Namespace could not be read
    (and for what lies in none); `validate` is the webhook's setting, which the Namespace's label overrules.
    `size` are bytes that the object is known not to exceed.
    """
    if operation == "UPDATE" and not _concerns_us(kind, obj, old):
        return Verdict(Reason.UNCHANGED)
    templates = budget.templates_of(kind, obj)
    if isinstance(templates, str):
        return _untouched(templates)
    findings = Findings(most)
    findings.add_errors(reach.errors(kind, obj))
    findings.add_remarks(reach.remarks(kind, obj))
    ops: list[Op] = []
    silent = not findings.errors
    uses = hostnodes.uses(kind, obj)
    reviewed = list(_review_templates(kind, obj, _nearby(kind, obj, namespace_labels), uses, templates))
    around = surroundings(workflow_spec(kind, obj))
    for template in reviewed:
        silent = silent and template.validation.silent
        findings.add_errors(template.validation.errors)
        told = template_warnings(template.ref, template.validation, template.written, around)
        findings.add_remarks(told)
        if template.form is None:
            continue
        told = outcome_warnings(template.ref, template.validation, template.written, template.form, around)
        findings.add_remarks(told)
        if kind != CRON_WORKFLOW:  # the Workflows made from it are changed, each at its own admission
            ops += conversion.changes(template.ref, template.form)
    findings.add_remarks(_of_the_whole(kind, obj, reviewed, uses))
    silent = silent and not ops
    verdict = _verdict(opt_in.validation(namespace_labels, validate), silent, findings, ops)
    if budget.too_large(obj, verdict.ops, size):
        return _untouched("its keys as annotations could be too much for etcd")
    return verdict


def _untouched(why: str) -> Verdict:
    return Verdict(Reason.BEYOND_BUDGET, warnings=[str(budget.remark(why))])


def restore(kind: str, obj: Mapping[str, Any], *, config_map_key: bool = False) -> list[Op]:
    """The operations that undo every take-over in the object, whatever the words around it say.

    `config_map_key`: write a `configMap.key` where a block had none, which full CRDs require up to Argo 3.7.
    """
    return [
        op
        for ref in _all_refs(kind, obj)
        for op in conversion.changes(ref, conversion.restored(ref, config_map_key=config_map_key))
    ]


def edited(kind: str, obj: Mapping[str, Any]) -> list[str]:
    """Paths of templates whose annotations were ours and were edited since: `restore` leaves those."""
    return [ref.path for ref in _all_refs(kind, obj) if conversion.authored(ref).edited]


def _all_refs(kind: str, obj: Mapping[str, Any]) -> Iterator[TemplateRef]:
    defaults = defaults_ref(kind, obj)
    if defaults is not None:
        yield defaults
    yield from template_refs(kind, obj)


class _ReviewedTemplate(NamedTuple):
    """One template, and what becomes of it."""

    ref: TemplateRef
    written: Form
    """As its author wrote it."""
    validation: Validation
    """What that says, and what is wrong with it."""
    form: Form | None
    """What it is made; None where it has errors."""


def _review_templates(
    kind: str,
    obj: Mapping[str, Any],
    nearby: Nearby,
    uses: hostnodes.Uses,
    templates: Iterable[TemplateRef],
) -> Iterator[_ReviewedTemplate]:
    """`templateDefaults` first: the other templates come under what becomes of it."""
    defaults = defaults_ref(kind, obj)
    if defaults is not None:
        reviewed = _review_template(defaults, nearby)
        yield reviewed
        form = reviewed.form or Form(defaults.template.get("memoize"), defaults.annotations)
        templates = template_refs(kind, obj, conversion.with_form(defaults.template, form))
        nearby = replace(nearby, defaults_block=form.block is not None)
    for ref in templates:
        yield _review_template(ref, nearby, uses.templates.get(ref.parts, ""))


def _review_template(ref: TemplateRef, nearby: Nearby, needs_node: str = "") -> _ReviewedTemplate:
    written = conversion.authored(ref)
    validation = validate_template(ref, written.annotations)
    form = None if validation.errors else conversion.wanted(ref, written, nearby, needs_node)
    return _ReviewedTemplate(ref, written, validation, form)


def _of_the_whole(
    kind: str, obj: Mapping[str, Any], reviewed: Sequence[_ReviewedTemplate], uses: hostnodes.Uses
) -> Iterator[Remark]:
    """Warnings that one template alone gives no reason for."""
    own = any(not template.validation.silent for template in reviewed)
    yield from reach.behind_references(kind, obj, own=own)
    if left := next((t for t in reviewed if t.ref.is_defaults and t.form and t.form.block is not None), None):
        where = f"{left.ref.path}.memoize"
        if any(template.form is not None and template.form.blocked for template in reviewed):
            yield Remark(where, "left to Argo's controller, and with it every block of this spec")
        elif reach.calls_elsewhere(kind, obj):
            yield Remark(where, "Argo uses it for opted-in templates of a templateRef too: opt in here")
    opted_in = opt_in.of_holder({"metadata": _metadata_that_counts(kind, obj)})
    if opted_in or any(template.form is not None and template.form.memoized for template in reviewed):
        for path in uses.elsewhere:
            yield Remark(path, f'its hostNodeName is used: if memoized, it needs {names.GATED}: "false"')


def _verdict(validate: str, silent: bool, findings: Findings, ops: list[Op]) -> Verdict:
    sound = Reason.NOT_MEMOIZED if silent else Reason.ACCEPTED
    if validate == OFF:
        return Verdict(sound, ops=ops)
    if not findings.errors:
        return Verdict(sound, warnings=findings.warnings(), ops=ops)
    if validate == WARN:
        return Verdict(Reason.INVALID_MEMOIZE, warnings=findings.warnings(errors=True), ops=ops)
    return Verdict(
        Reason.INVALID_MEMOIZE,
        errors=findings.errors,
        more_errors=findings.more_errors,
        warnings=findings.warnings(),
    )


def _concerns_us(kind: str, obj: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    """Whether an UPDATE touches what is decided here: Argo's own writes of a status are UPDATEs as well.

    Of a CronWorkflow that is not its schedule: one with a bad block can still be suspended.
    """
    if mapping(obj.get("metadata")).get("deletionTimestamp") is not None:
        return False
    return old is None or _relevant(kind, obj) != _relevant(kind, old)


def _relevant(kind: str, obj: Mapping[str, Any]) -> list[Any]:
    return [workflow_spec(kind, obj), reach.metadata_of_runs(kind, obj), opt_in.in_metadata(obj)]


def _metadata_that_counts(kind: str, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata whose opt-in counts for the object's templates: of a CronWorkflow, its runs'."""
    return reach.metadata_of_runs(kind, obj) if kind == CRON_WORKFLOW else mapping(obj.get("metadata"))


def _nearby(kind: str, obj: Mapping[str, Any], namespace_labels: Mapping[str, str] | None) -> Nearby:
    namespaced = kind != CLUSTER_WORKFLOW_TEMPLATE
    return Nearby(
        holder=opt_in.of_holder({"metadata": _metadata_that_counts(kind, obj)}),
        namespace=opt_in.of_labels(namespace_labels or {}) if namespaced else None,
        namespace_known=not namespaced or namespace_labels is not None,
    )
