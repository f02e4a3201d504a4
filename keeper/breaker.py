"""Stops injection while containers of ours cannot start, so that no step hangs for the sake of memoization.

A Pod with a container that cannot be pulled or created stays Pending for ever, whatever its other containers
did. The cause may be everybody's (a registry), a Namespace's (its pull secrets) or a node's. So each
Namespace has a circuit of its own: it opens on a trouble that lasts, and closes as soon as a container of the
same image starts there. A tenant who makes such Pods on purpose stops the injection of his own Namespace.

`Circuits` is the table, without a clock or a connection; `Breaker` feeds it, tells what it says, and deletes
the Pods that would hang, so that Argo makes them anew.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes_asyncio.client import ApiClient

from keeper.container_status import Container, InjectedContainers, State, look
from kube import client
from kube.errors import ApiError, Conflict, NotFound
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
"""Seconds from one look at the table to the next, and so from one deletion to the next."""
AGAIN = 30.0
"""Seconds until the deletion of the same Pod is tried again."""
REMEMBERED = 3600.0
"""Seconds for which a step that met trouble is left alone, so that its next Pod does not meet it again …"""
MOST_REMEMBERED = 10_000
"""… and for how many steps."""
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
    counts: bool
    next_deletion: float


class Circuits:
    """The circuits of one image, by Namespace. Times are seconds of a clock that never goes back."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._circuits: dict[str, _Circuit] = {}
        self._troubles: dict[tuple[str, str], _Trouble] = {}
        self._over: dict[str, set[str]] = {}
        """By Pod, the containers that have started, or never will."""
        self._remembered: OrderedDict[tuple[str, str], float] = OrderedDict()

    def on_pod(self, pod: InjectedContainers, now: float, age: Callable[[datetime], float]) -> None:
        """Take in a Pod as it is now; `age` gives the seconds since a time of a node's clock."""
        seen_before = pod.uid in self._over
        over = self._over.setdefault(pod.uid, set())
        for container in pod.containers:
            key = (pod.uid, container.name)
            if container.state is State.TROUBLED:
                self._trouble(key, pod, container, now)
            elif container.state is not State.COMING:
                self._troubles.pop(key, None)
                if container.name not in over:
                    over.add(container.name)
                    # Whoever is first seen running may run since yesterday; else no node's clock is needed.
                    ago = 0.0 if seen_before or container.at is None else max(0.0, age(container.at))
                    self._ended_waiting(pod, container, now, ago)

    def on_deleted(self, uid: str, now: float) -> None:
        """Forget a Pod that is no more. What it opened stays open."""
        self._over.pop(uid, None)
        for key in [key for key in self._troubles if key[0] == uid]:
            trouble = self._troubles.pop(key)
            if now - trouble.since >= GRACE:
                self._remember(trouble.pod, now)

    def pass_time(self, now: float) -> None:
        """Open what has been in trouble for long enough."""
        for trouble in self._troubles.values():
            if trouble.counts and now - trouble.since >= GRACE:
                self._open(trouble.pod.namespace, trouble.container, now)

    def open(self) -> dict[str, str]:
        """Give the Namespaces whose circuit is open, and why."""
        return {namespace: circuit.why for namespace, circuit in self._circuits.items()}

    def refuses(self, namespace: str, step: str, now: float) -> str:
        """Say why a Pod of this step must not get a container of ours now, or ""."""
        since = self._remembered.get((namespace, step))
        if since is not None and now - since < REMEMBERED:
            return "a container of ours could not start in this step's last Pod"
        circuit = self._circuits.get(namespace)
        return circuit.why if circuit is not None and now < circuit.next_trial else ""

    def admitted(self, namespace: str, now: float) -> None:
        """Take note that a Pod was injected: with an open circuit, it is the trial."""
        if circuit := self._circuits.get(namespace):
            circuit.wait = min(circuit.wait * 2, LONGEST_TRIAL)
            circuit.next_trial = now + circuit.wait

    def hopeless(self, now: float) -> InjectedContainers | None:
        """Give a Pod that should be deleted, if any; each one again only after a while."""
        for trouble in self._troubles.values():
            old = now - trouble.since >= DELETE_POD_AFTER and now >= trouble.next_deletion
            if old and trouble.pod.untouched and trouble.pod.owner is not None:
                trouble.next_deletion = now + AGAIN
                self._remember(trouble.pod, now)
                return trouble.pod
        return None

    def _trouble(
        self, key: tuple[str, str], pod: InjectedContainers, container: Container, now: float
    ) -> None:
        known = self._troubles.get(key)
        if known is None:
            counts = container.image == self._image
            self._troubles[key] = _Trouble(pod, container, now, counts, next_deletion=now)
        else:
            known.pod, known.container = pod, container

    def _ended_waiting(self, pod: InjectedContainers, container: Container, now: float, ago: float) -> None:
        if container.state is State.BROKEN:
            # Such a Pod fails: there is nothing to wait for. An old failure says nothing of today.
            self._remember(pod, now)
            if ago < GRACE and container.image == self._image:
                self._open(pod.namespace, container, now)
        elif container.image == self._image:
            self._works(pod.namespace, now - ago)

    def _open(self, namespace: str, container: Container, now: float) -> None:
        why = f"container {container.name} cannot start: {container.why}"
        self._circuits.setdefault(namespace, _Circuit(now, why, next_trial=now + TRIAL))

    def _works(self, namespace: str, at: float) -> None:
        """Close the circuit: a container started in this Namespace, after it opened."""
        for trouble in self._troubles.values():
            if trouble.pod.namespace == namespace and trouble.since <= at:
                trouble.counts = False
        circuit = self._circuits.get(namespace)
        if circuit is not None and circuit.opened <= at:
            del self._circuits[namespace]

    def _remember(self, pod: InjectedContainers, now: float) -> None:
        step = (pod.namespace, pod.step)
        self._remembered[step] = now
        self._remembered.move_to_end(step)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


