"""Single flight: of equal steps one runs, and the others wait for its entry. A table, and nothing else.

A runner is a Pod that runs, or is to run, and whose outputs will be stored. It does not depend on those that
wait for it: since its Pod exists, it has every lock, every slot of `parallelism` and every quota that Argo
and Kubernetes ask for before there is a Pod; and the waiters, unscheduled, use no node. Whatever else may
delay a runner, each waiter has a limit of its own.

Nothing is taken for granted: a runner is forgotten with its Pod, and a key whose runner stored nothing, or
nothing that answers its waiters, is not shared for a while. A key that always fails would otherwise run a
thousand steps one after the other.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from keeper.expiring_set import ExpiringSet
from keeper.steppods import GatedStep, Key, Phase
from memoize.entry import Entry, Hit, Miss
from memoize.outcome import Outcome
from memoize.reasons import Reason

BLOCKED = timedelta(minutes=5)
"""How long a key is not shared after a runner of it stored nothing of use."""
STORED_GRACE = timedelta(seconds=2)
"""How long an entry that was stored may take to be seen."""
ORDER_GRACE = timedelta(seconds=2)
"""How long the oldest of equal Pods has, once there is no runner, before a younger one becomes it: no Pod may
depend on another's being reconciled."""


class Complete(NamedTuple):
    """Answer the Pod with this entry."""

    entry: Entry


class Release(NamedTuple):
    """Let the Pod run, labelled `GatedStep.label_when_released`; `outcome` says why."""

    outcome: Outcome
    asked: tuple[str, ...] = ()
    """The UIDs of other gated Pods that may be decided otherwise now, as of the callbacks `on_…`."""


class Wait(NamedTuple):
    """Leave the Pod gated, and ask again at `until` at the latest: always after the `now` of the question."""

    until: datetime


Decision = Complete | Release | Wait


@dataclass(slots=True)
class _Waiter:
    """A gated Pod."""

    pod: GatedStep
    seen: datetime
    """When this table first heard of it."""
    limit: datetime
    """The latest moment to wait for an equal step."""
    since: datetime | None = None
    """When it was first found undecidable, without a break."""
    answer_due: datetime | None = None
    """An entry was stored while it was gated, and should answer it by then."""
    waited: bool = False
    """It was decided once that it waits for an equal step."""
    release: Release | None = None
    """It was decided to let it run. That stays so: a request that lets it run may be on its way, and a
    running step must not be answered."""

    @property
    def order(self) -> tuple[datetime, str]:
        return self.pod.created_at, self.pod.uid

    @property
    def may_run_first(self) -> bool:
        return self.pod.may_run_for_others and self.since is None and self.release is None


@dataclass(slots=True)
class _Flight:
    """The Pods of one key."""

    waiting: dict[str, _Waiter] = field(default_factory=dict)
    runners: set[str] = field(default_factory=set)
    free: datetime | None = None
    """Since when it is known that there is no runner."""
    _by_age: list[tuple[datetime, str]] = field(default_factory=list)
    """A heap of those that may run first, and of some that may not any more."""

    def note(self, waiter: _Waiter) -> None:
        """The Pod waits here, and may be one to run first from now on."""
        if waiter.may_run_first:
            heappush(self._by_age, waiter.order)
        if len(self._by_age) > 2 * len(self.waiting) + 16:
            self._by_age = [one.order for one in self.waiting.values() if one.may_run_first]
            heapify(self._by_age)

    def is_preceded(self, waiter: _Waiter) -> bool:
        """Whether another gated Pod is to run rather than this one."""
        while self._by_age:
            first = self.waiting.get(self._by_age[0][1])
            if first is not None and first.may_run_first:
                return first is not waiter
            heappop(self._by_age)
        return False

    def in_order(self) -> tuple[str, ...]:
        return tuple(
            waiter.pod.uid for waiter in sorted(self.waiting.values(), key=lambda waiter: waiter.order)
        )


