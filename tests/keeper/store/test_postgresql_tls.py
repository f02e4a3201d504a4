"""Who may be taken for the database, as the DSN says it."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest_asyncio

from devcluster.api import certificates
from keeper.store import NOT_NOW
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.store.backing import CACHE, Postgres
from tests.postgresql import Server
from tests.tcp_way import Way, way_to
from tests.waiting import until

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TEXT = Entry("node", None, NOW, None, "a").dump()


class Encrypted(NamedTuple):
    """A way on which TLS is spoken, with a certificate for 127.0.0.1 that this CA has signed."""

    way: Way
    ca: Path
    database: str


@pytest_asyncio.fixture
async def encrypted(postgresql: Server, tmp_path: Path) -> AsyncIterator[Encrypted]:
    pair = certificates.create(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    database = await postgresql.create_database()
    async with way_to(postgresql.port, context) as way:
        yield Encrypted(way, pair.ca, database)
    await postgresql.drop_database(database)


def backing(cluster: Cluster, directory: Path, dsn: str) -> Postgres:
    file = directory / "dsn"
    file.write_text(dsn)
    return Postgres(cluster, file)


async def test_entries_travel_encrypted_to_the_server_that_the_dsn_trusts(
    encrypted: Encrypted, postgresql: Server, cluster: Cluster, tmp_path: Path
) -> None:
    dsn = postgresql.dsn(
        encrypted.database, port=encrypted.way.port, sslmode="verify-full", sslrootcert=str(encrypted.ca)
    )
    within = backing(cluster, tmp_path, dsn)
    async with within.keeper() as store:
        where = within.namespace, CACHE, "a"
        assert (await store.put(*where, TEXT, NOW)).reason is Reason.STORED
        assert await store.read(*where) == TEXT
    assert encrypted.way.encrypted == encrypted.way.connections


async def test_a_server_of_another_authority_gets_neither_password_nor_entry(
    encrypted: Encrypted, postgresql: Server, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    another = certificates.create(tmp_path / "another").ca
    dsn = postgresql.dsn(
        encrypted.database, port=encrypted.way.port, sslmode="verify-full", sslrootcert=str(another)
    )
    within = backing(cluster, tmp_path, dsn)
    async with within.keeper(in_sync=False) as store:
        await until(lambda: encrypted.way.connections >= 2)
        outcome = await store.read(within.namespace, CACHE, "a")
        assert isinstance(outcome, Outcome)
        assert outcome.reason in NOT_NOW
        assert outcome.detail.endswith("SSLCertVerificationError")
        assert (await store.put(within.namespace, CACHE, "a", TEXT, NOW)).reason in NOT_NOW
    assert (encrypted.way.encrypted, encrypted.way.plain) == (0, 0)


async def test_without_tls_nothing_is_sent_where_the_dsn_requires_it(
    postgresql: Server, cluster: Cluster, tmp_path: Path
) -> None:
    database = await postgresql.create_database()
    async with way_to(postgresql.port) as way:
        within = backing(cluster, tmp_path, postgresql.dsn(database, port=way.port, sslmode="require"))
        async with within.keeper(in_sync=False) as store:
            await until(lambda: way.connections >= 2)
            assert not store.in_sync
            assert (await store.put(within.namespace, CACHE, "a", TEXT, NOW)).reason in NOT_NOW
    await postgresql.drop_database(database)
