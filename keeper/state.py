"""What the keeper remembers of each Pod, and which of them wait for what.

All of it can be read anew from the API server: it spares requests, and nothing is wrong without it.

    Gated ─► Answering ─► Handled                    its entry is there: its outputs are posted, it succeeds
      └──────────┴─► Releasing ─► Handled            it is to run; that is final
    Running ─► Capturing ─► Labelling ─► Labelled    it ran: its outputs are stored, its label says how
                              └─► Unlabelled         its label is refused for ever

A Pod that leaves `Answering` otherwise, let run or deleted by somebody, is `Orphaned` until its answer is
gone.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from keeper import capture
from keeper.capture import End
from keeper.steppods import GatedStep, InvalidStep, ObservedPod, Phase
from keeper.store import Cache
from keeper.task_results import PostedResult
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason

MOST_RECORDS = 5000
"""Steps that are remembered of one Namespace …"""
MOST_ORPHANS = 1000
"""Pods of one Namespace that are gone, and whose answers are still to be taken back."""
MOST_BYTES = 16 << 20
"""… and the bytes that they take, at a guess (ObservedPod.size)."""


class PostedAnswer(NamedTuple):
    """A result of ours that was posted for a gated Pod."""

    step: GatedStep
    """The Pod as it was then."""
    entry: Entry
    """Without its outputs."""
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
class Labelled:
    """It is over and handled, and the watch will show its label."""


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """It is over and handled, and its label was refused for so long that it is not tried any more."""


@dataclass(frozen=True, slots=True)
class Gone:
    """It is deleted, or has a final label."""


Left = Running | Capturing | Terminated | Labelling | Labelled | Unlabelled | Gone
"""The Pod is not gated any more."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """The answer may stand beside a Pod that is not to be answered with it any more: it is to go first."""

    answer: PostedAnswer
    then: Left
    """The state after that."""


State = Gated | Answering | Releasing | Handled | Orphaned | Left

_UNKNOWN = datetime.min.replace(tzinfo=UTC)
_NOT_STORED = Outcome(Reason.MISS, "it was not to be stored")
_GATED_AND_INJECTED = Outcome(Reason.IDENTITY_MISMATCH, "it is gated, and its lookup is made inside of it")


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
        case (
            (Labelling() | Labelled() | Unlabelled() | Orphaned(_, Labelling() | Labelled())),
            (Capturing() | Terminated()),
        ):
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
class Failures:
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
    failures: Failures | None = None
    tried: bool = False
    """It had a turn since it came into its phase."""
    phase_since: float = 0.0
    """When it was first shown in its phase, by the keeper's clock."""

    @property
    def size(self) -> int:
        """Bytes that are kept of the Pod, at a guess."""
        valid = self.last_valid
        return self.pod.size + (valid.size if valid is not None and valid is not self.pod else 0)

    def on_shown(self, pod: ObservedPod, shown: State, clock: float) -> None:
        """The watch shows the Pod like this now."""
        if pod.phase is not self.pod.phase:
            self.tried, self.phase_since, self.failures = False, clock, None
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
            case Running() | Capturing() | Terminated() | Labelling() | Labelled() | Unlabelled() | Gone():
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

    def on_labelled(self) -> None:
        """Its label was written; the watch may have shown it already."""
        if isinstance(self.state, Labelling):
            self.state = Labelled()

    def leave_unlabelled(self) -> None:
        """Its label cannot be written."""
        if isinstance(self.state, Labelling):
            self.state = Unlabelled()


