"""Events: what became of steps, on their Workflow, where its author looks for it; and of caches.

Neither an admission review nor the keeper ever waits for an Event. They are written at a bounded rate, by
turns of their Namespaces, and a flood of them is dropped and counted: a fan-out of a thousand hits is no more
work to the API server in a second than one of twenty, and takes nothing from another Namespace. What went
wrong has a line of its own, so it is neither late nor lost behind hits.

Who calls the webhooks may be anybody, and a review names whom its caller likes: admission writes Events only
about a Workflow that was read with that uid.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo.steppod import Owner
from kube import client
from kube.errors import TEMPORARY, ApiError, Conflict
from memoize.entry import Entry
from memoize.event import event, origin, saved
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

WAITING, WAITING_OF_ONE = 2_000, 500
"""Events of one line that may wait to be written, of all and of one Namespace, of about a kilobyte each.
Those beyond are dropped, of the Namespace with the most."""
UNREAD, UNREAD_OF_ONE = 200, 20
"""The same for those whose Workflow is still to be read."""
PACE = 0.05
"""Seconds from one Event to the next of the same line: 20 a second at most …"""
PACE_OF_ONE = 0.1
"""… and of one Namespace."""
TIMEOUT = 5.0
"""Seconds for one request."""
ATTEMPTS = 4
"""Times that an Event is tried while the API server is away or asks for patience."""
PAUSE = 1.0
"""Seconds after the first of those, doubled each time; or what the server asks for, where that is longer."""
LONGEST_PAUSE = 30.0
LONGEST_NAME, LONGEST_DETAIL = 253, 400
"""Characters of a node's name and of what an Event says beside it: both may be a caller's text."""


class Workflows(Protocol):
    """What can be known of a Workflow (server.lookups)."""

    def has_read(self, owner: Owner, /) -> bool:
        """Whether it was there, with its uid, when it was read lately."""

    async def workflow_metadata(self, owner: Owner, /) -> object | None:
        """Something where it is there with its uid, else None."""


class ReportingController(NamedTuple):
    """Who writes an Event."""

    component: str
    """The program, such as stepmemo-webhook."""
    instance: str
    """Its Pod's name."""


class Dropped(StrEnum):
    """Why an Event was not written."""

    FLOOD = "Flood"
    """Too many were waiting."""
    WORKFLOW_UNKNOWN = "WorkflowUnknown"
    """There is no such Workflow, or it could not be read."""
    NOT_WRITTEN = "NotWritten"
    """The API server did not take it."""


