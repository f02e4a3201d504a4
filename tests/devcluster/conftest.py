"""Devclusters for tests: one per module, with namespaces of one's own."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devcluster import sandbox
from devcluster.cluster import DevCluster, start
from tests.devcluster.playground import Space

_KILL_SECONDS = 0.2
"""Argo's are 3: the controller's signals reach every step here whose `wait` takes its time."""
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strongest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose containers are kept apart as well as this kernel allows."""
    async with start(tmp_path_factory.mktemp("devcluster"), kill_seconds=_KILL_SECONDS) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose containers are plain processes."""
    directory = tmp_path_factory.mktemp("devcluster")
    async with start(directory, isolation=sandbox.NO_NAMESPACE, kill_seconds=_KILL_SECONDS) as cluster:
        yield cluster


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["", sandbox.NO_NAMESPACE], ids=["strongest", "plain"]
)
async def image_volume(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[DevCluster]:
    """Either cluster, installed with manifests/components/image-volume: the test runs twice."""
    async with start(
        tmp_path_factory.mktemp("devcluster"),
        isolation=request.param,
        kill_seconds=_KILL_SECONDS,
        components=["image-volume"],
    ) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def volume_space(image_volume: DevCluster, tmp_path: Path) -> Space:
    """A namespace of one's own there."""
    return await _space(image_volume, tmp_path)


@pytest_asyncio.fixture(loop_scope="module")
async def space(strongest: DevCluster, tmp_path: Path) -> Space:
    """A namespace of one's own in the strongest cluster."""
    return await _space(strongest, tmp_path)


@pytest.fixture(params=["strongest", "plain"])
def any_cluster(request: pytest.FixtureRequest) -> DevCluster:
    """Either cluster: the test runs twice."""
    found: DevCluster = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def any_space(any_cluster: DevCluster, tmp_path: Path) -> Space:
    """A namespace of one's own in either cluster."""
    return await _space(any_cluster, tmp_path)


async def _space(cluster: DevCluster, directory: Path) -> Space:
    name = f"space-{next(_numbers)}"
    await cluster.namespace(name)
    return Space(cluster, name, directory)
