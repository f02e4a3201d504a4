"""What the keeper remembers of each Pod, and which of them wait for what.

All of it can be read anew from the API server: it spares requests, and nothing is wrong without it.

    Gated ─► Answering ─► Handled            an entry is there: its outputs are posted, the Pod succeeds
      └──────────┴─► Releasing ─► Handled    the Pod is to run; that is final
    Running ─► Capturing ─► Labelling        the Pod ran: its outputs are stored, its label says how it ended

A Pod that leaves `Answering` otherwise, let run or deleted by somebody, is `Orphaned` until that is gone.
"""

from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keeper import capture
from keeper.capture import End
from keeper.steppods import GatedStep, InvalidStep, ObservedPod, Phase
from keeper.task_results import PostedResult
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason


class PostedAnswer(NamedTuple):
    """A result of ours that was posted for a gated Pod."""

    step: GatedStep
    """The Pod as it was then."""
    entry: Entry
    text: str
    """The entry as it stands in the cache."""
    result: PostedResult
    due: float
    """When the Pod may succeed, by the Reconciler's clock."""


class FinalLabel(NamedTuple):
    """How the memoization of a step ended whose Pod is over, as its label says."""

    label: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Gated:
    """It is to be looked up, and then to be answered, to be released, or to wait."""

    step: GatedStep


@dataclass(frozen=True, slots=True)
class Answering:
    """Its answer is posted, and it is to succeed when that is due."""

    step: GatedStep
    answer: PostedAnswer


@dataclass(frozen=True, slots=True)
class Releasing:
    """It is gated, and to run. That is final: another keeper may have said so on the Pod."""

    release_reason: Outcome
    answer: PostedAnswer | None = None
    """What was posted for it before; the release takes it back."""


@dataclass(frozen=True, slots=True)
class Handled:
    """As a gated Pod it is done with, and the watch will say so."""

    release_reason: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """It waits for a node, or runs."""


@dataclass(frozen=True, slots=True)
class Capturing:
    """It is over, and its outputs are to be stored."""

    step: GatedStep
    end: End


@dataclass(frozen=True, slots=True)
class Terminated:
    """It is over, and nothing is to be stored: its final label is known."""

    final: FinalLabel


@dataclass(frozen=True, slots=True)
class Labelling:
    """It is over and handled, but for its label."""

    final: FinalLabel


@dataclass(frozen=True, slots=True)
class Gone:
    """It is deleted, or has a final label."""