class Events:
    """Writes Events in a task of its own (`run`). `on_dropped` is called for each that will never be written.

    With `workflows`, an Event about one that was not read waits until it is; without, all are believed: they
    are about Pods that were seen in the cluster. The Events are from `component`, a program of ours, in its
    Pod `instance`. `clock` counts seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        on_dropped: Callable[[Dropped], None],
        component: str,
        instance: str,
        *,
        workflows: Workflows | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._on_dropped = api, on_dropped
        self._controller = ReportingController(component, instance)
        self._workflows, self._clock, self._sleep = workflows, clock, sleep
        self._warnings = _Line(WAITING, WAITING_OF_ONE, clock, sleep)
        self._news = _Line(WAITING, WAITING_OF_ONE, clock, sleep)
        self._unread = _Line(UNREAD, UNREAD_OF_ONE, clock, sleep)

    def hit(self, owner: Owner, node: str, entry: Entry, now: datetime) -> None:
        """Say on the Workflow that this step was answered, and what that saved. Returns at once."""
        self._tell(self._news, owner, hit_event(owner, node, entry, self._controller, now))

    def answered(self, owner: Owner, node: str, detail: str) -> None:
        """Say on the Workflow that this step was answered inside its Pod. Returns at once."""
        text = f"step {_short(node)} was served from the cache" + _said(detail)
        told = _event(owner, Reason.HIT, text, (node,), self._controller, datetime.now(UTC))
        self._tell(self._news, owner, told)

    def stored(self, owner: Owner, node: str, detail: str) -> None:
        """Say on the Workflow that this step's outputs were stored. Returns at once."""
        self._tell(self._news, owner, stored_event(owner, node, detail, self._controller, datetime.now(UTC)))

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        """Say on the Workflow that this step is not memoized and why. Returns at once."""
        told = skip_event(owner, node, reason, detail, self._controller, datetime.now(UTC))
        self._tell(self._warnings, owner, told)

    def of_cache(self, cache: Owner, reason: Reason, text: str, now: datetime) -> None:
        """Say on the ConfigMap, once a minute, what became of the cache. Returns at once.

        `cache` is the ConfigMap's Namespace, name and uid.
        """
        minute = f"{now:%Y-%m-%dT%H:%M}"
        told = _event(cache, reason, text, (minute,), self._controller, now, "ConfigMap")
        self._tell(self._news if reason is Reason.EVICTED else self._warnings, cache, told)

    def _tell(self, line: "_Line", owner: Owner, told: dict[str, Any]) -> None:
        waiting = _Waiting(owner, told, line)
        is_read = self._workflows is None or self._workflows.has_read(owner)
        self._put(line if is_read else self._unread, waiting)

    def _put(self, line: "_Line", waiting: "_Waiting") -> None:
        if not line.put(waiting):
            self._on_dropped(Dropped.FLOOD)

    async def run(self) -> None:
        """Write what comes, for ever; what cannot be written is counted and forgotten."""
        async with asyncio.TaskGroup() as all_lines:
            all_lines.create_task(self._each(self._warnings, self._write))
            all_lines.create_task(self._each(self._news, self._write))
            all_lines.create_task(self._each(self._unread, self._read))

    async def _each(self, line: "_Line", work: "Callable[[_Waiting], Awaitable[None]]") -> None:
        while True:
            waiting = await line.take()
            begun = self._clock()
            await work(waiting)
            await self._sleep(max(0.0, begun + PACE - self._clock()))

    async def _read(self, waiting: "_Waiting") -> None:
        assert self._workflows is not None
        if await self._workflows.workflow_metadata(waiting.owner) is None:
            self._on_dropped(Dropped.WORKFLOW_UNKNOWN)
        else:
            self._put(waiting.line, waiting)

    async def _write(self, waiting: "_Waiting") -> None:
        namespace = waiting.owner.namespace
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
        try:
            await client.request(self._api, "POST", path, seconds=TIMEOUT, body=waiting.told)
        except Conflict:
            pass  # told before: a reinvocation, another replica, or our own try came through
        except ApiError as error:
            waiting.tries += 1
            if isinstance(error, TEMPORARY) and waiting.tries < ATTEMPTS:
                # An API server may limit one Namespace's Events (EventRateLimit): the others go on.
                pause = max(PAUSE * 2 ** (waiting.tries - 1), min(error.retry_after, LONGEST_PAUSE))
                waiting.line.put_back(waiting, pause)
                return
            _log.warning("cannot write an Event", extra=fields(namespace=namespace, error=str(error)))
            self._on_dropped(Dropped.NOT_WRITTEN)


@dataclass(slots=True)
class _Waiting:
    """An Event that is to be written, and the line that it is written from."""

    owner: Owner
    told: dict[str, Any]
    line: "_Line"
    tries: int = 0


