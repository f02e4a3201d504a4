"""What a decision is to the API server: the bodies of the requests that carry it out.

Each names the very Pod that was looked at, so that a request that comes late, twice, or from a keeper that is
no longer the one in charge is refused (409 or 422) instead of done to something else.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.outputs import lasting_outputs
from memoize.reasons import Reason
from webhook.holds.tended import Found, Tended
from webhook.patch import Op, add, pointer, remove

Json = dict[str, Any]

POD_REASON = "Memoized"
"""`status.reason` of a Pod that was answered without a node."""
_ENDED = "Completed"
"""What the kubelet writes for a container that ended with 0."""


def task_result(pod: Tended, entry: Entry) -> Json:
    """The complete WorkflowTaskResult with the entry's outputs: to be created.

    It is marked with the Pod that it is posted for, so that it can be told from what a step reports itself.
    """
    step = pod.step
    labels = {names.WORKFLOW_LABEL: step.workflow, names.OUTPUTS_COMPLETED: "true"}
    if step.instance_id:
        labels[names.INSTANCE_ID] = step.instance_id
    owner = {
        "apiVersion": names.ARGO_API_VERSION,
        "kind": "Workflow",
        "name": step.workflow,
        "uid": step.workflow_uid,
    }
    body: Json = {
        "apiVersion": names.ARGO_API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": step.node_id,
            "namespace": pod.namespace,
            "labels": labels,
            "annotations": {names.POSTED_FOR: pod.uid},
            "ownerReferences": [owner],
        },
    }
    if entry.outputs:
        body["outputs"] = lasting_outputs(entry.outputs)
    return body


def status(pod: Tended, entry: Entry, now: datetime) -> Json:
    """The merge-patch of `pods/status` that makes the Pod succeed, as this version of it; `now` is aware.

    Every regular container ends with 0: Argo takes the node's exit code from `main`'s status, the states of a
    containerSet's nodes from each, and the node's end from the latest. Of init containers, native sidecars
    among them, it only looks for failures (getExitCode, assessNodeStatus and getLatestFinishedAt in
    workflow/controller/operator.go, 3.5 to 4.1).
    """
    time = _timestamp(now)
    state = {"terminated": {"exitCode": 0, "reason": _ENDED, "startedAt": time, "finishedAt": time}}
    return {
        "metadata": {
            "uid": pod.uid,
            "resourceVersion": pod.version,
            **_marks(names.RESULT_HIT, Outcome(Reason.HIT)),
        },
        "status": {
            "phase": "Succeeded",
            "reason": POD_REASON,
            "message": _message(pod, entry, now),
            "startTime": time,
            "containerStatuses": [
                {
                    "name": name,
                    "image": image,
                    "imageID": "",
                    "ready": False,
                    "started": False,
                    "restartCount": 0,
                    "state": state,
                }
                for name, image in pod.containers
            ],
        },
    }


def release(pod: Found, label: str, outcome: Outcome) -> list[Op]:
    """The JSON Patch of a held Pod that lets it run, and says why: `label` is a word of names.RESULT.

    It is for the Pod as long as our gate stands where it stood; other gates are others' to take away.
    """
    index = pod.gates.index(names.HELD_GATE)
    reason = _reason(outcome)
    annotation = (
        add(("metadata", "annotations", names.REASON), reason)
        if pod.annotated
        else add(("metadata", "annotations"), {names.REASON: reason})
    )
    return [
        _test(("metadata", "uid"), pod.uid),
        _test(("spec", "schedulingGates", index, "name"), names.HELD_GATE),
        remove(("spec", "schedulingGates", index)),
        add(("metadata", "labels", names.RESULT), label),
        annotation,
    ]


def outcome(pod: Found, label: str, outcome: Outcome) -> Json:
    """The merge-patch of the Pod that says how its memoization ended."""
    return {"metadata": {"uid": pod.uid, **_marks(label, outcome)}}


def _test(parts: tuple[str | int, ...], value: str) -> Op:
    """The API server refuses the whole patch where another value stands."""
    return {"op": "test", "path": pointer(*parts), "value": value}


def _marks(label: str, outcome: Outcome) -> Json:
    return {"labels": {names.RESULT: label}, "annotations": {names.REASON: _reason(outcome)}}


def _reason(outcome: Outcome) -> str:
    return f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)


def _message(pod: Tended, entry: Entry, now: datetime) -> str:
    source = f"workflow {entry.workflow}" if entry.workflow else f"node {entry.node_id}"
    age = f", stored {_age(now - entry.created)} ago" if entry.created is not None else ""
    return f"answered from cache {pod.key.cache} with the outputs of {source}{age}"


def _age(age: timedelta) -> str:
    """As kubectl says an age, roughly: its largest unit. A time to come (a clock was wrong) is now."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _timestamp(time: datetime) -> str:
    """As metav1.Time writes it: UTC, whole seconds."""
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
