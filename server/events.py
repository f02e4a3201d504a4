"""Events on a Workflow: what became of its steps, where its author looks for it.

Told behind everybody's back: neither an admission review nor the keeper ever waits for an Event. They are
written at a bounded rate, and a flood of them is dropped and counted: a fan-out of a thousand hits is no more
work to the API server in a second than one of twenty. What went wrong has a line of its own, so it is neither
late nor lost behind hits.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from kubernetes_asyncio.client import ApiClient

from argo.steppod import Owner
from kube import client
from kube.errors import TEMPORARY, ApiError, Conflict
from memoize.entry import Entry
from memoize.event import event, origin, saved
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

WAITING = 2_000
"""Events of one line that may wait to be written, of about a kilobyte each; those beyond are dropped."""
PACE = 0.05
"""Seconds from one Event to the next of the same line: 20 a second at most."""
TIMEOUT = 5.0
"""Seconds for one request."""
ATTEMPTS = 4
"""Times that an Event is tried while the API server is away or asks for patience."""
PAUSE = 1.0
"""Seconds after the first of those, doubled each time; or what the server asks for, where that is longer."""
LONGEST_PAUSE = 30.0
_REPORTER = "stepmemo-webhook"


class Events:
    """Writes Events in a task of its own (`run`). `on_dropped` is called for each that will never be written.

    `clock` counts seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        on_dropped: Callable[[], None],
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._on_dropped, self._instance = api, on_dropped, instance
        self._clock, self._sleep = clock, sleep
        self._warnings: _Line = asyncio.Queue(WAITING)
        self._news: _Line = asyncio.Queue(WAITING)

    def hit(self, owner: Owner, node: str, entry: Entry, now: datetime) -> None:
        """Say on the Workflow that this step was answered, and what that saved. Returns at once."""
        self._put(self._news, hit_event(owner, node, entry, self._instance, now))

    def answered(self, owner: Owner, node: str, detail: str) -> None:
        """Say on the Workflow that this step was answered inside its Pod. Returns at once."""
        text = f"step {node} was answered from the cache" + (f": {detail}" if detail else "")
        self._put(self._news, _event(owner, Reason.HIT, text, (node,), self._instance, datetime.now(UTC)))

    def stored(self, owner: Owner, node: str, detail: str) -> None:
        """Say on the Workflow that this step's outputs were stored. Returns at once."""
        self._put(self._news, stored_event(owner, node, detail, self._instance, datetime.now(UTC)))

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        """Say on the Workflow that this step is not memoized and why. Returns at once."""
        self._put(self._warnings, skip_event(owner, node, reason, detail, self._instance, datetime.now(UTC)))

    def _put(self, line: "_Line", told: dict[str, Any]) -> None:
        try:
            line.put_nowait(told)
        except asyncio.QueueFull:
            self._on_dropped()

    async def run(self) -> None:
        """Write what comes, for ever; what cannot be written is counted and forgotten."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._write_all(self._warnings))
            both.create_task(self._write_all(self._news))

    async def _write_all(self, line: "_Line") -> None:
        while True:
            told = await line.get()
            begun = self._clock()
            if not await self._written(told):
                self._on_dropped()
            await self._sleep(max(0.0, begun + PACE - self._clock()))

    async def _written(self, told: dict[str, Any]) -> bool:
        namespace = told["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/events"
        for attempt in range(ATTEMPTS):
            try:
                await client.request(self._api, "POST", path, seconds=TIMEOUT, body=told)
            except Conflict:
                return True  # told before: a reinvocation, another replica, or our own try came through
            except ApiError as error:
                if not isinstance(error, TEMPORARY) or attempt == ATTEMPTS - 1:
                    _log.warning("cannot write an Event", extra=fields(namespace=namespace, error=str(error)))
                    return False
                await self._sleep(max(PAUSE * 2**attempt, min(error.retry_after, LONGEST_PAUSE)))
            else:
                return True
        return False


_Line = asyncio.Queue[dict[str, Any]]


def hit_event(owner: Owner, node: str, entry: Entry, instance: str, now: datetime) -> dict[str, Any]:
    """The Event (core/v1) for one hit; the same entry for the same step is told once."""
    said = ", ".join(filter(None, (saved(entry), origin(entry, now))))
    text = f"step {node} was answered from the cache" + (f": {said}" if said else "")
    created = str(entry.created.timestamp()) if entry.created else ""
    return _event(owner, Reason.HIT, text, (node, entry.node_id, created), instance, now)


def stored_event(owner: Owner, node: str, detail: str, instance: str, now: datetime) -> dict[str, Any]:
    """The Event (core/v1) for outputs that were stored; told once for each step."""
    text = f"the outputs of step {node} were stored" + (f": {detail}" if detail else "")
    return _event(owner, Reason.STORED, text, (node,), instance, now)


def skip_event(
    owner: Owner, node: str, reason: Reason, detail: str, instance: str, now: datetime
) -> dict[str, Any]:
    """The Event (core/v1) for one skip."""
    text = f"step {node} is not memoized" + (f": {detail}" if detail else "")
    return _event(owner, reason, text, (node, detail), instance, now)


def _event(
    owner: Owner, reason: Reason, text: str, about: tuple[str, ...], instance: str, now: datetime
) -> dict[str, Any]:
    """An Event whose name follows from what it is about, so that it is told once, whoever tells it."""
    said = hashlib.sha256("\0".join((owner.uid, reason, *about)).encode(errors="replace")).hexdigest()[:16]
    return event(
        name=f"{owner.name[:200].rstrip('.-')}.{said}",
        namespace=owner.namespace,
        workflow=owner.name,
        workflow_uid=owner.uid,
        reason=reason,
        text=text,
        component=_REPORTER,
        instance=instance,
        now=now,
    )
