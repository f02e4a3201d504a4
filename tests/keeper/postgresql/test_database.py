"""What an outage costs, and what the schema's version decides."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from keeper.postgresql import sql
from keeper.postgresql.database import GRACE, Database, DatabaseError
from memoize.reasons import Reason
from tests.beside import beside
from tests.keeper.postgresql.conftest import Own
from tests.tcp_way import way_to
from tests.waiting import until

pytestmark = pytest.mark.slow

OURS = len(sql.MIGRATIONS)


def later(compatible: int) -> tuple[sql.Migration, ...]:
    """Those of the release after ours; `compatible` is the version of who may go on with what it leaves."""
    return (*sql.MIGRATIONS, sql.Migration(compatible, "CREATE TABLE stepmemo.of_a_later_version ()"))


class Clock:
    """Real seconds, and what a test adds to them."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.added


@asynccontextmanager
async def running(database: Database, *, wait: bool = True) -> AsyncIterator[Database]:
    async with beside(database.run()):
        if wait:
            await until(lambda: database.is_well)
        yield database


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "keeper.postgresql.database"]


async def is_refused(database: Database) -> str:
    with pytest.raises(DatabaseError) as caught:
        await database.fetch("SELECT 1")
    assert caught.value.outcome.reason is Reason.STORE_UNAVAILABLE
    return str(caught.value)


async def test_an_empty_database_gets_the_schema_and_the_next_keeper_finds_it(own: Own) -> None:
    for _ in range(2):
        async with running(Database(own.dsn_file, 5)) as database:
            assert [tuple(row) for row in await database.fetch(sql.VERSION)] == [(OURS, 1)]
            assert database.last_contact > 0
    assert len(await own.run("SELECT * FROM stepmemo.schema")) == OURS


async def test_of_keepers_that_start_at_once_one_makes_the_schema(own: Own) -> None:
    databases = [Database(own.dsn_file, 5) for _ in range(4)]
    async with (
        running(databases[0]),
        running(databases[1]),
        running(databases[2]),
        running(databases[3]),
    ):
        assert all(database.is_well for database in databases)
    assert len(await own.run("SELECT * FROM stepmemo.schema")) == OURS


async def test_a_migration_that_fails_leaves_nothing_behind_and_is_tried_again(own: Own) -> None:
    broken = (
        *sql.MIGRATIONS,
        sql.Migration(1, "CREATE TABLE stepmemo.half (); SELECT 1 / (SELECT count(*) FROM stepmemo.half)"),
    )
    async with running(Database(own.dsn_file, 5, migrations=broken), wait=False) as database:
        await until(lambda: "DivisionByZero" in database._problem)
        assert not database.is_well
    assert await own.run("SELECT to_regnamespace('stepmemo')::text") == [(None,)]
    async with running(Database(own.dsn_file, 5)):
        pass


async def test_a_newer_schema_that_asks_for_more_than_we_know_is_left_alone_until_it_is_ours_again(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Database(own.dsn_file, 5)) as old:
        async with running(Database(own.dsn_file, 5, migrations=later(OURS + 1))):
            await until(lambda: not old.is_well)
            await until(lambda: any("too old" in line for line in said(caplog)))
        await own.run("DELETE FROM stepmemo.schema WHERE version = $1", OURS + 1)
        await until(lambda: old.is_well)


