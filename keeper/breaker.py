"""Stops injection while containers of ours cannot start, so that no step hangs for the sake of memoization.

A Pod with a container that cannot be pulled or created stays Pending for ever, whatever its other containers
did. The cause may be everybody's (a registry), a Namespace's (its pull secrets) or a node's. So each
Namespace has a circuit of its own: it opens on a trouble that lasts, and closes as soon as a container of
ours starts there. A tenant who makes such Pods on purpose stops the injection of his own Namespace.

Admission injects, and the keeper watches what becomes of it; so it says in its Lease where injection is
stopped, and where a Pod now and then is to be injected to see whether that works again: the trial. What ends
a trial is a Pod that is seen, not a review: a review may be a dry run, or forged.

`Circuits` is the table, without a clock or a connection; `Breaker` feeds it, tells what it says, and deletes
the Pods that would hang, so that Argo makes them anew.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, zip_longest
from typing import Any

from kubernetes_asyncio.client import ApiClient

from keeper import paths
from keeper.container_status import Container, InjectedContainers, State, look
from kube import client
from kube.errors import ApiError, Conflict, NotFound
from memoize.keeper_status import MOST_STEPS, digest
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.metrics import Metrics

_log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds of trouble before the circuit opens: the kubelet's second try often helps."""
DELETE_POD_AFTER = 120.0
"""Seconds of trouble after which the Pod is deleted, if its step has not begun."""
TRIAL = 60.0
"""Seconds until one Pod of an open circuit is injected again, to see; doubled with each …"""
LONGEST_TRIAL = 300.0
"""… up to this: each that fails has cost a step DELETE_POD_AFTER seconds."""
PACE = 1.0
"""Seconds from one look at the table to the next, and so from one deletion in a Namespace to the next."""
MOST_DELETIONS = 10
"""Pods that are deleted side by side after a look, of as many Namespaces."""
AGAIN = 30.0
"""Seconds until the deletion of the same Pod is tried again."""
REMEMBERED = 3600.0
"""Seconds for which a step that met trouble is left alone, so that its next Pod does not meet it again …"""
MOST_REMEMBERED = 200
"""… and for how many steps of one Namespace."""
MOST_PODS = 2_000
"""Pods of one Namespace that are looked after at a time; more of them are not."""
TIMEOUT = 5.0
"""Seconds for one request."""


@dataclass(slots=True)
class _Circuit:
    """An open circuit."""

    opened: float
    why: str
    next_trial: float
    wait: float = TRIAL


@dataclass(slots=True)
class _Trouble:
    """A container that cannot start. `counts` until another one has started since."""

    pod: InjectedContainers
    container: Container
    since: float
    next_deletion: float
    counts: bool = True

    def deletion_is_due(self, now: float) -> bool:
        """Whether its Pod should be deleted now."""
        old = now - self.since >= DELETE_POD_AFTER and now >= self.next_deletion
        return old and self.pod.untouched and self.pod.owner is not None


@dataclass(slots=True)
class _Pod:
    """What is known of the containers of one Pod."""

    troubles: dict[str, _Trouble] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    """Those that have started, or never will."""


@dataclass(slots=True)
class _Namespace:
    """What is known of one Namespace."""

    pods: dict[str, _Pod] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)
    """Of these Pods, those that have a trouble."""
    circuit: _Circuit | None = None
    remembered: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """When a step met trouble, the newest last."""
    last_turn: float = -math.inf
    """When a Pod of it was last to be deleted."""

    def troubles(self) -> Iterator[_Trouble]:
        for uid in self.troubled:
            yield from self.pods[uid].troubles.values()

    def remember(self, step: str, now: float) -> None:
        self.remembered[step] = now
        self.remembered.move_to_end(step)
        if len(self.remembered) > MOST_REMEMBERED:
            self.remembered.popitem(last=False)

    def open(self, container: Container, now: float) -> None:
        why = f"container {container.name} cannot start: {container.why}"
        self.circuit = self.circuit or _Circuit(now, why, next_trial=now + TRIAL)

    def close(self, at: float) -> None:
        """A container started here, after what is forgotten now had begun."""
        for trouble in self.troubles():
            if trouble.since <= at:
                trouble.counts = False
        if self.circuit is not None and self.circuit.opened <= at:
            self.circuit = None


