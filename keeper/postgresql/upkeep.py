"""What keeps the number of rows within bounds, in small steps, each of which may be the last.

Every replica does it. What two do at once is done once: a row is only touched if it is still what was seen.
Namespaces have their turns, each with a time of its own: what fails in one, or takes long, keeps no other
from its own for longer than that.
"""

import asyncio
import logging
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from keeper.cache.view import View
from keeper.postgresql import sql
from keeper.postgresql.database import Database, DatabaseError
from keeper.postgresql.removal import ROWS, Removal, Removed, Turn
from keeper.store import CacheFill
from memoize.eviction import Cause
from server.logs import fields
from server.program import until_first_ends

_log = logging.getLogger(__name__)

PERIOD = 10.0
"""Seconds from one round to the next, a little more or less: replicas shall not meet."""
TURN_SECONDS = 2.0
"""For each of the three things that may be due for a Namespace: it goes on with it in the next round …"""
MOST_BATCHES = 20
"""… as it does after so many batches of it."""
TROUBLED_SECONDS = 10.0
"""Of a round, at its end, for the Namespaces where something had to wait the last time."""
IN_USE = 120.0
"""Seconds after an entry was written or hit in which it is not evicted: hits are told once a minute, and a
waiter may be about to be answered with it."""
STOP_AT = 0.9
"""Of its limit, down to which a Namespace that is above it is taken."""
FULL_AT = 1.25
"""Of its limit, from which on nothing is stored for a Namespace: it writes faster than it may be evicted."""
GONE_SECONDS = 86_400.0
"""After which it is looked again whether a ConfigMap still holds what is gone …"""
MOST_GONE = 10_000
"""… and marks of one Namespace beyond which that is done …"""
GONE_SOONER = 600.0
"""… as soon as this."""
_NEVER = datetime.min.replace(tzinfo=UTC)


class _Behind(NamedTuple):
    """Of rows in an order, those behind this one."""

    since: datetime = _NEVER
    digest: str = ""


class _Due(NamedTuple):
    """What is to be done for a Namespace."""

    expired: bool = False
    gone: bool = False
    gone_seconds: float = GONE_SECONDS


