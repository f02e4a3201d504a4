"""ConfigMaps and PostgreSQL side by side: look-ups, memory, hits, clean-up, and the bytes of a write."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from bench import api, holds, machine
from bench.argo import standing
from bench.figures import Figure, Report, Target, compare
from bench.installed import Installed, installed
from bench.measure import Series, interleave, percentile
from bench.pace import at_rate
from bench.relay import Relay, relayed
from bench.steps import entry
from bench.store_process import CONFIG_MAPS, ENTRY, POSTGRESQL, Filled, store_of
from keeper.postgresql import rows
from memoize import configmap
from memoize.entry import Entry
from memoize.reasons import Reason
from tests import postgresql
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import api_client

NAME = "stores"
_METHOD = """A process that has a store as the keeper has it, before an API server and a PostgreSQL of this
machine, neither of which waits for the disk. First look-ups of entries picked at random from many caches,
begun at a fixed rate whether or not earlier ones have ended, each timed from the moment at which it was due;
beside them the bare SELECT of the same texts by primary key, through the same driver, with as many
connections. Then the most memory that such a process ever had (VmHWM) once it has looked up in every cache.
Then hits as a whole, webhook and keeper included, as in `bench holds`. Then, in PostgreSQL, look-ups at a
lower rate while expired entries are cleaned up, to the last of them. Last, what so many entries of 2 KB come
to that are put into one cache at a fixed rate: for ConfigMaps the bytes of one watch of them, as Argo's
controller has it, each event of which is the whole object, which etcd writes as well; for PostgreSQL those
and the bytes of its write-ahead log."""
_CACHES = 2000
_NAMESPACES = 20
_FEW = 1000
"""Entries of the caches whose process is the reference …"""
_FEW_CACHES = 10
"""… and their caches, of one namespace."""
_CAPTURED = 2000
"""Bytes of one that is captured."""
_STORES = (CONFIG_MAPS, POSTGRESQL)
_MIB = 1 << 20
_PATIENCE = 1800.0
_TEN_MS = Target("at most", 10, of="value")
_THREE_TIMES = Target("at most", 3)
_A_TENTH_MORE = Target("at most", 1.1)
_BEHIND = 20
"""As many times fewer look-ups a second while expired entries go: the slowest is sought, not a queue."""
_SERVER = {
    # What this machine would have for a database of this size; the disk is not what is measured.
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "full_page_writes": "on",
}


def add_arguments(parser: ArgumentParser) -> None:
    """How often, how many."""
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--entries",
        type=int,
        default=20_000,
        metavar="N",
        help="in all caches; 1000000 for what the target is about (default %(default)s)",
    )
    parser.add_argument(
        "--caches", type=int, default=_CACHES, metavar="N", help="that they are in (default %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=500, metavar="N", help="look-ups a second (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20, metavar="N", help="of look-ups in a round (default %(default)s)"
    )
    parser.add_argument("--hits", type=int, default=250, metavar="N", help="in a round (default %(default)s)")
    parser.add_argument(
        "--hit-rate", type=float, default=50, metavar="N", help="hits a second (default %(default)s)"
    )
    parser.add_argument(
        "--expired", type=int, default=100_000, metavar="N", help="entries cleaned up (default %(default)s)"
    )
    parser.add_argument(
        "--captures", type=int, default=1000, metavar="N", help="entries of 2 KB (default %(default)s)"
    )
    parser.add_argument(
        "--capture-rate", type=float, default=50, metavar="N", help="of these a second (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Fill both stores with the same entries, and ask them in turn."""
    described = machine.describe()
    with postgresql.running(**_SERVER) as server, api.scratch() as (cluster, directory):
        series = World(cluster, server, directory, arguments).measure()
        ((version,),) = asyncio.run(server.fetch("SELECT current_setting('server_version')"))
        facts = {
            "API server": api.describe(cluster),
            "PostgreSQL": str(version),
            "entries": f"{arguments.entries:,} of {ENTRY} bytes in {arguments.caches:,} caches",
            "rounds": str(arguments.rounds),
            "look-ups": f"{arguments.rate:g} a second for {arguments.seconds:g} s",
            "hits": f"{arguments.hits}, {arguments.hit_rate:g} a second",
            "captures": f"{arguments.captures:,} of {_CAPTURED} bytes, {arguments.capture_rate:g} a second",
        }
    figures = tuple(_figures(series, arguments))
    return Report(NAME, "ConfigMaps and PostgreSQL", _METHOD, facts, described, figures)


