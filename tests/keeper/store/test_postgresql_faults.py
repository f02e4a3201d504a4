"""A real PostgreSQL in trouble: every call comes back in time, none raises, and the store mends itself."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from keeper.store import NOT_NOW, Page, Store
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.store.backing import CACHE, Postgres, Waiting
from tests.postgresql import PASSWORD, USER, Server, dsn, running
from tests.tcp_way import Way, way_to
from tests.waiting import until

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
BOUND = 40.0
"""Seconds for any call on a busy machine: a put says within some ten what became of it."""


def text(key: str, result: str = "") -> str:
    return Entry("node", {"result": result}, NOW, None, key).dump()


def dsn_file(directory: Path, text: str) -> Path:
    file = directory / "dsn"
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch, in_the_program: dict[str, Any]) -> None:
    for name in ("WRITE_SECONDS", "PostgresStore.read.__defaults__"):
        name = f"keeper.postgresql.store.{name}"
        monkeypatch.setattr(name, in_the_program[name])


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that tests may kill; each leaves it running."""
    with running() as server:
        yield server


class World:
    """A store that reaches its database by a way that can be blocked, and the database beside it."""

    def __init__(self, server: Server, database: str, way: Way, backing: Postgres) -> None:
        self.server, self.database, self.way, self.backing = server, database, way, backing
        self.namespace = backing.namespace

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Run it in the store's database, past the way."""
        return await self.server.fetch(statement, *arguments, database=self.database)

    async def disconnect(self) -> None:
        """End every session of the database's, as an administrator does."""
        await self.server.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", self.database
        )


@pytest_asyncio.fixture
async def world(own_server: Server, cluster: Cluster, tmp_path: Path) -> AsyncIterator[World]:
    async with way_to(own_server.port) as way:
        database = await own_server.create_database()
        try:
            backing = Postgres(cluster, dsn_file(tmp_path, own_server.dsn(database, port=way.port)))
            yield World(own_server, database, way, backing)
        finally:
            await own_server.drop_database(database)


async def every_call(store: Store, namespace: str) -> dict[str, object]:
    """What each call comes to: none may raise, or last."""
    store.hit(namespace, CACHE, "a", text("a"))
    calls: dict[str, Awaitable[object]] = {
        "read": store.read(namespace, CACHE, "a"),
        "read of nothing": store.read(namespace, "other", "a"),
        "put": store.put(namespace, CACHE, "b", text("b"), NOW),
        "delete": store.delete(namespace, CACHE, "absent"),
        "entries": store.entries(namespace, CACHE),
        "caches": store.caches(namespace),
        "caches of all": store.caches(""),
    }
    async with asyncio.timeout(BOUND):
        return dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))


def reasons(results: dict[str, object]) -> dict[str, Reason]:
    return {call: result.reason for call, result in results.items() if isinstance(result, Outcome)}


async def works(store: Store, namespace: str) -> bool:
    """Whether the store reads and writes."""
    results = await every_call(store, namespace)
    stored = reasons(results).get("put") is Reason.STORED
    return stored and results["read"] == text("a") and store.in_sync


# --- The faults ---------------------------------------------------------------------------------------


@asynccontextmanager
async def refused(world: World) -> AsyncIterator[None]:
    world.way.refuse()
    world.way.cut()
    try:
        yield
    finally:
        await world.way.open()


@asynccontextmanager
async def silent(world: World) -> AsyncIterator[None]:
    """A firewall that drops packets, those of open connections too."""
    world.way.passing.clear()
    try:
        yield
    finally:
        world.way.passing.set()


@asynccontextmanager
async def slow(world: World) -> AsyncIterator[None]:
    """Each way of each message takes longer than anybody waits."""
    world.way.delay = 20.0
    try:
        yield
    finally:
        world.way.delay = 0.0


@asynccontextmanager
async def cut_before_it_arrives(world: World) -> AsyncIterator[None]:
    world.way.cut_at = b"stepmemo."
    try:
        yield
    finally:
        world.way.cut_at = b""