class Circuits:
    """The circuits, by Namespace. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}
        self._of_pod: dict[str, str] = {}
        """The Namespace of each Pod that is looked after."""

    def on_pod(self, pod: InjectedContainers, now: float, age: Callable[[datetime], float]) -> None:
        """Take in a Pod as it is now; `age` gives the seconds since a time of a node's clock."""
        here = self._namespaces.setdefault(pod.namespace, _Namespace())
        seen_before = pod.uid in here.pods
        if not seen_before:
            if len(here.pods) >= MOST_PODS:
                return
            here.pods[pod.uid] = _Pod()
            self._of_pod[pod.uid] = pod.namespace
            self._tried(here, now)
        known = here.pods[pod.uid]
        for container in pod.containers:
            if container.state is State.TROUBLED:
                found = known.troubles.setdefault(container.name, _Trouble(pod, container, now, now))
                found.pod, found.container = pod, container
            elif container.state is not State.COMING:
                known.troubles.pop(container.name, None)
                if container.name not in known.over:
                    known.over.add(container.name)
                    # Whoever is first seen running may run since yesterday; else no node's clock is needed.
                    ago = 0.0 if seen_before or container.at is None else max(0.0, age(container.at))
                    self._ended_waiting(here, pod, container, now, ago)
        (here.troubled.add if known.troubles else here.troubled.discard)(pod.uid)

    def on_deleted(self, uid: str, now: float) -> None:
        """Forget a Pod that is no more. What it opened stays open."""
        namespace = self._of_pod.pop(uid, None)
        if namespace is None:
            return
        here = self._namespaces[namespace]
        here.troubled.discard(uid)
        for trouble in here.pods.pop(uid).troubles.values():
            if now - trouble.since >= GRACE:
                here.remember(trouble.pod.step, now)

    def pass_time(self, now: float) -> None:
        """Open what has been in trouble for long enough, and forget what is long over."""
        for namespace, here in list(self._namespaces.items()):
            for trouble in here.troubles():
                if trouble.counts and now - trouble.since >= GRACE:
                    here.open(trouble.container, now)
            while here.remembered and now - next(iter(here.remembered.values())) >= REMEMBERED:
                here.remembered.popitem(last=False)
            if not here.pods and not here.remembered and here.circuit is None:
                del self._namespaces[namespace]

    def open(self) -> dict[str, str]:
        """Give the Namespaces whose circuit is open, and why."""
        return {
            namespace: here.circuit.why
            for namespace, here in self._namespaces.items()
            if here.circuit is not None
        }

    def on_trial(self, now: float) -> frozenset[str]:
        """Those of them where a Pod may be injected, to see whether its containers start."""
        return frozenset(
            namespace
            for namespace, here in self._namespaces.items()
            if here.circuit is not None and now >= here.circuit.next_trial
        )

    def troubled(self, most: int) -> list[tuple[str, str]]:
        """Steps whose last Pod met trouble, by Namespace and node id.

        The newest of each Namespace come first, so that one with many leaves room for the others', and of
        these the newest.
        """
        having = [one for one in self._namespaces.items() if one[1].remembered]
        having.sort(key=lambda one: next(reversed(one[1].remembered.values())), reverse=True)
        newest = ([(namespace, step) for step in reversed(here.remembered)] for namespace, here in having)
        return list(islice((one for row in zip_longest(*newest) for one in row if one), most))

    def to_delete(self, now: float, most: int) -> list[InjectedContainers]:
        """Give Pods that should be deleted, one of a Namespace; each one again only after a while.

        Namespaces take turns, so that none waits for what another piles up.
        """
        found: list[InjectedContainers] = []
        for here in sorted(self._namespaces.values(), key=lambda here: here.last_turn):
            trouble = next((one for one in here.troubles() if one.deletion_is_due(now)), None)
            if trouble is None:
                continue
            trouble.next_deletion, here.last_turn = now + AGAIN, now
            here.remember(trouble.pod.step, now)
            found.append(trouble.pod)
            if len(found) == most:
                break
        return found

    def _tried(self, here: _Namespace, now: float) -> None:
        """A Pod was injected: where the circuit is on trial, it is the trial, and the next is later."""
        circuit = here.circuit
        if circuit is not None and now >= circuit.next_trial:
            circuit.wait = min(circuit.wait * 2, LONGEST_TRIAL)
            circuit.next_trial = now + circuit.wait

    def _ended_waiting(
        self, here: _Namespace, pod: InjectedContainers, container: Container, now: float, ago: float
    ) -> None:
        if container.state is not State.BROKEN:
            here.close(now - ago)
            return
        # Such a Pod fails: there is nothing to wait for. An old failure says nothing of today.
        here.remember(pod.step, now)
        if ago < GRACE:
            here.open(container, now)