Left = Running | Capturing | Terminated | Labelling | Gone
"""The Pod is not gated any more."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """The answer may stand beside a Pod that is not to be answered with it any more: it is to go first."""

    answer: PostedAnswer
    then: Left
    """The state after that."""


State = Gated | Answering | Releasing | Handled | Orphaned | Left

_NOT_STORED = Outcome(Reason.MISS, "it was not to be stored")
_GATED_AND_INJECTED = Outcome(Reason.IDENTITY_MISMATCH, "it is held, and its look-up is inside of it")


def as_shown(pod: ObservedPod, raw: Mapping[str, Any]) -> State:
    """The state of a Pod as far as it shows; `raw` is the same Pod as the API server gave it."""
    match pod:
        case ObservedPod(phase=Phase.RUNNING):
            return Running()
        case GatedStep(phase=Phase.GATED, release_reason=None):
            return Gated(pod)
        case GatedStep(phase=Phase.GATED, release_reason=Outcome() as reason):
            return Releasing(reason)
        case InvalidStep(phase=Phase.GATED):
            return Releasing(pod.outcome)
        case ObservedPod(phase=Phase.GATED):
            return Releasing(_GATED_AND_INJECTED)
        case GatedStep() if pod.plan.capture:
            return Capturing(pod, capture.ended(raw, pod.declared, pod.step.deadline))
        case GatedStep():
            return Terminated(FinalLabel(names.RESULT_SKIPPED, _NOT_STORED))
        case InvalidStep():
            return Terminated(FinalLabel(names.RESULT_SKIPPED, pod.outcome))
    return Terminated(FinalLabel(*capture.ended_inside(raw)))


def after(before: State, shown: State) -> State:
    """The state of a Pod whose state was `before`, and which shows itself like this now.

    `shown` is what it would be for a keeper that has just been started, or Gone.
    """
    match before, shown:
        case ((Labelling() | Orphaned(_, Labelling())), (Capturing() | Terminated())):
            return before
        case Orphaned(answer) | Answering(_, answer) | Releasing(_, PostedAnswer() as answer), (
            Running() | Capturing() | Terminated() | Gone()
        ):
            return Orphaned(answer, shown)
        case Releasing(), Gated() | Releasing():
            return before
        case Handled(reason), Gated() | Releasing():  # it is gated again, or still: let it run
            return Releasing(reason or Outcome(Reason.UNDECIDED))
        case ((Answering(_, answer) | Orphaned(answer)), Gated(step)):
            if step.is_same_step(answer.step):
                return Answering(step, answer)
            return Releasing(Outcome(Reason.UNDECIDED, "it was changed while it was answered"), answer)
        case ((Answering(_, answer) | Orphaned(answer)), Releasing(reason)):
            return Releasing(reason, answer)
    return shown


@dataclass(slots=True)
class Backoff:
    """What failed since `first` (seconds of the keeper's clock), `count` times in a row."""

    first: float
    count: int = 0


@dataclass(slots=True)
class Record:
    """One Pod, and how far it has come. Its state is changed by the methods, whoever knows something new."""

    pod: ObservedPod
    """As it was last shown."""
    state: State
    result_may_exist: bool
    """A result of ours may be there, or on its way: this keeper's, or another one's."""
    last_valid: GatedStep | None = None
    """What it was when it last could be decided, which an edit may have made an InvalidStep of since."""
    undecided: bool = False
    """Its entry could not be looked up the last time."""
    backoff: Backoff | None = None

    def on_shown(self, pod: ObservedPod, shown: State) -> None:
        """The watch shows the Pod like this now."""
        self.pod, self.state = pod, after(self.state, shown)
        if isinstance(pod, GatedStep):
            self.last_valid = pod

    def on_gone(self) -> None:
        """The Pod is deleted, or has a final label."""
        self.state = after(self.state, Gone())

    def on_posted(self, answer: PostedAnswer) -> None:
        """A result was posted for it; it may have left meanwhile."""
        match self.state:
            case Gated(step):
                self.state = Answering(step, answer)
            case Releasing(reason):
                self.state = Releasing(reason, answer)
            case Running() | Capturing() | Terminated() | Labelling() | Gone():
                self.state = Orphaned(answer, self.state)

    def release(self, reason: Outcome) -> None:
        """It is to run, if it is gated still; a reason that it has already stays."""
        match self.state:
            case Gated():
                self.state = Releasing(reason)
            case Answering(_, answer):
                self.state = Releasing(reason, answer)

    def on_finished(self) -> None:
        """It was answered or let run, or its answer was taken back: none of ours is beside it by mistake."""
        match self.state:
            case Gated() | Answering():
                self.state = Handled()
            case Releasing(reason):
                self.state = Handled(reason)
            case Orphaned(_, then):
                self.state = then

    def label(self, final: FinalLabel) -> bool:
        """It is handled, but for its label; False where it had a final label before, or is not over."""
        match self.state:
            case Capturing() | Terminated():
                self.state = Labelling(final)
            case Orphaned(answer, Capturing() | Terminated()):
                self.state = Orphaned(answer, Labelling(final))
            case _:
                return False
        return True


class Waiting(NamedTuple):
    """Gated Pods that look for their entry in the same way."""

    data_key: str
    max_age: str


@dataclass(slots=True)
class _Group:
    uids: dict[str, GatedStep] = field(default_factory=dict)
    seen: int | None = None
    """A hash of the entry as the cache last held it."""


class Records:
    """The records by uid, and the gated Pods by the cache that they look into."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._waiting: dict[tuple[str, str], dict[Waiting, _Group]] = {}
        self.gated = 0
        """How many Pods are gated."""

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def get(self, uid: str) -> Record | None:
        """The Pod's record; None for one that was not seen, or is gone."""
        return self._records.get(uid)

    def put(self, pod: ObservedPod, state: State, *, result_may_exist: bool) -> Record:
        """Remember the Pod, which shows this state now. `result_may_exist` is for one that was not known."""
        record = self._records.get(pod.uid)
        if record is None:
            record = self._records[pod.uid] = Record(pod, state, result_may_exist)
        else:
            self._ungroup(record.pod)
        record.on_shown(pod, state)
        if pod.phase is Phase.GATED:
            self.gated += 1
            if isinstance(pod, GatedStep):
                self._group(pod).uids[pod.uid] = pod
        return record

    def drop(self, uid: str) -> Record | None:
        """Forget the Pod, which is gone."""
        record = self._records.pop(uid, None)
        if record is not None:
            self._ungroup(record.pod)
            record.on_gone()
        return record

    @property
    def caches(self) -> KeysView[tuple[str, str]]:
        """Namespace and name of every cache that gated Pods look into, now and whenever it is asked."""
        return self._waiting.keys()

    def groups(self, namespace: str, cache: str) -> Mapping[Waiting, _Group]:
        """The gated Pods that look into this cache."""
        return self._waiting.get((namespace, cache), {})

    def _group(self, pod: GatedStep) -> _Group:
        of_cache = self._waiting.setdefault((pod.namespace, pod.key.cache), {})
        return of_cache.setdefault(Waiting(pod.key.data_key, pod.step.max_age), _Group())

    def _ungroup(self, pod: ObservedPod) -> None:
        if pod.phase is not Phase.GATED:
            return
        self.gated -= 1
        if not isinstance(pod, GatedStep):
            return
        group = self._group(pod)
        group.uids.pop(pod.uid, None)
        if not group.uids:
            of_cache = self._waiting[pod.namespace, pod.key.cache]
            del of_cache[Waiting(pod.key.data_key, pod.step.max_age)]
            if not of_cache:
                del self._waiting[pod.namespace, pod.key.cache]
