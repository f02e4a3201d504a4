"""Reads a Pod that the keeper tends: one that admission left to be decided, or stored, from outside of it.

All of it comes from the Pod itself, so a keeper that starts anew knows what the last one knew. Whoever makes
Pods can write what is read here: one that is not what it says becomes a InvalidStep.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from argo.steppod import NotAStep, Owner, StepPod
from argo.version import GUARDS_DECLARED_OUTPUTS, Version
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

_TENDED = (names.RESULT_GATED, names.RESULT_MISS, names.RESULT_IN_POD)
SELECTOR = f"{names.RESULT} in ({','.join(_TENDED)})"
"""The Pods that are tended: what is over and handled has another word, so memory follows the live Pods."""
_OVER = ("Succeeded", "Failed")
_TOLD_ALREADY = "it was to run already"


class Phase(Enum):
    """Where a tended Pod stands, by its gate and its status; the label may lag behind."""

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
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """What any Pod with our label shows.

    `node` is its step's node id, where it names one. `word` is the one of names.RESULT that it bears. `told`:
    a keeper has written on it that it is to run (by its label, where there was no room to say why); it may be
    held still, and is not to be answered. `version` is its resourceVersion. `gates` are the names of its
    scheduling gates, in order. `deleting`: it has a deletionTimestamp. `annotated`: it has annotations.
    """

    uid: str
    namespace: str
    name: str
    version: str
    phase: Phase
    deleting: bool
    gates: tuple[str, ...]
    annotated: bool
    node: str
    word: str
    told: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedPod(ObservedPod):
    """A Pod whose look-up and capture are done by containers of ours: only their last word is to be read.

    `owner` is None where the Pod is no step of a Workflow.
    """

    owner: Owner | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidStep(ObservedPod):
    """A Pod that is not what it would have to be to be decided from outside; `outcome` says why.

    Nothing is posted or stored for it. Where it is held, it is released.
    """

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStep(ObservedPod):
    """A step Pod that is decided, or stored, from outside of it.

    `until` is the latest moment to follow an equal step, None where the plan names none. `declared` is the
    step's, and always there. `containers` are the names and images of the regular ones. `needs_pause`: if
    the Pod succeeds at the moment its result appears, Argo may take the node for done without its outputs.
    """

    created_at: datetime
    owner: Owner
    step: Step
    declared: Declared
    note: Plan
    key: Key
    until: datetime | None
    containers: tuple[tuple[str, str], ...]
    needs_pause: bool

    @property
    def leads(self) -> bool:
        """Whether equal steps may wait for it once it runs: it shares, and its outputs will be stored.

        Nor may another gate keep it: who waits for it might be what that gate waits for (a quota of Kueue's).

        Whoever let it run, admission or a keeper. What does not share neither waits nor is waited for: its
        author said so, or it runs in order to overwrite the entry (`refresh`), and a step that may use an
        entry must not depend on a run that distrusts it.
        """
        return (
            self.note.share
            and self.note.capture
            and all(gate == names.SCHEDULING_GATE for gate in self.gates)
        )

    @property
    def released_as(self) -> str:
        """The word of names.RESULT for the Pod once it is released to run."""
        return names.RESULT_MISS if self.note.capture else names.RESULT_SKIPPED


def read(pod: Mapping[str, Any]) -> GatedStep | InvalidStep | InjectedPod | None:
    """What the keeper has to know of a Pod as the API server gave it; None for one without our label."""
    metadata = pod.get("metadata") or {}
    parsed = StepPod.parse(pod, str(metadata.get("namespace", "")))
    word = (metadata.get("labels") or {}).get(names.RESULT)
    if word not in _TENDED:
        return None
    spec = pod.get("spec") or {}
    gates = tuple(str(gate.get("name", "")) for gate in spec.get("schedulingGates") or ())
    found: dict[str, Any] = {
        "uid": str(metadata.get("uid", "")),
        "namespace": str(metadata.get("namespace", "")),
        "name": str(metadata.get("name", "")),
        "version": str(metadata.get("resourceVersion", "")),
        "phase": _phase(pod, gates),
        "deleting": bool(metadata.get("deletionTimestamp")),
        "gates": gates,
        "annotated": bool(metadata.get("annotations")),
        "node": parsed.node_id if is_dns1123_subdomain(parsed.node_id) else "",
        "word": word,
        "told": _told((metadata.get("annotations") or {}).get(names.REASON)),
    }
    if found["phase"] is Phase.GATED and word == names.RESULT_MISS:
        found["told"] = found["told"] or Outcome(Reason.UNDECIDED, _TOLD_ALREADY)
    if word == names.RESULT_IN_POD:
        return InjectedPod(**found, owner=parsed.owner if isinstance(parsed, StepPod) else None)
    try:
        decided = _decided(parsed)
    except Exception:  # tenants write Pods: one that nobody thought of must not blind us to all others
        _log.exception(
            "a Pod that cannot be read", extra=fields(namespace=found["namespace"], pod=found["name"])
        )
        decided = Outcome(Reason.INTERNAL_ERROR, "it cannot be read")
    if isinstance(decided, Outcome):
        return InvalidStep(**found, outcome=decided)
    return GatedStep(**found, **decided)


def _phase(pod: Mapping[str, Any], gates: tuple[str, ...]) -> Phase:
    if (pod.get("status") or {}).get("phase") in _OVER:
        return Phase.OVER
    return Phase.GATED if names.SCHEDULING_GATE in gates else Phase.RUNNING


def _decided(pod: StepPod | NotAStep) -> dict[str, Any] | Outcome:
    """The fields that GatedStep has beside ObservedPod's, or why they cannot be had."""
    if isinstance(pod, NotAStep):
        return Outcome(Reason.IDENTITY_MISMATCH, pod.reason)
    if wrong := identity.wrong(pod):
        return Outcome(Reason.IDENTITY_MISMATCH, wrong)
    try:
        note = Plan.from_json(str(pod.annotations.get(names.PLAN, "")))
        until = _time(note.until) if note.until else None
        created_at = _time(str(pod.pod["metadata"].get("creationTimestamp", "")))
    except (ValueError, RecursionError):
        return Outcome(Reason.INVALID_ANNOTATIONS, f"{names.PLAN} is not a plan")
    step = step_of(pod, gc=note.gc)
    if isinstance(step, Outcome):
        return step
    if step.declared is None:
        return Outcome(Reason.UNDECIDED, "the template is not in the Pod")
    key = Key(pod.owner.namespace, step.cache, step.data_key)
    if (note.cache, note.data_key) != key[1:]:
        return Outcome(Reason.INVALID_ANNOTATIONS, f"{names.PLAN} is of another key")
    containers = pod.spec.get("containers") or ()
    return {
        "created_at": created_at,
        "owner": pod.owner,
        "step": step,
        "declared": step.declared,
        "note": note,
        "key": key,
        "until": until,
        "containers": tuple((str(c.get("name", "")), str(c.get("image", ""))) for c in containers),
        "needs_pause": _needs_pause(step.declared, pod.layout.argo_version),
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


def _told(reason: object) -> Outcome | None:
    """The outcome in an annotation names.REASON; whatever else it says, it was not written at admission."""
    if reason is None:
        return None
    code, _, detail = str(reason).partition(": ")
    try:
        return Outcome(Reason(code), detail)
    except ValueError:
        return Outcome(Reason.UNDECIDED, _TOLD_ALREADY)


def _time(text: str) -> datetime:
    """An RFC 3339 time, aware; ValueError for anything else."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time out of range") from error