class Upkeep:
    """Takes away what has expired, and of a Namespace above its limit what was of use longest ago.

    `most_bytes` says the limit of a Namespace, in bytes of texts and sql.OVERHEAD for each row.
    `on_evicted` is told by what ("gc"), why, how many, and their bytes. `clock` counts seconds.
    """

    def __init__(
        self,
        database: Database,
        view: View,
        most_bytes: Callable[[str], int],
        on_evicted: Callable[[str, str, int, int], None] = lambda by, reason, entries, size: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._database, self._most_bytes = database, most_bytes
        self._clock, self._sleep = clock, sleep
        self._removal = Removal(database, view, on_evicted, clock=clock, sleep=sleep)
        self._large: dict[str, int] = {}
        """The bytes of Namespaces not far from their limit, as they were last measured …"""
        self._grown: Counter[str] = Counter()
        """… and by how much each has grown since, as far as this process knows."""
        self._used: dict[str, int] = {}
        """The bytes of all Namespaces, as they were last measured."""
        self._behind: dict[tuple[str, str], _Behind] = {}
        """Where to go on in a Namespace, by statement, that had no time for all."""
        self._troubled: set[str] = set()
        """Namespaces of which something had to wait the last time, as the log says."""

    def fills(self) -> list[CacheFill]:
        """How full the Namespaces were when they were last measured."""
        return [CacheFill(name, size, self._most_bytes(name)) for name, size in self._used.items()]

    def is_full(self, namespace: str) -> bool:
        """Whether nothing more is to be stored for the Namespace, as far as it is known."""
        return self._size(namespace) > self._most_bytes(namespace) * FULL_AT

    def on_put(self, namespace: str, size: int, replaced: int | None) -> None:
        """An entry of so many bytes was stored, in place of one of `replaced` bytes, None for no entry."""
        self._grown[namespace] += size + sql.OVERHEAD if replaced is None else size - replaced

    def spare(self, awaited: Callable[[str, str], Collection[str]]) -> None:
        """Have no entry go that a gated Pod looks for: `awaited(namespace, cache)` says their data keys."""
        self._removal.awaited = awaited

    def turn(self, namespace: str, seconds: float) -> Turn:
        """Begin a turn of the Namespace, of so many seconds."""
        return self._removal.turn(namespace, seconds)

    async def remove(
        self, turn: Turn, rows: Sequence[Mapping[str, Any]], why: Cause | None, most: float = math.inf
    ) -> Removed:
        """Take such rows away: see Removal."""
        removed = await self._removal.remove(turn, rows, why, most)
        self._grown[turn.namespace] -= removed.freed
        return removed

    async def run(self) -> object:
        """Do it for ever."""
        # How large Namespaces are is not to be learned late because a round takes long.
        parts = self.measure, self.round
        return await until_first_ends(*map(self._every_now_and_then, parts))

    async def _every_now_and_then(self, do: Callable[[], Awaitable[None]]) -> None:
        said = ""
        while True:
            await self._sleep(PERIOD * random.uniform(0.8, 1.2))
            if not self._database.is_well:
                continue
            try:
                await do()
                said = ""
            except DatabaseError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("the upkeep of the database waits", extra=fields(detail=said))

    async def measure(self) -> None:
        """Learn how much Namespaces have; a DatabaseError."""
        grown = self._grown.copy()
        rows = await self._database.fetch_aside(sql.NAMESPACES)
        self._used = {row["namespace"]: row["bytes"] for row in rows}
        self._large = {
            name: size for name, size in self._used.items() if size > self._most_bytes(name) * STOP_AT
        }
        self._grown -= grown  # what was put meanwhile may not have been counted

    async def round(self) -> None:
        """Do as much as one round may; a DatabaseError where nothing can be done now."""
        rows = await self._database.fetch_aside(sql.DUE, MOST_GONE, GONE_SOONER, GONE_SECONDS)
        due = {name: _Due() for name in self._large if self._is_over(name)}
        for row in rows:
            due[row["namespace"]] = _Due(bool(row["expired"]), bool(row["gone"]), row["seconds"])
        self._behind = {place: behind for place, behind in self._behind.items() if place[0] in due}
        troubled = self._troubled & due.keys()
        self._troubled = set(troubled)
        for namespace in _shuffled(due.keys() - troubled):
            await self._turn(namespace, due[namespace])
        until = self._clock() + TROUBLED_SECONDS
        for namespace in _shuffled(troubled):
            if self._clock() >= until:
                break
            await self._turn(namespace, due[namespace])

    # --- One Namespace --------------------------------------------------------------------------------

    async def _turn(self, namespace: str, due: _Due) -> None:
        """Do what is due for the Namespace while its time lasts; a DatabaseError where all have to wait."""
        parts = [
            partial(self._sweep, namespace, Cause.EXPIRED, sql.EXPIRED) if due.expired else None,
            partial(self._make_room, namespace),
            partial(self._sweep, namespace, None, sql.GONE, due.gone_seconds) if due.gone else None,
        ]
        trouble = ""
        for part in filter(None, parts):
            try:
                trouble = await part() or trouble
            except DatabaseError as error:
                if not self._database.is_well:
                    raise
                trouble = str(error)
        if not trouble:
            self._troubled.discard(namespace)
        elif namespace not in self._troubled:
            self._troubled.add(namespace)
            told = fields(namespace=namespace, detail=trouble)
            _log.warning("entries of a Namespace stay in the database until later", extra=told)

    async def _sweep(self, namespace: str, why: Cause | None, statement: str, *arguments: object) -> str:
        """Remove what the statement finds, from where the last turn ended; why some were left."""
        place, trouble, turn = (namespace, statement), "", self.turn(namespace, TURN_SECONDS)
        for _ in range(MOST_BATCHES):
            if turn.seconds <= 0:
                break
            behind = self._behind.pop(place, _Behind())
            rows = await self._database.fetch_aside(statement, namespace, *behind, ROWS, *arguments)
            if rows:
                # Should these fail, those behind them have the next turn.
                self._behind[place] = _behind(rows[-1])
            removed = await self.remove(turn, rows, why)
            trouble = _why(removed) or trouble
            if removed.looked_at < len(rows):
                self._behind[place] = _behind(rows[removed.looked_at - 1]) if removed.looked_at else behind
            elif len(rows) < ROWS:
                self._behind.pop(place, None)  # the next turn begins anew
                break
        return trouble

    async def _make_room(self, namespace: str) -> str:
        """Remove what was of use longest ago, where there is too much; why some of that was left."""
        if not self._is_over(namespace):
            return ""
        turn = self.turn(namespace, TURN_SECONDS)
        for _ in range(MOST_BATCHES):
            if turn.seconds <= 0 or not self._is_over(namespace, STOP_AT):
                break
            start = secrets.token_hex(32)
            rows = await self._database.fetch_aside(sql.LEAST_USED, namespace, start, IN_USE)
            most = rows[0]["most"] if rows else 0
            removed = await self.remove(turn, rows, Cause.UNUSED, most)
            if not removed.entries:  # all of it is in use, or may come back
                return _why(removed)
        return ""

    def _size(self, namespace: str) -> int:
        """Bytes of the Namespace at most, as far as that is known."""
        most = int(self._most_bytes(namespace) * STOP_AT)
        return self._large.get(namespace, most) + self._grown[namespace]

    def _is_over(self, namespace: str, share: float = 1.0) -> bool:
        """Whether it is known to have more than this share of its limit."""
        return namespace in self._large and self._size(namespace) > self._most_bytes(namespace) * share


def _shuffled(names: Collection[str]) -> list[str]:
    return random.sample(sorted(names), len(names))


def _behind(row: Mapping[str, Any]) -> _Behind:
    return _Behind(row["since"], row["digest"])


def _why(removed: Removed) -> str:
    """Why some were left, "" where none was."""
    left = removed.left
    return f"{left.reason}: {left.detail}" if left is not None else ""
