"""Which entries there are, and how old each is, in little memory: no value is kept."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from memoize.duration import DurationError
from memoize.entry import Entry

MOST = 200_000
"""Entries of an index; some hundred bytes each. What is beyond is not known, so that nobody who can write
ConfigMaps can take all the memory there is."""

Cache = tuple[str, str]
"""Namespace and name of a ConfigMap."""


class Seen(NamedTuple):
    """What is kept of an entry.

    `created` is its creationTimestamp as it is written, "" for none; the others tell its text from another.
    """

    created: str
    size: int
    digest: int


class _Known(NamedTuple):
    """A ConfigMap: its resourceVersion, and its entries by data key; None where there are too many."""

    version: str
    entries: dict[str, Seen] | None


class Index:
    """Caches and their entries. `entries` counts them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._caches: dict[Cache, _Known] = {}
        self._listed: set[Cache] | None = None
        self.entries = 0

    def __iter__(self) -> Iterator[Cache]:
        return iter(self._caches)

    def begin(self) -> None:
        """Begin a list: `end` forgets every cache that has not been put since."""
        self._listed = set()

    def end(self) -> list[Cache]:
        """End the list; what has been forgotten."""
        gone = [cache for cache in self._caches if cache not in (self._listed or ())]
        for cache in gone:
            self.drop(cache)
        self._listed = None
        return gone

    def put(self, cache: Cache, version: str, data: Mapping[str, str]) -> None:
        """Learn what the cache holds. Only texts that differ from what was there are read."""
        before = self.drop(cache)
        if self._listed is not None:
            self._listed.add(cache)
        entries = {
            data_key: seen for data_key, text in data.items() if (seen := _seen(text, before.get(data_key)))
        }
        if self.entries + len(entries) > self._most:
            self._caches[cache] = _Known(version, None)
            return
        self._caches[cache] = _Known(version, entries)
        self.entries += len(entries)

    def drop(self, cache: Cache) -> Mapping[str, Seen]:
        """Forget a cache; its entries."""
        known = self._caches.pop(cache, None)
        entries = known.entries if known is not None and known.entries is not None else {}
        self.entries -= len(entries)
        return entries

    def version(self, cache: Cache) -> str:
        """The resourceVersion that the cache was last put with; "" where it is not known."""
        known = self._caches.get(cache)
        return "" if known is None else known.version

    def holds(self, cache: Cache) -> bool:
        """Whether `find` can tell: there is no such cache, or its entries are all here."""
        known = self._caches.get(cache)
        return known is None or known.entries is not None

    def find(self, cache: Cache, data_key: str) -> Seen | None:
        """The entry at a data key, if there is one."""
        known = self._caches.get(cache)
        return known.entries.get(data_key) if known is not None and known.entries is not None else None


def _seen(text: str, before: Seen | None) -> Seen | None:
    """What there is to know of an entry; None for what is none.

    The digest is Python's own: as fast as memory, and keyed anew in every process, so that nobody can make
    two texts that share one.
    """
    size, digest = len(text), hash(text)
    if before is not None and (before.size, before.digest) == (size, digest):
        return before
    created = creation(text)
    return None if created is None else Seen(created, size, digest)


def creation(text: str) -> str | None:
    """The creationTimestamp of an entry as it is written, "" where it has none; None for what is no entry.

    Only `nodeID` and that are judged, by Entry.parse itself; the rest is for those who read the entry.
    """
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return None
        judged = {name: fields.get(name) for name in ("nodeID", "creationTimestamp")}
        Entry.parse(json.dumps(judged))
    except (ValueError, RecursionError):
        return None
    return judged["creationTimestamp"] or ""


def fresh(seen: Seen, max_age: str, now: datetime) -> bool:
    """Whether the entry is not too old under `max_age` at the time `now` (aware), as Entry.older_than has it.

    No entry is fresh under what is no duration: whoever reads it says why.
    """
    created = datetime.fromisoformat(seen.created) if seen.created else None
    try:
        return not Entry(node_id="", outputs=None, created=created, last_hit=None).older_than(max_age, now)
    except DurationError:
        return False