class Orphans:
    """Records of Pods that are gone, and may have a result of ours beside them."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._counts: Counter[str] = Counter()
        """By Namespace."""

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def put(self, record: Record) -> bool:
        """Remember the record, unless its Namespace has so many."""
        namespace, uid = record.pod.namespace, record.pod.uid
        if uid not in self._records and self._counts[namespace] >= MOST_ORPHANS:
            return False
        self._counts[namespace] += uid not in self._records
        self._records[uid] = record
        return True

    def pop(self, uid: str) -> Record | None:
        """Forget the record."""
        record = self._records.pop(uid, None)
        if record is not None:
            self._counts[record.pod.namespace] -= 1
            if not self._counts[record.pod.namespace]:
                del self._counts[record.pod.namespace]
        return record


@dataclass(slots=True)
class _Group:
    """Gated Pods that look for their entry in the same way."""

    uids: dict[str, GatedStep] = field(default_factory=dict)
    seen: Hashable = None
    """What the store last told of the entry."""


@dataclass(slots=True)
class _Usage:
    """What the records of one Namespace come to."""

    steps: int = 0
    bytes: int = 0

    def add(self, record: Record, sign: int = 1) -> None:
        self.steps += sign * (record.last_valid is not None)
        self.bytes += sign * record.size


class _Caches(Collection[Cache]):
    """Caches that are kept by Namespace, as they are whenever it is asked."""

    def __init__(self, of_namespaces: Mapping[str, Collection[str]]) -> None:
        self._of_namespaces = of_namespaces

    def __contains__(self, cache: object) -> bool:
        match cache:
            case (str(namespace), name):
                return name in self._of_namespaces.get(namespace, ())
        return False

    def __iter__(self) -> Iterator[Cache]:
        return ((namespace, name) for namespace, names in self._of_namespaces.items() for name in names)

    def __len__(self) -> int:
        return sum(map(len, self._of_namespaces.values()))


class Records:
    """The records by uid, and the gated Pods by the cache that they look into."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._usage: defaultdict[str, _Usage] = defaultdict(_Usage)
        self._waiting: dict[str, dict[str, dict[str, dict[str, _Group]]]] = {}
        """By Namespace, cache, data key and max-age."""
        self._gated: dict[str, Record] = {}
        """Those whose Pods are gated, by uid."""

    def in_order(self) -> list[Record]:
        """All of them: gated ones before the others, and of each the oldest first."""

        def order(record: Record) -> tuple[bool, datetime]:
            pod = record.pod
            created = pod.created_at if isinstance(pod, GatedStep) else _UNKNOWN
            return pod.phase is not Phase.GATED, created

        return sorted(self._records.values(), key=order)

    @property
    def gated(self) -> Collection[Record]:
        """Those whose Pods are gated."""
        return self._gated.values()

    def pods(self) -> Iterator[ObservedPod]:
        """All Pods as they were last shown."""
        return (record.pod for record in self._records.values())

    def get(self, uid: str) -> Record | None:
        """The Pod's record; None for one that was not seen, or is gone."""
        return self._records.get(uid)

    def has_room(self, pod: ObservedPod) -> bool:
        """Whether the Pod's Namespace may have a record of all that the Pod shows."""
        usage, known = self._usage.get(pod.namespace, _Usage()), self._records.get(pod.uid)
        others = usage.bytes - (known.size if known is not None else 0)
        is_new = known is None or known.last_valid is None
        return others + pod.size <= MOST_BYTES and not (
            is_new and isinstance(pod, GatedStep) and usage.steps >= MOST_RECORDS
        )

    def put(self, pod: ObservedPod, state: State, clock: float, *, result_may_exist: bool) -> Record:
        """Remember the Pod, which shows this state now. `result_may_exist` is for one that was not known."""
        record = self._records.get(pod.uid)
        if record is None:
            record = self._records[pod.uid] = Record(pod, state, result_may_exist, phase_since=clock)
        else:
            self._remove(record)
        record.on_shown(pod, state, clock)
        self._usage[pod.namespace].add(record)
        if pod.phase is Phase.GATED:
            self._gated[pod.uid] = record
            if isinstance(pod, GatedStep):
                self._group(pod).uids[pod.uid] = pod
        return record

    def drop(self, uid: str) -> Record | None:
        """Forget the Pod, which is gone."""
        record = self._records.pop(uid, None)
        if record is not None:
            self._remove(record)
            record.on_gone()
        return record

    @property
    def caches(self) -> Collection[Cache]:
        """Namespace and name of every cache that gated Pods look into, now and whenever it is asked."""
        return _Caches(self._waiting)

    @property
    def caches_of(self) -> Mapping[str, Collection[str]]:
        """The same by Namespace."""
        return self._waiting

    def data_keys(self, namespace: str, cache: str) -> KeysView[str]:
        """Those of the entries that gated Pods look for in this cache."""
        return self._waiting.get(namespace, {}).get(cache, {}).keys()

    def groups(self, namespace: str, cache: str, data_key: str) -> Collection[_Group]:
        """The gated Pods that look for this entry."""
        return self._waiting.get(namespace, {}).get(cache, {}).get(data_key, {}).values()

    def _group(self, pod: GatedStep) -> _Group:
        of_cache = self._waiting.setdefault(pod.namespace, {}).setdefault(pod.key.cache, {})
        return of_cache.setdefault(pod.key.data_key, {}).setdefault(pod.step.max_age, _Group())

    def _remove(self, record: Record) -> None:
        pod, usage = record.pod, self._usage[record.pod.namespace]
        usage.add(record, -1)
        if not usage.steps and not usage.bytes:
            del self._usage[pod.namespace]
        if pod.phase is not Phase.GATED:
            return
        del self._gated[pod.uid]
        if not isinstance(pod, GatedStep):
            return
        group = self._group(pod)
        group.uids.pop(pod.uid, None)
        if not group.uids:
            of_namespace = self._waiting[pod.namespace]
            of_cache = of_namespace[pod.key.cache]
            of_entry = of_cache[pod.key.data_key]
            del of_entry[pod.step.max_age]
            if not of_entry:
                del of_cache[pod.key.data_key]
            if not of_cache:
                del of_namespace[pod.key.cache]
            if not of_namespace:
                del self._waiting[pod.namespace]
