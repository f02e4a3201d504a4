"""Devclusters for tests: one per module, with namespaces of one's own.

In `keeping` a keeper decides steps, as by default. In the others a step is looked up inside its Pod: in
`strongest` and `plain` it reaches its ConfigMap itself, in `inside` through the keeper's cache service.
"""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devcluster import sandbox
from devcluster.cluster import DevCluster, start
from devcluster.installation import ACCESS_DIRECT
from tests.devcluster.playground import Space

_PATIENT = {"STEPMEMO_CHECK_TIMEOUT": "60s", "STEPMEMO_CAPTURE_TIMEOUT": "60s"}
"""What happens when time runs out is not the subject here, and a machine may be busy."""
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strongest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose containers are kept apart as well as this kernel allows."""
    directory = tmp_path_factory.mktemp("devcluster")
    async with start(directory, components=[ACCESS_DIRECT], settings=_PATIENT) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keeping(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose keeper keeps the caches."""
    directory = tmp_path_factory.mktemp("devcluster")
    async with start(directory, settings=_PATIENT) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose keeper keeps the caches, and whose containers can find its cache service."""
    async with start(tmp_path_factory.mktemp("devcluster"), settings=_PATIENT) as cluster:
        if cluster.isolation == sandbox.NO_NAMESPACE:
            pytest.skip("containers of this kernel have no /etc/hosts of their own to find the service by")
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevCluster]:
    """A devcluster whose containers are plain processes."""
    directory = tmp_path_factory.mktemp("devcluster")
    async with start(
        directory,
        isolation=sandbox.NO_NAMESPACE,
        components=[ACCESS_DIRECT],
        settings=_PATIENT,
    ) as cluster:
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
        components=["image-volume", ACCESS_DIRECT],
        settings=_PATIENT,
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


@pytest_asyncio.fixture(loop_scope="module")
async def kept_space(keeping: DevCluster, tmp_path: Path) -> Space:
    """A namespace of one's own where the keeper keeps the caches."""
    return await _space(keeping, tmp_path)


@pytest.fixture(params=["strongest", "plain", "inside"])
def any_cluster(request: pytest.FixtureRequest) -> DevCluster:
    """Any cluster that looks steps up inside their Pods: the test runs with each."""
    found: DevCluster = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def any_space(any_cluster: DevCluster, tmp_path: Path) -> Space:
    """A namespace of one's own in any such cluster."""
    return await _space(any_cluster, tmp_path, gated=False)


async def _space(cluster: DevCluster, directory: Path, *, gated: bool = True) -> Space:
    name = f"space-{next(_numbers)}"
    await cluster.namespace(name)
    return Space(cluster, name, directory, gated=gated)
