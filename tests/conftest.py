"""The `cluster` fixture: the devcluster for every test, a real kube-apiserver too for `contract` tests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster.api import Api, serve
from tests import control_plane
from tests.cluster import DEVCLUSTER, KUBE_APISERVER, Cluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `cluster` on the tiers that it is meant for."""
    if "cluster" in metafunc.fixturenames:
        on_both = metafunc.definition.get_closest_marker("contract") is not None
        tiers = [DEVCLUSTER, KUBE_APISERVER] if on_both else [DEVCLUSTER]
        metafunc.parametrize("cluster", tiers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A running cluster with an API to talk to, shared by the session: take a namespace() of your own."""
    found: Cluster = request.getfixturevalue(request.param.replace("-", "_"))
    return found


@pytest.fixture(scope="session")
def devcluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The devcluster's API server, in a thread with an event loop of its own."""
    with _in_thread(tmp_path_factory.mktemp(DEVCLUSTER)) as api:
        yield Cluster(DEVCLUSTER, api.url, api.ca_file, api.kubeconfig, api.admin_token, api.services)


@pytest.fixture(scope="session")
def kube_apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real etcd and kube-apiserver with our own definitions of Argo's kinds."""
    with control_plane.running(tmp_path_factory.mktemp(KUBE_APISERVER)) as cluster:
        yield cluster


@contextmanager
def _in_thread(directory: Path) -> Iterator[Api]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=DEVCLUSTER)
    thread.start()
    server = serve(directory)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
