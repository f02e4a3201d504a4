"""Whether Argo will delete the artifacts of a workflow, which must not be kept then.

A Workflow with anything to collect carries a finalizer of Argo's. But the controller adds it in the reconcile
that creates the first Pods, and writes the Workflow back at the end of that (workflow/controller/operator.go,
operate): for those Pods only the spec tells. One that waits for its turn under `parallelism` has been written
before, as Pending and no more (controller.go).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from argo import names
from argo.shape import mapping

_PENDING = "Pending"
"""Value of names.PHASE before the write that brings the finalizer."""
NEVER = "Never"
"""The strategy that leaves an artifact alone, as does none ("")."""


class WorkflowTemplateRef(NamedTuple):
    """A `workflowTemplateRef`: the name of a WorkflowTemplate, or of a ClusterWorkflowTemplate."""

    name: str
    cluster: bool


def told_by(metadata: Mapping[str, Any]) -> bool | None:
    """What a Workflow's metadata says of it; None: no reconcile of its steps has been written back yet."""
    if names.ARTIFACT_GC_FINALIZER in (metadata.get("finalizers") or ()):
        return True
    phase = (metadata.get("labels") or {}).get(names.PHASE, _PENDING)
    return None if phase == _PENDING else False


def strategy(holder: Mapping[str, Any]) -> str:
    """The strategy that an artifact, or the spec of a Workflow or of a template, names; "" for none."""
    return str(mapping(holder.get("artifactGC")).get("strategy") or "")


def deletes(strategy: str) -> bool:
    """Whether artifacts are deleted under this strategy."""
    return strategy not in ("", NEVER)


def reference(workflow: Mapping[str, Any]) -> WorkflowTemplateRef | None:
    """The template that the Workflow's spec is merged over, which may name the strategy in its place."""
    spec = workflow.get("spec")
    block = spec.get("workflowTemplateRef") if isinstance(spec, Mapping) else None
    if not isinstance(block, Mapping) or not block.get("name"):
        return None
    return WorkflowTemplateRef(str(block["name"]), block.get("clusterScope") is True)
