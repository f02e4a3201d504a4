"""One attempt at writing a batch of entries into a cache.

The usual way is one request that says its own condition (memoize.configmap). Only where that fails, or where
it is known that the cache may have no room, is the ConfigMap read: what makes room for the entries goes in
the same request as they come, on condition that nobody wrote in between (memoize.write). An entry that finds
no room does not take the others of its batch down.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from keeper.cache.configmap import CacheError, ConfigMap
from kube.errors import Invalid, NotFound
from memoize import capacity, configmap
from memoize.configmap import MOST_BYTES, size
from memoize.eviction import SETTLED, Eviction
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.write import Write, write


class Rules(NamedTuple):
    """What is so for all caches of a Namespace."""

    most_bytes: int = MOST_BYTES
    """Bytes of values that a cache may hold, if it does not say less itself."""
    settled: timedelta = SETTLED
    """See memoize.eviction.make_room."""


RULES = Rules()
"""Unless the settings say otherwise."""


@dataclass(slots=True, eq=False)
class Fill:
    """What is known of a cache since it was read, or made."""

    limit: int
    """Bytes of values that it may hold."""
    used: int
    """Those that it held, and what was added since; what others wrote is not in it."""


class Attempt(NamedTuple):
    """What came of it. Entries that are not in `done`, by data key, met `trouble`, which may pass."""

    done: Mapping[str, Outcome]
    trouble: CacheError | None = None
    evicted: Sequence[Eviction] = ()
    """What made room."""
    fill: Fill | None = None
    """For the next attempt at this cache."""
    problem: str = ""
    """What is wrong with what the ConfigMap says of its limit."""
    uid: str = ""
    """Of the ConfigMap, where one of these three is known."""


async def attempt(
    cache: ConfigMap,
    entries: Mapping[str, str],
    now: datetime,
    fill: Fill | None = None,
    *,
    rules: Rules = RULES,
    keep: Callable[[], Collection[str]] = tuple,
) -> Attempt:
    """Write entries, given by data key. What `keep` names when it is asked makes no room for them."""
    batch = _Batch(cache, now, fill, rules, keep)
    trouble = None
    try:
        await batch.add(entries)
    except CacheError as error:
        if error.passes:
            trouble = error
        else:
            batch.settle(entries, error.outcome)
    return Attempt(batch.done, trouble, batch.evicted, batch.fill, batch.problem, batch.uid)


class _Batch:
    """The outcomes so far, by data key. Every method may raise CacheError with entries left undone."""

    def __init__(
        self,
        cache: ConfigMap,
        now: datetime,
        fill: Fill | None,
        rules: Rules,
        keep: Callable[[], Collection[str]],
    ) -> None:
        self._cache, self._now, self._rules, self._keep = cache, now, rules, keep
        self.done: dict[str, Outcome] = {}
        self.evicted: list[Eviction] = []
        self.fill, self.problem, self.uid = fill, "", ""

    def settle(self, entries: Mapping[str, str], outcome: Outcome) -> None:
        """Give all of these that have none yet the same outcome."""
        for data_key in entries:
            self.done.setdefault(data_key, outcome)

    async def add(self, entries: Mapping[str, str]) -> None:
        """Write into a cache that is there and has room, else find out what there is."""
        if not self._may_fit(entries):
            return await self._write_seen(entries)
        try:
            metadata = await self._cache.patch(configmap.added(entries))
        except CacheError as trouble:
            if isinstance(trouble.error, NotFound):
                return await self._create(entries)
            if _may_be_of_few(trouble):
                return await self._write_seen(entries, trouble)
            raise
        limit = self._limit(metadata)
        if limit < (self.fill.limit if self.fill else MOST_BYTES):
            # Only now it is known how little the cache may hold.
            return await self._write_seen(entries, written=True)
        if self.fill:
            self.fill.used += sum(map(size, entries.values()))
        return self._stored(entries)

    def _may_fit(self, entries: Mapping[str, str]) -> bool:
        """Whether to write without a look: the API server itself keeps a cache within MOST_BYTES."""
        if self.fill is None:
            return self._rules.most_bytes >= MOST_BYTES
        return self.fill.used + sum(map(size, entries.values())) <= self.fill.limit

    def _limit(self, config_map: Mapping[str, Any]) -> int:
        limit, self.problem = capacity.limit(config_map, self._rules.most_bytes)
        self.uid = str(config_map["metadata"].get("uid", ""))
        return limit

    async def _create(self, entries: Mapping[str, str]) -> None:
        limit = self._rules.most_bytes
        plan = write({"metadata": {}}, entries, self._now, limit)
        self.done.update(plan.refused)
        if not plan.fitting:
            return
        try:
            await self._cache.create(plan.fitting)
        except CacheError as trouble:
            await self._split(plan.fitting, trouble)
        else:
            self.fill = Fill(limit, sum(map(size, plan.fitting.values())))
            self._stored(plan.fitting)

    async def _write_seen(
        self, entries: Mapping[str, str], trouble: CacheError | None = None, *, written: bool = False
    ) -> None:
        """Read the ConfigMap, and write into what was read.

        After `trouble`: that was the answer to the entries alone. `written`: they are there by now.
        """
        # 1. What is there?
        try:
            seen = await self._cache.get()
        except CacheError as error:
            if isinstance(error.error, NotFound) and not trouble:
                return await self._create(entries)
            raise
        if outcome := configmap.refused(seen):
            return self.settle(entries, outcome)
        limit = self._limit(seen)
        self.fill = Fill(limit, configmap.used(seen))
        # 2. What fits, as far as sizes are known; and if the API server knows better, with more room.
        for full in (False, True):
            plan = await self._plan(seen, entries, limit, written=written, full=full)
            refused_before = trouble and trouble.object_too_large and not (plan.evicted or plan.refused)
            if plan.patch is not None and not refused_before:
                try:
                    await self._cache.patch(plan.patch)
                except CacheError as error:
                    if not _may_be_of_few(error):
                        raise
                    trouble = error
                else:
                    return self._settle(plan, written=written)
            if not (trouble and trouble.object_too_large):
                break
        # 3. It was refused, or there is nothing to write.
        if trouble and plan.fitting:
            self.done.update(plan.refused)
            return await self._split(plan.fitting, trouble)
        return self._settle(plan, written=written)

    async def _plan(
        self, seen: Mapping[str, Any], entries: Mapping[str, str], limit: int, *, written: bool, full: bool
    ) -> Write:
        decide = partial(
            write,
            seen,
            entries,
            self._now,
            limit,
            written=written,
            full=full,
            keep={*self._keep(), *self.done},
            settled=self._rules.settled,
        )
        # A megabyte of entries takes long to read: not in the loop that decides gated Pods.
        return await asyncio.to_thread(decide)

    def _settle(self, plan: Write, *, written: bool) -> None:
        assert self.fill is not None
        added = 0 if written else sum(map(size, plan.fitting.values()))
        self.fill.used += added - plan.evicted_bytes
        self.done.update(plan.refused)
        self._stored(plan.fitting)
        self.evicted += plan.evicted

    async def _split(self, entries: Mapping[str, str], trouble: CacheError) -> None:
        """After a refusal that may be the fault of a few: write one at a time, the smallest first.

        Where one finds no room, no larger one is tried: this is the rare way, and each try costs a megabyte.
        """
        if not _may_be_of_few(trouble):
            raise trouble
        if len(entries) == 1:
            (text,) = entries.values()
            return self.settle(entries, configmap.full(text) if trouble.too_large else trouble.outcome)
        full = False
        for data_key, text in sorted(entries.items(), key=lambda item: size(item[1])):
            if full:
                self.done[data_key] = configmap.full(text)
                continue
            await self.add({data_key: text})
            full = self.done[data_key].reason is Reason.CACHE_FULL
        return None

    def _stored(self, entries: Mapping[str, str]) -> None:
        for data_key, text in entries.items():
            self.done[data_key] = configmap.stored(text)


def _may_be_of_few(trouble: CacheError) -> bool:
    """Whether the API server refuses what it was sent, rather than to do anything."""
    return trouble.too_large or isinstance(trouble.error, Invalid)
