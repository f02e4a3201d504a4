from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from kubernetes_asyncio.client import ApiClient

from keeper.cache.last_hit import LastHits
from keeper.cache.store import ConfigMapStore
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.postgresql import hits
from keeper.postgresql.database import Database
from keeper.postgresql.rows import LONG_AGO
from keeper.postgresql.store import PostgresStore
from keeper.postgresql.upkeep import Upkeep
from keeper.store import Store
from memoize.reasons import Reason
from tests.beside import beside
from tests.waiting import until


def config_maps(
    api: ApiClient, namespaces: Sequence[str] = (), *, view: View | None = None, writer: Writer | None = None
) -> ConfigMapStore:
    """A store of ConfigMaps, not running."""
    view, writer = view or View(api, namespaces), writer or Writer(api)
    return ConfigMapStore(api, view, writer, LastHits(writer, view))


async def always(namespace: str) -> datetime:
    """When Namespaces were created of which a test says nothing."""
    return LONG_AGO


def in_postgresql(
    api: ApiClient,
    dsn_file: Path,
    namespaces: Sequence[str] = (),
    *,
    connections: int = 6,
    most_bytes: int = 1 << 30,
    hit_interval: float = 600.0,
    on_written: Callable[[Reason], None] = lambda reason: None,
    created: Callable[[str], Awaitable[datetime | None]] = always,
) -> PostgresStore:
    """A store in the database that the file names, not running; by default of Namespaces of long ago."""
    database, view = Database(dsn_file, connections), View(api, namespaces)
    return PostgresStore(
        database,
        view,
        hits.DatabaseHits(database, hit_interval),
        Upkeep(database, view, lambda namespace: most_bytes),
        created,
        connections,
        on_written,
    )


@asynccontextmanager
async def running(store: Store, *, in_sync: bool = True) -> AsyncIterator[Store]:
    """The store until the block ends, by default once it is in sync."""
    try:
        async with beside(store.run()):
            if in_sync:
                await until(lambda: store.in_sync)
            yield store
    finally:
        await store.close()
