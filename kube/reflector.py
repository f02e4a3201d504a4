"""Follows a collection of the API: a list, then every change of it; what client-go calls a reflector.

A watch that ends, or breaks with the connection, is resumed after the last change that was heard of. A new
list is asked for only where the API server cannot go on from there (410 Gone) or an answer makes no sense.
"""

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.exceptions import ApiException

from kube import client
from server.logs import fields

_log = logging.getLogger(__name__)

Json = dict[str, Any]

LIST_SECONDS = 30.0
"""For one page."""
OPEN_SECONDS = 10.0
"""Until the API server begins to answer."""
PAGE_BYTES = 1 << 20
"""Of a page of the list, or one object: so much is in memory at once, and parsed in one go. The API limits a
page by a number of objects, so that the next one's is guessed by the last one's bytes."""
_FIRST_PAGE = 2
"""Objects; each page asks for twice as many as the one before, at most."""
SILENCE = 150.0
"""Seconds without a word after which a connection is taken for dead: so late is one noticed that ends without
a word. A watch with nothing to tell gets its first bookmark after two minutes (seen on Kubernetes 1.35), then
one about every minute."""
_SHORTEST = 0.5
"""Seconds of a watch without an event; a shorter one is not asked for again at once."""
_MOST_DOUBLINGS = 5
"""Of the pause between attempts."""
_LONGEST_WISH = 60.0
"""Seconds up to which an API server's Retry-After is heeded."""
_BUSY = (429, 503)
_LOST = (aiohttp.ClientError, TimeoutError, OSError, config.ConfigException)
"""Those of kube.FAILURES that leave what was heard before as good as it was."""


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
    and is being resumed). `heard`: `clock()` when the API server last said something. `synced` is called each
    time that `in_sync` becomes true. `page` is the most objects in a page of the list, `pause` the seconds
    before the second attempt.
    """

    def __init__(
        self,
        api: ApiClient,
        path: str,
        handler: Handler,
        *,
        name: str,
        selector: str = "",
        page: int = 500,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
        watch_seconds: int = 240,
        silence: float = SILENCE,
        synced: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._path, self._handler, self._name = api, path, handler, name
        self._selected = [("labelSelector", selector)] if selector else []
        self._page, self._clock, self._pause = page, clock, pause
        self._watch_seconds, self._silence, self._synced = watch_seconds, silence, synced
        self._version = ""
        """Where the watch goes on; empty where a list has to come first."""
        self._failures = 0
        self.in_sync = False
        self.heard = -math.inf

    async def run(self) -> None:
        """Follow the collection for ever; every error is said in the log and tried again."""
        try:
            while True:
                await self._follow()
        finally:
            self.in_sync = False

    async def _follow(self) -> None:
        try:
            if not self._version:
                await self._list()
            await self._watch()
            return
        except client.FAILURES as error:
            wish = self._failed(error)
        except Exception as error:
            _log.exception("an answer that makes no sense, or a bug of ours")
            wish = self._failed(error)
        pause = self._pause * 2**self._failures * random.uniform(0.5, 1)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        await asyncio.sleep(max(pause, wish))

    def _failed(self, error: Exception) -> float:
        """Say so; the seconds that the API server wishes to be left alone for."""
        self.in_sync = False
        busy = isinstance(error, ApiException) and error.status in _BUSY
        if not busy and not isinstance(error, _LOST):
            self._version = ""
        _log.warning("cannot watch %s", self._name, extra=fields(error=client.explain(error)))
        return client.retry_after(error, _LONGEST_WISH) if busy else 0.0

    async def _list(self) -> None:
        self._handler.begin()
        limit, going_on = _FIRST_PAGE, list[tuple[str, str]]()
        while True:
            limit = min(limit, self._page)
            async with (
                asyncio.timeout(LIST_SECONDS),
                self._answer([("limit", str(limit)), *going_on], LIST_SECONDS) as content,
            ):
                text = await content.read()
            page = json.loads(text)
            self.heard = self._clock()
            items = page.get("items") or []
            limit = max(1, min(2 * limit, PAGE_BYTES * len(items) // len(text)))
            items.reverse()
            while items:
                self._handler.listed(items.pop())
                await asyncio.sleep(0)  # a page of large objects must not hold everybody else up
            if not (token := page["metadata"].get("continue")):
                break
            going_on = [("continue", token)]
        self._handler.end()
        self._version = page["metadata"]["resourceVersion"]

    async def _watch(self) -> None:
        """Hand on what changes after `_version`, until the watch ends as agreed."""
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(self._watch_seconds)),
        ]
        async with self._answer(query, self._silence) as content:
            opened = self.heard = self._clock()
            if not self.in_sync:
                self.in_sync = True
                self._synced()
            lines, before = Lines(), self._version
            async for chunk in content.iter_any():
                for line in lines.fed(chunk):
                    self._take(json.loads(line))
                    await asyncio.sleep(0)
        if self._version == before and self._clock() - opened < _SHORTEST:
            raise ConnectionError("the watch ended at once")
        self._failures = 0

    def _take(self, event: Json) -> None:
        type_, obj = event["type"], event["object"]
        if type_ == "ERROR":  # obj is a metav1.Status
            raise ApiException(status=obj.get("code"), reason=obj.get("message"))
        if type_ != "BOOKMARK":
            self._handler.changed(type_, obj)
        self._version = obj["metadata"]["resourceVersion"]
        self.heard = self._clock()
        self._failures = 0

    @asynccontextmanager
    async def _answer(
        self, query: Sequence[tuple[str, str]], silence: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """What the API server says to the query, piece by piece; one of FAILURES where it refuses.

        `silence`: the most seconds between two pieces.
        """
        async with asyncio.timeout(OPEN_SECONDS):
            response = await self._api.call_api(
                self._path,
                "GET",
                query_params=[*self._selected, *query],
                header_params={"Accept": client.JSON},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(sock_read=silence),
            )
        try:
            if response.status != 200:
                error = ApiException(status=response.status, reason=response.reason)
                error.headers = response.headers
                raise error
            yield response.content
        finally:
            # Not closed but cut off: TLS's goodbye would wait for a server that goes on sending.
            if response.connection and response.connection.transport:
                response.connection.transport.abort()
            response.close()


class Lines:
    """Lines of any length out of chunks of any length; aiohttp's own reader has a limit."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def fed(self, chunk: bytes) -> list[bytes]:
        """The lines that the chunk completes, without their ends; empty ones are left out."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        if not others:
            return []
        lines = [b"".join(self._begun), *others[:-1]]
        self._begun = [others[-1]]
        return [line for line in lines if line]
