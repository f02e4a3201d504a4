"""What a decision is to the API server: the bodies of the requests that carry it out.

Each names the very Pod that was read, so that a request that comes late, twice, or from a keeper that is
no longer the one in charge is refused (409 or 422) instead of done to something else.

A Pod may have no room any more for what we write beside that: others fill its annotations, or a policy
refuses a change. So a decision is a list of requests, each with less in it than the one before: the first
that is taken counts.
"""

from datetime import datetime
from typing import Any, NamedTuple

from keeper.steppods import GatedStep, ObservedPod
from kube import client
from kube.jsonpatch import Op, add, put, remove, test
from memoize import names
from memoize.entry import Entry, timestamp
from memoize.event import brief
from memoize.outcome import Outcome
from memoize.reasons import Reason

Json = dict[str, Any]

WITHOUT_GATE: Json = {"schedulingGates": [{"name": names.SCHEDULING_GATE, "$patch": "delete"}]}
"""Of a strategic merge patch: needs no index, leaves others' gates, and does nothing where ours is gone."""

POD_REASON = "Memoized"
"""`status.reason` of a Pod that was answered without a node."""
_ENDED = "Completed"
"""What the kubelet writes for a container that ended with 0."""


def status(pod: GatedStep, entry: Entry, now: datetime) -> Json:
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


class PatchRequest(NamedTuple):
    """The body of a PATCH of a Pod, and its content type."""

    body: Json | list[Op]
    content_type: str


def announce_release(pod: ObservedPod, reason: Outcome) -> list[PatchRequest]:
    """A gated Pod says why it is to run, and stays gated.

    It makes another version of the Pod, so that an answer which is being finished is refused from here on.
    Where the Pod has no room for the annotation its label says the same, without the reason.
    """
    why = put(("metadata", "annotations"), names.REASON, _reason_text(reason), there=pod.has_annotations)
    announced = add(("metadata", "labels", names.RESULT), names.RESULT_MISS)
    return [_patch([*_unchanged(pod), why]), _patch([*_unchanged(pod), announced])]


def release(pod: ObservedPod, label: str, reason: Outcome) -> list[PatchRequest]:
    """A gated Pod is let run, and says why: `label` is a value of names.RESULT.

    With label and reason, without the reason, and at last nothing but the gate's removal, whatever else has
    become of this Pod. Other gates are others' to take away.
    """
    free = [*_unchanged(pod), remove(("spec", "schedulingGates", pod.gates.index(names.SCHEDULING_GATE)))]
    labelled = [*free, add(("metadata", "labels", names.RESULT), label)]
    why = put(("metadata", "annotations"), names.REASON, _reason_text(reason), there=pod.has_annotations)
    return [_patch([*labelled, why]), _patch(labelled), take_gate(pod)]


def take_gate(pod: ObservedPod) -> PatchRequest:
    """Our gate is taken away by its name, wherever it stands; the others stay, and nothing else is looked at.

    (A Pod that has succeeded meanwhile is not scheduled any more, gate or none.)
    """
    body = {"metadata": {"uid": pod.uid}, "spec": WITHOUT_GATE}
    return PatchRequest(body, client.STRATEGIC_MERGE_PATCH)


def final_label(pod: ObservedPod, label: str, outcome: Outcome) -> list[PatchRequest]:
    """A Pod says how its memoization ended, with the reason or without."""
    return _with_less({"metadata": {"uid": pod.uid, **_marks(label, outcome)}})


def complete(pod: GatedStep, entry: Entry, now: datetime) -> list[PatchRequest]:
    """A gated Pod succeeds (see `status`), with the reason or without; to be sent to its `status`."""
    return _with_less(status(pod, entry, now))


def _with_less(body: Json) -> list[PatchRequest]:
    metadata = {name: value for name, value in body["metadata"].items() if name != "annotations"}
    return [PatchRequest(each, client.MERGE_PATCH) for each in (body, {**body, "metadata": metadata})]


def _patch(ops: list[Op]) -> PatchRequest:
    return PatchRequest(ops, client.JSON_PATCH)


def _unchanged(pod: ObservedPod) -> list[Op]:
    """It is the Pod that was read, our gate stands where it stood, and nobody has changed its label."""
    return [
        test(("metadata", "uid"), pod.uid),
        test(
            ("spec", "schedulingGates", pod.gates.index(names.SCHEDULING_GATE), "name"), names.SCHEDULING_GATE
        ),
        test(("metadata", "labels", names.RESULT), pod.label),
    ]


def _marks(label: str, outcome: Outcome) -> Json:
    return {"labels": {names.RESULT: label}, "annotations": {names.REASON: _reason_text(outcome)}}


def _reason_text(outcome: Outcome) -> str:
    """The annotation names.REASON: what admission left room for, and no more."""
    text = f"{outcome.reason}: {outcome.detail}" if outcome.detail else str(outcome.reason)
    said = text.encode(errors="replace")
    if len(said) <= names.LONGEST_REASON:
        return text
    return said[: names.LONGEST_REASON - 3].decode(errors="ignore") + "…"


def _message(pod: GatedStep, entry: Entry, now: datetime) -> str:
    source = f"workflow {entry.workflow}" if entry.workflow else f"node {entry.node_id}"
    age = f", stored {brief((now - entry.created).total_seconds())} ago" if entry.created is not None else ""
    return f"served from cache {pod.key.cache} with the outputs of {source}{age}"
