"""What a decision is to the API server: the bodies of the requests that carry it out.

Each names the very Pod that was looked at, so that a request that comes late, twice, or from a keeper that is
no longer the one in charge is refused (409 or 422) instead of done to something else.
"""

from datetime import datetime
from typing import Any

from memoize import names
from memoize.entry import Entry, timestamp
from memoize.event import brief
from memoize.outcome import Outcome
from memoize.reasons import Reason
from webhook.holds.tended import Found, Tended
from webhook.patch import Op, add, put, remove, test

Json = dict[str, Any]

POD_REASON = "Memoized"
"""`status.reason` of a Pod that was answered without a node."""
_ENDED = "Completed"
"""What the kubelet writes for a container that ended with 0."""


def status(pod: Tended, entry: Entry, now: datetime) -> Json:
    """The merge-patch of `pods/status` that makes the Pod succeed, as this version of it; `now` is aware.

    Every regular container ends with 0: Argo takes the node's exit code from `main`'s status, the states of a
    containerSet's nodes from each, and the node's end from the latest. Of init containers, native sidecars
    among them, it only looks for failures (getExitCode, assessNodeStatus and getLatestFinishedAt in
    workflow/controller/operator.go, 3.5 to 4.1).
    """
    time = timestamp(now)
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


def tell(pod: Found, outcome: Outcome) -> list[Op]:
    """The JSON Patch of a held Pod that says why it is to run, and leaves it held.

    It makes another version of the Pod, so that an answer which is being finished is refused from here on.
    """
    return [
        *_held(pod),
        put(("metadata", "annotations"), names.REASON, _reason(outcome), there=pod.annotated),
    ]


def release(pod: Found, label: str, outcome: Outcome) -> list[Op]:
    """The JSON Patch of a held Pod that lets it run, and says why: `label` is a word of names.RESULT.

    Other gates are others' to take away.
    """
    return [
        *_held(pod),
        remove(("spec", "schedulingGates", pod.gates.index(names.HELD_GATE))),
        add(("metadata", "labels", names.RESULT), label),
        put(("metadata", "annotations"), names.REASON, _reason(outcome), there=pod.annotated),
    ]


def outcome(pod: Found, label: str, outcome: Outcome) -> Json:
    """The merge-patch of the Pod that says how its memoization ended."""
    return {"metadata": {"uid": pod.uid, **_marks(label, outcome)}}


def _held(pod: Found) -> list[Op]:
    """It is the Pod that was looked at, our gate stands where it stood, and nobody has said another word."""
    return [
        test(("metadata", "uid"), pod.uid),
        test(("spec", "schedulingGates", pod.gates.index(names.HELD_GATE), "name"), names.HELD_GATE),
        test(("metadata", "labels", names.RESULT), pod.word),
    ]


def _marks(label: str, outcome: Outcome) -> Json:
    return {"labels": {names.RESULT: label}, "annotations": {names.REASON: _reason(outcome)}}


def _reason(outcome: Outcome) -> str:
    return f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)


def _message(pod: Tended, entry: Entry, now: datetime) -> str:
    source = f"workflow {entry.workflow}" if entry.workflow else f"node {entry.node_id}"
    age = f", stored {brief((now - entry.created).total_seconds())} ago" if entry.created is not None else ""
    return f"answered from cache {pod.key.cache} with the outputs of {source}{age}"
