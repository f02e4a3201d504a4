"""The outputs of a step: what its template declares, and what an entry must and may hold of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from argo import artifact_gc, shape
from argo import names as argo
from argo.shape import mapping
from memoize.reasons import Reason

Outputs = dict[str, Any]
"""Argo's v1alpha1.Outputs as JSON, of sound types (see `sound`)."""

_LOGS_SUFFIX = "-logs"
"""Argo's archived logs of a container `main` are an output artifact `main-logs` that no template declares."""


class BrokenOutputsError(ValueError):
    """Not the outputs of a step as Argo would write them; the text names the field, never its value."""


class Declared(NamedTuple):
    """What a template promises: its outputs as it declares them, and what decides which a run reports."""

    parameters: tuple[Mapping[str, Any], ...] = ()
    """The declared output parameters, whole: `{"name": …, "valueFrom": …, "globalName": …}`."""
    artifacts: tuple[Mapping[str, Any], ...] = ()
    """The declared output artifacts, whole."""
    result: bool = False
    """A run reports `outputs.result`: another step uses it, or the template is a `data` one."""
    mains: tuple[str, ...] = (argo.MAIN_CONTAINER,)
    """Names of the containers that are the step (Template.GetMainContainerNames in Argo)."""
    archive: Mapping[str, Any] | None = None
    """The template's archiveLocation without the key, which is its Pod's own: `{driver: location}`."""
    archives_logs: bool = False
    """The log of each main container becomes an artifact that nobody declares (archiveLogs)."""
    resource: bool = False
    """A `resource` template: its parameters come from an object instead of from files."""

    @property
    def has_main(self) -> bool:
        """A container `main` is there, whose exit code Argo gives to the step."""
        return argo.MAIN_CONTAINER in self.mains

    def to_dict(self) -> dict[str, Any]:
        """As JSON, by the names of the fields."""
        return self._asdict()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Declared":
        """The inverse of to_dict; KeyError or TypeError for anything else."""
        lists = {name: tuple(fields[name]) for name in ("parameters", "artifacts", "mains")}
        return cls(**{**{name: fields[name] for name in cls._fields}, **lists})


class NotStorable(NamedTuple):
    """Outputs that must not be stored, and why."""

    reason: Reason
    detail: str


def declared(template: Mapping[str, Any], include_result: bool) -> Declared:
    """Return what the template of a step (the JSON in ARGO_TEMPLATE) declares.

    `include_result` is ARGO_INCLUDE_SCRIPT_OUTPUT. It counts only where Argo then reports a result
    (Template.HasOutput): a `resource`, or a containerSet without `main`, has none to report. A `data` step
    reports one whether it is asked for or not (Data in workflow/executor/data.go, 3.5 to 4.1).

    Raises BrokenOutputsError where Argo's types cannot hold the declared outputs: whoever makes a Pod can
    write its template, and what is declared is posted.
    """
    from argo import artifacts

    outputs = sound(template.get("outputs")) or {}
    container_set = template.get("containerSet")
    mains = _names(mapping(container_set).get("containers")) if container_set else (argo.MAIN_CONTAINER,)
    resource, archive = bool(template.get("resource")), template.get("archiveLocation")
    return Declared(
        parameters=tuple(outputs.get("parameters") or ()),
        artifacts=tuple(outputs.get("artifacts") or ()),
        result=bool(template.get("data"))
        or (include_result and argo.MAIN_CONTAINER in mains and not resource),
        mains=mains,
        archive=artifacts.repository(archive),
        archives_logs=mapping(archive).get("archiveLogs") is True,
        resource=resource,
    )


def missing(outputs: Mapping[str, Any] | None, declared: Declared) -> list[str]:
    """Return what sound outputs lack of the declared ones, as `parameter out`, `artifact res`, `result`.

    A parameter counts with a value alone: Argo reports one for each, its `default` included, or the step
    fails. One that the template gives a value itself lacks nothing. An optional artifact may be absent; one
    that Argo deleted since, or that lies nowhere, is.
    """
    valued, present = values(outputs), found_artifacts(outputs)
    lacks = [
        f"parameter {parameter['name']}"
        for parameter in declared.parameters
        if parameter["name"] not in valued and own_value(parameter, declared) is None
    ]
    lacks += [
        f"artifact {artifact['name']}"
        for artifact in declared.artifacts
        if not artifact.get("optional") and artifact["name"] not in present
    ]
    if declared.result and (outputs or {}).get("result") is None:
        lacks.append("result")
    return lacks


