"""What is remembered for a while, and reads that several wait for."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Values by key, each for some seconds, `most` at once: the one put longest ago goes first.

    `clock` counts seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def put(self, key: K, value: V, seconds: float) -> None:
        """Remember the value for so long, instead of an earlier one."""
        self._values[key] = (self._clock() + seconds, value)
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def get(self, key: K) -> V | None:
        """The value; None where there is none, or its time is over."""
        found = self._values.get(key)
        return found[1] if found is not None and self._clock() < found[0] else None


class CachedReads(Generic[K, V]):
    """What was read by key: served for `seconds(value)`, 0 for not at all; one read at a time for each."""

    def __init__(
        self,
        seconds: Callable[[V], float] = lambda value: 0,
        *,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._values: TtlCache[K, tuple[V]] = TtlCache(most, clock)
        self._reads: dict[K, asyncio.Task[V]] = {}

    def is_near(self, key: K) -> bool:
        """Whether `get` would not begin another read."""
        return key in self._reads or self.known(key) is not None

    @property
    def under_way(self) -> int:
        """How many reads are under way."""
        return len(self._reads)

    def known(self, key: K) -> tuple[V] | None:
        """What may be served without a read, in a tuple of its own since it may be None."""
        return self._values.get(key)

    async def get(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What is known of the key, or what `read`, or the read of it that is under way, brings."""
        if (known := self.known(key)) is not None:
            return known[0]
        # One caller that hangs up must not end the read that others wait for.
        return await asyncio.shield(self._read(key, read))

    def begin(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> None:
        """Read what `get` would have to wait for, beside whatever the caller does before it asks."""
        if self.known(key) is None:
            self._read(key, read)

    def _read(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.ensure_future(self._run(key, read))
        return task

    async def _run(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        try:
            value = await read()
        finally:
            del self._reads[key]
        if (seconds := self._seconds(value)) > 0:
            self._values.put(key, (value,), seconds)
        return value
