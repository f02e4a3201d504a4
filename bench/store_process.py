"""`python -m bench.store_process`: the process whose look-ups and memory `bench stores` measures.

It is told in JSON what to do, and prints one line of JSON. It imports what a keeper has, and little else.
"""

import asyncio
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from kubernetes_asyncio.client import ApiClient

from bench.measure import percentile
from bench.pace import at_rate
from bench.peak import most_resident
from bench.steps import entries, step
from keeper.lookup import CacheLookup
from keeper.postgresql import rows
from keeper.store import Store
from kube import client
from memoize.entry import Hit
from tests.keeper.stores import config_maps, in_postgresql, running

CONFIG_MAPS, POSTGRESQL = "ConfigMaps", "PostgreSQL"
ENTRY = 300
"""Bytes of an entry."""
_CONNECTIONS = 10
_MOST_BYTES = 64 << 30
_ANY_EXPIRED = "SELECT EXISTS (SELECT FROM stepmemo.entries WHERE expires <= now())"
_SELECT = "SELECT text FROM stepmemo.entries WHERE namespace = $1 AND cache = $2 AND digest = $3"


@dataclass(frozen=True, slots=True)
class Filled:
    """Caches of some namespaces, each with so many entries. `dsn`: of the database that has them, or ""."""

    store: str
    namespaces: Sequence[str]
    caches: int
    """Of each namespace."""
    entries: int
    """Of each cache."""
    dsn: str = ""

    def places(self) -> Iterator[tuple[str, str]]:
        """Namespace and name of every cache."""
        return ((namespace, f"cache-{one}") for namespace in self.namespaces for one in range(self.caches))

    def texts(self) -> Mapping[str, str]:
        """The entries of each cache by data key."""
        return entries(self.entries, self.entries * ENTRY)


@asynccontextmanager
async def store_of(connected: ApiClient, filled: Filled) -> AsyncIterator[Store]:
    """The store as the keeper has it, in sync and at work until the block ends."""
    with tempfile.NamedTemporaryFile("w") as dsn_file:
        dsn_file.write(filled.dsn)
        dsn_file.flush()
        store: Store = config_maps(connected, filled.namespaces)
        if filled.store == POSTGRESQL:
            store = in_postgresql(
                connected,
                Path(dsn_file.name),
                filled.namespaces,
                connections=_CONNECTIONS,
                most_bytes=_MOST_BYTES,
            )
        async with running(store):
            yield store


async def _measured(what: Mapping[str, Any]) -> Mapping[str, float]:
    filled = Filled(**what["filled"])
    chosen = random.Random(what["seed"])
    if what["do"] == "bare":
        async with asyncpg.create_pool(filled.dsn, max_size=_CONNECTIONS) as pool:

            async def select(place: tuple[str, str], data_key: str) -> None:
                digest = bytes.fromhex(rows.digest_of(data_key))
                if await pool.fetchval(_SELECT, *place, digest) is None:
                    raise RuntimeError("there is no such row")

            await select(next(filled.places()), "key-0")
            return _in_short(await _taken(filled, select, chosen, what["rate"], what["seconds"]))
    async with await client.connect() as connected, store_of(connected, filled) as store:
        lookup = CacheLookup(store, lambda: datetime.now(UTC))

        async def look_up(place: tuple[str, str], data_key: str) -> None:
            asked = step(data_key, place[1])
            while (found := (await lookup.look_up(*place, asked)).found) is None:
                pass
            if not isinstance(found, Hit):
                raise RuntimeError(f"the look-up missed: {found.reason}")  # noqa: TRY004 - a benchmark gone wrong

        for place in filled.places():
            await look_up(place, "key-0")
        if what["do"] == "memory":
            return {"memory": most_resident()}
        # As the keeper does: what was imported is no garbage, and a collection of it is long.
        gc.collect()
        gc.freeze()
        if what["do"] == "look_ups":
            return _in_short(await _taken(filled, look_up, chosen, what["rate"], what["seconds"]))
        return await _beside_the_clean_up(filled, look_up, chosen, what["rate"])


async def _taken(
    filled: Filled,
    ask: Callable[[tuple[str, str], str], Awaitable[None]],
    chosen: random.Random,
    rate: float,
    seconds: float,
) -> list[float]:
    """Milliseconds of each look-up, from the moment at which it was due."""
    places, taken = list(filled.places()), list[float]()
    began = time.perf_counter()

    async def one(number: int) -> None:
        await ask(chosen.choice(places), f"key-{chosen.randrange(filled.entries)}")
        taken.append(1000 * (time.perf_counter() - began - number / rate))

    await at_rate(rate, max(1, int(rate * seconds)), one)
    return taken


def _in_short(taken: Sequence[float]) -> Mapping[str, float]:
    return {"p50": percentile(taken, 50), "p99": percentile(taken, 99), "slowest": max(taken)}


async def _beside_the_clean_up(
    filled: Filled,
    ask: Callable[[tuple[str, str], str], Awaitable[None]],
    chosen: random.Random,
    rate: float,
) -> Mapping[str, float]:
    """Look up, a second at a time, until the store has taken away the last entry that has expired."""
    connection, slowest = await asyncpg.connect(filled.dsn), 0.0
    try:
        while await connection.fetchval(_ANY_EXPIRED):
            slowest = max(slowest, *await _taken(filled, ask, chosen, rate, 1))
    finally:
        await connection.close()
    return {"slowest": slowest}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measured(json.loads(sys.argv[1])))))
