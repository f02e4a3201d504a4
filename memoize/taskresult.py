"""A step's WorkflowTaskResult: how its outputs reach the controller, and how stepmemo answers in its place.

An answer is posted, and taken back where the step is to run after all, by programs that know of each other
by this object alone: all of them write these bodies and no others. One that was read is an object as the API
server returns it (v1alpha1.WorkflowTaskResult); nothing in it is trusted to be of any type.
"""

from collections.abc import Mapping
from typing import Any

from argo import names as argo
from argo.shape import mapping
from memoize import names
from memoize.answer import answer as answered
from memoize.outputs import Declared, Outputs
from memoize.step import Step

_NO_VERSION = "unseen"
"""A resourceVersion that no object has: a null would not be compared at all."""


def answer(step: Step, declared: Declared, pod_uid: str, outputs: Outputs | None) -> dict[str, Any]:
    """The complete result for a step that declares `declared`, from an entry's outputs: to be created.

    It is marked with the Pod that it is posted for, so that it can be told from what a step reports itself.
    """
    body = _result(step, "true")
    body["metadata"]["annotations"] = {names.POSTED_FOR: pod_uid}
    if posted := answered(outputs, declared):
        body["outputs"] = posted
    return body


def empty(step: Step) -> dict[str, Any]:
    """A result that is not reported yet: to be created, so that a late POST of ours meets a conflict.

    The step's own containers report into it as readily as they create one (Argo's upsertTaskResult).
    """
    return _result(step, "false")


def placeholder(step: Step, pod_uid: str) -> dict[str, Any]:
    """An empty result, marked with the Pod that runs: to be created, and closed where nobody reports."""
    body = empty(step)
    body["metadata"]["annotations"] = {names.PLACEHOLDER_FOR: pod_uid}
    return body


def closed(seen: str) -> dict[str, Any]:
    """The merge-patch that says, in the version `seen` alone, that nothing more will be reported."""
    return {"metadata": {"labels": {argo.OUTPUTS_COMPLETED: "true"}, "resourceVersion": seen or _NO_VERSION}}


def taken_back(seen: str) -> dict[str, Any]:
    """The merge-patch that makes an answer a result that is not reported yet, in the version `seen` alone.

    However late it arrives, it cannot touch what the step has reported since: that makes another version.
    """
    return {
        "metadata": {
            "labels": {argo.OUTPUTS_COMPLETED: "false"},
            "annotations": {names.POSTED_FOR: None},
            "resourceVersion": seen or _NO_VERSION,
        },
        "outputs": None,
    }


def posted_by_us(result: Mapping[str, Any]) -> str:
    """Return the UID of the Pod for which stepmemo posted a result, "" where Argo reported it."""
    return str(mapping(_metadata(result).get("annotations")).get(names.POSTED_FOR) or "")


def placeholder_for(result: Mapping[str, Any]) -> str:
    """Return the UID of the Pod for which stepmemo made a result that keeps answers out, "" for others."""
    return str(mapping(_metadata(result).get("annotations")).get(names.PLACEHOLDER_FOR) or "")


def completed(result: Mapping[str, Any]) -> bool:
    """Whether all outputs were reported (which is not to say that there are any)."""
    return mapping(_metadata(result).get("labels")).get(argo.OUTPUTS_COMPLETED) == "true"


def version(result: Mapping[str, Any]) -> str:
    """Return the result's resourceVersion, "" where it has none."""
    return str(_metadata(result).get("resourceVersion") or "")


def _result(step: Step, complete: str) -> dict[str, Any]:
    labels = {argo.WORKFLOW_LABEL: step.workflow, argo.OUTPUTS_COMPLETED: complete}
    if step.instance_id:
        labels[argo.INSTANCE_ID] = step.instance_id
    owner = {
        "apiVersion": argo.API_VERSION,
        "kind": "Workflow",
        "name": step.workflow,
        "uid": step.workflow_uid,
    }
    return {
        "apiVersion": argo.API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": {"name": step.node_id, "labels": labels, "ownerReferences": [owner]},
    }


def _metadata(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(result.get("metadata"))
