"""Names of ours that stand where they have no effect, or less than it looks: each place is warned of once.

What becomes of each place is Argo's doing (v3.5 to v4.1): `workflowMetadata` is written to the Workflow at
the end of the controller's first look, after the first Pods (operator.go, updateWorkflowMetadata).
`podMetadata` is copied to the Pods, under the template's own (workflowpod.go, addMetadata), from 3.7 on
already into the template (templateresolution/context.go). A CronWorkflow hands its own `workflowMetadata` to
the Workflows it makes (workflow/common/convert.go); nothing copies the metadata of a template object to a
Workflow made from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from argo.fields import FieldError, annotation
from argo.shape import mapping
from argo.templates import CRON_WORKFLOW, WORKFLOW, TemplateRef, dotted, spec_parts, workflow_spec
from memoize import names, opt_in
from webhook.submit.findings import Remark

_UNKNOWN = "is not known here: "

_ON_POD = frozenset({names.MODE, names.SINGLE_FLIGHT, names.GATED, names.KEY_IGNORE, names.SALT})
_NONE = frozenset[str]()


@dataclass(frozen=True, slots=True)
class _Place:
    """Metadata at a path: which words count there as annotations and as labels, and what to say of others."""

    path: str
    metadata: Mapping[str, Any]
    annotations: frozenset[str]
    labels: frozenset[str]
    otherwise: str
    may_hold_tags: bool = False

    def found(self) -> Iterator[tuple[str, str, Any, bool]]:
        """Our words here: path of their field, name, value, and whether they count."""
        counted = {"annotations": self.annotations, "labels": self.labels, "labelsFrom": _NONE}
        for field, names_that_count in counted.items():
            for name, value in mapping(self.metadata.get(field)).items():
                if name.startswith(f"{names.DOMAIN}/"):
                    yield f"{self.path}.{field}", name, value, name in names_that_count


def errors(kind: str, obj: Mapping[str, Any]) -> Iterator[FieldError]:
    """Words that mean nothing, in whatever metadata the object has beside its templates'."""
    for place in _places(kind, obj):
        for field in ("annotations", "labels"):
            found = mapping(place.metadata.get(field))
            yield from opt_in.errors(found, f"{place.path}.{field}", may_hold_tags=place.may_hold_tags)


def remarks(kind: str, obj: Mapping[str, Any]) -> Iterator[Remark]:
    """What reaches nothing in that metadata: one remark a place, and one for each name that there is not."""
    for place in _places(kind, obj):
        told = False
        for field, name, value, counts in place.found():
            if name not in opt_in.KNOWN:
                yield Remark(f"{field}[{name}]", _UNKNOWN, opt_in.meant(name))
            elif not (counts or told or _opts_pods_out(place, field, name, value)):
                told = True
                yield Remark(f"{field}[{name}]", _instead(name) or place.otherwise)


def _opts_pods_out(place: _Place, field: str, name: str, value: Any) -> bool:
    """`memoize: "false"` does what it says on a Pod; there, `"true"` comes too late for a block."""
    return place.annotations is _ON_POD and field.endswith("annotations") and (name, value) == _FALSE


_FALSE = (names.MEMOIZE, "false")


def on_template(ref: TemplateRef, written: Mapping[str, Any], *, block: bool) -> Iterator[Remark]:
    """The same of a template's own metadata; `written` are the annotations without those of ours."""
    labels = mapping(mapping(ref.template.get("metadata")).get("labels"))
    if not (written or labels):
        return
    metadata = f"{ref.path}.metadata"
    for name in written:
        if name.startswith(f"{names.DOMAIN}/") and name not in opt_in.ON_TEMPLATE:
            where, instead = annotation(metadata, name), _instead(name)
            yield Remark(where, instead) if instead else Remark(where, _UNKNOWN, opt_in.meant(name))
    label = next((name for name in labels if name.startswith(f"{names.DOMAIN}/")), None)
    if label is not None:
        yield Remark(f"{metadata}.labels[{label}]", "is read as an annotation, not as a label")
    deaf = next((name for name in opt_in.BY_A_PERSON if name in written), None)
    if deaf is not None and not (block or ref.makes_cacheable_pod):
        yield Remark(annotation(metadata, deaf), f"has no effect on a {ref.kind} template")


def behind_references(kind: str, obj: Mapping[str, Any], *, own: bool) -> Iterator[Remark]:
    """What the object's own opt-in does not reach: templates that it calls and another object holds.

    `own`: it holds memoized templates of its own, which that opt-in is for.
    """
    metadata, path = mapping(obj.get("metadata")), "metadata"
    if kind == CRON_WORKFLOW:
        metadata, path = metadata_of_runs(kind, obj), _RUNS
    field = opt_in.place_of_holder(metadata)
    if field is None:
        return
    where, says = f"{path}.{field}[{names.MEMOIZE}]", opt_in.of_holder({"metadata": metadata})
    if workflow_spec(kind, obj).get("workflowTemplateRef") is not None:
        if says:
            yield Remark(where, "reaches no memoize block behind workflowTemplateRef: opt in there")
        else:
            yield Remark(where, f'reaches no block of a workflowTemplateRef: use {names.MODE}: "off"')
    elif says and not own and calls_elsewhere(kind, obj):
        yield Remark(where, "reaches no memoize block behind a templateRef: opt in there")


def calls_elsewhere(kind: str, obj: Mapping[str, Any]) -> bool:
    """Whether the object calls templates that another one holds."""
    rest: list[object] = [workflow_spec(kind, obj)]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if _REFERENCES & value.keys():
                return True
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return False


_REFERENCES = frozenset({"templateRef", "workflowTemplateRef"})


def _instead(name: str) -> str:
    return "counts on a Namespace, as a label" if name == names.VALIDATE else ""


def _places(kind: str, obj: Mapping[str, Any]) -> Iterator[_Place]:
    cron = kind == CRON_WORKFLOW
    holders = frozenset({names.MEMOIZE, names.MODE}) if kind == WORKFLOW else frozenset({names.MEMOIZE})
    yield _Place(
        "metadata",
        mapping(obj.get("metadata")),
        _NONE if cron else holders,
        _NONE if cron else holders,
        f"does not reach a CronWorkflow's runs: use {_RUNS}" if cron else _beside(kind),
    )
    if cron:
        of_runs = frozenset({names.MEMOIZE, names.MODE})
        yield _Place(_RUNS, metadata_of_runs(kind, obj), of_runs, of_runs, _beside(WORKFLOW))
    spec, path = workflow_spec(kind, obj), dotted(spec_parts(kind))
    yield _Place(
        f"{path}.workflowMetadata",
        mapping(spec.get("workflowMetadata")),
        _NONE,
        _NONE,
        f"is written after the first Pods are made: use {_RUNS if cron else 'metadata'}",
        may_hold_tags=True,
    )
    yield _Place(
        f"{path}.podMetadata",
        mapping(spec.get("podMetadata")),
        _ON_POD,
        _NONE,
        f"reaches Pods, and no memoize block: use {_RUNS if cron else 'metadata'} or the template's",
        may_hold_tags=True,
    )


_RUNS = "spec.workflowMetadata"


def _beside(kind: str) -> str:
    return (
        "counts on a template, not here"
        if kind == WORKFLOW
        else "counts on a Workflow or a template, not here"
    )


def metadata_of_runs(kind: str, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata that Workflows of a CronWorkflow are made with; empty for other kinds."""
    return mapping(mapping(obj.get("spec")).get("workflowMetadata")) if kind == CRON_WORKFLOW else {}
