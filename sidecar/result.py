"""The step's WorkflowTaskResult: how a step's outputs reach the controller.

It is named after the node. The step's service account may create and patch it, not get it: a merge-patch
of `{}` changes nothing and returns the whole object.
"""

from enum import Enum
from typing import Any

from memoize import names
from memoize.outputs import Outputs, lasting_outputs
from memoize.report import completed, posted_by_us, version
from sidecar.deadline import Deadline
from sidecar.kube import JSON, MERGE_PATCH, METADATA_ONLY, Answer, Client
from sidecar.settings import Settings

_CREATED = 201
_CONFLICT = 409
_NO_VERSION = "unseen"
"""A resourceVersion that no object has: a null would not be compared at all."""


class Posted(Enum):
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
        self._list = f"/apis/{names.ARGO_API_VERSION}/namespaces/{settings.namespace}/workflowtaskresults"
        self._self = f"{self._list}/{settings.step.node_id}"

    def post(self, outputs: Outputs | None, until: Deadline) -> tuple[Posted, Answer]:
        """Create the result, complete, with the outputs of an entry; also return the server's last answer.

        A result that is there already is ours only if it says that it was posted for this very Pod. One that
        stepmemo posted for an earlier Pod of the node counts as unknown, so that it will be retracted.
        """
        annotations = {names.POSTED_FOR: self._pod_uid}
        answer = self._create("true", annotations, lasting_outputs(outputs) if outputs else None, until)
        if answer.status == _CREATED:
            return Posted.THERE, answer
        if answer.status != _CONFLICT:
            # Any other success is not an API server's word on a create.
            settled = not answer.uncertain and not answer.ok
            return (Posted.NOT_THERE if settled else Posted.UNKNOWN), answer
        found = self.read(until)
        if not found.ok:
            return Posted.UNKNOWN, found
        posted_for = posted_by_us(found.body)
        if posted_for == self._pod_uid and completed(found.body):
            return Posted.THERE, found
        return (Posted.UNKNOWN if posted_for else Posted.NOT_THERE), answer

    def read(self, until: Deadline) -> Answer:
        """Return the whole result; status 404 while there is none."""
        return self._client.insist(
            "PATCH", self._self, {}, content_type=MERGE_PATCH, until=until, needs_body=True
        )

    def take_back(self, seen: Answer, until: Deadline) -> Answer:
        """Make the result one that was not reported yet, if it still is the version in `seen`; else 409.

        However late the request arrives, it cannot touch what the step has reported since.
        """
        taken_back = {
            "metadata": {
                "labels": {names.OUTPUTS_COMPLETED: "false"},
                "annotations": {names.POSTED_FOR: None},
                "resourceVersion": version(seen.body) or _NO_VERSION,
            },
            "outputs": None,
        }
        return self._client.insist(
            "PATCH", self._self, taken_back, content_type=MERGE_PATCH, accept=METADATA_ONLY, until=until
        )

    def keep_out(self, until: Deadline) -> Answer:
        """Create an empty result, not reported yet, for a late POST of ours to meet a conflict.

        The step's own containers report into it as readily as they create one (Argo's upsertTaskResult).
        """
        return self._create("false", {}, None, until)

    def _create(
        self, complete: str, annotations: dict[str, str], outputs: Outputs | None, until: Deadline
    ) -> Answer:
        step = self._step
        labels = {names.WORKFLOW_LABEL: step.workflow, names.OUTPUTS_COMPLETED: complete}
        if step.instance_id:
            labels[names.INSTANCE_ID] = step.instance_id
        owner = {
            "apiVersion": names.ARGO_API_VERSION,
            "kind": "Workflow",
            "name": step.workflow,
            "uid": step.workflow_uid,
        }
        body: dict[str, Any] = {
            "apiVersion": names.ARGO_API_VERSION,
            "kind": "WorkflowTaskResult",
            "metadata": {
                "name": step.node_id,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner],
            },
        }
        if outputs is not None:
            body["outputs"] = outputs
        return self._client.insist(
            "POST", self._list, body, content_type=JSON, accept=METADATA_ONLY, until=until
        )