@asynccontextmanager
async def cut_before_it_is_answered(world: World) -> AsyncIterator[None]:
    """Statements take effect and nobody hears of it."""
    world.way.cut_behind = b"stepmemo."
    try:
        yield
    finally:
        world.way.cut_behind = b""


@asynccontextmanager
async def killed(world: World) -> AsyncIterator[None]:
    """SIGKILL to the postmaster and to every session's process."""
    world.server.kill()
    try:
        yield
    finally:
        world.server.start()


@asynccontextmanager
async def locked(world: World) -> AsyncIterator[None]:
    """Statements wait until they are cancelled: for an administrator's ALTER TABLE, or his VACUUM FULL."""
    connection = await asyncpg.connect(world.server.dsn(world.database))
    try:
        await connection.execute("BEGIN; LOCK TABLE stepmemo.entries IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.terminate()  # which takes the lock away, and works where the server is gone


@asynccontextmanager
async def no_more_connections(world: World) -> AsyncIterator[None]:
    await world.server.fetch(f"ALTER DATABASE {world.database} ALLOW_CONNECTIONS false")
    await world.disconnect()
    try:
        yield
    finally:
        await world.server.fetch(f"ALTER DATABASE {world.database} ALLOW_CONNECTIONS true")


@asynccontextmanager
async def another_password(world: World) -> AsyncIterator[None]:
    """The Secret was not changed with the database."""
    await world.server.fetch(f"ALTER ROLE {USER} PASSWORD 'another'")
    await world.disconnect()
    try:
        yield
    finally:
        await world.server.fetch(f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'")


@asynccontextmanager
async def no_database(world: World) -> AsyncIterator[None]:
    while True:  # the keeper may be back before it is renamed
        await world.disconnect()
        with suppress(asyncpg.ObjectInUseError):
            await world.server.fetch(f"ALTER DATABASE {world.database} RENAME TO away")
            break
    try:
        yield
    finally:
        await world.server.fetch(f"ALTER DATABASE away RENAME TO {world.database}")


@asynccontextmanager
async def no_table(world: World) -> AsyncIterator[None]:
    await world.sql("ALTER TABLE stepmemo.entries RENAME TO away")
    try:
        yield
    finally:
        await world.sql("ALTER TABLE stepmemo.away RENAME TO entries")


GONE: list[Callable[[World], Any]] = [
    refused,
    silent,
    slow,
    cut_before_it_arrives,
    cut_before_it_is_answered,
    killed,
    no_more_connections,
    another_password,
    no_database,
]


@pytest.mark.parametrize("fault", GONE, ids=lambda fault: fault.__name__)
async def test_without_its_database_every_call_ends_and_later_all_is_as_before(
    world: World, fault: Callable[[World], Any]
) -> None:
    namespace = world.namespace
    async with world.backing.keeper() as store:
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        async with fault(world):
            for _ in range(2):
                results = await every_call(store, namespace)
                assert reasons(results).keys() >= {"read", "entries", "caches", "delete"}, results
                assert set(reasons(results).values()) <= NOT_NOW | {Reason.STORED}
        await until(lambda: works(store, namespace))


@pytest.mark.parametrize("fault", [refused, killed, silent], ids=lambda fault: fault.__name__)
async def test_who_waits_for_an_entry_is_told_that_there_is_none_to_be_had_and_when_there_is_again(
    world: World, fault: Callable[[World], Any]
) -> None:
    namespace, waiting = world.namespace, Waiting(world.namespace, "a", "b")
    async with world.backing.keeper() as store:
        store.subscribe(waiting.on_change, waiting)
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        await until(lambda: "a" in waiting.told)
        before = dict(waiting.told)
        async with fault(world):
            await until(lambda: all(waiting.told.get(key) != before.get(key) for key in "ab"))
            async with asyncio.timeout(BOUND):
                found = await store.read(namespace, CACHE, "a", None)
            assert isinstance(found, Outcome)
            assert found.reason is Reason.STORE_UNAVAILABLE, "nobody is to wait for it"
            before = dict(waiting.told)
        await until(lambda: all(waiting.told[key] != before[key] for key in "ab"))
        await until(lambda: works(store, namespace))


@pytest.mark.parametrize("fault", [locked, no_table], ids=lambda fault: fault.__name__)
async def test_without_its_table_every_call_that_needs_it_ends_and_later_all_is_as_before(
    world: World, fault: Callable[[World], Any]
) -> None:
    namespace = world.namespace
    async with world.backing.keeper() as store:
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        async with fault(world):
            results = await every_call(store, namespace)
            assert reasons(results).keys() >= {"read", "entries", "put", "delete"}
            assert set(reasons(results).values()) <= NOT_NOW
        await until(lambda: works(store, namespace))


async def test_a_schema_that_was_dropped_is_made_anew(world: World) -> None:
    async with world.backing.keeper() as store:
        await store.put(world.namespace, CACHE, "a", text("a"), NOW)
        await world.sql("DROP SCHEMA stepmemo CASCADE")
        await until(lambda: _put(store, world.namespace, "a"))
        await until(lambda: works(store, world.namespace))


async def test_a_keeper_that_starts_without_its_database_serves_as_soon_as_it_is_there(world: World) -> None:
    async with AsyncExitStack() as stack:
        async with refused(world):
            store = await stack.enter_async_context(world.backing.keeper(in_sync=False))
            results = await every_call(store, world.namespace)
            assert set(reasons(results)) == set(results)
            assert store.last_contact(world.namespace) == -math.inf
        await until(lambda: store.in_sync)
        assert (await store.put(world.namespace, CACHE, "a", text("a"), NOW)).reason is Reason.STORED


# --- It answers, and takes nothing --------------------------------------------------------------------


@asynccontextmanager
async def disk_full(world: World) -> AsyncIterator[None]:
    """Every write fails as on a full disk: by a trigger, since it takes root to make a small disk."""
    await world.sql(
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device' USING ERRCODE = '53100';
        END $$"""
    )
    await world.sql(
        "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON stepmemo.entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
    )
    try:
        yield
    finally:
        await world.sql("DROP FUNCTION full_disk() CASCADE")


@asynccontextmanager
async def read_only(world: World) -> AsyncIterator[None]:
    """As a standby, or a server that an administrator protects."""
    await world.server.fetch(f"ALTER DATABASE {world.database} SET default_transaction_read_only = on")
    await world.disconnect()
    try:
        yield
    finally:
        await world.server.fetch(f"ALTER DATABASE {world.database} RESET default_transaction_read_only")
        await world.disconnect()


@asynccontextmanager
async def nobody_may_write(world: World) -> AsyncIterator[None]:
    """Rights were taken away. (Of a role of its own, since the owner keeps his.)"""
    await world.sql(
        """CREATE FUNCTION denied() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'permission denied for table entries' USING ERRCODE = '42501'; END $$"""
    )
    await world.sql(
        "CREATE TRIGGER denied BEFORE INSERT OR UPDATE OR DELETE ON stepmemo.entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION denied()"
    )
    try:
        yield
    finally:
        await world.sql("DROP FUNCTION denied() CASCADE")


@pytest.mark.parametrize("fault", [disk_full, read_only, nobody_may_write], ids=lambda fault: fault.__name__)
async def test_a_database_that_takes_nothing_is_read_all_the_same(
    world: World, fault: Callable[[World], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.postgresql.store.PostgresStore.read.__defaults__", (BOUND,))
    namespace = world.namespace
    async with world.backing.keeper() as store:
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        async with fault(world):
            await until(lambda: _reads(store, namespace))
            results = await every_call(store, namespace)
            assert reasons(results)["put"] in NOT_NOW, results
            assert results["read"] == text("a")
            assert isinstance(results["entries"], Page)
            assert isinstance(results["caches"], Page)
        await until(lambda: works(store, namespace))


async def _reads(store: Store, namespace: str) -> bool:
    return await store.read(namespace, CACHE, "a") == text("a")


# --- In the middle ------------------------------------------------------------------------------------


async def test_a_session_that_is_killed_in_the_middle_of_a_statement_loses_that_call_alone(
    world: World,
) -> None:
    """SIGKILL to one process, after which PostgreSQL ends all sessions and recovers."""
    namespace = world.namespace
    async with world.backing.keeper() as store:
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        async with locked(world):
            putting = asyncio.ensure_future(store.put(namespace, CACHE, "c", text("c"), NOW))
            pids: list[int] = []

            async def waits() -> bool:
                rows = await world.server.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'",
                    world.database,
                )
                pids[:] = [row["pid"] for row in rows]
                return bool(pids)

            await until(waits)
            world.server.kill_session(pids[0])
        async with asyncio.timeout(BOUND):
            outcome = await putting
        assert outcome.reason is Reason.STORED or outcome.reason in NOT_NOW
        await until(lambda: works(store, namespace))
        if outcome.reason is Reason.STORED:
            assert await store.read(namespace, CACHE, "c") == text("c")


async def test_calls_that_are_under_way_when_the_server_dies_all_end(world: World) -> None:
    namespace = world.namespace
    async with world.backing.keeper() as store:
        await store.put(namespace, CACHE, "a", text("a"), NOW)
        puts = [store.put(namespace, CACHE, f"key-{number}", text("x"), NOW) for number in range(200)]
        reads = [store.read(namespace, CACHE, f"key-{number}") for number in range(200)]
        calls = [asyncio.ensure_future(call) for call in (*puts, *reads)]
        await asyncio.sleep(0)
        async with killed(world):
            async with asyncio.timeout(BOUND):
                outcomes = await asyncio.gather(*calls)
            assert {one.reason for one in outcomes[:200] if isinstance(one, Outcome)} <= {
                Reason.STORED,
                *NOT_NOW,
            }
        await until(lambda: works(store, namespace))
        for number, outcome in enumerate(outcomes[:200]):
            if isinstance(outcome, Outcome) and outcome.reason is Reason.STORED:
                assert await store.read(namespace, CACHE, f"key-{number}") == text("x")


# --- Another server -----------------------------------------------------------------------------------


async def test_it_goes_to_the_other_address_when_the_first_is_gone_or_read_only(
    world: World, cluster: Cluster, tmp_path: Path
) -> None:
    """Two servers of one installation, here with databases of their own: which one answered is seen so."""
    first, name = world.server, world.database
    with running() as second:
        await second.fetch(f"CREATE DATABASE {name}")
        for server in (first, second):
            async with Postgres(cluster, dsn_file(tmp_path, server.dsn(name))).keeper():
                pass  # as a standby has it from its primary
        async with way_to(second.port) as second_way:
            both = dsn([world.way.port, second_way.port], name, target_session_attrs="read-write")
            backing = Postgres(cluster, dsn_file(tmp_path, both))
            async with backing.keeper() as store:
                assert await _put(store, backing.namespace, "a")
                assert await _rows(first, name) == 1
                # 1. The first is gone.
                async with refused(world):
                    await until(lambda: _put(store, backing.namespace, "b"))
                    assert await _rows(second, name) >= 1
                # 2. It is back, and the second one becomes a standby: a server ends sessions then.
                await second.fetch(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
                second_way.cut()
                await until(lambda: _put(store, backing.namespace, "c"))
                assert await _rows(first, name) == 2


async def _put(store: Store, namespace: str, data_key: str) -> bool:
    async with asyncio.timeout(BOUND):
        return (await store.put(namespace, CACHE, data_key, text(data_key), NOW)).reason is Reason.STORED


async def _rows(server: Server, database: str) -> int:
    (row,) = await server.fetch("SELECT count(*) FROM stepmemo.entries", database=database)
    count: int = row[0]
    return count
