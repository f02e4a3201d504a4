"""Reads a Pod that the keeper reconciles: one that admission left to be decided, or stored, outside of it.

All of it comes from the Pod itself, so a keeper that starts anew knows what the last one knew. Whoever makes
Pods can write what is read here: one that is not what it says becomes an InvalidStep.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, NamedTuple

from argo import names as argo
from argo.steppod import NotAStep, Owner, StepPod
from argo.version import GUARDS_DECLARED_OUTPUTS, TAKES_UPDATES_AT_ONCE, Version
from keeper import identity
from memoize import names
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.plan import Plan
from memoize.podstep import step_of
from memoize.reasons import Reason
from memoize.spec import is_dns1123_subdomain
from memoize.step import Step
from server.logs import fields

_log = logging.getLogger(__name__)

_NOT_FINAL = (names.RESULT_GATED, names.RESULT_MISS, names.RESULT_IN_POD)
SELECTOR = f"{names.RESULT} in ({','.join(_NOT_FINAL)})"
"""The Pods that are reconciled. A final label is another one, so memory follows the live Pods."""
_BYTES_OF_AN_OBJECT = 200
"""What Python takes for a JSON object or list, its text aside: `{"name":"a"}` is 12 characters."""
UNSCHEDULED = "spec.nodeName=,status.phase=Pending"
"""The field selector that takes every gated Pod, and few others."""
_TERMINAL = ("Succeeded", "Failed")
_ANNOUNCED = "it was to run already"
_LONGEST_UID = 36
"""Characters of a uid as the API server makes them; who makes a Pod may name others."""
_SHOWN = 100
"""Characters of what is wrong with a plan."""


class Phase(Enum):
    """Where a Pod stands, by its gate and its status; the label may lag behind."""

    GATED = "gated"
    """Our gate is there: no node can take it."""
    RUNNING = "running"
    """It waits for a node, or runs."""
    OVER = "over"
    """Succeeded or Failed."""


class Key(NamedTuple):
    """What makes two steps equal: the ConfigMap, and the place in it."""

    namespace: str
    cache: str
    data_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """What any Pod with our label shows."""

    uid: str
    namespace: str
    name: str
    version: str
    """Its resourceVersion."""
    phase: Phase
    deleting: bool
    """It has a deletionTimestamp."""
    gates: tuple[str, ...]
    """The names of its scheduling gates, in order."""
    has_annotations: bool
    node_id: str
    """Its step's node, "" where it names none."""
    label: str
    """The value of its label names.RESULT."""
    size: int
    """Bytes that are kept of it here, at a guess: the characters it was read from, and what objects take."""
    release_reason: Outcome | None
    """Set once a keeper decided to run the Pod, as its annotation says (its label, where there was no room
    for that). Final: it may be gated still, and is not to be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedPod(ObservedPod):
    """A Pod whose look-up and capture are done by containers of ours: their termination messages tell."""

    owner: Owner | None
    """The Workflow that the Pod names as its controller; None where it is no step's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidStep(ObservedPod):
    """A Pod that is not what it would have to be to be decided from outside.

    Nothing is posted or stored for it. Where it is gated, it is released.
    """

    outcome: Outcome
    """Why not."""
    owner: Owner | None
    """As an InjectedPod's; what becomes of the Pod is told on it, and nothing else goes by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStep(ObservedPod):
    """A step Pod that is decided, or stored, from outside of it: gated now, or let run."""

    created_at: datetime
    owner: Owner
    step: Step
    declared: Declared
    """The step's, which is always there."""
    plan: Plan
    key: Key
    until: datetime
    """The latest moment to wait for an equal step, by its plan."""
    containers: tuple[tuple[str, str], ...]
    """Names and images of the regular ones."""
    needs_pause: bool
    """If the Pod succeeds at the moment its result appears, Argo may miss the outputs."""
    may_nudge: bool
    """Argo's controller looks at its Workflow at once when that is updated."""

    def is_same_step(self, other: "GatedStep") -> bool:
        """Whether what answers the one answers the other."""
        return (self.key, self.step) == (other.key, other.step)

    @property
    def may_run_for_others(self) -> bool:
        """Whether equal steps may wait for it once it runs: it shares, and its outputs will be stored.

        Nor may another gate keep it: who waits for it might be what that gate waits for (a quota of Kueue's).

        Whoever let it run, admission or a keeper. What does not share neither waits nor is waited for: its
        author said so, or it runs in order to overwrite the entry (`refresh`), and a step that may use an
        entry must not depend on a run that distrusts it.
        """
        return (
            self.plan.share
            and self.plan.capture
            and all(gate == names.SCHEDULING_GATE for gate in self.gates)
        )

    @property
    def label_when_released(self) -> str:
        """The value of names.RESULT for the Pod once it is released to run."""
        return names.RESULT_MISS if self.plan.capture else names.RESULT_SKIPPED


