"""The step's WorkflowTaskResult: how a step's outputs reach the controller.

It is named after the node. The step's service account may create and patch it, not get it: a merge-patch
of `{}` changes nothing and returns the whole object.
"""

from enum import Enum
from typing import Any

from argo import names as argo
from memoize import taskresult
from memoize.outputs import Declared, Outputs
from memoize.taskresult import completed, posted_by_us, version
from sidecar.deadline import Deadline
from sidecar.kube import JSON, MERGE_PATCH, METADATA_ONLY, Client, RequestResult
from sidecar.settings import Settings

_CREATED = 201
_CONFLICT = 409


class PostState(Enum):
    """What is known of a posted result."""

    THERE = "there"
    """The API server holds our result: the step is answered."""
    NOT_THERE = "not there"
    """Nothing of ours is there, and nothing of ours is on its way."""
    UNKNOWN = "unknown"
    """It may be there, or get there yet: retract before the step runs."""


class TaskResult:
    """The result of the node that this Pod stands for."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._step = settings.step
        self._pod_uid = settings.pod_uid
        self._list = f"/apis/{argo.API_VERSION}/namespaces/{settings.namespace}/workflowtaskresults"
        self._self = f"{self._list}/{settings.step.node_id}"

    def post(
        self, declared: Declared, outputs: Outputs | None, until: Deadline
    ) -> tuple[PostState, RequestResult]:
        """Create the result, complete, from the outputs of an entry; also return the server's last reply.

        A result that is there already is ours only if it says that it was posted for this very Pod. One that
        stepmemo posted for an earlier Pod of the node counts as unknown, so that it will be retracted.
        """
        reply = self._create(taskresult.answer(self._step, declared, self._pod_uid, outputs), until)
        if reply.status == _CREATED:
            return PostState.THERE, reply
        if reply.status != _CONFLICT:
            # Any other success is not an API server's word on a create.
            settled = not reply.uncertain and not reply.ok
            return (PostState.NOT_THERE if settled else PostState.UNKNOWN), reply
        found = self.read(until)
        if not found.ok:
            return PostState.UNKNOWN, found
        posted_for = posted_by_us(found.body)
        if posted_for == self._pod_uid and completed(found.body):
            return PostState.THERE, found
        return (PostState.UNKNOWN if posted_for else PostState.NOT_THERE), reply

    def read(self, until: Deadline) -> RequestResult:
        """Return the whole result; status 404 while there is none."""
        return self._client.insist(
            "PATCH", self._self, {}, content_type=MERGE_PATCH, until=until, needs_body=True
        )

    def take_back(self, seen: RequestResult, until: Deadline) -> RequestResult:
        """Make the result one that was not reported yet, if it still is the version in `seen`; else 409."""
        return self._client.insist(
            "PATCH",
            self._self,
            taskresult.taken_back(version(seen.body)),
            content_type=MERGE_PATCH,
            accept=METADATA_ONLY,
            until=until,
        )

    def reserve(self, until: Deadline) -> RequestResult:
        """Create an empty result, not reported yet, for a late POST of ours to meet a conflict."""
        return self._create(taskresult.empty(self._step), until)

    def _create(self, body: dict[str, Any], until: Deadline) -> RequestResult:
        return self._client.insist(
            "POST", self._list, body, content_type=JSON, accept=METADATA_ONLY, until=until
        )
