from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keeper.store import Store
from tests.cluster import Cluster
from tests.keeper.store.backing import Backing, ConfigMaps, Postgres


@pytest_asyncio.fixture(params=["configmaps", "postgresql"])
async def backing(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> AsyncIterator[Backing]:
    """Each store in turn."""
    if request.param == "configmaps":
        yield ConfigMaps(cluster)
        return
    server = request.getfixturevalue("postgresql")
    name = await server.create_database()
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text(f"{server.dsn(name)}\n")
    yield Postgres(cluster, dsn_file)
    await server.drop_database(name)


@pytest_asyncio.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    async with backing.keeper() as store:
        yield store
