"""One attempt at writing a batch of entries into a cache.

The usual way is one request that says its own condition (memoize.configmap). Only where it fails is the
ConfigMap read. An entry that does not fit does not take the others of its batch down.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from keeper.cache.configmap import CacheError, ConfigMap
from kube.errors import Invalid, NotFound
from memoize import configmap
from memoize.entry import expired
from memoize.outcome import Outcome
from memoize.reasons import Reason


class Attempt(NamedTuple):
    """What came of it. Entries that are not in `done`, by data key, met `trouble`, which may pass."""

    done: Mapping[str, Outcome]
    trouble: CacheError | None = None


async def attempt(cache: ConfigMap, entries: Mapping[str, str], now: datetime) -> Attempt:
    """Write entries, given by data key; entries that expired by `now` go where there is no room."""
    batch = _Batch(cache, now)
    try:
        await batch.add(entries)
    except CacheError as trouble:
        if trouble.passes:
            return Attempt(batch.done, trouble)
        batch.settle(entries, trouble.outcome)
    return Attempt(batch.done)


class _Batch:
    """The outcomes so far, by data key. Every method may raise CacheError with entries left undone."""

    def __init__(self, cache: ConfigMap, now: datetime) -> None:
        self._cache, self._now = cache, now
        self.done: dict[str, Outcome] = {}

    def settle(self, entries: Mapping[str, str], outcome: Outcome) -> None:
        """Give all of these that have none yet the same outcome."""
        for data_key in entries:
            self.done.setdefault(data_key, outcome)

    async def add(self, entries: Mapping[str, str]) -> None:
        """Write into a cache that is there and has room, else find out what there is."""
        try:
            await self._cache.patch(configmap.added(entries))
        except CacheError as trouble:
            if isinstance(trouble.error, NotFound):
                await self._create(entries)
            elif trouble.too_large or isinstance(trouble.error, Invalid):
                await self._write_seen(entries, full=trouble.too_large)
            else:
                raise
        else:
            self._stored(entries)

    async def _create(self, entries: Mapping[str, str]) -> None:
        try:
            await self._cache.create(entries)
        except CacheError as trouble:
            await self._split(entries, trouble)
        else:
            self._stored(entries)

    async def _write_seen(self, entries: Mapping[str, str], *, full: bool) -> None:
        """Read the ConfigMap and write into what was read; where it is full, expired entries go."""
        seen = await self._cache.get()
        if outcome := configmap.refused(seen):
            return self.settle(entries, outcome)
        present = configmap.data(seen)
        gone: set[str] = set()
        if full or len(configmap.fitting(entries, present)) < len(entries):
            # A megabyte of entries takes long to read: not in the loop that answers admission reviews.
            gone = await asyncio.to_thread(lambda: set(expired(present, self._now)))
        left = {data_key: text for data_key, text in present.items() if data_key not in gone}
        if not (fitting := self._fitting(entries, left)):
            return None
        try:
            await self._cache.patch(configmap.seen(seen, fitting, gone))
        except CacheError as trouble:
            await self._split(fitting, trouble)
        else:
            self._stored(fitting)
        return None

    async def _split(self, entries: Mapping[str, str], trouble: CacheError) -> None:
        """After a refusal that may be the fault of a few: write one at a time, the smallest first.

        Where one finds no room, no larger one is tried: this is the rare way, and each try costs a megabyte.
        """
        if not trouble.too_large and not isinstance(trouble.error, Invalid):
            raise trouble
        if len(entries) == 1:
            (text,) = entries.values()
            return self.settle(entries, configmap.full(text) if trouble.too_large else trouble.outcome)
        full = False
        for data_key, text in sorted(entries.items(), key=lambda item: configmap.size(item[1])):
            if full:
                self.done[data_key] = configmap.full(text)
                continue
            await self.add({data_key: text})
            full = self.done[data_key].reason is Reason.CACHE_FULL
        return None

    def _fitting(self, entries: Mapping[str, str], present: Mapping[str, str]) -> Mapping[str, str]:
        fitting = configmap.fitting(entries, present)
        for data_key in entries.keys() - fitting.keys():
            self.done[data_key] = configmap.full(entries[data_key])
        return fitting

    def _stored(self, entries: Mapping[str, str]) -> None:
        for data_key, text in entries.items():
            self.done[data_key] = configmap.stored(text)
