"""What caches held when they were read, within a number of bytes of which no Namespace has more than half."""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from keeper.store import Cache
from memoize.outcome import Outcome

Data = Mapping[str, str]
"""The entries of a cache by data key. Nobody changes one that was read."""
Answer = Data | Outcome
"""What a read brings: the data, empty where there is no such ConfigMap; or why there are none."""

KEPT_SECONDS = 300.0
"""How long something is kept: who tells of changes may have lost some (as when etcd was restored)."""
_LEAST = 1 << 10
"""Bytes that anything kept counts: its names, and its places in dictionaries."""


class _Kept(NamedTuple):
    version: str
    answer: Answer
    size: int
    until: float


class DataCache:
    """What was read of caches, each at its resourceVersion. `bytes` is what all of it takes.

    `clock` counts seconds.
    Where there is no room, the Namespace that has the most gives up what it used least lately; where a
    Namespace has its half, that is itself.
    """

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes, self._clock, self.bytes = most_bytes, clock, 0
        self._namespaces: dict[str, OrderedDict[Cache, _Kept]] = {}
        """The one that was used least lately is the first of each."""
        self._bytes: dict[str, int] = {}

    def put(self, cache: Cache, version: str, answer: Answer) -> None:
        """Keep what a read brought, at this resourceVersion ("" for no ConfigMap), instead of another one."""
        self.drop(cache)
        namespace, size = cache[0], size_of(answer)
        if size > self._most_bytes // 2:
            return
        kept = _Kept(version, answer, size, self._clock() + KEPT_SECONDS)
        self._namespaces.setdefault(namespace, OrderedDict())[cache] = kept
        self._bytes[namespace] = self._bytes.get(namespace, 0) + size
        self.bytes += size
        while self._bytes[namespace] > self._most_bytes // 2:
            self._evict(namespace)
        while self.bytes > self._most_bytes:
            self._evict(max(self._bytes, key=self._bytes.__getitem__))

    def get(self, cache: Cache) -> Answer | None:
        """What is kept of the cache, None for nothing."""
        of_namespace = self._namespaces.get(cache[0])
        if of_namespace is None or cache not in of_namespace:
            return None
        if self._clock() >= of_namespace[cache].until:
            self.drop(cache)
            return None
        of_namespace.move_to_end(cache)
        return of_namespace[cache].answer

    def version(self, cache: Cache) -> str | None:
        """The resourceVersion at which something is kept of the cache, None for nothing."""
        of_namespace = self._namespaces.get(cache[0])
        return of_namespace[cache].version if of_namespace is not None and cache in of_namespace else None

    def caches(self, namespace: str) -> list[Cache]:
        """Those of the Namespace of which something is kept; of all Namespaces for ""."""
        found = self._namespaces
        named = [namespace] if namespace in found else () if namespace else found
        return [cache for name in named for cache in found[name]]

    def drop(self, cache: Cache) -> None:
        """Forget a cache."""
        namespace = cache[0]
        found = self._namespaces.get(namespace, OrderedDict()).pop(cache, None)
        if found is None:
            return
        self.bytes -= found.size
        self._bytes[namespace] -= found.size
        if not self._namespaces[namespace]:
            del self._namespaces[namespace], self._bytes[namespace]

    def _evict(self, namespace: str) -> None:
        self.drop(next(iter(self._namespaces[namespace])))


def size_of(answer: Answer) -> int:
    """Bytes of memory that the answer takes: of many small entries several times their text's."""
    if isinstance(answer, Outcome):
        return _LEAST
    texts = sum(map(sys.getsizeof, answer)) + sum(map(sys.getsizeof, answer.values()))
    return _LEAST + sys.getsizeof(answer) + texts
