"""Cleaning caches up: what has expired, what nobody uses, and what is too much, now and then.

The replica that acts does it, and no step waits for it: it looks at one cache after the other, works a small
part of the time, and leaves what it cannot do to the next pass. Namespaces take turns, and pay for what their
turns came to, so one with thousands of caches, or large ones, puts off its own. Nothing is remembered that
would be missed: whoever acts next begins with a pass of its own.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo.shape import mapping
from keeper.cache.configmap import CacheError
from keeper.cache.view import SELECTOR
from keeper.cache.writer import Writer
from keeper.store import Cache
from kube import client
from kube.cost import Cost, metered
from kube.errors import TEMPORARY, ApiError, NotFound
from kube.fair_queue import FairQueue
from kube.pages import pages
from memoize.eviction import Policy
from server.logs import fields

_log = logging.getLogger(__name__)

FIRST_AFTER = 120.0
"""Seconds from the start to the first pass: those who take over have other things to do first."""
EVERY = 3_600.0
"""Seconds from the end of a pass to the next one; up to a tenth more, at random."""
WORKS = 1 / 20
"""Part of the time during a pass that it works …"""
LONGEST_PAUSE = 10.0
"""… and the seconds after which it goes on whatever the last cache took: the others do not wait for it."""
TURN_TIMEOUT = 1.0
"""Seconds that it waits while entries are written to others of the Namespace's caches; then all of that
Namespace wait for the next pass."""
LABELS_SECONDS = 5.0
"""For the request for a Namespace's labels."""
CACHES_OF_ONE = 500
"""Caches of one Namespace that a pass looks at; the next one goes on with those behind them."""
_PAGE = 500
_MOST_FAILURES = 5
"""Caches in a row that a server could not be asked about, after which a pass ends."""


class Caches(Protocol):
    """The caches of a store, as a clean-up needs them."""

    def find(self) -> AsyncIterator[Cache]:
        """Give all of them; those that could be listed, where not all can, which is said in the log."""

    def turn(self, namespace: str) -> AbstractAsyncContextManager[None]:
        """Be one of those that write to caches of the Namespace, while the block lasts."""

    async def collect(self, namespace: str, cache: str, labels: Mapping[str, str], now: datetime) -> bool:
        """Clean one up in such a turn, unless `labels`, of its Namespace, or itself say that it is not to be.

        False where a server is in trouble. What went wrong is said in the log.
        """


class ConfigMaps:
    """Those that are ConfigMaps in `namespaces`, in all where none is named.

    `unused_for`: seconds without use after which an entry goes.
    """

    def __init__(self, api: ApiClient, namespaces: Sequence[str], writer: Writer, unused_for: float) -> None:
        self._api, self._namespaces, self._writer = api, namespaces, writer
        self._policy = Policy(timedelta(seconds=unused_for))
        self.turn = writer.turn

    async def find(self) -> AsyncIterator[Cache]:
        """Give the ConfigMaps with our label."""
        for namespace in self._namespaces or ("",):
            within = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
            listed = pages(
                self._api,
                f"/api/v1/{within}configmaps",
                [("labelSelector", SELECTOR)],
                name="caches",
                most=_PAGE,
                metadata_only=True,
            )
            try:
                async for page in listed:
                    for item in page.get("items") or []:
                        yield item["metadata"]["namespace"], item["metadata"]["name"]
            except ApiError as error:  # what is known by then is cleaned up all the same
                told = fields(namespace=namespace, error=str(error))
                _log.warning("cannot list the caches to clean up", extra=told)

    async def collect(self, namespace: str, cache: str, labels: Mapping[str, str], now: datetime) -> bool:
        """Clean one up: see keeper.cache.collect."""
        try:
            await self._writer.collect(namespace, cache, self._policy, labels, now)
        except CacheError as error:
            told = fields(namespace=namespace, cache=cache, error=str(error))
            _log.warning("cannot clean a cache up", extra=told)
            return not isinstance(error.error, TEMPORARY)
        return True


class _Found:
    """The caches of one Namespace that a pass looks at: those behind the last pass's last one first."""

    def __init__(self, after: str) -> None:
        self._after = after
        self._behind: list[str] = []
        self._before: list[str] = []

    def add(self, name: str) -> None:
        names = self._behind if name > self._after else self._before
        if len(names) < CACHES_OF_ONE:
            names.append(name)

    @property
    def names(self) -> list[str]:
        return (self._behind + self._before)[:CACHES_OF_ONE]


