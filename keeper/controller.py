"""The keeper: decides gated Pods, and stores the outputs of those that ran.

    Pods    ──┐
    caches  ──┼─► queue (each Pod once) ─► workers, while this process holds the Lease ─► Reconciler
    timers  ──┘

Nothing polls the API server. Every Pod is decided from what it shows, so a keeper that starts anew goes on
where the last one was killed. Namespaces take turns (kube.fair_queue), and each pays for what its turns came
to. What fails is tried again with longer and longer pauses; a gated Pod that could not be answered for
`gate_timeout` seconds is to run, and that is tried for ever.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes_asyncio.client import ApiClient

from keeper import pod_watch, steppods
from keeper.actions import Actions
from keeper.artifacts.verifier import Verifier
from keeper.breaker import Breaker
from keeper.capture import Capture
from keeper.limits import LIMITS, OfNamespace
from keeper.lookup import CacheLookup
from keeper.nudges import Nudges
from keeper.reconcile import Reconciler, as_outcome
from keeper.reporter import Reporter
from keeper.requests import Requests, SpareRequests
from keeper.single_flight import SingleFlight
from keeper.state import (
    Answering,
    Capturing,
    Failures,
    Gated,
    Gone,
    Labelled,
    Labelling,
    Orphaned,
    Orphans,
    Record,
    Records,
    Releasing,
    Running,
    Unlabelled,
    as_shown,
)
from keeper.steppods import GatedStep, InjectedPod, Phase
from keeper.store import Store
from kube.cost import Cost, metered
from kube.errors import TEMPORARY, ApiError
from kube.fair_queue import FairQueue
from kube.leader_election import Lease
from kube.rate_limiter import RateLimiter
from kube.reflector import WATCH_IDLE_TIMEOUT, Reflector
from memoize import names, plan
from memoize.keeper_status import EVERY, KeeperStatus, Namespaces
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.lookups import Lookups
from server.metrics import GatedPod, Metrics, WaitsFor

LEASE = "stepmemo-keeper"
"""The name of the Lease of all replicas, in the keeper's own Namespace."""
BURST = 10.0
"""Seconds' worth of requests that may go at once after a rest: at the default those of a thousand steps that
waited for one. How many are under way at the same time is bounded by the workers, and so is what the API
server notices."""
WATCH_GRACE = 10.0
"""Seconds beyond those that a reflector itself waits for an event, after which it is taken to hang."""
SLOT_SECONDS = 1.0
"""How long a turn may keep others from theirs."""
NOT_READY_AFTER = 5.0
"""Seconds without progress after which no new Pod is gated …"""
YIELD_LEASE_AFTER = 15.0
"""… and after which the Lease is not renewed: another replica may do better."""
STORE_DEADLINE = 120.0
"""Seconds that storing a step's outputs is tried; what reports them goes with its workflow."""
LABEL_DEADLINE = 600.0
"""Seconds that a final label is tried which the API server refuses: log and metrics have said the same."""
ORPHAN_DEADLINE = 3600.0
"""Seconds that it is tried to take an answer back from beside a Pod that is gone, or that another let run."""
_IDLE_TICK = 0.5
"""Seconds between two signs of life of a keeper that has nothing to do."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 300.0
"""Seconds between tries at most: up to the first after the first, then up to twice as many each, up to …"""
_LONGEST_RETRY_AFTER = 60.0
"""Seconds of a Retry-After that are heeded."""

_RECORDS_FULL = Outcome(Reason.RECORDS_FULL, "its Namespace has more step Pods than are remembered of one")
_MANY_ORPHANS = Outcome(Reason.RESULT_NOT_DELETED, "too many of its Namespace are to be taken back")

Json = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """How gated Pods are kept. Times are in seconds."""

    lease_namespace: str
    lease: str = LEASE
    namespaces: Sequence[str] = ()
    """Those whose Pods are kept; none means all."""
    gate_timeout: float = 30.0
    """How long a Pod that cannot be decided stays gated."""
    single_flight_timeout: float = 600.0
    """How long a Pod waits for an equal step."""
    requests_per_second: float = 200.0
    """Requests to the API server that are sent at most; more at once after a rest (BURST)."""
    controllers: tuple[tuple[str, str], ...] | None = None
    """The ConfigMaps of Argo's controllers, by Namespace and name; None: no Workflow is nudged."""
    workers: int = 32
    """Pods that are reconciled side by side; half as many of one Namespace, by its weight. Each waits for
    one request at a time: 16 of them send 160 a second to an API server that takes 100 ms for each."""


