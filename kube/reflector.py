"""Follows a collection of the API: a list, then every change of it; what client-go calls a reflector.

A watch that ends, or breaks with the connection, is resumed after the last change that was heard of. A new
list is asked for only where the API server cannot go on from there (410 Gone) or an answer makes no sense.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import ClassVar, Protocol

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.backoff import Backoff
from kube.client import Json
from kube.errors import ApiError, TooManyRequests, Unavailable
from kube.pages import pages

_log = logging.getLogger(__name__)

WATCH_IDLE_TIMEOUT = 150.0
"""Seconds without an event after which a connection is taken for dead: the news of its end may have got lost.
A watch of what does not change gets its first bookmark after two minutes (seen on Kubernetes 1.35), then one
about every minute."""
SLICE = 0.01
"""Seconds of a turn of the event loop that all reflectors take for events, or listed objects. With one event
to a turn of a busy loop a watch falls behind, and an object's change waits behind all that others have
changed."""
_SHORTEST = 0.5
"""Seconds of a watch without an event; a shorter one is not asked for again at once."""
_LONGEST_PAUSE = 32
"""The most that the pause between attempts grows to, in multiples of the first."""
_LONGEST_WISH = 60.0
"""Seconds up to which an API server's Retry-After is heeded."""
_RESUMED = (0, 429, 503)
"""Statuses after which what was heard before is as good as it was; 0: no answer, or it broke off."""


class Handler(Protocol):
    """Who is told what a collection holds. Nothing here may block; what raises begins a new list."""

    def begin(self) -> None:
        """Learn that a list begins; one that broke off may have begun before."""

    def listed(self, obj: Json) -> None:
        """Learn of an object of the list."""

    def end(self) -> None:
        """Learn that the list is whole: what it did not name since `begin` is gone."""

    def changed(self, type_: str, obj: Json) -> None:
        """Learn of an event: ADDED, MODIFIED or DELETED, with the object as it is, or as it last was.

        An object that the selector no longer takes counts as DELETED.
        """


class Reflector:
    """Keeps a handler told of what a path of the API holds.

    `in_sync`: a whole list was handled, and the watch after it is open (or has ended as agreed a moment ago,
    and is being resumed). `last_contact`: `clock()` when the API server last said something. `on_synced` is
    called each time that `in_sync` becomes true. `page` is the most objects in a page of the list, `pause`
    the seconds before the second attempt. With `identity_only` the handler gets name, namespace and
    resourceVersion of each object, and nothing else that it could go by.
    """

    def __init__(
        self,
        api: ApiClient,
        path: str,
        handler: Handler,
        *,
        name: str,
        selector: str = "",
        identity_only: bool = False,
        fields: str = "",
        page: int = 500,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
        watch_seconds: int = 240,
        idle_timeout: float = WATCH_IDLE_TIMEOUT,
        on_synced: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._path, self._handler, self._name = api, path, handler, name
        self._selected = [("labelSelector", selector)] if selector else []
        self._identity_only = identity_only
        self._selected += [("fieldSelector", fields)] if fields else []
        self._page, self._clock = page, clock
        self._backoff = Backoff(pause, pause * _LONGEST_PAUSE)
        self._watch_seconds, self._idle_timeout, self._on_synced = watch_seconds, idle_timeout, on_synced
        self._version = ""
        """Where the watch goes on; empty where a list has to come first."""
        self.in_sync = False
        self.last_contact = -math.inf
        self.trouble: ApiError | None = None
        """What the last attempt failed with; None once a watch is open."""

    async def run(self) -> None:
        """Follow the collection for ever; every error is said in the log and tried again."""
        try:
            while True:
                await self._follow()
        finally:
            self.in_sync = False

    async def _follow(self) -> None:
        wish = 0.0
        try:
            if not self._version:
                await self._list()
            await self._watch()
            return
        except ApiError as error:
            if not (isinstance(error, TooManyRequests | Unavailable) and error.status in _RESUMED):
                self._version = ""
            self.trouble, wish = error, min(error.retry_after, _LONGEST_WISH)
            _log.warning("cannot watch %s", self._name, extra={"fields": {"error": str(error)}})
        except Exception:
            self._version = ""
            _log.exception("cannot watch %s: an answer that makes no sense, or a bug of ours", self._name)
        self.in_sync = False
        await asyncio.sleep(max(self._backoff.next(), wish))

    async def _list(self) -> None:
        self._handler.begin()
        breath = _Breath(self._clock)
        async for page in pages(
            self._api,
            self._path,
            self._selected,
            name=self._name,
            most=self._page,
            metadata_only=self._identity_only,
        ):
            self.last_contact = self._clock()
            items = page.get("items") or []
            items.reverse()
            while items:
                self._handler.listed(items.pop())
                await breath.take()
        self._handler.end()
        self._version = page["metadata"]["resourceVersion"]

    async def _watch(self) -> None:
        """Hand on what changes after `_version`, until the watch ends as agreed."""
        query = [
            *self._selected,
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(self._watch_seconds)),
        ]
        accept, parse = client.JSON, client.parsed
        if self._identity_only:
            accept, parse = client.METADATA_ONLY, client.identified
        async with client.watch(
            self._api, self._path, query, idle_timeout=self._idle_timeout, accept=accept, parse=parse
        ) as events:
            opened = self.last_contact = self._clock()
            self.trouble = None
            if not self.in_sync:
                self.in_sync = True
                self._on_synced()
            before, breath = self._version, _Breath(self._clock)
            async for type_, obj in events:
                if type_ != "BOOKMARK":
                    self._handler.changed(type_, obj)
                self._version = obj["metadata"]["resourceVersion"]
                self.last_contact = self._clock()
                self._backoff.reset()
                await breath.take()
        if self._version == before and self._clock() - opened < _SHORTEST:
            raise Unavailable("the watch ended at once")
        self._backoff.reset()


class _Breath:
    """Lets others have the loop after each SLICE of work, which all of a process that have work share."""

    _paused: ClassVar = 0
    """Those that could go on, and let others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._begun = clock, clock()

    async def take(self) -> None:
        """Go on, or after all others that can."""
        if self._clock() - self._begun >= SLICE / (_Breath._paused + 1):
            _Breath._paused += 1
            try:
                await asyncio.sleep(0)
            finally:
                _Breath._paused -= 1
            self._begun = self._clock()
