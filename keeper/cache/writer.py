"""The one way that entries take from this process into caches.

Steps that end at the same moment would meet each other in the same ConfigMap: entries for one cache are
gathered for some milliseconds, and go in one request after another.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from kubernetes_asyncio.client import ApiClient

from argo.steppod import Owner
from keeper.cache.batch import RULES, Attempt, Fill, Rules, attempt
from keeper.cache.collect import collect
from keeper.cache.configmap import CacheError, ConfigMap
from keeper.cache.refresh import refresh
from keeper.slots import Slots
from kube.backoff import Backoff
from kube.caching import TtlCache
from memoize import configmap
from memoize.eviction import Eviction, Policy
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

GATHERED = 0.02
"""Seconds that the first entry of a batch waits for others."""
GATHERED_WHEN_FULL = 0.5
"""The same for a cache that had no room lately: every attempt at one reads a megabyte."""
FULL = 30.0
"""How long that is, in seconds."""
SECONDS = 10.0
"""How long an entry is tried for; then it is lost."""
MOST_AT_ONCE = 256
"""Entries of one batch; a JSON patch may have 10,000 operations (k8s.io/apiserver, handlers/patch.go) …"""
BYTES_AT_ONCE = 1 << 20
"""… and a request 3 MiB: an entry's JSON may double as it is quoted once more."""
MOST_WAITING = 2_000
"""Entries that wait for one cache …"""
BYTES_WAITING = 8 << 20
"""… their bytes …"""
BYTES_WAITING_OF_ONE = 16 << 20
"""… the bytes for all caches of one Namespace …"""
BYTES_WAITING_IN_ALL = 64 << 20
"""… and for all."""
REQUESTS = 16
"""Caches that are written to at once …"""
REQUESTS_OF_ONE = 4
"""… and those of one Namespace."""
_EACH = 1 << 10
"""Bytes that an entry takes beside its text while it waits."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_FULL_CACHES = 1_000
"""Caches remembered to be full; and those of which it is known how much they hold …"""
_FILL_SECONDS = 60.0
"""… and how long it is, since nobody tells what others write."""


class OnCache(Protocol):
    """Is told what becomes of caches; must not block."""

    def on_evicted(self, cache: Owner, evicted: Sequence[Eviction]) -> None:
        """Entries of this ConfigMap made room for others."""

    def on_collected(self, cache: Owner, removed: Sequence[Eviction]) -> None:
        """Entries of this ConfigMap were cleaned up."""

    def on_problem(self, cache: Owner, problem: str) -> None:
        """What this ConfigMap says of its limit is wrong, and ignored. Called again and again."""


class _PendingEntry(NamedTuple):
    data_key: str
    text: str
    now: datetime
    outcome: "asyncio.Future[Outcome]"


class _CacheQueue:
    """The entries that wait for one cache, and what the last attempt met."""

    def __init__(self, namespace: str, cache: ConfigMap) -> None:
        self.namespace, self.cache = namespace, cache
        self.puts: list[_PendingEntry] = []
        self.bytes = 0
        self.trouble: CacheError | None = None
        self.backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self.task: asyncio.Task[None] | None = None


class Writer:
    """Writes entries. `on_written` is told what became of each. Close it, or its tasks outlive it.

    `rules` says by which of them entries make room for others in a Namespace's caches.
    """

    def __init__(
        self,
        api: ApiClient,
        on_written: Callable[[Reason], None] = lambda reason: None,
        *,
        rules: Callable[[str], Rules] = lambda namespace: RULES,
        on_cache: OnCache | None = None,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._on_written, self._seconds = api, on_written, seconds
        self._rules, self._on_cache = rules, on_cache
        self._awaited: Callable[[str, str], Collection[str]] = lambda namespace, cache: ()
        self._fills = TtlCache[tuple[str, str], Fill](_FULL_CACHES, clock, group=lambda key: key[0])
        self._queues: dict[tuple[str, str], _CacheQueue] = {}
        self._full: TtlCache[tuple[str, str], bool] = TtlCache(_FULL_CACHES, clock)
        self._bytes: Counter[str] = Counter()
        """That wait, by Namespace."""
        self._requests = Slots(REQUESTS, REQUESTS_OF_ONE)

    def spare(self, awaited: Callable[[str, str], Collection[str]]) -> None:
        """Have no entry make room that somebody is about to be answered with.

        `awaited(namespace, cache)` says their data keys, and must not block.
        """
        self._awaited = awaited

    async def put(self, namespace: str, cache: str, data_key: str, text: str, now: datetime) -> Outcome:
        """Keep the entry under this data key; says within `seconds` whether it is there, else why not.

        Of two entries for one place the later one stays. `now` is aware: by then others have
        expired, and make room. An entry whose time is over may still arrive, if its last request was not
        answered.
        """
        outcome = await self._put((namespace, cache), data_key, text, now)
        self._on_written(outcome.reason)
        if outcome.reason is not Reason.STORED:
            told = fields(
                reason=outcome.reason.value, namespace=namespace, cache=cache, detail=outcome.detail
            )
            _log.warning("an entry is lost", extra=told)
        return outcome

    async def replace(self, namespace: str, cache: str, changes: Mapping[str, tuple[str, str]]) -> Outcome:
        """Replace entries by `{data key: (text that is there, new text)}`, each one only if it is unchanged.

        Stored when some were, Conflict when others changed or removed them all. Never creates an entry. Tried
        once: a time of a last hit is not worth more.
        """
        async with self._requests.take(namespace):
            return await refresh(ConfigMap(self._api, namespace, cache), changes)

    def turn(self, namespace: str) -> AbstractAsyncContextManager[None]:
        """Be one of those that write to caches of the Namespace, while the block lasts."""
        return self._requests.take(namespace)

    async def collect(
        self, namespace: str, cache: str, policy: Policy, namespace_labels: Mapping[str, str], now: datetime
    ) -> None:
        """Clean a cache up (keeper.cache.collect), in a `turn`, and say what went; CacheError."""
        uid, removed, problem = await collect(
            ConfigMap(self._api, namespace, cache),
            policy._replace(limit=self._rules(namespace).most_bytes),
            namespace_labels,
            now,
            lambda: self._awaited(namespace, cache),
        )
        if self._on_cache is not None and removed:
            self._on_cache.on_collected(Owner(namespace, cache, uid), removed)
        if self._on_cache is not None and problem:
            self._on_cache.on_problem(Owner(namespace, cache, uid), problem)

    async def close(self) -> None:
        """Give up what still waits."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _put(self, key: tuple[str, str], data_key: str, text: str, now: datetime) -> Outcome:
        if refused := configmap.too_large_for(text, self._rules(key[0]).most_bytes):
            return refused
        size, namespace = _weight(text), key[0]
        if self._bytes[namespace] + size > BYTES_WAITING_OF_ONE:
            return Outcome(Reason.RATE_LIMITED, "too many entries wait for caches of this Namespace")
        if self._bytes.total() + size > BYTES_WAITING_IN_ALL:
            return Outcome(Reason.API_UNAVAILABLE, "too many entries wait to be written")
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _CacheQueue(namespace, ConfigMap(self._api, *key))
            queue.task = asyncio.create_task(self._run(key, queue))
        if len(queue.puts) >= MOST_WAITING or queue.bytes + size > BYTES_WAITING:
            return Outcome(Reason.RATE_LIMITED, "too many entries wait for this cache")
        put = _PendingEntry(data_key, text, now, asyncio.get_running_loop().create_future())
        queue.puts.append(put)
        queue.bytes += size
        self._bytes[namespace] += size
        try:
            async with asyncio.timeout(self._seconds):
                return await put.outcome
        except TimeoutError:
            trouble = queue.trouble
            return trouble.outcome if trouble else Outcome(Reason.API_UNAVAILABLE, "no answer in time")

    async def _run(self, key: tuple[str, str], queue: _CacheQueue) -> None:
        """Write batch after batch until nothing waits."""
        try:
            pause = self._gathered(key)
            while queue.puts:
                await asyncio.sleep(pause)
                self._forget(queue, [put for put in queue.puts if put.outcome.done()])
                if batch := _first(queue.puts):
                    async with self._requests.take(queue.namespace):
                        result = await self._attempt(key, queue, batch)
                    pause = self._settle(key, queue, batch, result)
        finally:
            del self._queues[key]
            for put in queue.puts:
                if not put.outcome.done():
                    put.outcome.set_result(Outcome(Reason.API_UNAVAILABLE, "the server shuts down"))
            self._forget(queue, list(queue.puts))

    async def _attempt(self, key: tuple[str, str], queue: _CacheQueue, batch: list[_PendingEntry]) -> Attempt:
        entries, fill = {put.data_key: put.text for put in batch}, self._fills.get(key)
        try:
            result = await attempt(
                queue.cache,
                entries,
                max(put.now for put in batch),
                fill,
                rules=self._rules(queue.namespace),
                keep=lambda: self._awaited(*key),
            )
            if result.fill is not None and result.fill is not fill:
                self._fills.put(key, result.fill, _FILL_SECONDS)
            if self._on_cache is not None:
                config_map = Owner(*key, result.uid)
                if result.evicted:
                    self._on_cache.on_evicted(config_map, result.evicted)
                if result.problem:
                    self._on_cache.on_problem(config_map, result.problem)
            return result
        except Exception:
            _log.exception("cannot write", extra=fields(reason=Reason.INTERNAL_ERROR.value))
            return Attempt(dict.fromkeys(entries, Outcome(Reason.INTERNAL_ERROR, "see the server's log")))

    def _settle(
        self, key: tuple[str, str], queue: _CacheQueue, batch: list[_PendingEntry], result: Attempt
    ) -> float:
        """Tell the outcomes of a batch; seconds until the next one."""
        done = [put for put in batch if put.data_key in result.done]
        for put in done:
            if not put.outcome.done():
                put.outcome.set_result(result.done[put.data_key])
        self._forget(queue, done)
        queue.trouble = result.trouble
        if any(outcome.reason is Reason.CACHE_FULL for outcome in result.done.values()):
            self._full.put(key, True, FULL)
        if result.trouble is None:
            queue.backoff.reset()
            return self._gathered(key)
        # Nothing that waits now will wait for longer than that.
        return max(queue.backoff.next(), min(result.trouble.error.retry_after, self._seconds))

    def _forget(self, queue: _CacheQueue, puts: list[_PendingEntry]) -> None:
        gone = {id(put) for put in puts}
        queue.puts = [put for put in queue.puts if id(put) not in gone]
        size = sum(_weight(put.text) for put in puts)
        queue.bytes -= size
        self._bytes[queue.namespace] -= size
        if not self._bytes[queue.namespace]:
            del self._bytes[queue.namespace]

    def _gathered(self, key: tuple[str, str]) -> float:
        return GATHERED_WHEN_FULL if self._full.get(key) else GATHERED


def _weight(text: str) -> int:
    """Bytes that an entry takes while it waits."""
    return _EACH + configmap.size(text)


def _first(puts: list[_PendingEntry]) -> list[_PendingEntry]:
    """As many of the puts as go into one request, and at least one."""
    size = 0
    for number, put in enumerate(puts[:MOST_AT_ONCE]):
        size += configmap.size(put.text)
        if number and size > BYTES_AT_ONCE:
            return puts[:number]
    return puts[:MOST_AT_ONCE]