class CacheGC:
    """Cleans caches up while `acts` says so. `now` is aware, `clock` counts seconds."""

    def __init__(
        self,
        api: ApiClient,
        caches: Caches,
        acts: Callable[[], bool],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._caches, self._acts = api, caches, acts
        self._now, self._clock, self._sleep = now, clock, sleep
        self._last: dict[str, str] = {}
        """Of Namespaces with more caches than a pass looks at, the last one that one looked at."""

    async def run(self) -> None:
        """Clean up for ever."""
        await self._sleep(FIRST_AFTER)
        while True:
            if self._acts():
                try:
                    await self.collect()
                except Exception:  # the others that run beside it would end with it
                    _log.exception("a clean-up of caches ended, and is made again later")
            await self._sleep(EVERY * random.uniform(1, 1.1))

    async def collect(self) -> None:
        """Make one pass; what fails is said in the log."""
        # 1. Which caches are there?
        queue = FairQueue(share=1, clock=self._clock)
        caches: dict[str, Cache] = {}
        listed = list((await self._find()).items())
        random.shuffle(listed)  # those that end a pass are not to end each one before the others' turn
        for namespace, found in listed:
            for name in found.names:
                caches[f"{namespace}/{name}"] = namespace, name
                queue.add(namespace, f"{namespace}/{name}")
            self._last.pop(namespace, None)
            if len(found.names) >= CACHES_OF_ONE:
                self._last[namespace] = found.names[-1]
        # 2. One after the other, the Namespaces by turns.
        failed, skipped = 0, set[str]()
        while self._acts() and failed < _MOST_FAILURES and (key := queue.pop()) is not None:
            cost = Cost()
            worked, seconds = await metered(cost, self._collect(caches[key], skipped))
            queue.done(key, cost.total)
            failed = 0 if worked else failed + 1
            await self._sleep(min(seconds * (1 / WORKS - 1), LONGEST_PAUSE))

    async def _find(self) -> dict[str, _Found]:
        found: dict[str, _Found] = {}
        async for namespace, name in self._caches.find():
            if namespace not in found:
                found[namespace] = _Found(self._last.get(namespace, ""))
            found[namespace].add(name)
        return found

    async def _collect(self, cache: Cache, skipped: set[str]) -> tuple[bool, float]:
        """Clean one cache up, unless its Namespace is `skipped`.

        False where a server is in trouble; and the seconds of work, without those of the wait for it.
        """
        namespace, _ = cache
        if namespace in skipped:
            return True, 0.0
        begun = self._clock()
        try:
            labels = await self._labels(namespace)
        except ApiError as error:  # they may say that nothing is to be removed there
            skipped.add(namespace)
            told = fields(namespace=namespace, error=str(error))
            _log.warning("cannot clean the caches of a Namespace up: its labels cannot be read", extra=told)
            return not isinstance(error, TEMPORARY), self._clock() - begun
        seconds = self._clock() - begun
        try:
            async with asyncio.timeout(TURN_TIMEOUT) as timeout, self._caches.turn(namespace):
                timeout.reschedule(None)
                begun = self._clock()
                worked = await self._clean(cache, labels)
                return worked, seconds + self._clock() - begun
        except TimeoutError:
            skipped.add(namespace)
            told = fields(namespace=namespace)
            _log.info("caches of a Namespace are cleaned up later: entries are written there", extra=told)
            return True, seconds

    async def _labels(self, namespace: str) -> Mapping[str, str]:
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}"
        try:
            found = await client.request(
                self._api, "GET", path, seconds=LABELS_SECONDS, accept=client.METADATA_ONLY
            )
        except NotFound:  # what is left of one that was deleted is of use to nobody
            return {}
        return mapping(mapping(found.get("metadata")).get("labels"))

    async def _clean(self, cache: Cache, labels: Mapping[str, str]) -> bool:
        """Clean one cache up; False where a server is in trouble."""
        try:
            return await self._caches.collect(*cache, labels, self._now())
        except Exception:  # one cache that nobody thought of is no reason to leave the others
            _log.exception("cannot clean a cache up", extra=fields(namespace=cache[0], cache=cache[1]))
            return True
