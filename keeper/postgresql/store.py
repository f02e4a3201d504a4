"""The store that keeps entries in PostgreSQL, and still reads those that ConfigMaps hold.

A row decides. Where there is none, or it says that its entry is gone or too old, the ConfigMap of the cache's
name is asked too, and of two entries the newer counts: so a change of store loses nothing, and entries can be
made with kubectl. ConfigMaps are never written.

A row that was written before its Namespace was created is an earlier one's, which somebody else may have had:
it answers nobody, as if it were not there, and stays until something takes its place or it has to go.

Nothing is kept of rows, so memory does not grow with them; of ConfigMaps the view keeps what it always does.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from keeper.cache.view import View
from keeper.gc import CacheGC
from keeper.postgresql import sql
from keeper.postgresql.database import Database, DatabaseError
from keeper.postgresql.hits import DatabaseHits
from keeper.postgresql.rows import (
    LONG_AGO,
    EntryRef,
    created_of,
    is_cache,
    is_data_key,
    is_template,
    put_arguments,
    size,
    storable,
)
from keeper.postgresql.turns import EntryTurns
from keeper.postgresql.upkeep import Upkeep
from keeper.slots import Slots
from keeper.store import NOT_NOW, READ_TIMEOUT, CacheInfo, EntryInfo, Followed, Found, OnChange, Page
from kube import cost
from kube.backoff import Backoff
from memoize import configmap
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields
from server.program import again, until_first_ends

_log = logging.getLogger(__name__)

OWN_CONNECTIONS = 3
"""Connections that no step's request gets: one asks whether the database is well, one looks at what is waited
for, one cleans up. So no one waits for a connection but in a line where Namespaces have their share."""
LEAST_CONNECTIONS = OWN_CONNECTIONS + 2
"""And one to read, and one to write."""
READ_SECONDS = 5.0
"""How long a read is tried for those who may have gone meanwhile, its wait for others included."""
WRITE_SECONDS = 10.0
"""How long an entry is tried for; then it is lost."""
BYTES_WAITING_OF_ONE = 16 << 20
"""Of entries of one Namespace that wait to be written …"""
BYTES_WAITING_IN_ALL = 64 << 20
"""… and of all."""
POLL = 1.0
"""Seconds from one look at the entries that somebody waits for to the next."""
MOST_POLLED = 2_000
"""Entries of one look, in one statement; where more are followed they take turns, each Namespace its
share."""
MOST_LISTED = 1_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class _Row(NamedTuple):
    text: str | None
    created: datetime
    revision: int
    expired: bool
    soon: datetime
    """The database's clock, and as much as another one may be ahead of it."""
    written: datetime


