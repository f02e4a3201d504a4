"""What `stepmemo migrate` asks of the API server and of the database.

One cache after another, and of each no more in memory than a ConfigMap may hold. Both directions write on
condition that what is there is not newer, so any part may be done twice, and a keeper may write meanwhile.
"""

import argparse
import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from argo import names as argo
from cli import browse, copying, session
from cli.inventory import read
from cli.session import DONE, FAILED, USAGE, CommandError, Session
from keeper.postgresql import rows, sql
from kube import pages
from kube.errors import ApiError
from memoize import configmap
from memoize.entry import Entry

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 300.0
"""A list of all caches goes through an index of all entries."""
PAGE = 500
CACHES = """
SELECT namespace, cache FROM stepmemo.entries
WHERE ($1 = '' OR namespace = $1) AND (cardinality($2::text[]) = 0 OR cache = ANY ($2::text[]))
GROUP BY namespace, cache ORDER BY namespace, cache
"""
"""Of caches whose entries are all gone the marks count too: a ConfigMap may still hold them."""
GONE = """
SELECT data_key, created FROM stepmemo.entries WHERE namespace = $1 AND cache = $2 AND text IS NULL
AND data_key = ANY ($3::text[])
"""
_PROBLEMS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError, TimeoutError)


class CacheRef(NamedTuple):
    """Which cache."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.name}"


class Done(Counter[str]):
    """How many entries were copied, there already, refused, removed, or found no room."""


async def migrate(connected: Session, args: argparse.Namespace) -> int:
    """Copy all that was asked for; says how much that was, and what could not be."""
    to_database = args.to == "postgresql"
    done, code = Done(), DONE
    async with _database(args.dsn_file) as database:
        if to_database:
            caches = await _config_maps(connected, args.caches)
        else:
            with _asked("list caches"):
                found = await database.fetch(CACHES, connected.namespace, args.caches)
            caches = [CacheRef(*row) for row in found]
        with _progress() as (progress, task):
            progress.update(task, total=len(caches))
            for cache in caches:
                progress.update(task, description=str(cache))
                try:
                    copy = _into_database if to_database else _into_config_map
                    of_one = await copy(connected.within(cache.namespace), database, cache)
                except CommandError as error:
                    if database.is_closed():
                        raise CommandError("the connection to the database broke: run it again") from None
                    code = session.say("migrate", f"{cache}: {error}", FAILED)
                else:
                    done.update(of_one)
                    code = max(code, *(_told(cache, what, of_one) for what in _LEFT))
                progress.advance(task)
    print(
        f"caches: {len(caches)}, entries copied: {done['copied']}, there already: {done['there']}, "
        f"removed: {done['removed']}"
    )
    return code


_LEFT = {
    "refused": "are no entries, or met one that is none",
    "no room": "find no room in the ConfigMap",
}


def _told(cache: CacheRef, what: str, done: Done) -> int:
    return session.say("migrate", f"{cache}: {done[what]} {_LEFT[what]}", FAILED) if done[what] else DONE


# --- ConfigMaps into the database -------------------------------------------------------------------------


async def _config_maps(connected: Session, names: Sequence[str]) -> list[CacheRef]:
    if names:
        return [CacheRef(connected.namespace, name) for name in names]
    within = f"namespaces/{connected.namespace}/" if connected.namespace else ""
    query = [("labelSelector", f"{argo.CONFIGMAP_TYPE}={argo.CONFIGMAP_TYPE_CACHE}")]
    listed = pages.pages(
        connected.api, f"/api/v1/{within}configmaps", query, name="caches", most=PAGE, metadata_only=True
    )
    try:
        found = [one["metadata"] async for page in listed for one in page.get("items") or ()]
    except ApiError as error:
        raise session.failure("list ConfigMaps", error) from None
    return [CacheRef(metadata["namespace"], metadata["name"]) for metadata in found]


async def _into_database(connected: Session, database: Any, cache: CacheRef) -> Done:
    done = Done()
    data = configmap.data(await browse.read(connected, cache.name))
    there = {info.data_key: info.created async for info in _listed(database, cache)}
    # What was removed there stays so; PUT takes the mark of an entry that is as old as this one for older.
    with _asked("list what was removed"):
        there |= {row["data_key"]: row["created"] for row in await database.fetch(GONE, *cache, list(data))}
    for data_key, text in data.items():
        if not isinstance(read(text), Entry) or not rows.storable(text):
            done["refused"] += 1
            continue
        if data_key in there and there[data_key] >= rows.created_of(text):
            done["there"] += 1
            continue
        with _asked("write an entry"):
            written = await database.fetch(
                sql.PUT, *rows.put_arguments(rows.EntryRef(*cache, data_key), text)
            )
        # Not written: a newer one came meanwhile.
        done["copied" if written else "there"] += 1
    return done


# --- The database into ConfigMaps -------------------------------------------------------------------------


class _Info(NamedTuple):
    """What a row says of an entry."""

    used: datetime
    digest: str
    data_key: str
    bytes: int
    created: datetime


async def _listed(database: Any, cache: CacheRef) -> AsyncIterator[_Info]:
    after = ""
    while True:
        with _asked("list entries"):
            page = await database.fetch(sql.ENTRIES, *cache, after, PAGE, rows.LONG_AGO)
        for row in page:
            used = max(row["created"], row["last_hit"] or row["created"])
            yield _Info(used, row["digest"], row["data_key"], row["bytes"], row["created"])
        if len(page) < PAGE:
            return
        after = page[-1]["digest"]


async def _into_config_map(connected: Session, database: Any, cache: CacheRef) -> Done:
    chosen, all_of_it = await _chosen(database, cache)
    entries = dict[str, str]()
    for info in chosen:
        with _asked("read an entry"):
            found = await database.fetch(sql.READ, *cache, info.digest)
        if found and found[0]["text"] is not None:
            entries[info.data_key] = found[0]["text"]
    removed = await _remove_gone(connected, database, cache)
    done = Done({"removed": removed, "no room": all_of_it - len(chosen)})
    if entries:
        copied = await copying.copy_entries(connected, cache.name, entries)
        done += Counter(
            {
                "copied": len(copied.entries),
                "there": copied.kept,
                "refused": copied.refused,
                "no room": copied.no_room,
            }
        )
    return Done(done)


async def _chosen(database: Any, cache: CacheRef) -> tuple[list[_Info], int]:
    """As many entries as a ConfigMap may hold, those that were used last; and how many there are."""
    heap, size, number = list[_Info](), 0, 0
    async for info in _listed(database, cache):
        number += 1
        heapq.heappush(heap, info)
        size += info.bytes
        while size > configmap.MOST_BYTES:
            size -= heapq.heappop(heap).bytes
    return heap, number


async def _remove_gone(connected: Session, database: Any, cache: CacheRef) -> int:
    """Remove from the ConfigMap what was removed in the database: entries, and none that is newer."""
    for _ in range(browse.ATTEMPTS):
        path = browse.path(cache.namespace, cache.name)
        config_map = await connected.find(f"get the ConfigMap {cache.name}", path)
        if config_map is None or configmap.refused(config_map):
            return 0
        data = configmap.data(config_map)
        with _asked("list what was removed"):
            gone = await database.fetch(GONE, *cache, list(data))
        without = [
            row["data_key"]
            for row in gone
            if isinstance(entry := read(data[row["data_key"]]), Entry)
            and (entry.created or rows.LONG_AGO) <= row["created"]
        ]
        if not without or await browse.write(connected, cache.namespace, config_map, {}, without):
            return len(without)
    raise CommandError("the ConfigMap kept changing, try again")


# --- The database -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _database(dsn_file: Path) -> AsyncIterator[Any]:
    """A connection; CommandError where there is none, or the schema is not the one that is known here."""
    try:
        dsn = (await asyncio.to_thread(dsn_file.read_text, "utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not text"
        raise CommandError(f"--dsn-file: {dsn_file}: {why}", USAGE) from None
    try:
        database = await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, command_timeout=STATEMENT_SECONDS, statement_cache_size=0
        )
    except (asyncpg.ClientConfigurationError, ValueError):
        # Without its own words, which may repeat a password.
        text = "--dsn-file: holds no DSN: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        raise CommandError(text, USAGE) from None
    except _PROBLEMS as error:
        raise CommandError(f"no database to talk to: {type(error).__name__}", USAGE) from None
    try:
        try:
            version = await database.fetchval(sql.VERSION)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            version = 0
        if version != len(sql.MIGRATIONS):
            wanted = len(sql.MIGRATIONS)
            raise CommandError(
                f"the database's schema is of version {version}, and {wanted} is wanted: start a keeper of "
                "this release with --store postgresql, which makes it",
                USAGE,
            )
        yield database
    finally:
        await database.close(timeout=CONNECT_SECONDS)


@contextmanager
def _asked(doing: str) -> Iterator[None]:
    """CommandError for a statement that fails, without the server's own words: they may repeat an entry."""
    try:
        yield
    except _PROBLEMS as error:
        raise CommandError(f"cannot {doing} in the database: {type(error).__name__}") from None


@contextmanager
def _progress() -> Iterator[tuple[Progress, TaskID]]:
    """A bar on standard error, if that is a terminal."""
    out = Console(stderr=True, markup=False, highlight=False)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        yield progress, progress.add_task("", total=None)
