"""The times of last hits, gathered and written in batches; best effort.

They decide what goes first where a Namespace has too much, so minutes are exact enough. A row's time is
renewed once an interval, and by the database's clock, whoever else renews it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice

from keeper.cache.last_hit import MOST, gathered
from keeper.postgresql import sql
from keeper.postgresql.database import Database, DatabaseError
from keeper.postgresql.rows import EntryRef
from memoize.reasons import Reason

_log = logging.getLogger(__name__)

AT_ONCE = 500
"""Rows of one statement."""


class DatabaseHits:
    """Gathers hits and writes them in a task of its own (`run`).

    `interval`: seconds between two updates of a row. `on_renewed` is told of every write: what became of it,
    and how many entries it was about.
    """

    def __init__(
        self,
        database: Database,
        interval: float,
        on_renewed: Callable[[Reason, int], None] = lambda reason, entries: None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._database, self._interval = database, interval
        self._gathered = gathered(interval)
        self._on_renewed, self._sleep = on_renewed, sleep
        self._hits: set[EntryRef] = set()
        self._counts: Counter[str] = Counter()
        """Of `_hits`, by Namespace."""

    def hit(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Remember that the entry answered a step. Returns at once."""
        place = EntryRef(namespace, cache, data_key)
        if place not in self._hits and self._counts[namespace] < MOST:
            self._hits.add(place)
            self._counts[namespace] += 1

    async def run(self) -> None:
        """Write what was hit, for ever."""
        while True:
            await self._sleep(self._gathered)
            await self.flush()

    async def flush(self) -> None:
        """Write what was hit until now. While the database is away it is forgotten."""
        # In the order of the rows, so that those of a page are written together.
        hits, self._hits, self._counts = iter(sorted(self._hits)), set(), Counter()
        while places := list(islice(hits, AT_ONCE)):
            keys = map(list, zip(*(place.row for place in places), strict=True))
            try:
                rows = await self._database.fetch_aside(sql.HIT, *keys, self._interval)
            except DatabaseError as error:
                _log.debug("times of hits are not renewed: %s", error)
                self._on_renewed(Reason.STORE_UNAVAILABLE, len(places))
            else:
                self._on_renewed(Reason.STORED, len(rows))
