"""The server that tests of the PostgreSQL store run on."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import asyncpg
import pytest

from tests import postgresql
from tests.cluster import wait_for
from tests.postgresql import Server, running

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


async def test_one_that_was_killed_is_there_again_with_what_it_held(server: Server) -> None:
    name, port = await server.create_database(), server.port
    await server.fetch("CREATE TABLE kept AS SELECT 1 AS number", database=name)
    connection = await asyncpg.connect(server.dsn(name))
    server.kill()
    with pytest.raises(asyncpg.PostgresConnectionError):
        await connection.fetch("SELECT 1")
    with pytest.raises(OSError):
        await asyncpg.connect(server.dsn(name))
    server.start()
    assert server.port == port
    assert await server.fetch("SELECT number FROM kept", database=name) == [(1,)]


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_group_of_the_tests(signal_: signal.Signals) -> None:
    code = """import time
from tests.postgresql import running
with running() as server:
    print(server.port, flush=True)
    time.sleep(600)
"""
    tests = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with tests:
        assert tests.stdout is not None
        port = int(tests.stdout.readline())
        os.killpg(tests.pid, signal_)
    wait_for(lambda: not _listens(port))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_it_is_asked_for_a_password(server: Server) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgresql.dsn([server.port], "postgres", password="wrong"))


async def test_settings_hold_for_a_start(server: Server) -> None:
    server.stop()
    server.start(default_transaction_read_only="on")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await server.create_database()


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail), ("", pytest.skip)])
def test_without_postgresql_a_test_is_skipped_and_fails_where_it_is_required(
    required: str, outcome: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPMEMO_POSTGRES", "/nowhere")
    monkeypatch.setenv("STEPMEMO_REQUIRE_POSTGRESQL", required)
    postgresql._programs.cache_clear()
    try:
        with pytest.raises(outcome.Exception, match=r"STEPMEMO_POSTGRES.*/nowhere"), running():
            pass
    finally:
        postgresql._programs.cache_clear()
