"""Decides which step Pods need not be touched inside: gated until they are decided, or captured at their end.

Pure. A gated Pod is not scheduled: the keeper answers it or lets it run. What runs, runs as its author wrote
it, and the keeper stores its outputs: neither Pod gets a container of ours. Which of it is possible, the
state of the keeper and the Pod say together:

| keeper | a Pod that can be gated | one that cannot |
|---|---|---|
| ready | gate | inject |
| busy | inject | inject |
| gone | run and capture: a keeper that comes back stores it | run and capture |
| elsewhere | leave alone | leave alone |

Mode `refresh` needs no answer, and so no gate: its Pods run and are captured, by a keeper that is ready or
comes back. A template that lies in a ConfigMap, which is mounted in the Pod, is never read outside of it, so
while the keeper is gone such a Pod is left alone. Nothing is injected then, though replicas that stand by
would serve a sidecar: nobody would notice an image that cannot start, and its step would hang.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kube.jsonpatch import END, Op, add, put
from memoize import duration, names
from memoize.keeper_status import KeeperStatus
from memoize.opt_in import Mode
from memoize.plan import LONGEST_WAIT, Plan
from memoize.reasons import Reason
from webhook import keeper_state
from webhook.keeper_state import KeeperState
from webhook.pods.decision import MemoizedStep, Skip

_SHARE_OF_A_LIMIT = 5
"""A Pod waits for an equal step no longer than this part of any time limit that it is under."""
_LEAST_WAIT = timedelta(seconds=2)
"""Less is not worth waiting: an equal step hardly ends in it."""
_LEAST_LIMIT = timedelta(seconds=30)
"""A Pod with less time is not gated: when a keeper dies, some seconds pass until the next one decides, and
Argo fails the step of a Pod whose time is up, gated or not."""
_LIMITS = ("timeout", "pendingTimeout")
"""Fields of a template that hold durations, counted from the node's start (version.HAS_A_PENDING_TIMEOUT)."""

_QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of the Pods that Kueue admits, by a scheduling gate of its own."""
_GONE = "no keeper renews its Lease"


@dataclass(frozen=True, slots=True)
class Gate:
    """Keep the Pod unscheduled; the keeper decides it."""

    plan: Plan
    detail: str = ""
    """Why it does not wait for an equal step, where it does not."""


@dataclass(frozen=True, slots=True)
class RunAndCapture:
    """Let the Pod run as it is; the keeper stores its outputs."""

    plan: Plan
    detail: str
    """Why it is not gated."""


def decide_gating(
    memoized: MemoizedStep, status: KeeperStatus | None, now: datetime
) -> Gate | RunAndCapture | Skip | None:
    """What to do with the Pod; None: only containers of ours in it can do anything for it.

    `status` is what the keeper says of itself, None while it is gone.
    """
    keeper = keeper_state.state(status, memoized.pod.owner.namespace)
    if keeper is KeeperState.BUSY:
        return None
    if keeper is KeeperState.ELSEWHERE:
        return Skip(Reason.NAMESPACE_NOT_KEPT)
    if memoized.step.declared is None:
        what = "its template is not in the Pod"
        return None if status else Skip(Reason.KEEPER_UNAVAILABLE, f"{_GONE}, and {what}")
    limits = list(_time_limits(memoized, now))
    # A Pod that runs already waits for nobody, whatever its plan says; others may wait for it.
    longest = timedelta(seconds=min(status.wait_seconds, LONGEST_WAIT) if status else 0)
    wait = max(timedelta(), min([longest, *(limit / _SHARE_OF_A_LIMIT for limit in limits)]))
    unshared = _unshared(memoized)
    if status and not unshared and wait < _LEAST_WAIT:
        unshared = "no step may wait for so long that an equal one ends"
    plan = Plan(
        cache=memoized.step.cache,
        data_key=memoized.step.data_key,
        share=not unshared,
        capture=memoized.mode is not Mode.READONLY,
        gc=memoized.step.gc,
        wait_seconds=int(wait.total_seconds()),
    )
    if memoized.mode is Mode.REFRESH:
        return RunAndCapture(plan, unshared)
    if keeper is KeeperState.READY:
        return None if _cannot_be_gated(memoized, limits) else Gate(plan, unshared)
    if not plan.capture:
        return Skip(Reason.KEEPER_UNAVAILABLE, f"{_GONE}, and mode is {memoized.mode}")
    return RunAndCapture(plan, _GONE)


def written(decision: Gate | RunAndCapture) -> dict[str, str]:
    """The annotations that admission writes, and the longest that the keeper will write beside them."""
    return {names.PLAN: decision.plan.to_json(), names.REASON: "x" * names.LONGEST_REASON}


def ops(pod: Mapping[str, Any], decision: Gate | RunAndCapture) -> list[Op]:
    """The operations that carry the decision out."""
    gated = isinstance(decision, Gate)
    runs_as = names.RESULT_MISS if decision.plan.capture else names.RESULT_SKIPPED
    label, plan = names.RESULT_GATED if gated else runs_as, decision.plan.to_json()
    metadata = pod["metadata"]
    marks = [
        put(("metadata", "labels"), names.RESULT, label, there=metadata.get("labels")),
        put(("metadata", "annotations"), names.PLAN, plan, there=metadata.get("annotations")),
    ]
    if not gated:
        return marks
    gate = {"name": names.SCHEDULING_GATE}
    if pod["spec"].get("schedulingGates"):
        return [*marks, add(("spec", "schedulingGates", END), gate)]
    return [*marks, add(("spec", "schedulingGates"), [gate])]


def _cannot_be_gated(memoized: MemoizedStep, limits: Iterable[timedelta]) -> bool:
    """Whether the Pod cannot be gated; `limits` are what is left of its time limits.

    A Pod with a node has been scheduled, and the API server takes no gate on it. Volumes that are made for
    the Pod, or for its workflow, may be what its successors read from; and some are made while it waits.
    A template may ask for a node (names.GATED): any value but "true" counts as "false", since a Pod that is
    not gated only takes longer, and where a node is waited for that is never there a workflow hangs.
    """
    spec = memoized.pod.spec
    if memoized.pod.annotations.get(names.GATED, "true") != "true" or spec.get("nodeName"):
        return True
    for volume in spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        # The name that Argo gives to the claims of volumeClaimTemplates (createPVCs in
        # workflow/controller/operator.go).
        if "ephemeral" in volume or str(claim).startswith(f"{memoized.step.workflow}-"):
            return True
    return any(limit < _LEAST_LIMIT for limit in limits)


def _unshared(memoized: MemoizedStep) -> str:
    """Why the Pod neither waits for an equal step nor is waited for, "" where it may.

    A quota that is charged before a Pod is scheduled (Kueue's) could be held by those who wait for one that
    waits for it. A template with a lock of its own may hold it while its Pod waits. What a `resource` step
    does to the cluster is often what it is there for, and its Pod is over before the resource is.
    """
    pod = memoized.pod
    if pod.annotations.get(names.SINGLE_FLIGHT) == "false":
        return f"{names.SINGLE_FLIGHT} is false"
    if memoized.mode is Mode.REFRESH:
        return f"mode {memoized.mode}"
    if pod.spec.get("schedulingGates") or _QUEUE in pod.labels:
        return "it waits for others to be scheduled"
    template = memoized.pod.layout.template or {}
    for kind in ("resource", "synchronization"):
        if template.get(kind):
            return f"its template has {kind}"
    return ""


def _time_limits(memoized: MemoizedStep, now: datetime) -> Iterator[timedelta]:
    """What is left of every time limit that the Pod, its template or its workflow says."""
    template = memoized.pod.layout.template or {}
    for owner in (memoized.pod.spec, template):
        seconds = str(owner.get("activeDeadlineSeconds", ""))
        if seconds.isascii() and seconds.isdigit():  # so many digits as a tenant likes: cut, or int() raises
            yield timedelta(seconds=min(int(seconds[:12]), timedelta.max.days))
    for field in _LIMITS:
        if text := template.get(field):
            try:
                yield timedelta(microseconds=duration.parse(str(text)) / 1000)
            except duration.DurationError:
                yield timedelta()
    if memoized.step.deadline:
        try:
            yield datetime.fromisoformat(memoized.step.deadline) - now
        except (ValueError, TypeError):
            yield timedelta()
