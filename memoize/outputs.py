"""The outputs of a step: what its template declares, and what an entry must and may hold of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memoize import shape
from memoize.names import MAIN_CONTAINER
from memoize.reasons import Reason
from memoize.shape import mapping

Outputs = dict[str, Any]
"""Argo's v1alpha1.Outputs as JSON, of sound types (see `sound`)."""

NEVER = "Never"
"""The artifactGC strategy that leaves an artifact alone."""
_KEPT = ("", NEVER)
_LOGS_SUFFIX = "-logs"
"""Argo's archived logs of a container `main` are an output artifact `main-logs` that no template declares."""


class BrokenOutputsError(ValueError):
    """Not the outputs of a step as Argo would write them; the text names the field, never its value."""


class DeclaredArtifact(NamedTuple):
    """One output artifact that a template declares; `gc` is its own artifactGC strategy, "" without one."""

    name: str
    optional: bool = False
    gc: str = ""


class Declared(NamedTuple):
    """What a template promises, as far as memoization must know it."""

    parameters: tuple[str, ...] = ()
    artifacts: tuple[DeclaredArtifact, ...] = ()
    result: bool = False
    """Another step uses `outputs.result`."""
    mains: tuple[str, ...] = (MAIN_CONTAINER,)
    """Names of the containers that are the step (Template.GetMainContainerNames in Argo)."""
    archive: Mapping[str, Any] | None = None
    """The template's archiveLocation without the key, which is its Pod's own: `{driver: location}`."""

    @property
    def has_main(self) -> bool:
        """A container `main` is there, whose exit code Argo gives to the step."""
        return MAIN_CONTAINER in self.mains

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the names of Argo's template."""
        return {
            "parameters": list(self.parameters),
            "artifacts": [{"name": a.name, "optional": a.optional, "gc": a.gc} for a in self.artifacts],
            "result": self.result,
            "mains": list(self.mains),
            "archive": self.archive,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Declared":
        """The inverse of to_dict; KeyError or TypeError for anything else."""
        return cls(
            parameters=tuple(fields["parameters"]),
            artifacts=tuple(DeclaredArtifact(**artifact) for artifact in fields["artifacts"]),
            result=fields["result"],
            mains=tuple(fields["mains"]),
            archive=fields["archive"],
        )


class Refused(NamedTuple):
    """Outputs that must not be stored, and why."""

    reason: Reason
    detail: str


def declared(template: Mapping[str, Any], include_result: bool) -> Declared:
    """Return what the template of a step (the JSON in ARGO_TEMPLATE) declares.

    `include_result` is ARGO_INCLUDE_SCRIPT_OUTPUT. It counts only where Argo then reports a result
    (Template.HasOutput): a `resource`, or a containerSet without `main`, has none to report.
    """
    from memoize import artifacts  # with all that it imports: of no use to a look-up, for which a step waits

    outputs = mapping(template.get("outputs"))
    container_set = template.get("containerSet")
    mains = _names(mapping(container_set).get("containers")) if container_set else (MAIN_CONTAINER,)
    return Declared(
        parameters=_names(outputs.get("parameters")),
        artifacts=tuple(
            DeclaredArtifact(str(artifact["name"]), bool(artifact.get("optional")), _own_strategy(artifact))
            for artifact in _named(outputs.get("artifacts"))
        ),
        result=include_result and MAIN_CONTAINER in mains and not template.get("resource"),
        mains=mains,
        archive=artifacts.repository(template.get("archiveLocation")),
    )


def missing(outputs: Mapping[str, Any] | None, declared: Declared) -> list[str]:
    """Return what sound outputs lack of the declared ones, as `parameter out`, `artifact res`, `result`.

    A parameter counts with a value alone: Argo reports one for each, its `default` included, or the step
    fails. An optional artifact may be absent; one that Argo deleted since is.
    """
    outputs = outputs or {}
    valued = {p["name"] for p in outputs.get("parameters") or () if p.get("value") is not None}
    present = {a["name"] for a in outputs.get("artifacts") or () if not a.get("deleted")}
    lacks = [f"parameter {name}" for name in declared.parameters if name not in valued]
    lacks += [f"artifact {a.name}" for a in declared.artifacts if not a.optional and a.name not in present]
    if declared.result and outputs.get("result") is None:
        lacks.append("result")
    return lacks


def storable(outputs: Mapping[str, Any] | None, declared: Declared, gc: bool) -> Outputs | Refused:
    """Return what an entry may hold of a step's sound outputs, or why it must not hold them.

    `gc` says that Argo may delete artifacts of this workflow that do not say Never themselves. Archived logs
    that it will delete are left out; any other such artifact refuses the whole, since an entry without it
    would be incomplete and one with it would point nowhere. Artifacts come out with their full location.
    """
    from memoize import artifacts  # see `declared`

    kept = {name: value for name, value in (outputs or {}).items() if value is not None}
    strategies = {artifact.name: artifact.gc for artifact in declared.artifacts}
    logs = {f"{main}{_LOGS_SUFFIX}" for main in declared.mains} - strategies.keys()
    located = []
    for artifact in kept.get("artifacts", ()):
        name = artifact["name"]
        strategy = _own_strategy(artifact) or strategies.get(name, "")
        try:
            if strategy not in _KEPT or (gc and strategy != NEVER):
                refused = Refused(Reason.ARTIFACT_GC, f"artifact {name} will be deleted with its workflow")
            else:
                located.append(artifacts.located(artifact, declared.archive))
                continue
        except artifacts.NoLocationError as error:
            refused = Refused(Reason.OUTPUTS_INCOMPLETE, f"artifact {name} {error}")
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
    kept = [{**artifact, "artifactGC": {"strategy": NEVER}} for artifact in outputs["artifacts"]]
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


def _own_strategy(artifact: Mapping[str, Any]) -> str:
    return str(mapping(artifact.get("artifactGC")).get("strategy") or "")


def _named(items: object) -> list[Mapping[str, Any]]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        return []
    return [item for item in items if isinstance(item, Mapping) and item.get("name")]


def _names(items: object) -> tuple[str, ...]:
    return tuple(str(item["name"]) for item in _named(items))
