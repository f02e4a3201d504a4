"""What all rooms share: fixtures, how many workers share the tests, and what is slow.

`cluster` is the devcluster for every test, and a real kube-apiserver too for `contract` tests.
"""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from devcluster.api import Api, serve
from tests import control_plane
from tests.cluster import DEVCLUSTER, KUBE_APISERVER, Cluster
from tests.recordedpods import PODS
from webhook.inject.containers import InjectSettings

Json = dict[str, Any]

WORKERS_A_CORE = 3
"""Most tests wait: for processes that start, for time-outs, for an API server."""
_HERE = Path(__file__).parent
SLOW_ROOMS = [_HERE / room for room in ("bench", "contract", "devcluster", "e2e", "sidecar/entrypoint")]
"""Rooms whose tests start servers or processes, or wait; elsewhere a test says so itself (`slow`)."""
SLOW_FIXTURES = {"cluster", "kube_apiserver"}

# How long an example takes says how busy the machine is.
settings.register_profile("stepmemo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("stepmemo"), max_examples=25)
settings.load_profile("stepmemo")


def pytest_configure() -> None:
    """Have processes that tests start take signals as usual, whatever this one was started to ignore.

    A shell has its background jobs ignore SIGINT and SIGQUIT, `nohup` SIGHUP, and what is ignored stays so
    across exec; what is handled does not. So this process handles them, by going on.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here."""
    return WORKERS_A_CORE * len(os.sched_getaffinity(0))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read the slow rooms where `-m` leaves them out."""
    return True if config.option.markexpr == "not slow" and collection_path in SLOW_ROOMS else None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by its room, and by its need of an API server that runs.

    One worker has all tests of the real API server, which there is one of: a keeper that a test installs
    looks after every namespace, and would decide the Pods that another worker's test holds.
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        on_real = callspec is not None and callspec.params.get("cluster") == KUBE_APISERVER
        if on_real or "kube_apiserver" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(KUBE_APISERVER))
        in_slow_room = not set(SLOW_ROOMS).isdisjoint(item.path.parents)
        if in_slow_room or not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


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
    """A real etcd and kube-apiserver with our own definitions of Argo's kinds; all workers share one."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    with control_plane.shared(session / KUBE_APISERVER) as cluster:
        yield cluster


@contextmanager
def _in_thread(directory: Path) -> Iterator[Api]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=DEVCLUSTER)
    thread.start()
    server = serve(directory)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(60)
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def load() -> Callable[[str], Json]:
    """Reads a recorded Pod by its path below tests/data/pods, without `.json`."""
    return lambda case: json.loads((PODS / f"{case}.json").read_text(encoding="utf-8"))


@pytest.fixture
def pod(load: Callable[[str], Json]) -> Json:
    """An ordinary step Pod of 4.1: `init`, `wait` and `main`, one output parameter."""
    return load("v4.1.2-legacy/container")


@pytest.fixture
def settings() -> InjectSettings:
    """The settings that the golden twins were made with."""
    return InjectSettings(image="stepmemo:golden")
