"""What keeps the number of rows within bounds, in small steps, each of which may be the last.

Every replica does it. What two do at once is done once: a row is only touched if it is still what was seen.
"""

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from keeper.cache.view import View
from keeper.postgresql import sql
from keeper.postgresql.database import Database, DatabaseError
from keeper.store import NOT_NOW, CacheFill
from memoize.eviction import Cause
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

_NOT_NOW = NOT_NOW - {Reason.FORBIDDEN}

PERIOD = 10.0
"""Seconds from one round to the next, a little more or less: replicas shall not meet."""
MOST_BATCHES = 20
"""Of one round for what has expired, and again for what is too much."""
ROWS = 500
BYTES = 16 << 20
"""Of entries that one statement takes away: the server has to touch all of them."""
REST = 2.0
"""A pause after a batch is so many times as long as the batch took, for those who look up meanwhile."""
IN_USE = 120.0
"""Seconds after an entry was written or hit in which it is not evicted: hits are told once a minute, and a
waiter may be about to be answered with it."""
STOP_AT = 0.9
"""Of its limit, down to which a Namespace that is above it is taken."""
FULL_AT = 1.25
"""Of its limit, from which on nothing is stored for a Namespace: it writes faster than it may be evicted."""
GONE_SECONDS = 86_400.0
"""After which it is looked again whether a ConfigMap still holds what is gone."""


class Upkeep:
    """Takes away what has expired, and of a Namespace above its limit what was of use longest ago.

    `most_bytes` is the limit of each Namespace, in bytes of texts and sql.OVERHEAD for each entry.
    `on_evicted` is
    told by what ("gc"), why, how many, and their bytes.
    """

    def __init__(
        self,
        database: Database,
        view: View,
        most_bytes: int,
        on_evicted: Callable[[str, str, int, int], None] = lambda by, reason, entries, size: None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._database, self._view, self._most_bytes = database, view, most_bytes
        self._on_evicted, self._sleep = on_evicted, sleep
        self._large: dict[str, int] = {}
        """The bytes of Namespaces not far from their limit, as of the last round …"""
        self._added: Counter[str] = Counter()
        """… and what was put since, by Namespace."""
        self._used: dict[str, int] = {}
        """The bytes of all Namespaces, as of the last round."""

    def fills(self) -> list[CacheFill]:
        """How full the Namespaces were in the last round."""
        return [CacheFill(name, size, self._most_bytes) for name, size in self._used.items()]

    def is_full(self, namespace: str) -> bool:
        """Whether nothing more is to be stored for the Namespace, as far as it is known."""
        known = self._large.get(namespace, int(self._most_bytes * STOP_AT))
        return known + self._added[namespace] > self._most_bytes * FULL_AT

    def on_put(self, namespace: str, size: int) -> None:
        """So many bytes were stored."""
        self._added[namespace] += size + sql.OVERHEAD

    async def run(self) -> None:
        """Do it for ever."""
        while True:
            await self._sleep(PERIOD * random.uniform(0.8, 1.2))
            if self._database.is_well:
                try:
                    await self.round()
                except DatabaseError as error:
                    _log.debug("the upkeep of the database waits: %s", error)

    async def round(self) -> None:
        """Do as much as one round may; a DatabaseError where it cannot be done now."""
        for _ in range(MOST_BATCHES):
            if not await self._remove_some(Cause.EXPIRED, sql.EXPIRED, ROWS):
                break
        await self._evict()
        await self._remove_some("", sql.GONE, GONE_SECONDS, ROWS)

    async def _evict(self) -> None:
        """Make room, by turns, in all Namespaces above their limit."""
        large = await self._measure()
        over = {name for name, size in large.items() if size > self._most_bytes}
        left = MOST_BATCHES
        while over and left > 0:
            for namespace in sorted(over):
                start = secrets.token_hex(32)
                gone = await self._remove_some(Cause.UNUSED, sql.LEAST_USED, namespace, start, IN_USE)
                left -= 1
                if not gone:  # all of it is in use
                    over.discard(namespace)
            large = await self._measure()
            over &= {name for name, size in large.items() if size > self._most_bytes * STOP_AT}

    async def _measure(self) -> dict[str, int]:
        added = self._added.copy()
        rows = await self._database.fetch_aside(sql.NAMESPACES)
        self._used = {row["namespace"]: row["bytes"] for row in rows}
        self._large = {name: size for name, size in self._used.items() if size > self._most_bytes * STOP_AT}
        self._added -= added  # what was put meanwhile may not have been counted
        return self._large

    async def _remove_some(self, why: str, statement: str, *arguments: object) -> int:
        """Take away what the statement finds; how many. `why` is "" where no entry is left of it."""
        loop = asyncio.get_running_loop()
        begun, removed = loop.time(), 0
        found = await self._database.fetch_aside(statement, *arguments)
        for batch in _batches(found):
            entries = await self._remove(batch)
            if entries and why:
                self._on_evicted("gc", why, entries, sum(row["bytes"] for row in batch))
            removed += entries
        if removed and why:
            _log.info("entries were removed from the database", extra=fields(reason=why, entries=removed))
        await self._sleep(REST * (loop.time() - begun))
        return removed

    async def _remove(self, rows: Sequence[Any]) -> int:
        """Remove these rows, or leave a mark where a ConfigMap would bring the entry back."""
        caches = {(row["namespace"], row["cache"]) for row in rows}
        held = {cache: await self._view.read(*cache) for cache in caches}
        marked, removed = list[Any](), list[Any]()
        for row in rows:
            data = held[row["namespace"], row["cache"]]
            # What cannot be read now is taken for one that holds it: the mark is looked at again some day.
            # What may not be read, as where a Namespace is not kept any more, is not read for a step either.
            may_come_back = data.reason in _NOT_NOW if isinstance(data, Outcome) else row["data_key"] in data
            (marked if may_come_back else removed).append(row)
        count = 0
        for statement, chosen in ((sql.REMOVE_SEEN, removed), (sql.BURY_SEEN, marked)):
            if chosen:
                seen = ([row[name] for row in chosen] for name in ("namespace", "cache", "digest"))
                revisions = [str(row["revision"]) for row in chosen]
                count += len(await self._database.fetch_aside(statement, *seen, revisions))
        return count


def _batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Parts of ROWS rows and BYTES bytes at most, but for one that is larger alone."""
    batch, size = list[Any](), 0
    for row in rows:
        if batch and (len(batch) >= ROWS or size + row["bytes"] > BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row["bytes"]
    if batch:
        yield batch