class Breaker:
    """The circuits of the image that this server injects. `clock` counts seconds, `now` is aware."""

    def __init__(
        self,
        api: ApiClient,
        metrics: Metrics,
        events: Events,
        image: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._metrics, self._events = api, metrics, events
        self._clock, self._now, self._sleep = clock, now, sleep
        self._circuits = Circuits(image)
        self._told: dict[str, str] = {}

    def on_pod(self, pod: Mapping[str, Any]) -> None:
        """Take in a Pod with containers of ours, as the API server gave it."""
        self._circuits.on_pod(look(pod), self._clock(), lambda at: (self._now() - at).total_seconds())

    def on_deleted(self, uid: str) -> None:
        """Forget a Pod that was deleted, or needs no more tending."""
        self._circuits.on_deleted(uid, self._clock())

    @property
    def open(self) -> str:
        """Where injection has stopped and why, in a line for people; "" where it has not."""
        circuits = self._circuits.open()
        told = [f"namespace {namespace}: {why}" for namespace, why in sorted(circuits.items())[:3]]
        return "; ".join([*told, *([f"and {len(circuits) - 3} more"] if len(circuits) > 3 else [])])

    def admit(self, namespace: str, step: str, *, dry_run: bool = False) -> str:
        """Say "" if this step's Pod may get containers of ours, else why not (Reason.IMAGE_BROKEN).

        `step` is the node's id. With an open circuit a Pod now and then is the trial; a dry run never is.
        """
        now = self._clock()
        self._circuits.pass_time(now)
        refused = self._circuits.refuses(namespace, step, now)
        if not refused and not dry_run:
            self._circuits.admitted(namespace, now)
        return refused

    async def run(self) -> None:
        """Open and close as time goes by, and delete Pods that would hang, for ever."""
        while True:
            self._circuits.pass_time(self._clock())
            self._tell()
            if pod := self._circuits.hopeless(self._clock()):
                await self._delete(pod)
            await self._sleep(PACE)

    def _tell(self) -> None:
        circuits = self._circuits.open()
        for namespace in circuits.keys() - self._told.keys():
            told = fields(namespace=namespace, reason=Reason.IMAGE_BROKEN.value, detail=circuits[namespace])
            _log.warning("injection stops", extra=told)
        for namespace in self._told.keys() - circuits.keys():
            _log.info("injection goes on", extra=fields(namespace=namespace))
        self._told = circuits
        self._metrics.breaker_open(bool(circuits))

    async def _delete(self, pod: InjectedContainers) -> None:
        """Delete a Pod that would hang, if it is still as it was seen.

        Argo makes the Pod of a Pending node anew when it is gone (podReconciliation, 3.5 to 4.1). Without a
        grace period: the kubelet would report the Pod as Failed first, and Argo the step.
        """
        body = {
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.uid, "resourceVersion": pod.version},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
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
