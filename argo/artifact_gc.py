"""Whether Argo will delete the artifacts of a workflow, which must not be kept then.

A Workflow with anything to collect carries a finalizer of Argo's. But the controller adds it in the reconcile
that creates the first Pods, and writes the Workflow back at the end of that (workflow/controller/operator.go,
operate): for those Pods only the spec tells. One that waits for its turn under `parallelism` has been written
before, as Pending and no more (controller.go).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memoize import names
from memoize.outputs import gc_strategy
from memoize.step import Step

_PHASE = f"{names.ARGO_DOMAIN}/phase"
"""Label that the same write brings, with another value than …"""
_PENDING = "Pending"
_KEPT = ("", "Never")


@dataclass(frozen=True, slots=True)
class Reference:
    """A `workflowTemplateRef`: the name of a WorkflowTemplate, or of a ClusterWorkflowTemplate."""

    name: str
    cluster: bool


def told_by(metadata: Mapping[str, Any]) -> bool | None:
    """What a Workflow's metadata says of it; None: no reconcile of its steps has been written back yet."""
    if names.ARTIFACT_GC_FINALIZER in (metadata.get("finalizers") or ()):
        return True
    phase = (metadata.get("labels") or {}).get(_PHASE, _PENDING)
    return None if phase == _PENDING else False


def concerns(step: Step) -> bool:
    """Whether it matters to this step: an output artifact, or its archived log, leaves it to the workflow.

    Unknown is yes: the template is offloaded, and the step may have such artifacts.
    """
    declared = step.declared
    if declared is None or declared.archive is not None:
        return True
    return any(not gc_strategy(artifact) for artifact in declared.artifacts)


def strategy(holder: Mapping[str, Any]) -> str:
    """The strategy that the spec of a Workflow or a template names, "" where it names none."""
    spec = holder.get("spec")
    block = spec.get("artifactGC") if isinstance(spec, Mapping) else None
    return str(block.get("strategy") or "") if isinstance(block, Mapping) else ""


def deletes(strategy: str) -> bool:
    """Whether artifacts are deleted under this strategy."""
    return strategy not in _KEPT


def reference(workflow: Mapping[str, Any]) -> Reference | None:
    """The template that the Workflow's spec is merged over, which may name the strategy in its place."""
    spec = workflow.get("spec")
    block = spec.get("workflowTemplateRef") if isinstance(spec, Mapping) else None
    if not isinstance(block, Mapping) or not block.get("name"):
        return None
    return Reference(str(block["name"]), block.get("clusterScope") is True)
