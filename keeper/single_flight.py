"""Single flight: of equal steps one runs, and the others wait for its entry. A table, and nothing else.

A leader is a Pod that runs, or was told to, and whose outputs will be stored. It waits for no follower:
since its Pod exists, it has every lock, every slot of `parallelism` and every quota that Argo and Kubernetes
ask for before there is a Pod; and its followers, unscheduled, use no node. Whatever else may keep a leader,
each follower has a limit of its own.

Nothing is taken for granted: a leader is forgotten with its Pod, and a key whose leader stored nothing, or
nothing that answers its followers, is not shared for a while. A key that always fails would otherwise run a
thousand steps one after the other.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from keeper.marks import ExpiringSet
from keeper.steppods import GatedStep, Key, Phase
from memoize.entry import Entry, Hit, Miss
from memoize.outcome import Outcome
from memoize.reasons import Reason

BLOCKED = timedelta(minutes=5)
"""How long a key is not shared after a leader of it stored nothing of use."""
STORED_GRACE = timedelta(seconds=2)
"""How long an entry that was stored may take to be seen."""
ORDER_GRACE = timedelta(seconds=2)
"""How long the oldest of equal Pods has, once nobody leads, before a younger one leads: no Pod may depend on
another's being asked."""
_NEVER = datetime.max.replace(tzinfo=UTC)


class Complete(NamedTuple):
    """Answer the Pod with this entry."""

    entry: Entry


class Release(NamedTuple):
    """Let the Pod run, labelled `GatedStep.released_as`; `outcome` says why."""

    outcome: Outcome


class Wait(NamedTuple):
    """Leave the Pod held, and ask again at `until` at the latest: always after the `now` of the question."""

    until: datetime


Turn = Complete | Release | Wait


@dataclass(slots=True)
class _Held:
    """A Pod that waits. `limit`: its latest moment. `since`: when it was first undecidable, without a break.

    `answer_due`: an entry was stored while it waited, and should answer it by then. `followed`: it was told
    to wait for an equal step. `told`: it was told to run, and stays so: a request that lets it run may be on
    its way, and a running step must not be answered.
    """

    pod: GatedStep
    limit: datetime
    since: datetime | None = None
    answer_due: datetime | None = None
    followed: bool = False
    told: Release | None = None

    @property
    def order(self) -> tuple[datetime, str]:
        return self.pod.created_at, self.pod.uid

    @property
    def may_lead(self) -> bool:
        return self.pod.leads and self.since is None and self.told is None


@dataclass(slots=True)
class _Flight:
    """The Pods of one key. `free`: since when it is known that nobody leads."""

    held: dict[str, _Held] = field(default_factory=dict)
    leaders: set[str] = field(default_factory=set)
    free: datetime | None = None

    def in_order(self) -> tuple[str, ...]:
        return tuple(held.pod.uid for held in sorted(self.held.values(), key=lambda held: held.order))