def _figures(series: Series, arguments: Namespace) -> Iterator[Figure]:
    def figure(what: str, unit: str, name: str, against: str, beside: str, target: Target | None) -> Figure:
        return compare(what, unit, series[name], against, series[beside], target)

    bare = "a bare SELECT by primary key"
    for store, what, target in (
        (POSTGRESQL, "p50", None),
        (POSTGRESQL, "p99", _TEN_MS),
        (POSTGRESQL, "p99", _THREE_TIMES),
        (CONFIG_MAPS, "p50", None),
        (CONFIG_MAPS, "p99", None),
    ):
        yield figure(f"{store}: a look-up, {what}", "ms", f"{what} {store}", bare, f"{what} bare", target)
    for store, target in ((POSTGRESQL, _A_TENTH_MORE), (CONFIG_MAPS, None)):
        what, few = f"{store}: memory with {arguments.entries:,} entries", f"with {_FEW:,}"
        yield figure(what, "MiB", f"many {store}", few, f"few {store}", target)
    for percent in ("p50", "p99"):
        yield figure(
            f"{POSTGRESQL}: a hit, Pod created to Succeeded, {percent}",
            "ms",
            f"hit {percent} {POSTGRESQL}",
            f"with {CONFIG_MAPS}",
            f"hit {percent} {CONFIG_MAPS}",
            None,
        )
    yield figure(
        f"{POSTGRESQL}: the slowest look-up while {arguments.expired:,} expired entries go",
        "ms",
        "slowest beside",
        "while none do",
        "slowest alone",
        Target("at most", 50, of="value"),
    )
    yield figure(
        f"{POSTGRESQL}: {arguments.captures:,} captures, bytes of its log and of a watch",
        "MiB",
        f"captures {POSTGRESQL}",
        f"{CONFIG_MAPS}: bytes of a watch",
        f"captures {CONFIG_MAPS}",
        None,
    )


# --- What is measured, in turn ----------------------------------------------------------------------------


