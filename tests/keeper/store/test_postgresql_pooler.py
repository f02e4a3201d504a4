"""Through PgBouncer, which runs every transaction on whichever connection is free."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from devcluster.ports import free_port
from keeper.store import Page
from memoize.entry import Entry
from memoize.reasons import Reason
from tests import postgresql as servers
from tests.cluster import Cluster
from tests.keeper.store.backing import CACHE, Postgres, Waiting
from tests.postgresql import PASSWORD, USER, Server
from tests.waiting import until

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
CONNECTIONS = 2
"""To the server, for the clients of both keepers together."""


def text(key: str, hours: int = 0) -> str:
    return Entry("node", None, NOW + timedelta(hours=hours), None, key).dump()


@pytest_asyncio.fixture
async def pooled(postgresql: Server, cluster: Cluster) -> AsyncIterator[Postgres]:
    """A database behind a PgBouncer; where there is none (STEPMEMO_PGBOUNCER, PATH), the test is skipped."""
    program = os.environ.get("STEPMEMO_PGBOUNCER") or shutil.which(
        "pgbouncer", path=f"{os.defpath}:/usr/sbin"
    )
    if program is None:
        pytest.skip("no pgbouncer: install it, or name it in STEPMEMO_PGBOUNCER")
    database = await postgresql.create_database()
    with servers.directory("stepmemo-pgbouncer-") as place:
        port = free_port()
        (place / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        (place / "ini").write_text(
            f"[databases]\n{database} = host=127.0.0.1 port={postgresql.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {place / 'users'}\nlogfile = {place / 'log'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\n"
        )
        command = [program, "-q", str(place / "ini")]
        process = await asyncio.create_subprocess_exec(*command, cwd=place, **servers.as_nobody())
        try:
            dsn = postgresql.dsn(database, port=port)
            await until(lambda: _answers(dsn))
            (place / "dsn").write_text(dsn)
            yield Postgres(cluster, place / "dsn")
        finally:
            process.terminate()
            await process.wait()
    await postgresql.drop_database(database)


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def test_two_keepers_make_the_schema_read_write_wait_list_and_delete(
    pooled: Postgres, postgresql: Server
) -> None:
    namespace = pooled.namespace
    entries = {f"key-{number}": text(str(number)) for number in range(30)}
    async with pooled.keeper() as store, pooled.keeper() as other:
        waiting = Waiting(namespace, "key-7")
        other.subscribe(waiting.on_change, waiting)
        outcomes = await asyncio.gather(
            *(store.put(namespace, CACHE, data_key, one, NOW) for data_key, one in entries.items())
        )
        assert {outcome.reason for outcome in outcomes} == {Reason.STORED}
        found = await asyncio.gather(*(other.read(namespace, CACHE, data_key, None) for data_key in entries))
        assert found == list(entries.values())
        await until(lambda: "key-7" in waiting.told)
        before = waiting.told["key-7"]
        assert (await store.put(namespace, CACHE, "key-7", text("7", 1), NOW)).reason is Reason.STORED
        await until(lambda: waiting.told["key-7"] != before)
        assert await other.delete(namespace, CACHE, "key-8") is True
        assert await store.read(namespace, CACHE, "key-8") == ""
        listed = await store.entries(namespace, CACHE)
        assert isinstance(listed, Page)
        assert len(listed.items) == len(entries) - 1