def is_labelled(pod: Mapping[str, Any]) -> bool:
    """Whether the Pod, of which the metadata are enough, is one that SELECTOR takes."""
    return ((pod.get("metadata") or {}).get("labels") or {}).get(names.RESULT) in _NOT_FINAL


def lost_its_label(pod: Mapping[str, Any]) -> bool:
    """Whether the Pod is gated by us, and SELECTOR does not take it."""
    gates = (pod.get("spec") or {}).get("schedulingGates") or ()
    return not is_labelled(pod) and any(gate.get("name") == names.SCHEDULING_GATE for gate in gates)


def without_step(pod: ObservedPod, outcome: Outcome) -> InvalidStep:
    """As little of the Pod as lets it run and labels it: some hundred bytes. `outcome` says why no more."""
    owner = pod.owner if isinstance(pod, GatedStep | InvalidStep | InjectedPod) else None
    return InvalidStep(
        uid=pod.uid,
        namespace=pod.namespace,
        name=pod.name,
        version=pod.version,
        phase=pod.phase,
        deleting=pod.deleting,
        gates=(names.SCHEDULING_GATE,) if names.SCHEDULING_GATE in pod.gates else (),
        has_annotations=pod.has_annotations,
        node_id=pod.node_id,
        label=pod.label,
        size=0,
        release_reason=None,
        outcome=outcome,
        owner=owner,
    )


def read(pod: Mapping[str, Any]) -> GatedStep | InvalidStep | InjectedPod | None:
    """What the keeper has to know of a Pod as the API server gave it; None for one without our label."""
    metadata = pod.get("metadata") or {}
    parsed = StepPod.parse(pod, str(metadata.get("namespace", "")))
    if isinstance(parsed, StepPod) and len(parsed.owner.uid) > _LONGEST_UID:
        # Events that wait keep it, when the Pod's own record is gone.
        parsed = NotAStep("its Workflow's uid is longer than any that the API server makes", parsed.node_id)
    label = (metadata.get("labels") or {}).get(names.RESULT)
    if label not in _NOT_FINAL:
        return None
    spec = pod.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    gates = tuple(str(gate.get("name", "")) for gate in spec.get("schedulingGates") or ())
    found: dict[str, Any] = {
        "uid": str(metadata.get("uid", "")),
        "namespace": str(metadata.get("namespace", "")),
        "name": str(metadata.get("name", "")),
        "version": str(metadata.get("resourceVersion", "")),
        "phase": _phase(pod, gates),
        "deleting": bool(metadata.get("deletionTimestamp")),
        "gates": gates,
        "has_annotations": bool(annotations),
        "node_id": parsed.node_id if is_dns1123_subdomain(parsed.node_id) else "",
        "label": label,
        "size": sum(map(len, gates)) + len(str(annotations.get(names.REASON, ""))),
        "release_reason": _release_reason(annotations.get(names.REASON)),
    }
    if found["phase"] is Phase.GATED and label == names.RESULT_MISS:
        found["release_reason"] = found["release_reason"] or Outcome(Reason.UNDECIDED, _ANNOUNCED)
    owner = parsed.owner if isinstance(parsed, StepPod) else None
    found["size"] += len(owner.name) + len(owner.uid) if owner is not None else 0
    if label == names.RESULT_IN_POD:
        return InjectedPod(**found, owner=owner)
    try:
        decided = _decided(parsed)
    except Exception:  # tenants write Pods: one that nobody thought of must not blind us to all others
        _log.exception(
            "a Pod that cannot be read", extra=fields(namespace=found["namespace"], pod=found["name"])
        )
        decided = Outcome(Reason.INTERNAL_ERROR, "it cannot be read")
    if isinstance(decided, Outcome):
        return InvalidStep(**found, outcome=decided, owner=owner)
    assert isinstance(parsed, StepPod)
    found["size"] += _size(parsed, decided["declared"])
    return GatedStep(**found, **decided)