async def test_a_keeper_works_on_beside_and_after_a_later_one_that_leaves_what_it_needs(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    times = 0

    def on_well() -> None:
        nonlocal times
        times += 1

    old = Database(own.dsn_file, 5)
    old.on_well = on_well
    async with running(old), running(Database(own.dsn_file, 5, migrations=later(OURS))):
        before = old.last_contact
        await until(lambda: old.last_contact > before)  # and it has looked at the version
        assert times == 1
        assert await old.fetch("SELECT 1") == [(1,)]
    async with running(Database(own.dsn_file, 5)):  # taken back
        pass
    assert said(caplog) == []


async def test_an_older_release_is_shut_out_by_whatever_it_does_not_know_and_not_by_the_last_alone(
    own: Own,
) -> None:
    newest = (*later(OURS + 1), sql.Migration(OURS, "CREATE TABLE stepmemo.of_the_last_version ()"))
    async with running(Database(own.dsn_file, 5, migrations=newest)):
        pass
    async with running(Database(own.dsn_file, 5), wait=False) as old:
        await until(lambda: "too old" in old._problem)
    async with running(Database(own.dsn_file, 5, migrations=newest[:-1])):
        pass


async def test_a_user_who_owns_the_schema_alone_makes_the_tables_in_it(own: Own) -> None:
    user = f"low_{own.name}"
    await own.run(f"CREATE ROLE {user} LOGIN PASSWORD 'low'")
    await own.run(f"CREATE SCHEMA stepmemo AUTHORIZATION {user}")
    address = own.server.dsn(own.name).partition("@")[2]
    own.dsn_file.write_text(f"postgresql://{user}:low@{address}")
    async with running(Database(own.dsn_file, 5)) as database:
        assert await database.fetch("DELETE FROM stepmemo.entries RETURNING 1") == []


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "cannot be read: FileNotFoundError"),
        (b"\xff", "cannot be read: UnicodeDecodeError"),
        (b"s3cret", "holds no DSN"),
        (b"postgresql://u:s3cret@127.0.0.1:port/db", "holds no DSN"),
        (b"postgresql://u:s3cret@127.0.0.1:1/db", "cannot be reached"),
        (b"postgresql://u:s3cret@127.0.0.1:1/db?sslmode=sometimes", "holds no DSN"),
    ],
)
async def test_a_dsn_that_leads_nowhere_is_told_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, cause: str
) -> None:
    caplog.set_level(logging.INFO)
    dsn_file = tmp_path / "dsn"
    if content is not None:
        dsn_file.write_bytes(content)
    async with running(Database(dsn_file, 5), wait=False) as database:
        await until(lambda: said(caplog))
        assert cause in await is_refused(database)
        assert database.last_contact == -math.inf
    assert "s3cret" not in caplog.text + str([vars(record) for record in caplog.records])


async def test_an_outage_is_said_once_however_often_it_is_met(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    async with way_to(1) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        async with running(Database(own.dsn_file, 5), wait=False) as database:
            await until(lambda: way.connections > 4)
            await is_refused(database)
    assert len(said(caplog)) == 1


async def test_a_dsn_that_is_mended_is_used_without_a_restart(own: Own) -> None:
    right = own.dsn_file.read_text()
    own.dsn_file.write_text(right.replace("not", "wrong"))
    async with running(Database(own.dsn_file, 5), wait=False) as database:
        await until(lambda: "InvalidPassword" in database._problem)
        own.dsn_file.write_text(right)
        await until(lambda: database.is_well)


async def test_one_connection_that_is_ended_is_nobodys_trouble(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Database(own.dsn_file, 5)) as database:
        for _ in range(3):
            await own.end_connections()
            assert await database.fetch("SELECT 1") == [(1,)]
    assert said(caplog) == []


async def test_while_it_is_away_everybody_is_refused_at_once_and_then_it_is_back(
    own: Own, caplog: pytest.LogCaptureFixture
) -> None:
    clock, times = Clock(), 0
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))

        def on_well() -> None:
            nonlocal times
            times += 1

        database = Database(own.dsn_file, 5, clock=clock)
        database.on_well = on_well
        async with running(database):
            way.refuse()
            way.cut()
            await until(lambda: not database.is_well)
            clock.added += GRACE
            begun = asyncio.get_running_loop().time()
            for _ in range(1000):
                await is_refused(database)
            assert asyncio.get_running_loop().time() - begun < 5  # and not a time-out each
            assert database.last_contact == -math.inf
            await way.open()
            await until(lambda: database.is_well)
            assert await database.fetch("SELECT 1") == [(1,)]
    assert times == 2
    assert [line.partition(";")[0].partition(":")[0] for line in said(caplog)] == [
        "the database cannot be reached",
        "the database is well again",
    ]