class World:
    """Both stores, filled, and both programs in front of each."""

    def __init__(
        self, cluster: Cluster, server: postgresql.Server, directory: Path, arguments: Namespace
    ) -> None:
        self._cluster, self._server, self._directory = cluster, server, directory
        self._arguments = arguments
        self._numbers = itertools.count()

    def measure(self) -> Series:
        """Take every measurement in turn."""
        given = self._arguments
        namespaces = min(_NAMESPACES, given.caches)
        shape = namespaces, given.caches // namespaces, max(1, given.entries // given.caches)
        many = {store: self._filled(store, *shape) for store in _STORES}
        few = {store: self._filled(store, 1, _FEW_CACHES, _FEW // _FEW_CACHES) for store in _STORES}
        expiring = self._filled(POSTGRESQL, *shape)
        with ExitStack() as stack:
            both = {store: stack.enter_context(self._installed(store)) for store in _STORES}
            return interleave(
                given.rounds,
                [
                    *(partial(self._look_ups, many[store]) for store in _STORES),
                    partial(self._bare, many[POSTGRESQL]),
                    *(partial(self._memory, "few", few[store]) for store in _STORES),
                    *(partial(self._memory, "many", many[store]) for store in _STORES),
                    *(partial(self._hits, store, *both[store]) for store in _STORES),
                    partial(self._collect, expiring),
                    *(partial(self._captures, store) for store in _STORES),
                ],
            )

    def _filled(self, store: str, namespaces: int, caches: int, entries: int) -> Filled:
        names = [self._cluster.namespace() for _ in range(namespaces)]
        if store == CONFIG_MAPS:
            filled = Filled(store, names, caches, entries)
            texts = filled.texts()
            for namespace, cache in filled.places():
                body = configmap.new(cache, texts)
                body["metadata"]["namespace"] = namespace
                api.create(self._cluster, body)
            return filled
        filled = Filled(store, names, caches, entries, self._database())
        asyncio.run(_fill(self._cluster, filled))
        return filled

    def _database(self) -> str:
        """The DSN of a new database."""
        return self._server.dsn(asyncio.run(self._server.create_database()))

    def _look_ups(self, filled: Filled) -> Mapping[str, float]:
        taken = self._child("look_ups", filled, rate=self._arguments.rate, seconds=self._arguments.seconds)
        return {f"{what} {filled.store}": taken[what] for what in ("p50", "p99")}

    def _bare(self, filled: Filled) -> Mapping[str, float]:
        taken = self._child("bare", filled, rate=self._arguments.rate, seconds=self._arguments.seconds)
        return {f"{what} bare": taken[what] for what in ("p50", "p99")}

    def _memory(self, which: str, filled: Filled) -> Mapping[str, float]:
        return {f"{which} {filled.store}": self._child("memory", filled)["memory"]}

    def _collect(self, filled: Filled) -> Mapping[str, float]:
        given = self._arguments
        rate = given.rate / _BEHIND
        alone = self._child("look_ups", filled, rate=rate, seconds=given.seconds)
        asyncio.run(_expire(filled, given.expired))
        beside = self._child("collect", filled, rate=rate)
        return {"slowest alone": alone["slowest"], "slowest beside": beside["slowest"]}

    def _child(self, do: str, filled: Filled, **more: float) -> Mapping[str, float]:
        what = {"do": do, "filled": asdict(filled), "seed": next(self._numbers), **more}
        done = subprocess.run(
            [sys.executable, "-B", "-m", "bench.store_process", json.dumps(what)],
            cwd=api.ROOT,
            env={"PATH": os.defpath, "KUBECONFIG": str(self._cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{do} of {filled.store} failed:\n{done.stderr}")
        found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    # --- Hits as a whole ------------------------------------------------------------------------------

    @contextmanager
    def _installed(self, store: str) -> Iterator[tuple[Installed, str]]:
        """Both programs before a fresh namespace whose cache has the entries; that namespace."""
        namespace = self._cluster.namespace()
        texts = {f"key-{number}": entry(f"answer {number}") for number in range(self._arguments.hits)}
        flags: tuple[str, ...] = ()
        if store == POSTGRESQL:
            dsn = self._database()
            file = self._directory / f"{namespace}.dsn"
            file.write_text(dsn)
            flags = ("--store=postgresql", f"--dsn-file={file}")
            asyncio.run(_put_all(self._cluster, Filled(store, [namespace], 1, 1, dsn), texts))
        else:
            body = configmap.new(holds.CACHE, texts)
            body["metadata"]["namespace"] = namespace
            api.create(self._cluster, body)
        with installed(self._cluster, self._directory, *flags, caches=[namespace]) as both:
            yield both, namespace

    def _hits(self, store: str, both: Installed, namespace: str) -> Mapping[str, float]:
        async def measured() -> list[float]:
            name = f"wf-{next(self._numbers)}"
            uid = api.workflow(self._cluster, namespace, name)
            async with standing(self._cluster, namespace, name, uid) as stand:
                return await holds.hits(stand, self._arguments.hits, self._arguments.hit_rate)

        taken = [1000 * seconds for seconds in asyncio.run(measured())]
        return {f"hit p{percent} {store}": percentile(taken, percent) for percent in (50, 99)}

    # --- Bytes of what is written ---------------------------------------------------------------------

    def _captures(self, store: str) -> Mapping[str, float]:
        namespace = self._cluster.namespace()
        dsn = self._database() if store == POSTGRESQL else ""
        written = asyncio.run(self._captured(Filled(store, [namespace], 1, 1, dsn)))
        return {f"captures {store}": written / _MIB}

    async def _captured(self, filled: Filled) -> float:
        """Bytes that a watch of the namespace's ConfigMaps gets, and that PostgreSQL writes ahead."""
        (namespace,), count = filled.namespaces, self._arguments.captures
        where = urlsplit(self._cluster.url)
        with relayed(str(where.hostname), where.port or 443) as relay:
            async with api_client(self._cluster) as connected, store_of(connected, filled) as store:
                watching = asyncio.create_task(_watch(self._cluster, relay, namespace))
                await until(lambda: relay.received)
                await asyncio.sleep(1)
                began, position = relay.received, await self._log_position()

                async def capture(number: int) -> None:
                    text = entry("x" * (_CAPTURED - len(entry(""))))
                    outcome = await store.put(namespace, "cache-0", f"key-{number}", text, datetime.now(UTC))
                    if outcome.reason is not Reason.STORED:
                        raise RuntimeError(f"an entry was not stored: {outcome}")

                await at_rate(self._arguments.capture_rate, count, capture)
                await asyncio.sleep(2)  # for the last event
                watched, log = relay.received - began, await self._log_position() - position
                watching.cancel()
                await asyncio.wait([watching])
        return watched + (log if filled.store == POSTGRESQL else 0)

    async def _log_position(self) -> float:
        ((position,),) = await self._server.fetch("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return float(position)


async def _watch(cluster: Cluster, relay: Relay, namespace: str) -> None:
    """Follow the namespace's ConfigMaps, whole, as Argo's controller does."""
    url = relay.url + cluster.path("ConfigMap", namespace)
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    limits = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=limits) as session,
        session.get(url, params={"watch": "1", "timeoutSeconds": "3600"}, ssl=cluster.context()) as response,
    ):
        async for _ in response.content.iter_any():
            pass


# --- What the database is filled with ---------------------------------------------------------------------


async def _put_all(cluster: Cluster, filled: Filled, texts: Mapping[str, str]) -> None:
    """Put these into the one cache that hits are looked up in."""
    async with api_client(cluster) as connected, store_of(connected, filled) as store:
        for data_key, text in texts.items():
            await store.put(filled.namespaces[0], holds.CACHE, data_key, text, datetime.now(UTC))


async def _fill(cluster: Cluster, filled: Filled) -> None:
    """Have the store make its schema, and copy the entries into it."""
    async with api_client(cluster) as connected, store_of(connected, filled):
        pass
    texts = filled.texts()
    await _copy(
        filled, ((place, data_key, text) for place in filled.places() for data_key, text in texts.items())
    )


async def _expire(filled: Filled, count: int) -> None:
    """Add so many entries that have expired, to all caches alike."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    text = Entry("node", None, long_ago, None, max_age="1h").dump()
    places = itertools.cycle(filled.places())
    await _copy(
        filled, ((place, f"expired-{one}", text) for one, place in zip(range(count), places, strict=False))
    )


async def _copy(filled: Filled, found: Iterator[tuple[tuple[str, str], str, str]]) -> None:
    said = ("created", "expires", "last_hit", "template")
    columns = ("namespace", "cache", "digest", "data_key", "text", "bytes", *said)

    def record(place: tuple[str, str], data_key: str, text: str) -> tuple[object, ...]:
        namespace, cache, digest, *rest = rows.put_arguments(rows.EntryRef(*place, data_key), text)
        return namespace, cache, bytes.fromhex(str(digest)), *rest

    connection = await asyncpg.connect(filled.dsn)
    try:
        records = (record(*one) for one in found)
        await connection.copy_records_to_table(
            "entries", schema_name="stepmemo", columns=columns, records=records, timeout=_PATIENCE
        )
        await connection.execute("VACUUM ANALYZE stepmemo.entries", timeout=_PATIENCE)
        await connection.execute("CHECKPOINT", timeout=_PATIENCE)
    finally:
        await connection.close()