def values(outputs: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the values of sound outputs' parameters by name, of those that have one."""
    found = (outputs or {}).get("parameters") or ()
    return {p["name"]: p["value"] for p in found if p.get("value") is not None}


def found_artifacts(outputs: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Return sound outputs' artifacts by name, of those that lie somewhere and were not deleted by Argo."""
    found = (outputs or {}).get("artifacts") or ()
    return {a["name"]: a for a in found if not a.get("deleted") and any(a.get(d) for d in shape.DRIVERS)}


def own_value(parameter: Mapping[str, Any], declared: Declared) -> str | None:
    """Return the value that the template itself gives to an output parameter, None where the step gives it.

    Argo's executor sets a parameter from the file that `valueFrom.path` names, or of a `resource` by
    `jsonPath` or `jqFilter`, and reports any other as the template has it (SaveParameters and
    SaveResourceParameters in workflow/executor, 3.5 to 4.1).
    """
    source = mapping(parameter.get("valueFrom"))
    sources = ("jsonPath", "jqFilter") if declared.resource else ("path",)
    return None if any(source.get(name) for name in sources) else parameter.get("value")


def log_names(declared: Declared) -> list[str]:
    """Return the names of the artifacts that the step's archived logs would be, of those not declared."""
    names = {artifact["name"] for artifact in declared.artifacts}
    return [name for main in declared.mains if (name := f"{main}{_LOGS_SUFFIX}") not in names]


def storable(outputs: Mapping[str, Any] | None, declared: Declared, gc: bool) -> Outputs | NotStorable:
    """Return what an entry may hold of a step's sound outputs, or why it must not hold them.

    `gc` says that Argo may delete artifacts of this workflow that do not say Never themselves. Archived logs
    that it will delete are left out; any other such artifact refuses the whole, since an entry without it
    would be incomplete and one with it would point nowhere. Artifacts come out with their full location.
    """
    from argo import artifacts

    kept = {name: value for name, value in (outputs or {}).items() if value is not None}
    strategies = {artifact["name"]: artifact_gc.strategy(artifact) for artifact in declared.artifacts}
    logs = log_names(declared)
    located = []
    for artifact in kept.get("artifacts", ()):
        name = artifact["name"]
        strategy = artifact_gc.strategy(artifact) or strategies.get(name, "")
        try:
            if artifact_gc.deletes(strategy) or (gc and strategy != artifact_gc.NEVER):
                refused = NotStorable(
                    Reason.ARTIFACT_GC, f"artifact {name} will be deleted with its workflow"
                )
            else:
                located.append(artifacts.located(artifact, declared.archive))
                continue
        except artifacts.NoLocationError as error:
            refused = NotStorable(Reason.OUTPUTS_INCOMPLETE, f"artifact {name} {error}")
        if name not in logs:
            return refused
    if "artifacts" in kept:
        kept["artifacts"] = located
    if declared.has_main:
        kept["exitCode"] = "0"
    return lasting_outputs(kept)


def lasting_outputs(outputs: Outputs) -> Outputs:
    """Return the outputs with every artifact's artifactGC strategy set to Never.

    Other entries and other workflows point to the same objects, so no workflow that holds these outputs may
    delete them: neither one that is answered with them, nor a later one.
    """
    if not outputs.get("artifacts"):
        return outputs
    kept = [{**artifact, "artifactGC": {"strategy": artifact_gc.NEVER}} for artifact in outputs["artifacts"]]
    return {**outputs, "artifacts": kept}


def sound(value: object) -> Outputs | None:
    """Return outputs that Argo's types can hold; numbers given for a parameter become strings, as in Argo.

    Fields that we do not know stay. Raises BrokenOutputsError. The controller decodes every
    WorkflowTaskResult of a cluster as one list: one of a wrong type must not get there from an entry.
    """
    if value is None:
        return None
    try:
        shape.check(value, shape.OUTPUTS, "outputs")
    except shape.ShapeError as error:
        raise BrokenOutputsError(str(error)) from None
    outputs = dict(mapping(value))
    for kind in ("parameters", "artifacts"):
        for i, item in enumerate(outputs.get(kind) or ()):
            if not item or not item.get("name"):
                raise BrokenOutputsError(f"outputs.{kind}[{i}].name is empty")
    if outputs.get("parameters"):
        outputs["parameters"] = [
            _sound_parameter(parameter, f"outputs.parameters[{i}]")
            for i, parameter in enumerate(outputs["parameters"])
        ]
    return outputs


def _sound_parameter(parameter: Mapping[str, Any], path: str) -> dict[str, Any]:
    if parameter.get("value") is None:
        return dict(parameter)
    return {**parameter, "value": _any_string(parameter["value"], f"{path}.value")}


def _any_string(value: object, path: str) -> str:
    """Turn a scalar into a string as Argo's AnyString does (pkg/apis/workflow/v1alpha1/anystring.go)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            from decimal import Decimal  # a hand-edited entry alone pays for the import

            return format(Decimal(repr(number)), "f").removesuffix(".0")
    raise BrokenOutputsError(f"{path} is not a string")


def _names(items: object) -> tuple[str, ...]:
    found = items if isinstance(items, Sequence) and not isinstance(items, str) else ()
    return tuple(str(item["name"]) for item in found if isinstance(item, Mapping) and item.get("name"))