async def test_a_break_that_lasts_is_told_once_and_a_short_one_not_at_all(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.postgresql.database.GRACE", 60.0)
    told = list[bool]()
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        database = Database(own.dsn_file, 5)
        database.on_down = lambda: told.append(database.is_well)
        async with running(database):
            database._drop()
            database._broken.set()
            await until(lambda: database.is_well)
            database._tell_down()  # as it would be after such a break
            assert told == []
            monkeypatch.setattr("keeper.postgresql.database.GRACE", 0.2)
            way.refuse()
            way.cut()
            await until(lambda: told)
            await is_refused(database)
            assert told == [False]


async def test_whoever_asks_a_moment_after_a_break_gets_an_answer_of_the_next_connection(own: Own) -> None:
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        async with running(Database(own.dsn_file, 5)) as database:
            way.refuse()
            way.cut()
            await until(lambda: not database.is_well)
            asking = asyncio.ensure_future(database.fetch("SELECT 1"))
            await way.open()
            assert await asking == [(1,)]


async def test_a_server_that_is_silent_costs_one_time_out_whoever_waits(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.postgresql.database.ANSWER_SECONDS", 0.5)
    clock = Clock()
    async with way_to(own.server.port) as way:
        own.dsn_file.write_text(own.server.dsn(own.name, port=way.port))
        async with running(Database(own.dsn_file, 5, clock=clock)) as database:
            way.passing.clear()
            with pytest.raises(DatabaseError):
                await database.fetch("SELECT 1")
            assert not database.is_well
            clock.added += GRACE
            assert await is_refused(database) == "the database does not answer"
            way.passing.set()
            await until(lambda: database.is_well)


async def test_a_statement_that_takes_too_long_is_cancelled_and_no_outage(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.postgresql.database._SESSION", "SET statement_timeout = '100ms'")
    async with running(Database(own.dsn_file, 5)) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.fetch("SELECT pg_sleep(60)")
        assert caught.value.passes
        assert database.is_well


async def test_who_is_cancelled_with_a_statement_on_its_way_ends_though_the_connections_end_too(
    own: Own,
) -> None:
    """So do the parts of a keeper that ends, which go on after a DatabaseError."""
    database = Database(own.dsn_file, 5)
    keeping = asyncio.create_task(database.run())
    await until(lambda: database.is_well)
    asking = asyncio.create_task(database.fetch("SELECT pg_sleep(60)"))
    sleeps = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"

    async def is_on_its_way() -> bool:
        return bool(await own.run(sleeps))

    await until(is_on_its_way)
    asking.cancel()
    keeping.cancel()
    await asyncio.wait([asking, keeping])
    assert asking.cancelled()
    assert keeping.cancelled()


async def test_a_server_that_only_reads_answers_reads_and_another_is_looked_for(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.postgresql.database.REOPEN", 0.0)
    async with running(Database(own.dsn_file, 5)) as database:
        await own.server.fetch(f"ALTER DATABASE {own.name} SET default_transaction_read_only = on")
        await own.end_connections()
        assert await database.fetch("SELECT 1") == [(1,)]
        with pytest.raises(DatabaseError, match="ReadOnly"):
            await database.fetch("DELETE FROM stepmemo.entries")
        assert database.is_well
        await own.server.fetch(f"ALTER DATABASE {own.name} RESET default_transaction_read_only")

        async def writes() -> bool:
            with suppress(DatabaseError):
                await database.fetch("DELETE FROM stepmemo.entries")
                return True
            return False

        await until(writes)


async def test_a_bug_of_ours_is_no_outage(own: Own) -> None:
    async with running(Database(own.dsn_file, 5)) as database:
        with pytest.raises(DatabaseError):
            await database.fetch("SELECT $1::bigint", "a")
        with pytest.raises(DatabaseError):
            await database.fetch("SELECT 1 / 0")
        assert database.is_well
