"""The keeper: decides held Pods, and stores what watched ones leave.

    watched Pods ─┐
    told caches ──┼─► queue (each Pod once) ─► slots, while this process holds the Lease ─► tending
    timers ───────┘

Nothing polls the API server. Every Pod is decided from what it holds, so a keeper that starts anew goes on
where the last one was killed. What cannot be done is tried again with longer and longer pauses, for as long
as the Pod is there; a held Pod that could not be answered for `hold_timeout` seconds is to run, and that is
tried for ever.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes_asyncio.client import ApiClient

from keeper import capture, pod_watch, steppods
from keeper.actions import Actions
from keeper.breaker import Breaker
from keeper.cache.last_hit import Hits
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.capture import Capture
from keeper.reconcile import Tools, give_up, refusal, tend
from keeper.requests import Requests
from keeper.single_flight import SingleFlight
from keeper.state import FinalLabel, Record, Records, Trouble
from keeper.steppods import GatedStep, InjectedPod, Phase
from kube.errors import ApiError
from kube.leader_election import Lease
from kube.reflector import WATCH_IDLE_TIMEOUT
from kube.workqueue import RateLimiter, WorkQueue
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.lookups import Lookups
from server.metrics import Metrics

_log = logging.getLogger(__name__)

TRUSTED = 10.0
"""Seconds beyond those that a reflector itself waits for a word, after which it is taken to be stuck."""
STUCK = 5.0
"""Seconds without progress after which nothing new is held …"""
HOPELESS = 15.0
"""… and after which the Lease is not renewed: another replica may do better."""
PATIENCE = 120.0
"""Seconds that storing a step's outputs is tried; what reports them goes with its workflow."""
_BEAT = 0.5
"""Seconds between two signs of life of a keeper that has nothing to do."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
"""Seconds between tries."""
_LONGEST_WISH = 60.0
"""Seconds of a Retry-After that are heeded."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """How held Pods are kept. Times are in seconds; no `namespaces` means all.

    `lease_namespace` and `lease` name the Lease of all replicas. `requests` a second are sent at most, by
    `at_once` pieces of work side by side.
    """

    lease_namespace: str
    lease: str = "stepmemo-keeper"
    namespaces: Sequence[str] = ()
    hold_timeout: float = 30.0
    follow_timeout: float = 600.0
    most_followers: int = 1000
    requests: float = 200.0
    at_once: int = 16


class Keeper:
    """One replica's keeper; those of all replicas may run, and the one that holds the Lease acts.

    `identity` is of this process alone. `clock` counts seconds, `now` is aware.
    """

    def __init__(
        self,
        api: ApiClient,
        view: View,
        writer: Writer,
        lookups: Lookups,
        events: Events,
        hits: Hits,
        metrics: Metrics,
        breaker: Breaker,
        settings: KeeperSettings,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._view, self._metrics, self._breaker = view, metrics, breaker
        self._settings, self._clock, self._now = settings, clock, now
        self._records, self._queue = Records(), WorkQueue()
        self._leaving: dict[str, Record] = {}
        """Pods that are not tended any more, and may have a result of ours beside them."""
        self._progress = clock()
        self._acted = False
        requests = Requests(api, RateLimiter(settings.requests, clock))
        self._lease = Lease(
            api, settings.lease_namespace, settings.lease, identity, may_lead=self._is_fit, clock=clock
        )
        self._flights = SingleFlight(
            hold_timeout=timedelta(seconds=settings.hold_timeout),
            follow_timeout=timedelta(seconds=settings.follow_timeout),
            most_followers=settings.most_followers,
        )
        self._tools = Tools(
            Actions(requests, now),
            Capture(requests, view, writer, now),
            self._flights,
            view,
            lookups,
            events,
            hits,
            metrics,
            self._again,
            clock,
            now,
        )
        self._reflectors = pod_watch.reflectors(
            api, settings.namespaces, self.see, self.gone, synced=self._lease.check_now, clock=clock
        )
        view.subscribe(self._told)

    @property
    def ready(self) -> bool:
        """Whether a Pod that is held now will be decided soon: here, or by the replica that acts."""
        now = self._clock()
        return (
            self._view.in_sync
            and now < self._view.heard + WATCH_IDLE_TIMEOUT + TRUSTED
            and all(one.in_sync and now < one.heard + pod_watch.SILENCE + TRUSTED for one in self._reflectors)
            and now < self._progress + STUCK
            and self._lease.has_leader
        )

    async def run(self) -> None:
        """Keep for ever; when cancelled, leave the Lease to another replica."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            group.create_task(self._lease.run())
            group.create_task(self._work())

    # --- What happens ---------------------------------------------------------------------------------

    def see(self, pod: Json, *, new: bool) -> str:
        """Take note of a Pod as it is now; its uid. `new`: it was made a moment ago."""
        uid = str((pod.get("metadata") or {}).get("uid", ""))
        found = steppods.read(pod)
        if found is None:
            self.gone(uid)
            return uid
        record = self._records.put(found, doubtful=not (new and self._may_act()))
        if record.settled and found.phase is Phase.GATED:
            record.settled, record.released = False, record.released or Outcome(Reason.UNDECIDED)
            self._queue.add(uid)  # it is held again, or still: let it run
        if isinstance(found, InjectedPod):
            self._breaker.see(pod)
        if found.phase is Phase.OVER:
            if isinstance(found, InjectedPod):
                record.said = FinalLabel(*capture.inside(pod))
            elif isinstance(found, GatedStep):
                record.end = capture.ended(pod, found.declared, found.step.deadline)
            # What a step reported goes with its workflow, so there is no time to lose.
            self._queue.add(uid, urgent=True)
        elif record.unfinished or (found.phase is Phase.GATED and not isinstance(found, GatedStep)):
            self._queue.add(uid)
        if isinstance(found, GatedStep):
            self._again(self._flights.see(found, self._now()))
        return uid

    def gone(self, uid: str) -> None:
        """Forget a Pod that is deleted, or labelled with a last word."""
        record = self._records.drop(uid)
        self._queue.cancel(uid)
        if record is not None and record.unfinished:
            self._leave(record)
        self._breaker.gone(uid)
        self._again(self._flights.gone(uid, self._now()))

    def _told(self, namespace: str, cache: str) -> None:
        """A cache changed: whose entry it may be looks again, and whoever could not look."""
        for group in self._records.groups(namespace, cache).values():
            anyone = next(iter(group.uids.values()))
            seen = self._view.ask(namespace, cache, anyone.step, self._now())
            changed, group.seen = seen != group.seen, seen
            for uid in group.uids:
                record = self._records.get(uid)
                if changed or (record is not None and record.undecided):
                    self._queue.add(uid)

    def _leave(self, record: Record) -> None:
        """See to it that no result of ours stays beside a Pod that is not answered with it."""
        self._leaving[record.pod.uid] = record
        self._queue.add(record.pod.uid, urgent=True)

    def _again(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._queue.add(uid)

    # --- What is done about it ------------------------------------------------------------------------

    def _is_fit(self) -> bool:
        """Whether this replica may act: it hears of the Pods, and gets on with its work."""
        now = self._clock()
        hears = all(now < one.heard + pod_watch.SILENCE + TRUSTED for one in self._reflectors)
        return hears and now < self._progress + HOPELESS

    async def _work(self) -> None:
        """Hand names to workers while this replica may act; others wait in the queue until it may."""
        slots = asyncio.Semaphore(self._settings.at_once)
        async with asyncio.TaskGroup() as workers:
            while True:
                self._progress = self._clock()
                self._metrics.held(self._records.held)
                if not self._may_act():
                    await asyncio.sleep(_BEAT)
                    continue
                await slots.acquire()
                try:
                    async with asyncio.timeout(_BEAT):
                        uid = await self._queue.take()
                except TimeoutError:
                    slots.release()
                else:
                    workers.create_task(self._turn(uid, slots))

    def _may_act(self) -> bool:
        """Whether the Lease is ours. Who just got it looks at every Pod: timers were not heeded."""
        acts = self._lease.is_leader
        if acts and not self._acted:
            for record in self._records:
                record.doubtful = True  # whoever acted before may have posted for it
                self._queue.add(record.pod.uid)
        self._acted = acts
        return acts

    async def _turn(self, uid: str, slots: asyncio.Semaphore) -> None:
        record = self._leaving.pop(uid, None) or self._records.get(uid)
        try:
            if record is None or not (self._lease.is_leader or record.unfinished):
                return
            wait = await tend(record, self._tools)
            record.trouble = None
            if record.unfinished:
                self._leave(record)  # it left the hold while it was being answered
            elif wait is not None and not record.gone:
                self._queue.add_later(uid, wait)
        except Exception as error:
            self._failed(record, error)
        finally:
            self._queue.done(uid)
            slots.release()

    def _failed(self, record: Record | None, error: Exception) -> None:
        """Say what went wrong, and try again later; or something else, if it has been tried for long."""
        if record is None or (record.gone and not record.unfinished):
            return  # what was tried for the Pod is gone with it
        if record.gone:
            self._leaving[record.pod.uid] = record
        outcome = refusal(error)
        trouble = record.trouble = record.trouble or Trouble(self._clock())
        held = record.pod.phase is Phase.GATED
        if self._clock() - trouble.first >= (self._settings.hold_timeout if held else PATIENCE):
            give_up(record, outcome, self._tools)
        pause = min(_FIRST_PAUSE * 2**trouble.count, _LONGEST_PAUSE) * random.uniform(0.5, 1)
        trouble.count = min(trouble.count + 1, 10)
        wish = error.retry_after if isinstance(error, ApiError) else 0.0
        wait = max(pause, min(wish, _LONGEST_WISH))
        self._queue.add_later(record.pod.uid, wait, urgent=not held)
        told = fields(
            namespace=record.pod.namespace, pod=record.pod.name, reason=outcome.reason, error=outcome.detail
        )
        bug = error if outcome.reason is Reason.INTERNAL_ERROR else None
        _log.warning(
            "cannot do what is to be done for a %s Pod", record.pod.phase.value, exc_info=bug, extra=told
        )