class Breaker:
    """The circuits of the Pods that the keeper watches. `clock` counts seconds, `now` is aware."""

    def __init__(
        self,
        api: ApiClient,
        metrics: Metrics,
        events: Events,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._metrics, self._events = api, metrics, events
        self._clock, self._now, self._sleep = clock, now, sleep
        self._circuits = Circuits()
        self._logged: dict[str, str] = {}

    def on_pod(self, pod: Mapping[str, Any]) -> None:
        """Take in a Pod with containers of ours, as the API server gave it."""
        self._circuits.on_pod(look(pod), self._clock(), lambda at: (self._now() - at).total_seconds())

    def on_deleted(self, uid: str) -> None:
        """Forget a Pod that was deleted, or has a final label."""
        self._circuits.on_deleted(uid, self._clock())

    @property
    def notice(self) -> str:
        """Where injection has stopped and why, in a line for people; "" where it has not."""
        circuits = self._circuits.open()
        shown = [f"namespace {namespace}: {why}" for namespace, why in sorted(circuits.items())[:3]]
        more = [f"and {len(circuits) - 3} more"] if len(circuits) > 3 else []
        return f"injection stopped: {'; '.join([*shown, *more])}" if shown else ""

    @property
    def is_open(self) -> bool:
        """Whether injection has stopped anywhere."""
        return bool(self._circuits.open())

    @property
    def stopped(self) -> frozenset[str]:
        """The Namespaces where no container of ours is to be injected."""
        return frozenset(self._circuits.open()) - self.trial

    @property
    def trial(self) -> frozenset[str]:
        """Those where one is, now and then, to see whether it starts."""
        return self._circuits.on_trial(self._clock())

    @property
    def troubled(self) -> tuple[str, ...]:
        """`keeper_status.digest` of steps that are to be left alone, though others are injected there.

        In the order of Circuits.troubled: where the list is cut short, its beginning is a share for each.
        """
        return tuple(digest(*one) for one in self._circuits.troubled(MOST_STEPS))

    async def run(self) -> None:
        """Open and close as time goes by, and delete Pods that would hang, for ever."""
        while True:
            self._circuits.pass_time(self._clock())
            self._log_changes()
            due = self._circuits.to_delete(self._clock(), MOST_DELETIONS)
            await asyncio.gather(*map(self._delete, due))
            await self._sleep(PACE)

    def _log_changes(self) -> None:
        circuits = self._circuits.open()
        for namespace in circuits.keys() - self._logged.keys():
            about = fields(namespace=namespace, reason=Reason.IMAGE_BROKEN.value, detail=circuits[namespace])
            _log.warning("injection stops", extra=about)
        for namespace in self._logged.keys() - circuits.keys():
            _log.info("injection goes on", extra=fields(namespace=namespace))
        self._logged = circuits

    async def _delete(self, pod: InjectedContainers) -> None:
        """Delete a Pod that would hang, if it is still as it was seen.

        Argo makes the Pod of a Pending node anew when it is gone (podReconciliation, 3.5 to 4.1). Without a
        grace period: the kubelet would report the Pod as Failed first, and Argo the step.
        """
        body = {
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.uid, "resourceVersion": pod.version},
        }
        path = paths.pod(pod.namespace, pod.name)
        about = {"namespace": pod.namespace, "pod": pod.name}
        try:
            await client.request(self._api, "DELETE", path, seconds=TIMEOUT, body=body)
        except (NotFound, Conflict):
            return
        except ApiError as error:
            _log.warning("cannot delete a Pod that hangs", extra=fields(**about, error=str(error)))
            return
        assert pod.owner is not None
        troubled = ", ".join(one.name for one in pod.containers if one.state is State.TROUBLED)
        detail = f"its Pod is made anew without containers of ours: {troubled} could not start"
        self._events.skipped(pod.owner, pod.step, Reason.IMAGE_BROKEN, detail)
        self._metrics.breaker_deleted()
        _log.warning("deleted a Pod that would hang", extra=fields(**about, detail=detail))