class PostgresStore:
    """The caches of a database; `keeper.store.Store` says what it does.

    `view` reads ConfigMaps, and says which Namespaces are looked after. `created` says when a Namespace was
    created, None where that is not known. `on_written` is told what became of each entry.
    """

    def __init__(
        self,
        database: Database,
        view: View,
        hits: DatabaseHits,
        upkeep: Upkeep,
        created: Callable[[str], Awaitable[datetime | None]],
        connections: int,
        on_written: Callable[[Reason], None] = lambda reason: None,
        collector: CacheGC | None = None,
    ) -> None:
        """With a `collector` what is not used is cleaned up."""
        self._database, self._view, self._upkeep = database, view, upkeep
        self._created, self._on_written = created, on_written
        reads = max(1, (connections - OWN_CONNECTIONS) * 2 // 3)
        writes = max(1, connections - OWN_CONNECTIONS - reads)
        self._reads, self._writes = (Slots(most, -(-most // 2)) for most in (reads, writes))
        self._reading: dict[EntryRef, _Reading] = {}
        """Those that may be joined: nothing was heard since they began."""
        self._tasks: set[asyncio.Task[str | Outcome]] = set()
        self._waiting: Counter[str] = Counter()
        """Bytes that wait to be written, by Namespace."""
        self._followed: Followed | None = None
        self._on_change: OnChange = lambda *_: None
        self._turns = EntryTurns()
        self._seen: dict[str, dict[EntryRef, int]] = {}
        """By Namespace, the revisions of followed entries that were last told of, 0 for none."""
        database.on_well = database.on_down = self._tell_all
        self.hit, self.fills = hits.hit, upkeep.fills
        self._parts = [view.run, database.run, hits.run, upkeep.run, self._poll]
        self._parts += [collector.run] if collector else []

    # --- For steps ------------------------------------------------------------------------------------

    async def read(
        self, namespace: str, cache: str, data_key: str, seconds: float | None = READ_TIMEOUT
    ) -> str | Outcome:
        place = EntryRef(namespace, cache, data_key)
        if not place.valid:
            return ""
        reading = self._reading.get(place)
        if reading is None:
            reading = self._reading[place] = _Reading(cost.create_task(self._read(place)))
            self._tasks.add(reading.task)
            reading.task.add_done_callback(lambda _: self._on_read(place, reading))
        try:
            async with asyncio.timeout(seconds):
                # One caller that hangs up must not end the read that others wait for.
                return await asyncio.shield(reading.task)
        except TimeoutError:
            reading.left = True
            return Outcome(Reason.UNDECIDED, "the entry could not be read in time")

    async def put(self, namespace: str, cache: str, data_key: str, text: str, now: datetime) -> Outcome:
        outcome = await self._put(EntryRef(namespace, cache, data_key), text)
        self._on_written(outcome.reason)
        if outcome.reason is not Reason.STORED and self._database.is_well:  # else that has been said
            told = fields(
                reason=outcome.reason.value, namespace=namespace, cache=cache, detail=outcome.detail
            )
            _log.warning("an entry is lost", extra=told)
        return outcome

    async def drop(self, namespace: str, cache: str, data_key: str, text: str) -> bool | Outcome:
        place = EntryRef(namespace, cache, data_key)
        if not place.valid:
            return False
        try:
            row = await self._row(place)
            held = await self._view.read(namespace, cache)
            if isinstance(held, Outcome) and held.reason in NOT_NOW - {Reason.FORBIDDEN}:
                return held  # it may hold a newer entry, or this one, which would be back
            other = "" if isinstance(held, Outcome) else held.get(data_key, "")
            if _newer(row, other) != text:
                return False
            revision = row.revision if row is not None else 0
            if other:
                created = created_of(other)
                done = await self._write(place, sql.BURY_UNCHANGED, *place.row, data_key, created, revision)
            else:
                done = await self._write(
                    place, sql.REMOVE_SEEN, *([one] for one in (*place.row, str(revision)))
                )
        except DatabaseError as error:
            return error.outcome
        if done:
            self._changed(place, 0)
        return bool(done)

    # --- For those who wait ---------------------------------------------------------------------------

    def knows(self, namespace: str) -> bool:
        return self._view.knows(namespace)

    def last_contact(self, namespace: str) -> float:
        return min(self._view.last_contact(namespace), self._database.last_contact)

    def subscribe(self, on_change: OnChange, followed: Followed) -> None:
        self._on_change, self._followed = on_change, followed

        def told(namespace: str, cache: str, data: Mapping[str, str]) -> None:
            wanted = followed.data_keys(namespace, cache)
            on_change(namespace, cache, {one: ("ConfigMap", hash(data.get(one, ""))) for one in wanted})

        self._view.subscribe(told, followed.caches)
        self._upkeep.spare(followed.data_keys)

    # --- For people -----------------------------------------------------------------------------------

    async def delete(self, namespace: str, cache: str, data_key: str) -> bool | Outcome:
        place = EntryRef(namespace, cache, data_key)
        if not place.valid:
            return False
        found = await self.read(*place)
        if isinstance(found, Outcome) or not found:
            return found if isinstance(found, Outcome) else False
        held = await self._view.read(namespace, cache)
        if isinstance(held, Outcome) and held.reason in NOT_NOW - {Reason.FORBIDDEN}:
            return held  # it may hold a newer entry, which would be back
        try:
            if not isinstance(held, Outcome) and data_key in held:
                created = created_of(held[data_key])
                await self._write(place, sql.BURY_ONE, *place.row, data_key, created)
            else:
                await self._write(place, sql.DELETE, *place.row)
        except DatabaseError as error:
            return error.outcome
        self._changed(place, 0)
        return True

    async def entries(
        self, namespace: str, cache: str, after: str = "", limit: int = 500
    ) -> Page[EntryInfo] | Outcome:
        if not is_cache(namespace, cache) or not _is_digest(after):
            return Page([], "")
        limit = min(max(limit, 1), MOST_LISTED)
        try:
            since = await self._since(namespace)
            rows = await self._rows(namespace, sql.ENTRIES, namespace, cache, after, limit + 1, since)
        except DatabaseError as error:
            return error.outcome
        items = [
            EntryInfo(
                row["data_key"],
                row["bytes"],
                _known(row["created"]),
                row["last_hit"],
                row["expires"],
                row["template"] or "",
            )
            for row in rows[:limit]
        ]
        return Page(items, rows[limit - 1]["digest"] if len(rows) > limit else "")

    async def earlier(
        self, namespace: str, cache: str, template: str, but_not: str, before: datetime | None
    ) -> Found | Outcome | None:
        if not is_cache(namespace, cache) or not is_template(template) or not is_data_key(but_not):
            return None
        try:
            since = await self._since(namespace)
            asked = namespace, cache, template, but_not, before, since
            rows = await self._rows(namespace, sql.EARLIER, *asked)
        except DatabaseError as error:
            return error.outcome
        found = Found(*rows[0].values()) if rows else None
        cost.charge(requests=1, bytes=len(found.text) if found else 0)
        return found

    async def caches(self, namespace: str, after: str = "", limit: int = 500) -> Page[CacheInfo] | Outcome:
        last = after.partition("/")[::2]
        if (after and not is_cache(*last)) or (namespace and not is_cache(namespace, namespace)):
            return Page([], "")
        limit = min(max(limit, 1), MOST_LISTED)
        try:
            since = await self._since(namespace) if namespace else None
            rows = await self._rows(namespace, sql.CACHES, namespace, *last, limit + 1, since)
        except DatabaseError as error:
            return error.outcome
        items = [CacheInfo(*row.values()) for row in rows[:limit]]
        return Page(items, f"{items[-1].namespace}/{items[-1].cache}" if len(rows) > limit else "")

    # --- For the process ------------------------------------------------------------------------------

    @property
    def in_sync(self) -> bool:
        return self._view.in_sync and self._database.is_well

    @property
    def kept_bytes(self) -> int:
        return self._view.kept_bytes

    async def run(self) -> object:
        return await until_first_ends(*map(again, self._parts))

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- Reading --------------------------------------------------------------------------------------

    async def _read(self, place: EntryRef) -> str | Outcome:
        try:
            return await self._newest(place)
        except DatabaseError as error:
            return Outcome(Reason.UNDECIDED, str(error)) if error.passes else error.outcome

    async def _newest(self, place: EntryRef) -> str | Outcome:
        """The row's entry, or the ConfigMap's if that is newer."""
        row = await self._row(place)
        text = row.text or "" if row is not None else ""
        # A ConfigMap that has to be read first is not waited for where there is an entry; it counts the next
        # time.
        seconds = 0.0 if row is not None and text and not row.expired else READ_TIMEOUT
        held = await self._view.read(place.namespace, place.cache, seconds)
        if isinstance(held, Outcome):
            return held if not text and held.reason in NOT_NOW else text
        return _newer(row, held.get(place.data_key, ""))

    async def _row(self, place: EntryRef) -> _Row | None:
        rows = await self._rows(place.namespace, sql.READ, *place.row)
        row = _Row(*rows[0].values()) if rows else None
        if row is not None and row.written < await self._since(place.namespace):
            row = None
        cost.charge(requests=1, bytes=len(row.text or "") if row is not None else 0)
        return row

    async def _since(self, namespace: str) -> datetime:
        """When the Namespace was created; a DatabaseError where that is not known."""
        created = await self._created(namespace)
        if created is None:
            raise DatabaseError("the Namespace could not be read", passes=True)
        return created

    async def _rows(self, namespace: str, statement: str, *arguments: object) -> list[Any]:
        """What the statement finds, when it is the Namespace's turn."""
        try:
            async with asyncio.timeout(READ_SECONDS), self._reads.take(namespace):
                return await self._database.fetch(statement, *arguments)
        except TimeoutError:
            raise DatabaseError("too many entries are being read", passes=True) from None

    def _on_read(self, place: EntryRef, reading: "_Reading") -> None:
        self._tasks.discard(reading.task)
        if self._reading.get(place) is reading:
            del self._reading[place]
        if reading.left and not reading.task.cancelled() and self._is_followed(place):
            self._on_change(*place[:2], {place.data_key: ("read", object())})

    # --- Writing --------------------------------------------------------------------------------------

    async def _put(self, place: EntryRef, text: str) -> Outcome:
        if not place.valid:
            return Outcome(Reason.NOT_A_CACHE, "no cache and no entry can have these names")
        if not storable(text):
            return Outcome(Reason.BROKEN_ENTRY, "the entry is no text that PostgreSQL could hold")
        length, namespace = size(text), place.namespace
        if length > configmap.MOST_BYTES:
            return Outcome(Reason.CACHE_FULL, f"an entry of {length} bytes is larger than any result can be")
        if self._upkeep.is_full(namespace):
            return Outcome(Reason.CACHE_FULL, "the Namespace's entries take more than they may")
        weight = length + sql.OVERHEAD
        if self._waiting[namespace] + weight > BYTES_WAITING_OF_ONE:
            return Outcome(Reason.RATE_LIMITED, "too many entries of this Namespace wait to be written")
        if self._waiting.total() + weight > BYTES_WAITING_IN_ALL:
            return Outcome(Reason.RATE_LIMITED, "too many entries wait to be written")
        self._waiting[namespace] += weight
        try:
            return await self._insert(place, text, length)
        finally:
            self._waiting[namespace] -= weight
            if not self._waiting[namespace]:
                del self._waiting[namespace]

    async def _insert(self, place: EntryRef, text: str, length: int) -> Outcome:
        try:
            rows = await self._write(place, sql.PUT, *put_arguments(place, text))
        except DatabaseError as error:
            # One that is only busy is no outage, in which all who wait for this entry would run at once.
            return Outcome(Reason.RATE_LIMITED, str(error)) if error.passes else error.outcome
        if rows:
            self._upkeep.on_put(place.namespace, length, rows[0]["replaced"])
        self._changed(place, rows[0]["revision"] if rows else -1)
        return Outcome(Reason.STORED, f"{length} bytes" if rows else "a newer entry is there, or was")

    async def _write(self, place: EntryRef, statement: str, *arguments: object) -> list[Any]:
        """Send the statement until it works or its time is over; a DatabaseError."""
        backoff, trouble = (
            Backoff(_FIRST_PAUSE, _LONGEST_PAUSE),
            DatabaseError("too many entries wait", passes=True),
        )
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                while True:
                    try:
                        async with self._writes.take(place.namespace):
                            return await self._database.fetch(statement, *arguments)
                    except DatabaseError as error:
                        if not error.passes:
                            raise
                        trouble = error
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            raise trouble from None

    # --- Telling --------------------------------------------------------------------------------------

    def _is_followed(self, place: EntryRef) -> bool:
        namespace, cache, data_key = place
        return self._followed is not None and data_key in self._followed.data_keys(namespace, cache)

    def _changed(self, place: EntryRef, revision: int) -> None:
        """It was changed here: what is being read may be older, and who waits is told at once."""
        self._reading.pop(place, None)
        if self._is_followed(place):
            self._seen.setdefault(place.namespace, {})[place] = revision
            self._on_change(*place[:2], {place.data_key: ("row", revision)})

    def _tell_all(self) -> None:
        """Changes may have been missed, or will be: have all look again, and remember nothing of before."""
        self._seen.clear()
        self._reading.clear()
        if self._followed is not None:
            for namespace, cache in list(self._followed.caches):
                data_keys = self._followed.data_keys(namespace, cache)
                self._on_change(namespace, cache, {one: ("unknown", object()) for one in data_keys})

    async def _poll(self) -> None:
        """Tell of followed entries that others have changed, such as the keeper that stores for sidecars."""
        while True:
            await asyncio.sleep(POLL)
            if self._database.is_well and (places := self._to_look_at()):
                try:
                    await self._look(places)
                except DatabaseError as error:
                    _log.debug("cannot look at entries that are waited for: %s", error)

    async def _look(self, places: Collection[EntryRef]) -> None:
        rows = await self._database.fetch(
            sql.REVISIONS, *map(list, zip(*(one.row for one in places), strict=True))
        )
        found = {EntryRef(*tuple(row)[:3]): row["revision"] for row in rows}
        for place in places:
            revision, seen = found.get(place, 0), self._seen.setdefault(place.namespace, {})
            if seen.get(place, 0) != revision:
                seen[place] = revision
                self._reading.pop(place, None)  # it may be older
                self._on_change(*place[:2], {place.data_key: ("row", revision)})

    def _to_look_at(self) -> Collection[EntryRef]:
        """The entries of this turn: all that are followed, or of each Namespace its share."""
        if self._followed is None:
            return ()
        chosen, begun_anew = self._turns.next(self._followed, MOST_POLLED)
        for namespace in self._seen.keys() - self._followed.caches_of.keys():
            del self._seen[namespace]
        for namespace in begun_anew & self._seen.keys():
            seen = self._seen[namespace]
            self._seen[namespace] = {one: seen[one] for one in seen if self._is_followed(one)}
        return [place for place in chosen if place.valid and self._is_followed(place)]


class _Reading:
    """A read that is under way."""

    def __init__(self, task: "asyncio.Task[str | Outcome]") -> None:
        self.task = task
        self.left = False
        """Somebody who asked for it did not wait for its end."""


def _newer(row: _Row | None, other: str) -> str:
    """Of a row's entry and a ConfigMap's, "" for none, the one that counts."""
    # One from the future was made by a wrong clock, and keeps no row out, as in sql.PUT.
    if other and (row is None or row.created < created_of(other) <= row.soon):
        return other
    return row.text or "" if row is not None else ""


def _known(created: datetime) -> datetime | None:
    return created if created != LONG_AGO else None


def _is_digest(text: str) -> bool:
    """Whether it is one in hexadecimal digits, or nothing at all, which comes before every one."""
    return len(text) in (0, 64) and not set(text) - set("0123456789abcdef")