class _Line:
    """Events that wait: those of a Namespace in their order, and one Namespace after another."""

    def __init__(
        self,
        most: int,
        most_of_one: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._most, self._most_of_one, self._clock, self._sleep = most, most_of_one, clock, sleep
        self._lanes: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._count = 0
        self._due: dict[str, float] = {}
        """When the next of a Namespace may be written, where that is not now."""
        self._has_some = asyncio.Event()

    def put(self, waiting: _Waiting) -> bool:
        """Let it wait; False where an Event was dropped for want of room, this one or a newest other."""
        lane = self._lanes.setdefault(waiting.owner.namespace, deque())
        if len(lane) >= self._most_of_one:
            return False
        lane.append(waiting)
        self._count += 1
        self._has_some.set()
        if self._count <= self._most:
            return True
        namespace = max(self._lanes, key=lambda one: len(self._lanes[one]))
        self._taken(namespace, self._lanes[namespace].pop())
        return False

    def put_back(self, waiting: _Waiting, pause: float) -> None:
        """Let it be the next of its Namespace, after so many seconds."""
        namespace = waiting.owner.namespace
        self._lanes.setdefault(namespace, deque()).appendleft(waiting)
        self._count += 1
        self._due[namespace] = self._clock() + pause
        self._has_some.set()

    async def take(self) -> _Waiting:
        """The next one, once there is one whose turn it is."""
        while True:
            await self._has_some.wait()
            now = self._clock()
            self._due = {namespace: due for namespace, due in self._due.items() if due > now}
            namespace = next((one for one in self._lanes if one not in self._due), None)
            if namespace is None:
                soonest = min(self._due[one] for one in self._lanes)
                await self._sleep(min(soonest - now, PACE_OF_ONE))
                continue
            self._due[namespace] = now + PACE_OF_ONE
            self._lanes.move_to_end(namespace)
            return self._taken(namespace, self._lanes[namespace].popleft())

    def _taken(self, namespace: str, waiting: _Waiting) -> _Waiting:
        self._count -= 1
        if not self._lanes[namespace]:
            del self._lanes[namespace]
        if not self._lanes:
            self._has_some.clear()
        return waiting


def hit_event(
    owner: Owner, node: str, entry: Entry, controller: ReportingController, now: datetime
) -> dict[str, Any]:
    """The Event (core/v1) for one hit; the same entry for the same step is told once."""
    said = ", ".join(filter(None, (saved(entry), origin(entry, now))))
    text = f"step {_short(node)} was served from the cache" + _said(said)
    created = str(entry.created.timestamp()) if entry.created else ""
    return _event(owner, Reason.HIT, text, (node, entry.node_id, created), controller, now)


def stored_event(
    owner: Owner, node: str, detail: str, controller: ReportingController, now: datetime
) -> dict[str, Any]:
    """The Event (core/v1) for outputs that were stored; told once for each step."""
    text = f"the outputs of step {_short(node)} were stored" + _said(detail)
    return _event(owner, Reason.STORED, text, (node,), controller, now)


def skip_event(
    owner: Owner, node: str, reason: Reason, detail: str, controller: ReportingController, now: datetime
) -> dict[str, Any]:
    """The Event (core/v1) for one skip."""
    text = f"step {_short(node)} is not memoized" + _said(detail)
    return _event(owner, reason, text, (node, detail), controller, now)


def _said(detail: str) -> str:
    return f": {_short(detail, LONGEST_DETAIL)}" if detail else ""


def _short(text: str, most: int = LONGEST_NAME) -> str:
    """A text that may be a caller's: one line of printable characters, and no more than `most`."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    if short.isprintable():
        return short
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def _event(
    owner: Owner,
    reason: Reason,
    text: str,
    about: tuple[str, ...],
    controller: ReportingController,
    now: datetime,
    kind: str = "Workflow",
) -> dict[str, Any]:
    """An Event whose name follows from what it is about, so that it is told once, whoever tells it."""
    said = hashlib.sha256("\0".join((owner.uid, reason, *about)).encode(errors="replace")).hexdigest()[:16]
    return event(
        name=f"{owner.name[:200].rstrip('.-')}.{said}",
        namespace=owner.namespace,
        involved=owner.name,
        involved_uid=owner.uid,
        reason=reason,
        text=text,
        component=controller.component,
        instance=controller.instance,
        now=now,
        kind=kind,
    )
