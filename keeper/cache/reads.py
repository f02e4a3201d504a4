"""The reads of caches: those that ask for one share it, and each Namespace has a pace of its own.

A cache is read whole, and costs the event loop what it weighs. So a Namespace whose caches are large, and
change all the time, waits for its own turn; nobody else does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from keeper.cache.lru import Answer, size_of
from keeper.slots import Slots
from keeper.store import Cache
from memoize.outcome import Outcome
from memoize.reasons import Reason

BYTES_PER_SECOND = 24 << 20
"""Of memory, that one Namespace's reads may come to: to receive and parse so much takes a core a tenth to a
fifth of a second, be it of large entries or of small ones (bench/RESULTS.md)."""
BURST_SECONDS = 1.0
"""What may be read at once after a rest, as seconds of that."""
AT_ONCE = 8
"""Reads that are under way at the same time, each of up to client.MOST_BYTES …"""
AT_ONCE_OF_ONE = 2
"""… and those of one Namespace."""
UNKNOWN = "?"
"""No resourceVersion of anything."""
_NAMESPACES = 256
"""Whose pace is remembered, before those that have rested are forgotten."""

Fetch = Callable[[Cache], Awaitable[tuple[str, Answer]]]
"""Reads a cache from the API server: its resourceVersion, "" for none, and what it holds; does not raise."""


@dataclass(slots=True, eq=False)
class _Read:
    cache: Cache
    task: "asyncio.Task[Answer]" = field(init=False)
    begun: bool = False
    left: bool = False
    """Somebody who asked for it did not wait for its end."""
    told: str | None = None
    """The resourceVersion of the last event since it began."""


class Reads:
    """Reads caches with `fetch`.

    `on_read` gets each answer that nothing is known to be newer than, with its resourceVersion. `on_left` is
    told of a cache whose read came to its end after somebody had given up waiting for it. `clock` counts
    seconds.
    """

    def __init__(
        self,
        fetch: Fetch,
        on_read: Callable[[Cache, str, Answer], None],
        on_left: Callable[[Cache, Answer], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._fetch, self._on_read, self._on_left = fetch, on_read, on_left
        self._clock, self._sleep = clock, sleep
        self._latest: dict[Cache, _Read] = {}
        """The read of each cache that was asked for last, until its end."""
        self._slots = Slots(AT_ONCE, AT_ONCE_OF_ONE)
        self._due: dict[str, float] = {}
        """By Namespace, when all that was read is paid for."""

    async def get(self, cache: Cache, seconds: float | None = None) -> Answer:
        """What the cache holds, no older than the last event that was told of before the call.

        RateLimited after `seconds`, None for any number: the read goes on, and `on_left` is told.
        """
        read = self._latest.get(cache)
        if read is None or read.told is not None:
            read = self._begin(cache, read)
        try:
            async with asyncio.timeout(seconds):
                # One caller that hangs up must not end the read that others wait for.
                return await asyncio.shield(read.task)
        except TimeoutError:
            read.left = True
            return Outcome(
                Reason.RATE_LIMITED, "the caches of the Namespace are read as often as they may be"
            )

    def on_event(self, cache: Cache, version: str = UNKNOWN) -> None:
        """Learn that the cache is at this version: what is being read may be older."""
        read = self._latest.get(cache)
        if read is not None and read.begun:
            read.told = version

    def on_list(self) -> None:
        """Learn that caches may have changed, or gone, without an event."""
        for cache in self._latest:
            self.on_event(cache)

    async def close(self) -> None:
        """Give up the reads that are under way."""
        tasks = [read.task for read in self._latest.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, cache: Cache, before: _Read | None) -> _Read:
        read = self._latest[cache] = _Read(cache)
        read.task = asyncio.ensure_future(self._run(read, before))
        return read

    async def _run(self, read: _Read, before: _Read | None) -> Answer:
        namespace = read.cache[0]
        try:
            # 1. One read of a cache at a time …
            if before is not None:
                await asyncio.wait([before.task])
            async with self._slots.of_namespace(namespace):
                # 2. … when what its Namespace has read is paid for …
                while (wait := self._due.get(namespace, 0.0) - BURST_SECONDS - self._clock()) > 0:
                    await self._sleep(wait)
                # 3. … and there is room for another one.
                async with self._slots.all:
                    read.begun = True
                    version, answer = await self._fetch(read.cache)
            self._pay(namespace, answer)
        finally:
            if self._latest.get(read.cache) is read:
                del self._latest[read.cache]
        if read.told is None or read.told == version:
            self._on_read(read.cache, version, answer)
        if read.left:
            self._on_left(read.cache, answer)
        return answer

    def _pay(self, namespace: str, answer: Answer) -> None:
        now = self._clock()
        if namespace not in self._due and len(self._due) >= _NAMESPACES:
            self._due = {name: due for name, due in self._due.items() if due > now}
        due = max(self._due.get(namespace, 0.0), now)
        self._due[namespace] = due + size_of(answer) / BYTES_PER_SECOND
