"""Decides which step Pods need not be touched inside: held until they are decided, or watched to their end.

Pure. A held Pod is not scheduled: the keeper answers it or lets it run. A watched Pod runs as its author
wrote it. The outputs of either, once it has run, are stored by the keeper: neither gets a container of ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kube.jsonpatch import END, Op, add, put
from memoize import duration, names
from memoize.keeper_status import Known
from memoize.opt_in import Mode
from memoize.plan import Plan
from webhook.pods.decision import MemoizedStep

_SHARE_OF_A_LIMIT = 5
"""A Pod waits for an equal step no longer than this part of any time limit that it is under."""
_LEAST_WAIT = timedelta(seconds=2)
"""Less is not worth waiting: an equal step hardly ends in it."""
_LIMITS = ("timeout", "pendingTimeout")
"""Fields of a template that hold durations, counted from the node's start (version.HAS_A_PENDING_TIMEOUT)."""

_SHOWN = 20
"""Characters of an author's word that are repeated."""
_QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of the Pods that Kueue admits, by a scheduling gate of its own."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Keep the Pod unscheduled; the keeper decides it."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class RunAndCapture:
    """Let the Pod run as it is; the keeper stores its outputs."""

    plan: Plan
    detail: str | None = None
    """Why it is not gated, where its mode alone does not say so."""


def decide_gating(
    memoized: MemoizedStep, known: Known, now: datetime, follow: timedelta
) -> Gate | RunAndCapture | None:
    """What to do with the Pod; None: only its own containers can do it.

    `known` is what the view says of the step's entry, `follow` is how long a Pod may wait for an equal step.
    """
    step = memoized.step
    if step.declared is None:
        return None  # its template lies in a ConfigMap that is mounted in the Pod
    wait = _wait(memoized, now, follow)
    unshared = _unshared(memoized, wait)
    plan = Plan(
        cache=step.cache,
        data_key=step.data_key,
        share=not unshared,
        capture=memoized.mode is not Mode.READONLY,
        gc=step.gc,
        wait_seconds=int(wait.total_seconds()),
    )
    if known is Known.UNKNOWN:
        return None  # or a Namespace that no keeper looks after
    if memoized.mode is Mode.REFRESH:
        return RunAndCapture(plan, unshared)
    blocker = _blocker(memoized)
    if known is Known.FRESH:
        return None if blocker else Gate(plan)
    if blocker or unshared:
        return RunAndCapture(plan._replace(share=False), blocker or unshared)
    return Gate(plan)


def written(decision: Gate | RunAndCapture) -> dict[str, str]:
    """The annotations that admission writes, and the longest that the keeper will write beside them."""
    return {names.PLAN: decision.plan.to_json(), names.REASON: "x" * names.LONGEST_REASON}


def ops(pod: Mapping[str, Any], decision: Gate | RunAndCapture) -> list[Op]:
    """The operations that carry the decision out."""
    held = isinstance(decision, Gate)
    runs_as = names.RESULT_MISS if decision.plan.capture else names.RESULT_SKIPPED
    label, plan = names.RESULT_GATED if held else runs_as, decision.plan.to_json()
    metadata = pod["metadata"]
    marks = [
        put(("metadata", "labels"), names.RESULT, label, there=metadata.get("labels")),
        put(("metadata", "annotations"), names.PLAN, plan, there=metadata.get("annotations")),
    ]
    if not held:
        return marks
    gate = {"name": names.SCHEDULING_GATE}
    if pod["spec"].get("schedulingGates"):
        return [*marks, add(("spec", "schedulingGates", END), gate)]
    return [*marks, add(("spec", "schedulingGates"), [gate])]


def _blocker(memoized: MemoizedStep) -> str | None:
    """Why the Pod cannot be held, None where it can.

    A Pod with a node has been scheduled, and the API server takes no gate on it. Volumes that are made for
    the Pod, or for its workflow, may be what its successors read from; and some are made while it waits.
    A template may ask for a node (names.GATED): any word but "true" counts as "false", since a Pod that is
    not held only takes longer, and where a node is waited for that is never there a workflow hangs.
    """
    spec = memoized.pod.spec
    gated = memoized.pod.annotations.get(names.GATED, "true")
    if gated != "true":
        return f"{names.GATED} is {str(gated)[:_SHOWN]}"
    if spec.get("nodeName"):
        return "it names its node"
    for volume in spec.get("volumes") or ():
        if "ephemeral" in volume:
            return f"volume {volume.get('name')} is made for this Pod"
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        # The name that Argo gives to the claims of volumeClaimTemplates (createPVCs in
        # workflow/controller/operator.go).
        if str(claim).startswith(f"{memoized.step.workflow}-"):
            return f"volume {volume.get('name')} is made for this workflow"
    return None


def _unshared(memoized: MemoizedStep, wait: timedelta) -> str | None:
    """Why the Pod does not wait for an equal step, None where it may.

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
    if wait < _LEAST_WAIT:
        return "its time limit is too short"
    return None


def _wait(memoized: MemoizedStep, now: datetime, follow: timedelta) -> timedelta:
    """How long the Pod may wait for an equal step, from its creation on."""
    limits = [left / _SHARE_OF_A_LIMIT for left in _time_limits(memoized, now)]
    return max(timedelta(), min([follow, *limits]))


def _time_limits(memoized: MemoizedStep, now: datetime) -> Iterator[timedelta]:
    """What is left of every time limit that the Pod, its template or its workflow says."""
    template = memoized.pod.layout.template or {}
    for owner in (memoized.pod.spec, template):
        seconds = owner.get("activeDeadlineSeconds")
        if seconds is not None and str(seconds).isdigit():
            yield timedelta(seconds=min(int(seconds), timedelta.max.days))
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