class SingleFlight:
    """Which Pod runs, which wait for it, and what to do with a gated Pod.

    The callbacks `on_…` return the UIDs of the gated Pods that may be decided otherwise now, the oldest
    first: `decide` is to be called for each of them. All `now` are aware.
    """

    def __init__(
        self,
        *,
        gate_timeout: timedelta = timedelta(seconds=30),
        timeout: timedelta = timedelta(minutes=10),
        max_waiters: Callable[[str], int] = lambda namespace: 1000,
    ) -> None:
        """A Pod waits for its look-up up to `gate_timeout`, for an equal step up to `timeout`.

        `max_waiters` says how many of a Namespace may wait for equal steps.
        """
        self._gate_timeout, self._timeout = gate_timeout, timeout
        self._max_waiters = max_waiters
        self._flights: dict[Key, _Flight] = {}
        self._keys: dict[str, Key] = {}
        """Of every Pod that was seen, and is not gone."""
        self._ended: set[str] = set()
        """Runners whose end is known, while their Pods are still there."""
        self._blocked = ExpiringSet(BLOCKED)
        self._stored = ExpiringSet(STORED_GRACE)
        self._waiters: Counter[str] = Counter()

    def on_pod(self, pod: GatedStep, now: datetime) -> Sequence[str]:
        """The Pod as it is now; in any order after a restart, and as often as you like."""
        if self._keys.get(pod.uid, pod.key) != pod.key:  # somebody rewrote its metadata
            return (*self.on_deleted(pod.uid, now), *self.on_pod(pod, now))
        if pod.phase is Phase.GATED and pod.deleting:
            return self.on_deleted(pod.uid, now)
        is_new = pod.uid not in self._keys
        self._keys[pod.uid] = pod.key
        # A keeper before this one blocked the key, when is not known; once, or events would keep it so.
        asked = self._block(pod.key, now) if is_new and _shows_a_block(pod) else ()
        # Announced to run, it is a runner though it is gated: to a keeper that comes after that one, too.
        if pod.phase is Phase.GATED and pod.release_reason is None:
            return (*asked, *self._put_waiting(pod, now))
        self._remove_waiting(pod.key, pod.uid)
        if not pod.may_run_for_others or (pod.deleting and pod.phase is Phase.RUNNING):
            return (*asked, *self.on_failed(pod.uid, now))
        if pod.uid not in self._ended:
            self._add_runner(pod)
        return asked

    def on_deleted(self, uid: str, now: datetime) -> Sequence[str]:
        """The Pod is deleted, or has a final label.

        A runner that is gone before its end is known has failed: call `on_stored` first.
        """
        key = self._keys.get(uid)
        if key is None:
            return ()
        self._remove_waiting(key, uid)
        asked = self.on_failed(uid, now)
        self._ended.discard(uid)
        del self._keys[uid]
        return asked

    def on_stored(self, uid: str, now: datetime) -> Sequence[str]:
        """The outputs of this Pod are in the cache now."""
        key = self._end(uid)
        if key is None:
            return ()
        self._stored.add(key, now)
        flight = self._flights.get(key, _Flight())
        for waiter in flight.waiting.values():
            waiter.answer_due = now + STORED_GRACE
        return flight.in_order()

    def on_failed(self, uid: str, now: datetime) -> Sequence[str]:
        """Nothing will be stored of this Pod, which is over or will be."""
        key = self._end(uid)
        return self._block(key, now) if key is not None else ()

    def has_waited(self, uid: str) -> bool:
        """Whether this gated Pod waits, or waited, for the end of an equal step."""
        flight = self._flights.get(self._keys[uid]) if uid in self._keys else None
        waiter = flight.waiting.get(uid) if flight is not None else None
        return waiter is not None and waiter.waited

    def decide(self, pod: GatedStep, found: Hit | Miss | None, now: datetime) -> Decision | None:
        """What to do with a Pod that was seen; None: nothing, it waits no more or is being deleted.

        `found` is what look_up says of its entry, None where that cannot be told now. Ask again where what
        was to be done could not be done.
        """
        flight = self._flights.get(pod.key)
        waiter = flight.waiting.get(pod.uid) if flight is not None else None
        if flight is None or waiter is None:
            return None
        if waiter.release is not None:
            return waiter.release
        decided = self._decide(flight, waiter, found, now)
        if isinstance(decided, Release):
            waiter.release = decided._replace(asked=())
            if pod.may_run_for_others:
                self._add_runner(pod)
        return decided

    def _decide(self, flight: _Flight, waiter: _Waiter, found: Hit | Miss | None, now: datetime) -> Decision:
        if found is None:
            return self._undecided(waiter, now)
        if waiter.since is not None:
            waiter.since = None
            flight.note(waiter)
        if isinstance(found, Hit):
            waiter.answer_due = None
            return Complete(found.entry)
        run = Release(Outcome(found.reason, found.detail))
        if not waiter.pod.plan.share or found.reason is Reason.STORE_UNAVAILABLE:
            return run  # what an equal step reports may be long in coming, or never come
        key = waiter.pod.key
        asked: Sequence[str] = ()
        if waiter.answer_due is not None and now >= waiter.answer_due:
            asked = self._block(key, now)  # equal steps store what does not answer this one
        if self._blocked.until(key, now) is not None:
            released = Release(Outcome(Reason.SHARED_RUN_FAILED)) if waiter.waited else run
            return released._replace(asked=tuple(uid for uid in asked if uid != waiter.pod.uid))
        if waiter.answer_due is not None:
            return self._wait(waiter, waiter.answer_due, run, now)
        if flight.runners:
            return self._wait(waiter, waiter.limit, run, now)
        if (due := self._stored.until(key, now)) is not None:
            return self._wait(waiter, due, run, now)
        flight.free = flight.free or now
        if flight.is_preceded(waiter) and now < flight.free + ORDER_GRACE:
            return self._wait(waiter, flight.free + ORDER_GRACE, run, now)
        return run

    def _undecided(self, waiter: _Waiter, now: datetime) -> Release | Wait:
        waiter.since = waiter.since or now
        until = min(waiter.limit, waiter.since + self._gate_timeout)
        if now >= until:
            return Release(Outcome(Reason.UNDECIDED, "its entry could not be looked up"))
        return Wait(until)

    def _wait(self, waiter: _Waiter, until: datetime, run: Release, now: datetime) -> Release | Wait:
        """Wait for an equal step until then; `run` where too many do."""
        until = min(until, waiter.limit)
        if now >= until:
            return Release(Outcome(Reason.SHARED_RUN_TIMEOUT))
        if not waiter.waited:
            namespace = waiter.pod.namespace
            if self._waiters[namespace] >= self._max_waiters(namespace):
                return Release(run.outcome._replace(detail="too many steps of its Namespace wait already"))
            waiter.waited = True
            self._waiters[namespace] += 1
        return Wait(until)

    def _put_waiting(self, pod: GatedStep, now: datetime) -> Sequence[str]:
        flight = self._flights.setdefault(pod.key, _Flight())
        waiter = flight.waiting.setdefault(pod.uid, _Waiter(pod, seen=now, limit=now))
        waiter.pod, waiter.limit = pod, self._limit(pod, waiter.seen)
        flight.note(waiter)
        return (pod.uid,)

    def _limit(self, pod: GatedStep, seen: datetime) -> datetime:
        """The API server's clock says when the Pod was made, and ours may be behind it."""
        return min(pod.created_at, seen) + min(self._timeout, pod.until - pod.created_at)

    def _remove_waiting(self, key: Key, uid: str) -> None:
        flight = self._flights.get(key)
        waiter = flight.waiting.pop(uid, None) if flight is not None else None
        if waiter is not None and waiter.waited:
            namespace = waiter.pod.namespace
            self._waiters[namespace] -= 1
            if not self._waiters[namespace]:
                del self._waiters[namespace]
        self._tidy(key)

    def _add_runner(self, pod: GatedStep) -> None:
        flight = self._flights.setdefault(pod.key, _Flight())
        flight.runners.add(pod.uid)
        flight.free = None

    def _end(self, uid: str) -> Key | None:
        """The Pod is no runner any more; its key, None where it was none."""
        key = self._keys.get(uid)
        flight = self._flights.get(key) if key is not None else None
        if key is None or flight is None or uid not in flight.runners:
            return None
        flight.runners.remove(uid)
        self._ended.add(uid)
        self._tidy(key)
        return key

    def _block(self, key: Key, now: datetime) -> Sequence[str]:
        """Let all who wait run, and who comes next as well."""
        known = self._blocked.until(key, now) is not None
        self._blocked.add(key, now)
        if known:
            return ()  # whoever waits has been asked since, and nobody is told to wait while it is blocked
        flight = self._flights.get(key, _Flight())
        for waiter in flight.waiting.values():
            waiter.answer_due = None
        return flight.in_order()

    def _tidy(self, key: Key) -> None:
        flight = self._flights.get(key)
        if flight is not None and not flight.waiting and not flight.runners:
            del self._flights[key]


def _shows_a_block(pod: GatedStep) -> bool:
    """Whether a Pod that is not over was let run since a runner of its key stored nothing."""
    reason = pod.release_reason
    return pod.phase is not Phase.OVER and reason is not None and reason.reason is Reason.SHARED_RUN_FAILED
