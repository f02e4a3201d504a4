"""Taking rows away so that no ConfigMap brings back what they held.

Where the ConfigMap of the cache's name holds an entry too, the row stays as a mark that it is gone. Where it
cannot be read now the row is left: so there are no more marks than entries that ConfigMaps hold, or held
when they were last looked at.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from keeper.cache.lru import Answer
from keeper.cache.view import View
from keeper.postgresql import sql
from keeper.postgresql.database import Database
from keeper.store import NOT_NOW
from memoize.eviction import Cause
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

ROWS = 500
"""Of one statement …"""
BYTES = 16 << 20
"""… and of their entries: the server has to touch all of them."""
CONFIG_MAP_TIMEOUT = 0.5
"""Seconds for one ConfigMap …"""
LEAST = 0.1
"""… and for the first of a turn at least."""
REST = 2.0
"""A pause after some rows is so many times as long as they took, for those who look up meanwhile …"""
LONGEST_REST = 2.0
"""… in seconds; others wait for their turn."""
_LEFT = NOT_NOW - {Reason.FORBIDDEN}
"""What may not be read, as where a Namespace is not kept any more, is not read for a step either."""


class Removed(NamedTuple):
    """What became of some rows."""

    looked_at: int
    """How many there was time for, from the first one on."""
    entries: int = 0
    """How many of these went …"""
    freed: int = 0
    """… and what that takes off a Namespace's bytes."""
    left: Outcome | None = None
    """Why some were left to a later time."""


class Turn:
    """The time that a Namespace has, and what is known of its ConfigMaps by then."""

    def __init__(self, namespace: str, seconds: float, clock: Callable[[], float]) -> None:
        self.namespace, self._until, self._clock = namespace, clock() + seconds, clock
        self.unread: dict[str, Outcome] = {}
        """Those that cannot be read now, by name."""

    @property
    def seconds(self) -> float:
        """How many are left, zero or less for none."""
        return self._until - self._clock()


class Removal:
    """Removes rows of one Namespace at a time.

    `on_evicted` is told by what ("gc"), why, how many entries went, and their bytes. `clock` counts seconds.
    """

    def __init__(
        self,
        database: Database,
        view: View,
        on_evicted: Callable[[str, str, int, int], None] = lambda by, reason, entries, size: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._database, self._view, self._on_evicted = database, view, on_evicted
        self._clock, self._sleep = clock, sleep
        self.awaited: Callable[[str, str], Collection[str]] = lambda namespace, cache: ()
        """The data keys of a cache that gated Pods look for: none of these entries goes."""

    def turn(self, namespace: str, seconds: float) -> Turn:
        """Begin a turn of the Namespace."""
        return Turn(namespace, seconds, self._clock)

    async def remove(
        self, turn: Turn, rows: Sequence[Mapping[str, Any]], why: Cause | None, most: float = math.inf
    ) -> Removed:
        """Remove those that are still what was seen, `most` of them; a DatabaseError. None for `why`: marks.

        Once the turn is over no ConfigMap is asked for but the first, and no row from there on is looked at.
        """
        begun, namespace = self._clock(), turn.namespace
        # 1. What would come back?
        held: dict[str, Answer] = {}
        removed, marked, looked_at, left = list[Any](), list[Any](), 0, None
        for row in rows:
            if len(removed) + len(marked) >= most:
                break
            cache, data_key = row["cache"], row["data_key"]
            data = turn.unread.get(cache) or held.get(cache)
            if data is None:
                # A turn that a slow database took all of goes on by a row at least: else nothing ever goes.
                if turn.seconds <= 0 and looked_at:
                    break
                data = await self._view.read(
                    namespace, cache, max(LEAST, min(turn.seconds, CONFIG_MAP_TIMEOUT))
                )
                if isinstance(data, Outcome) and data.reason in _LEFT:
                    turn.unread[cache] = data
                else:
                    held[cache] = data
            looked_at += 1
            if cache in turn.unread:
                left = turn.unread[cache]
            elif why is None or data_key not in self.awaited(namespace, cache):
                (removed if isinstance(data, Outcome) or data_key not in data else marked).append(row)
        # 2. What would not goes, and of the rest a mark stays.
        deleted, size = await self._send(sql.REMOVE_SEEN, namespace, removed, why)
        buried, size_of_buried = await self._send(sql.BURY_SEEN, namespace, marked, why)
        await self._sleep(min(REST * (self._clock() - begun), LONGEST_REST))
        freed = size + size_of_buried + sql.OVERHEAD * deleted
        return Removed(looked_at, deleted + buried, freed, left)

    async def _send(
        self, statement: str, namespace: str, rows: Sequence[Any], why: Cause | None
    ) -> tuple[int, int]:
        """How many were still what was seen, and the bytes of these."""
        entries, size = 0, 0
        for batch in _batches(rows):
            sizes = {str(row["revision"]): row["bytes"] for row in batch}
            namespaces = [namespace] * len(batch)
            caches, digests = ([row[name] for row in batch] for name in ("cache", "digest"))
            done = await self._database.fetch_aside(statement, namespaces, caches, digests, list(sizes))
            count, of_these = len(done), sum(sizes[row["revision"]] for row in done)
            entries, size = entries + count, size + of_these
            if count and why is not None:
                self._on_evicted("gc", why, count, of_these)
                evicted = Reason.EVICTED.value
                told = fields(reason=evicted, namespace=namespace, detail=why.value, entries=count)
                _log.info("entries were removed from the database", extra=told)
        return entries, size


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
