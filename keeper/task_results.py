"""The WorkflowTaskResults of gated Pods: created, taken back, reserved and closed, each in one version alone.

What was seen is changed only as it was seen: what the step reported since makes another version.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keeper import paths
from keeper.requests import Requests
from keeper.steppods import GatedStep, ObservedPod
from kube import client
from kube.errors import Conflict, NotFound
from memoize import taskresult
from memoize.outputs import Outputs
from memoize.taskresult import version

Json = dict[str, Any]


class PostedResult(NamedTuple):
    """Our result is there; `version` is the one in which nobody but us has written it."""

    uid: str
    version: str


def posted_result(result: Mapping[str, Any]) -> PostedResult:
    """Name a result as it was read, or created."""
    return PostedResult(str(result["metadata"].get("uid", "")), version(result))


class TaskResults:
    """The result of a Pod's node, which bears the node's id."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def read(self, pod: ObservedPod) -> Json | None:
        """The result; None where there is none."""
        return await self._requests.get(_result(pod)) if pod.node_id else None

    async def answer(self, pod: GatedStep, outputs: Outputs | None) -> PostedResult:
        """Create the complete result; Conflict where there is one."""
        body = taskresult.answer(pod.step, pod.declared, pod.uid, outputs)
        return posted_result(await self._requests.send("POST", paths.task_results(pod.namespace), body))

    async def reserve(self, pod: GatedStep) -> bool:
        """Create one that is not reported yet, so that a late POST of ours meets it; False: there is one."""
        try:
            body = taskresult.placeholder(pod.step, pod.uid)
            await self._requests.send("POST", paths.task_results(pod.namespace), body)
        except Conflict:
            return False
        return True

    async def delete(self, pod: ObservedPod, seen: PostedResult) -> bool:
        """Delete it as it was seen; False: it is another by now, or gone.

        One that is left behind as "not reported" would have Argo wait, where the step ends before its `wait`
        begins. (Argo has noted this one as complete, and goes by that until the step's own is there.)
        """
        only = {"preconditions": {"uid": seen.uid, "resourceVersion": seen.version}}
        return await self._if_unchanged("DELETE", _result(pod), only)

    async def close(self, pod: ObservedPod, seen: PostedResult) -> bool:
        """Have Argo wait for it no longer; False: it is another by now, or gone.

        Deleting it would not do: Argo notes in the Workflow's status that it is incomplete, and takes that
        back on account of a result that is there, in every version (taskResultReconciliation in
        workflow/controller/taskresult.go), else only where `wait` ended with an error (from 3.5.11 on,
        assessNodeStatus in operator.go).
        """
        body = taskresult.closed(seen.version)
        return await self._if_unchanged("PATCH", _result(pod), body, client.MERGE_PATCH)

    async def _if_unchanged(
        self, method: str, path: str, body: object, content_type: str = client.JSON
    ) -> bool:
        try:
            await self._requests.send(method, path, body, content_type)
        except (NotFound, Conflict):
            return False
        return True


def _result(pod: ObservedPod) -> str:
    return paths.task_result(pod.namespace, pod.node_id)
