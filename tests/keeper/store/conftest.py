from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from keeper.store import Store
from tests.cluster import Cluster
from tests.keeper.store.backing import Backing, ConfigMaps


@pytest.fixture(params=["configmaps"])
def backing(cluster: Cluster) -> Backing:
    """Each store in turn."""
    return ConfigMaps(cluster)


@pytest_asyncio.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    async with backing.keeper() as store:
        yield store
