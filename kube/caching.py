"""What is remembered for a while, and reads that several wait for."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from kube import cost

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Values by key, each for some seconds, `most` at once: the one put longest ago goes first.

    With a `group`, such as a key's Namespace, it goes from the largest group, and one group has `most_of_one`
    at once: a flood of keys pushes out its own. `clock` counts seconds.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        group: Callable[[K], Hashable] = lambda key: None,
        most_of_one: int | None = None,
    ) -> None:
        self._most, self._clock, self._group = most, clock, group
        self._most_of_one = most if most_of_one is None else most_of_one
        self._groups: dict[Hashable, OrderedDict[K, tuple[float, V]]] = {}
        self._count = 0

    def put(self, key: K, value: V, seconds: float) -> None:
        """Remember the value for so long, instead of an earlier one."""
        group = self._group(key)
        values = self._groups.setdefault(group, OrderedDict())
        self._count += key not in values
        values[key] = (self._clock() + seconds, value)
        values.move_to_end(key)
        if len(values) > self._most_of_one:
            self._forget_oldest(group)
        elif self._count > self._most:
            self._forget_oldest(max(self._groups, key=lambda one: len(self._groups[one])))

    def get(self, key: K) -> V | None:
        """The value; None where there is none, or its time is over."""
        values = self._groups.get(self._group(key))
        found = values.get(key) if values else None
        return found[1] if found is not None and self._clock() < found[0] else None

    def values(self) -> list[V]:
        """All of which the time is not over."""
        now = self._clock()
        return [value for values in self._groups.values() for until, value in values.values() if now < until]

    def _forget_oldest(self, group: Hashable) -> None:
        values = self._groups[group]
        values.popitem(last=False)
        self._count -= 1
        if not values:
            del self._groups[group]


class CachedReads(Generic[K, V]):
    """What was read by key: served for `seconds(value)`, 0 for not at all; one read at a time for each.

    `most`, `group` and `most_of_one` are those of the TtlCache that holds the values.
    """

    def __init__(
        self,
        seconds: Callable[[V], float] = lambda value: 0,
        *,
        most: int = 1000,
        clock: Callable[[], float] = time.monotonic,
        group: Callable[[K], Hashable] = lambda key: None,
        most_of_one: int | None = None,
    ) -> None:
        self._seconds = seconds
        self._values: TtlCache[K, tuple[V]] = TtlCache(most, clock, group=group, most_of_one=most_of_one)
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
            task = self._reads[key] = cost.create_task(self._run(key, read))
        return task

    async def _run(self, key: K, read: Callable[[], Coroutine[Any, Any, V]]) -> V:
        try:
            value = await read()
        finally:
            del self._reads[key]
        if (seconds := self._seconds(value)) > 0:
            self._values.put(key, (value,), seconds)
        return value