def _size(pod: StepPod, declared: Declared) -> int:
    """What a GatedStep takes beside what any Pod does: annotations, template, the containers' names."""
    containers = pod.layout.containers
    return (
        sum(len(f"{name}{text}") for name, text in pod.annotations.items())
        + max((len(str(one.variables.get(argo.ENV_TEMPLATE, ""))) for one in containers), default=0)
        + sum(len(f"{one.name}{one.container.get('image')}") for one in containers)
        + _BYTES_OF_AN_OBJECT * _objects(declared.parameters, declared.artifacts, declared.archive)
    )


def _objects(*values: Any) -> int:
    """How many objects and lists there are in some JSON."""
    count, left = 0, list(values)
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            value = value.values()
        elif not isinstance(value, list | tuple):
            continue
        count += 1
        left.extend(value)
    return count


def _phase(pod: Mapping[str, Any], gates: tuple[str, ...]) -> Phase:
    if (pod.get("status") or {}).get("phase") in _TERMINAL:
        return Phase.OVER
    return Phase.GATED if names.SCHEDULING_GATE in gates else Phase.RUNNING


def _decided(pod: StepPod | NotAStep) -> dict[str, Any] | Outcome:
    """The fields that GatedStep has beside ObservedPod's, or why they cannot be had."""
    if isinstance(pod, NotAStep):
        return Outcome(Reason.IDENTITY_MISMATCH, pod.reason)
    if wrong := identity.mismatch(pod):
        return Outcome(Reason.IDENTITY_MISMATCH, wrong)
    try:
        plan = Plan.from_json(str(pod.annotations.get(names.PLAN, "")))
        created_at = _time(str(pod.pod["metadata"].get("creationTimestamp", "")))
        until = created_at + timedelta(seconds=plan.wait_seconds)
    except (ValueError, RecursionError, OverflowError) as error:
        # Of a version that is not read, too: admission of another release wrote it, and the Pod is let run.
        return Outcome(Reason.INVALID_ANNOTATIONS, f"{names.PLAN}: {str(error)[:_SHOWN]}")
    step = step_of(pod, gc=plan.gc)
    if isinstance(step, Outcome):
        return step
    if step.declared is None:
        return Outcome(Reason.UNDECIDED, "the template is not in the Pod")
    key = Key(pod.owner.namespace, step.cache, step.data_key)
    if (plan.cache, plan.data_key) != key[1:]:
        return Outcome(Reason.INVALID_ANNOTATIONS, f"{names.PLAN} is of another key")
    containers = pod.spec.get("containers") or ()
    return {
        "created_at": created_at,
        "owner": pod.owner,
        "step": step,
        "declared": step.declared,
        "plan": plan,
        "key": key,
        "until": until,
        "containers": tuple((str(c.get("name", "")), str(c.get("image", ""))) for c in containers),
        "needs_pause": _needs_pause(step.declared, pod.layout.argo_version),
        "may_nudge": TAKES_UPDATES_AT_ONCE.holds_in(pod.layout.argo_version),
    }


def _needs_pause(declared: Declared, version: Version | None) -> bool:
    """Argo learns of results and of Pods on two ways, and the Pod's may be the faster.

    All outputs of a result come with the first of them, so one that the controller waits for brings the
    others along. It waits for none in the Pod of a containerSet without `main`, whose exit code it goes by.
    """
    if not (declared.parameters or declared.artifacts or declared.result):
        return False
    required = bool(declared.parameters) or any(not a.get("optional") for a in declared.artifacts)
    return not (required and declared.has_main and GUARDS_DECLARED_OUTPUTS.holds_in(version))


def _release_reason(reason: object) -> Outcome | None:
    """The outcome in an annotation names.REASON; whatever else it says, it was not written at admission."""
    if reason is None:
        return None
    code, _, detail = str(reason).partition(": ")
    try:
        return Outcome(Reason(code), detail)
    except ValueError:
        return Outcome(Reason.UNDECIDED, _ANNOUNCED)


def _time(text: str) -> datetime:
    """An RFC 3339 time, aware; ValueError for anything else."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time out of range") from error