class Keeper:
    """One replica's keeper; those of all replicas may run, and the one that holds the Lease acts.

    `identity` is of this process alone. A `verifier` looks for the artifacts of entries. `limits` gives those
    of a Namespace, and must not block. `clock` counts seconds, `now` is aware.
    """

    def __init__(
        self,
        api: ApiClient,
        store: Store,
        lookups: Lookups,
        events: Events,
        metrics: Metrics,
        breaker: Breaker,
        settings: KeeperSettings,
        identity: str,
        verifier: Verifier | None = None,
        *,
        limits: OfNamespace = lambda namespace: LIMITS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._metrics, self._breaker = store, metrics, breaker
        self._settings, self._clock, self._now = settings, clock, now
        self._records = Records()
        self._queue = FairQueue(
            max(1, settings.workers // 2), clock, weight=lambda namespace: limits(namespace).weight
        )
        self._orphans = Orphans()
        self._last_progress = clock()
        self._acted = False
        limiter = RateLimiter(settings.requests_per_second, clock, burst=BURST)
        requests = Requests(api, limiter)
        self._lease = Lease(
            api,
            settings.lease_namespace,
            settings.lease,
            identity,
            may_lead=self._may_lead,
            annotation=names.KEEPER_STATUS,
            says=self._says,
            clock=clock,
        )
        self._single_flight = SingleFlight(
            gate_timeout=timedelta(seconds=settings.gate_timeout),
            timeout=timedelta(seconds=settings.single_flight_timeout),
            max_waiters=lambda namespace: limits(namespace).single_flight_waiters,
        )
        self._nudges = None
        if settings.controllers is not None:
            self._nudges = Nudges(
                SpareRequests(api, limiter),
                lookups,
                settings.controllers,
                lambda: self._lease.is_leader,
                metrics.nudged,
                clock=clock,
                now=now,
            )
        self._reporter = Reporter(metrics, events, now)
        self._reconciler = Reconciler(
            CacheLookup(store, now, verifier).look_up,
            self._single_flight,
            Actions(requests, now),
            Capture(requests, store, now, clock, verifier),
            lookups,
            store,
            self._reporter,
            self._wake,
            self._nudges.on_hit if self._nudges else lambda step: None,
            clock=clock,
            now=now,
        )
        watched = pod_watch.reflectors(
            api,
            settings.namespaces,
            self.on_pod,
            self.on_deleted,
            on_synced=self._lease.check_now,
            clock=clock,
        )
        self._reflectors = dict(zip(settings.namespaces or ("",), watched, strict=True))
        self._search = pod_watch.Search(
            api,
            settings.namespaces,
            self._records,
            self.on_pod,
            self.on_deleted,
            lambda: self._lease.is_leader,
        )
        store.subscribe(self._on_change, self._records)
        if verifier is not None:
            verifier.on_known = self._on_change
        metrics.show_gated(
            self._gated,
            {
                WaitsFor.DECISION: settings.gate_timeout,
                WaitsFor.EQUAL_STEP: settings.single_flight_timeout + settings.gate_timeout,
            },
        )
        metrics.show_work(
            lambda: len(self._queue) if self._acted else 0,
            lambda: self._queue.oldest() if self._acted else 0.0,
            lambda: self._acted and breaker.is_open,
        )

    @property
    def backlogged(self) -> frozenset[str]:
        """The Namespaces of which a Pod waits for its first turn for seconds: one more would wait longer.

        Empty while another replica acts. To be asked about once a second.
        """
        return self._queue.backlogged() if self._acted else frozenset()

    @property
    def ready(self) -> bool:
        """Whether a Pod that is gated now will be decided soon, if this replica acts."""
        now = self._clock()
        return now < self._last_progress + NOT_READY_AFTER and any(
            self._is_in_contact(namespace, now) for namespace in self._reflectors
        )

    @property
    def acts(self) -> bool:
        """Whether this replica is the one that acts."""
        return self._lease.is_leader

    @property
    def status(self) -> KeeperStatus:
        """What admission goes by while this replica acts; each renewal of the Lease carries it."""
        kept = self._settings.namespaces
        return KeeperStatus(
            ready=self.ready,
            # Never `Namespaces.of`, which tells many as all: a Pod that is gated where nobody looks hangs.
            keeps=Namespaces(frozenset(kept)) if kept else EVERY,
            wait_seconds=int(self._settings.single_flight_timeout),
            plans=plan.READS,
            # Where one of several cannot be read, because it is gone or our rights are, the others go on.
            backlogged=Namespaces.of(self.backlogged | self._out_of_contact()),
            stopped=Namespaces.of(self._breaker.stopped),
            trial=Namespaces.of(self._breaker.trial),
            troubled=self._breaker.troubled,
        )

    def _says(self) -> str:
        """The status as text. A bug in it must not end the Lease: then gated Pods would be left to nobody."""
        try:
            return self.status.to_json()
        except Exception:
            _log.exception("cannot say how the keeper is")
            return ""  # nobody is gated, as without a keeper

    def _gated(self) -> Iterator[GatedPod]:
        """The gated Pods, for the metrics; none while another replica acts, or a sum would be twice that."""
        clock, now = self._clock(), self._now()
        for record in self._records.gated if self._acted else ():
            pod, seconds = record.pod, clock - record.phase_since
            if pod.deleting:
                continue  # it waits for nobody but who holds its finalizers
            if isinstance(pod, GatedStep):
                seconds = max(0.0, (now - pod.created_at).total_seconds())
            waits = self._single_flight.has_waited(pod.uid)
            yield GatedPod(pod.namespace, WaitsFor.EQUAL_STEP if waits else WaitsFor.DECISION, seconds)

    async def run(self) -> None:
        """Keep for ever; when cancelled, leave the Lease to another replica."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors.values():
                group.create_task(reflector.run())
            group.create_task(self._search.run())
            group.create_task(self._lease.run())
            group.create_task(self._work())
            if self._nudges:
                group.create_task(self._nudges.run())

    # --- What happens ---------------------------------------------------------------------------------

    def on_pod(self, pod: Json, *, new: bool) -> str:
        """Take note of a Pod as it is now; its uid. `new`: it was made a moment ago."""
        uid = str((pod.get("metadata") or {}).get("uid", ""))
        found = steppods.read(pod)
        if found is None:
            self.on_deleted(uid)
            return uid
        if not self._records.has_room(found):
            found = steppods.without_step(found, _RECORDS_FULL)
        result_may_exist = not (new and self._may_act())
        shown = as_shown(found, pod)
        record = self._records.put(found, shown, self._clock(), result_may_exist=result_may_exist)
        if isinstance(found, InjectedPod):
            self._breaker.on_pod(pod)
        if found.phase is Phase.OVER and not isinstance(record.state, Labelled | Unlabelled):
            # What a step reported goes with its workflow, so there is no time to lose.
            self._enqueue(record, urgent=record.failures is None)
        elif isinstance(record.state, Releasing | Orphaned):
            self._enqueue(record)
        now = self._now()
        if isinstance(found, GatedStep):
            self._wake(self._single_flight.on_pod(found, now))
        else:
            self._wake(self._single_flight.on_deleted(uid, now))
        return uid

    def on_deleted(self, uid: str) -> None:
        """Forget a Pod that is deleted, or has a final label."""
        record = self._records.drop(uid)
        if record is not None:
            self._queue.discard(record.pod.namespace, uid)
            if isinstance(record.state, Orphaned):
                self._keep_orphan(record)
                self._enqueue(record, urgent=True)
        self._breaker.on_deleted(uid)
        self._wake(self._single_flight.on_deleted(uid, self._now()))

    def _keep_orphan(self, record: Record) -> None:
        if not self._orphans.put(record):
            self._reconciler.give_up(record, _MANY_ORPHANS)

    def _on_change(self, namespace: str, cache: str, entries: Mapping[str, Hashable]) -> None:
        """Reconcile the Pods whose entry changed, and those of the entries named that are undecided."""
        for data_key, seen in entries.items():
            for group in self._records.groups(namespace, cache, data_key):
                changed, group.seen = seen != group.seen, seen
                for uid in group.uids:
                    record = self._records.get(uid)
                    if record is not None and (changed or record.undecided):
                        self._enqueue(record)

    def _wake(self, uids: Iterable[str]) -> None:
        for uid in uids:
            if (record := self._records.get(uid)) is not None:
                self._enqueue(record)

    def _enqueue(self, record: Record, *, urgent: bool = False) -> None:
        self._queue.add(record.pod.namespace, record.pod.uid, urgent=urgent, untried=not record.tried)

    # --- What is done about it ------------------------------------------------------------------------

    def _is_in_contact(self, namespace: str, now: float) -> bool:
        """Whether every change of the Namespace's Pods and caches is heard of ("": of all Namespaces')."""
        pods = self._reflectors[namespace]
        caches = self._store.last_contact(namespace) + WATCH_IDLE_TIMEOUT + WATCH_GRACE
        return pods.in_sync and now < min(_in_contact_until(pods), caches)

    def _out_of_contact(self) -> frozenset[str]:
        """Of several Namespaces that are kept, those where a new Pod had better not be gated."""
        now = self._clock()
        return frozenset(name for name in self._settings.namespaces if not self._is_in_contact(name, now))

    def _may_lead(self) -> bool:
        """Whether this replica may have the Lease: it sees Pods, and gets on with its work."""
        now = self._clock()
        sees = any(now < _in_contact_until(one) for one in self._reflectors.values())
        return sees and now < self._last_progress + YIELD_LEASE_AFTER

    async def _work(self) -> None:
        """Hand Pods to workers while this replica may act; others wait in the queue until it may."""
        slots = asyncio.Semaphore(self._settings.workers)
        async with asyncio.TaskGroup() as workers:
            while True:
                self._last_progress = self._clock()
                if not self._may_act():
                    await asyncio.sleep(_IDLE_TICK)
                    continue
                await slots.acquire()
                try:
                    async with asyncio.timeout(_IDLE_TICK):
                        uid = await self._queue.take()
                except TimeoutError:
                    slots.release()
                else:
                    workers.create_task(self._reconcile(uid, slots))

    def _may_act(self) -> bool:
        """Whether the Lease is ours. Who just got it looks at every Pod: timers were not heeded."""
        acts = self._lease.is_leader
        if acts and not self._acted:
            self._enqueue_all()
        self._acted = acts
        return acts

    def _enqueue_all(self) -> None:
        """Whoever acted before may have left any Pod anywhere."""
        self._queue.clear()
        for record in self._records.in_order():
            record.result_may_exist = True  # whoever acted before may have posted for it
            record.tried, record.failures = False, None
            if not isinstance(record.state, Running):
                self._enqueue(record)
        for record in self._orphans:
            record.failures = None
            self._enqueue(record)

    async def _reconcile(self, uid: str, slots: asyncio.Semaphore) -> None:
        cost, holds = Cost(), [slots]

        def give_back() -> None:
            while holds:
                holds.pop().release()

        # Who waits, for a cache that others keep changing, keeps its share of its Namespace and no more.
        timer = asyncio.get_running_loop().call_later(SLOT_SECONDS, give_back)
        try:
            await metered(cost, self._take_turn(uid), self._clock)
        finally:
            self._queue.done(uid, cost.total)
            timer.cancel()
            give_back()

    async def _take_turn(self, uid: str) -> None:
        record = self._orphans.pop(uid) or self._records.get(uid)
        try:
            if record is None or not (self._lease.is_leader or isinstance(record.state, Orphaned)):
                return
            record.tried = True
            result = await self._reconciler.reconcile(record)
            record.failures = None
            if isinstance(record.state, Gone):
                if (again := self._records.get(uid)) is not None:
                    self._enqueue(again)  # it came back while its answer was taken away
            elif result.requeue_after is not None:
                # Its end is near: it is answered, or over.
                urgent = isinstance(record.state, Answering | Capturing)
                self._queue.add_later(record.pod.namespace, uid, result.requeue_after, urgent=urgent)
        except Exception as error:
            self._on_failure(record, error)

    def _on_failure(self, record: Record | None, error: Exception) -> None:
        """Say what went wrong, and try again later; or something else, if it has been tried for long."""
        if record is None or isinstance(record.state, Gone):
            return  # what was tried for the Pod is gone with it
        outcome, now = as_outcome(error), self._clock()
        self._reporter.failure(record.pod, outcome, error)
        failures = record.failures = record.failures or Failures(now)
        left = failures.first + self._give_up_after(record, error) - now
        if left <= 0:
            self._reconciler.give_up(record, outcome)
            failures, left = Failures(now), math.inf
            record.failures = failures
        if isinstance(record.state, Orphaned) and isinstance(record.state.then, Gone):
            self._keep_orphan(record)
        if isinstance(record.state, Gone):
            return
        pause = random.uniform(0, min(_FIRST_PAUSE * 2**failures.count, _LONGEST_PAUSE))
        failures.count = min(failures.count + 1, 20)
        asked = error.retry_after if isinstance(error, ApiError) else 0.0
        wait = min(max(pause, min(asked, _LONGEST_RETRY_AFTER)), left)
        self._queue.add_later(record.pod.namespace, record.pod.uid, wait)

    def _give_up_after(self, record: Record, error: Exception) -> float:
        """Seconds after which it is given up what this error ended."""
        match record.state:
            case Gated() | Answering():
                return self._settings.gate_timeout
            case Capturing():
                return STORE_DEADLINE
            case Labelling() if not isinstance(error, TEMPORARY):
                return LABEL_DEADLINE
            case Orphaned():
                return ORPHAN_DEADLINE
        return math.inf


def _in_contact_until(pods: Reflector) -> float:
    """When the reflector's last word from the API server is so old that it is taken to hang."""
    return pods.last_contact + pod_watch.WATCH_IDLE_TIMEOUT + WATCH_GRACE
