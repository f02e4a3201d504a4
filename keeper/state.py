"""What the keeper remembers of each Pod that it tends, and which of them wait for what.

All of it can be read anew from the API server: it spares requests, and nothing is wrong without it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from keeper.capture import End
from keeper.steppods import GatedStep, ObservedPod, Phase
from keeper.task_results import Posted
from memoize.entry import Entry
from memoize.keeper_status import Known
from memoize.outcome import Outcome


class Answer(NamedTuple):
    """An answer that was posted: entry, its text, our result, and when the Pod may succeed (`clock()`)."""

    entry: Entry
    text: str
    posted: Posted
    due: float


class FinalLabel(NamedTuple):
    """The last word on a Pod that is over: its label, and why."""

    label: str
    outcome: Outcome


@dataclass(slots=True)
class Trouble:
    """What could not be done since `first` (`clock()`), `count` times."""

    first: float
    count: int = 0


@dataclass(slots=True)
class Record:
    """One Pod, as it was last told, and how far it has come.

    `known`: what it was when it last could be decided, which an edit may have made a InvalidStep of since.
    `end`: how its step ended, once it is over; `said`: the same, as containers of ours inside it tell.
    `doubtful`: a result of ours may be there or on its way. `undecided`: its entry could not be looked up.
    `released`: it is to run, and why; that is final. `settled`: as a held Pod it is done with, and the watch
    will say so. `gone`: nobody tends it any more. `word`: it is handled, but for its label.
    """

    pod: ObservedPod
    doubtful: bool
    known: GatedStep | None = None
    end: End | None = None
    said: FinalLabel | None = None
    undecided: bool = False
    answer: Answer | None = None
    released: Outcome | None = None
    settled: bool = False
    gone: bool = False
    word: FinalLabel | None = None
    trouble: Trouble | None = None

    @property
    def left(self) -> bool:
        """Whether somebody let the Pod run, or labelled it otherwise, or deleted it."""
        return self.gone or self.pod.phase is not Phase.GATED

    @property
    def unfinished(self) -> bool:
        """Whether our result may stand beside a Pod that is not to be answered with it any more."""
        return self.left and self.answer is not None and not self.settled


class Waiting(NamedTuple):
    """Held Pods that look for their entry in the same way."""

    place: str
    max_age: str


@dataclass(slots=True)
class _Group:
    uids: dict[str, GatedStep] = field(default_factory=dict)
    seen: tuple[Known, str] | None = None


class Records:
    """The records by uid, and the held Pods by the cache that they look into."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._waiting: dict[tuple[str, str], dict[Waiting, _Group]] = {}
        self.held = 0
        """How many Pods are held."""

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def get(self, uid: str) -> Record | None:
        """The Pod's record; None for one that is not tended."""
        return self._records.get(uid)

    def put(self, pod: ObservedPod, doubtful: bool) -> Record:
        """Remember the Pod as it is now. `doubtful` is for one that was not known before."""
        record = self._records.get(pod.uid)
        if record is None:
            record = self._records[pod.uid] = Record(pod, doubtful)
        else:
            self._unhold(record.pod)
            record.pod = pod
        if isinstance(pod, GatedStep):
            record.known = pod
        if pod.phase is Phase.GATED:
            self.held += 1
            if isinstance(pod, GatedStep):
                self._group(pod).uids[pod.uid] = pod
        return record

    def drop(self, uid: str) -> Record | None:
        """Forget the Pod."""
        record = self._records.pop(uid, None)
        if record is not None:
            self._unhold(record.pod)
            record.gone = True
        return record

    def groups(self, namespace: str, cache: str) -> Mapping[Waiting, _Group]:
        """The held Pods that look into this cache."""
        return self._waiting.get((namespace, cache), {})

    def _group(self, pod: GatedStep) -> _Group:
        of_cache = self._waiting.setdefault((pod.namespace, pod.key.cache), {})
        return of_cache.setdefault(Waiting(pod.key.place, pod.step.max_age), _Group())

    def _unhold(self, pod: ObservedPod) -> None:
        if pod.phase is not Phase.GATED:
            return
        self.held -= 1
        if not isinstance(pod, GatedStep):
            return
        group = self._group(pod)
        group.uids.pop(pod.uid, None)
        if not group.uids:
            of_cache = self._waiting[pod.namespace, pod.key.cache]
            del of_cache[Waiting(pod.key.place, pod.step.max_age)]
            if not of_cache:
                del self._waiting[pod.namespace, pod.key.cache]
