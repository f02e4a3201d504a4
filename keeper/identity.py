"""Whether a step Pod is the step that it says it is.

Pods are written by tenants. What is posted under a node's id decides what its workflow goes on with, so a Pod
must show that the id is that of its own workflow's node.
"""

from argo import names as argo
from argo.steppod import StepPod

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193
_LONGEST_PREFIX = 242
"""Argo cuts what comes before the hash in a Pod's name to this length (workflow/util/pod_name.go)."""
_AFTER_WORKFLOW = (".", "[", "(")
"""What follows the workflow's name in a node's name: a task, hook or exit handler, a step, an attempt."""


def node_id(workflow: str, node_name: str) -> str:
    """The id of a workflow's node (Workflow.NodeID in pkg/apis/workflow/v1alpha1/workflow_types.go)."""
    return workflow if node_name == workflow else f"{workflow}-{_fnv32a(node_name)}"


def mismatch(pod: StepPod) -> str | None:
    """What keeps the Pod from being the node of its workflow that its metadata name; None where nothing does.

    Whether that Workflow exists, with the UID that the Pod's owner reference says, only the API server knows.
    """
    workflow = pod.owner.name
    name = str(pod.annotations.get(argo.NODE_NAME, ""))
    if name != workflow and not name.startswith(tuple(workflow + mark for mark in _AFTER_WORKFLOW)):
        return f"{argo.NODE_NAME} is not a node of its Workflow"
    if pod.annotations.get(argo.NODE_ID) != node_id(workflow, name):
        return f"{argo.NODE_ID} is not the id of {argo.NODE_NAME}"
    if not _is_named_after(str(pod.pod["metadata"].get("name", "")), workflow, name):
        return f"its name is not one for {argo.NODE_NAME}"
    return None


def _is_named_after(pod: str, workflow: str, node_name: str) -> bool:
    """Argo names a Pod after the node's id, or with the template's name before the hash (its POD_NAMES)."""
    if pod == node_id(workflow, node_name):
        return True
    prefix, _, hashed = pod.rpartition("-")
    return (
        node_name != workflow
        and hashed == str(_fnv32a(node_name))
        and prefix.startswith(f"{workflow}-"[:_LONGEST_PREFIX])
    )


def _fnv32a(text: str) -> int:
    """The 32-bit FNV-1a hash of a string's UTF-8, as Go's hash/fnv makes it."""
    value = _FNV_OFFSET
    for byte in text.encode(errors="replace"):
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value
