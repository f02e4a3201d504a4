"""Whole caches that were read or told of lately, within a number of bytes."""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from keeper.cache.index import Cache


class _Data(NamedTuple):
    version: str
    data: Mapping[str, str]
    size: int


class DataCache:
    """The data of caches by resourceVersion; those that nobody used for longest go first.

    `bytes` is what they take, keys and the dictionaries themselves included.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self.bytes = most_bytes, 0
        self._caches: OrderedDict[Cache, _Data] = OrderedDict()

    def put(self, cache: Cache, version: str, data: Mapping[str, str]) -> None:
        """Keep what the cache holds at this version instead of what it held at another."""
        self.drop(cache)
        size = sys.getsizeof(data) + sum(sys.getsizeof(text) for item in data.items() for text in item)
        if size > self._most_bytes:
            return
        self._caches[cache] = _Data(version, data, size)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self.drop(next(iter(self._caches)))

    def get(self, cache: Cache, version: str) -> Mapping[str, str] | None:
        """The data at this very version."""
        found = self._caches.get(cache)
        if found is None or found.version != version:
            return None
        self._caches.move_to_end(cache)
        return found.data

    def drop(self, cache: Cache) -> None:
        """Forget a cache."""
        if (found := self._caches.pop(cache, None)) is not None:
            self.bytes -= found.size