class SingleFlight:
    """Who leads, who follows, and what to do with a held Pod.

    `see`, `gone`, `stored` and `failed` return the UIDs of the held Pods whose turn may have changed, the
    oldest first: `turn` is to be asked for each of them now. All `now` are aware.
    """

    def __init__(
        self,
        *,
        hold_timeout: timedelta = timedelta(seconds=30),
        follow_timeout: timedelta = timedelta(minutes=10),
        most_followers: int = 1000,
    ) -> None:
        """A Pod waits for its look-up up to `hold_timeout`, for an equal step up to `follow_timeout`.

        `most_followers` is how many of one Namespace may wait for equal steps.
        """
        self._hold_timeout, self._follow_timeout = hold_timeout, follow_timeout
        self._most_followers = most_followers
        self._flights: dict[Key, _Flight] = {}
        self._keys: dict[str, Key] = {}
        """Of every Pod that was seen, and is not gone."""
        self._settled: set[str] = set()
        """Leaders whose end is known, while their Pods are still there."""
        self._blocked = ExpiringSet(BLOCKED)
        self._stored = ExpiringSet(STORED_GRACE)
        self._followers: Counter[str] = Counter()

    def see(self, pod: GatedStep, now: datetime) -> Sequence[str]:
        """The Pod as it is now; in any order after a restart, and as often as it is told."""
        if self._keys.get(pod.uid, pod.key) != pod.key:  # somebody rewrote its metadata
            return (*self.gone(pod.uid, now), *self.see(pod, now))
        if pod.phase is Phase.GATED and pod.deleting:
            return self.gone(pod.uid, now)
        self._keys[pod.uid] = pod.key
        if pod.phase is Phase.GATED:
            return self._see_held(pod)
        self._unhold(pod.key, pod.uid)
        if not pod.leads or (pod.deleting and pod.phase is Phase.RUNNING):
            return self.failed(pod.uid, now)
        if pod.uid not in self._settled:
            self._lead(pod)
        return ()

    def gone(self, uid: str, now: datetime) -> Sequence[str]:
        """The Pod is deleted, or not tended any more.

        A leader that is gone before its end was told has failed: tell of its end first.
        """
        key = self._keys.get(uid)
        if key is None:
            return ()
        self._unhold(key, uid)
        asked = self.failed(uid, now)
        self._settled.discard(uid)
        del self._keys[uid]
        return asked

    def stored(self, uid: str, now: datetime) -> Sequence[str]:
        """Say that the outputs of this Pod are in the cache now."""
        key = self._settle(uid)
        if key is None:
            return ()
        self._stored.add(key, now)
        flight = self._flights.get(key, _Flight())
        for held in flight.held.values():
            held.answer_due = now + STORED_GRACE
        return flight.in_order()

    def failed(self, uid: str, now: datetime) -> Sequence[str]:
        """Nothing will be stored of this Pod, which is over or will be."""
        key = self._settle(uid)
        return self._block(key, now) if key is not None else ()

    def turn(self, pod: GatedStep, known: Hit | Miss | None, now: datetime) -> Turn | None:
        """What to do with a Pod that was seen; None: nothing, it is not held or is being deleted.

        `known` is what look_up says of its entry, None where that cannot be told now. Ask again where what
        was to be done could not be done.
        """
        flight = self._flights.get(pod.key)
        held = flight.held.get(pod.uid) if flight is not None else None
        if flight is None or held is None:
            return None
        if held.told is not None:
            return held.told
        decided = self._decide(flight, held, known, now)
        if isinstance(decided, Release):
            held.told = decided
            if pod.leads:
                self._lead(pod)
        return decided

    def _decide(self, flight: _Flight, held: _Held, known: Hit | Miss | None, now: datetime) -> Turn:
        if known is None:
            return self._undecided(held, now)
        held.since = None
        if isinstance(known, Hit):
            held.answer_due = None
            return Complete(known.entry)
        run = Release(Outcome(known.reason, known.detail))
        if not held.pod.note.share:
            return run
        key = held.pod.key
        if held.answer_due is not None and now >= held.answer_due:
            self._block(key, now)  # equal steps store what does not answer this one
        if self._blocked.until(key, now) is not None:
            return Release(Outcome(Reason.SHARED_RUN_FAILED)) if held.followed else run
        if held.answer_due is not None:
            return self._follow(held, held.answer_due, run, now)
        if flight.leaders:
            return self._follow(held, held.limit, run, now)
        if (due := self._stored.until(key, now)) is not None:
            return self._follow(held, due, run, now)
        flight.free = flight.free or now
        if self._is_preceded(flight, held) and now < flight.free + ORDER_GRACE:
            return self._follow(held, flight.free + ORDER_GRACE, run, now)
        return run

    def _undecided(self, held: _Held, now: datetime) -> Release | Wait:
        held.since = held.since or now
        until = min(held.limit, held.since + self._hold_timeout)
        if now >= until:
            return Release(Outcome(Reason.UNDECIDED, "its entry could not be looked up"))
        return Wait(until)

    def _is_preceded(self, flight: _Flight, held: _Held) -> bool:
        """Whether another held Pod is to lead rather than this one."""
        return any(
            other.may_lead and (not held.may_lead or other.order < held.order)
            for other in flight.held.values()
            if other is not held
        )

    def _follow(self, held: _Held, until: datetime, run: Release, now: datetime) -> Release | Wait:
        """Wait for an equal step until then; `run` where too many do."""
        until = min(until, held.limit)
        if now >= until:
            return Release(Outcome(Reason.SHARED_RUN_TIMEOUT))
        if not held.followed:
            namespace = held.pod.namespace
            if self._followers[namespace] >= self._most_followers:
                return Release(run.outcome._replace(detail="too many steps of its Namespace wait already"))
            held.followed = True
            self._followers[namespace] += 1
        return Wait(until)

    def _see_held(self, pod: GatedStep) -> Sequence[str]:
        held = self._flights.setdefault(pod.key, _Flight()).held
        limit = self._limit(pod)
        if pod.uid in held:
            held[pod.uid].pod, held[pod.uid].limit = pod, limit
        else:
            held[pod.uid] = _Held(pod, limit)
        return (pod.uid,)

    def _limit(self, pod: GatedStep) -> datetime:
        try:
            longest = pod.created_at + self._follow_timeout
        except OverflowError:
            longest = _NEVER
        return min(longest, pod.until or longest)

    def _unhold(self, key: Key, uid: str) -> None:
        flight = self._flights.get(key)
        held = flight.held.pop(uid, None) if flight is not None else None
        if held is not None and held.followed:
            namespace = held.pod.namespace
            self._followers[namespace] -= 1
            if not self._followers[namespace]:
                del self._followers[namespace]
        self._tidy(key)

    def _lead(self, pod: GatedStep) -> None:
        flight = self._flights.setdefault(pod.key, _Flight())
        flight.leaders.add(pod.uid)
        flight.free = None

    def _settle(self, uid: str) -> Key | None:
        """Take the lead from this Pod; None where it had none."""
        key = self._keys.get(uid)
        flight = self._flights.get(key) if key is not None else None
        if key is None or flight is None or uid not in flight.leaders:
            return None
        flight.leaders.remove(uid)
        self._settled.add(uid)
        self._tidy(key)
        return key

    def _block(self, key: Key, now: datetime) -> Sequence[str]:
        """Let all who wait run, and who comes next as well."""
        self._blocked.add(key, now)
        flight = self._flights.get(key, _Flight())
        for held in flight.held.values():
            held.answer_due = None
        return flight.in_order()

    def _tidy(self, key: Key) -> None:
        flight = self._flights.get(key)
        if flight is not None and not flight.held and not flight.leaders:
            del self._flights[key]
