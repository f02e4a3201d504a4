"""What all rooms share: fixtures, how many workers share the tests, and what is slow.

`cluster` is the devcluster for every test, and a real kube-apiserver too for `contract` tests.
"""

import asyncio
import gc
import json
import os
import re
import signal
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from devcluster.api import Api, serve
from tests import control_plane
from tests import postgresql as postgresql_server
from tests.cluster import DEVCLUSTER, KUBE_APISERVER, Cluster
from tests.recordedpods import PODS
from tests.waiting import PATIENCE
from webhook.inject.containers import InjectSettings

Json = dict[str, Any]

WORKERS_A_CORE = 5
"""Most tests wait, for processes that start, time-outs or an API server; for `make check` one will do."""
_LONGEST_ID = 60
_HERE = Path(__file__).parent
SLOW_ROOMS = [_HERE / room for room in ("bench", "contract", "devcluster", "e2e", "sidecar/entrypoint")]
"""Rooms whose tests start servers or processes, or wait; elsewhere a test says so itself (`slow`)."""
UNTRACED_ROOMS = {_HERE / "bench", _HERE / "devcluster"}
TRACED_CASES = 5
"""Of one test that is run with many parameters, in the order in which they stand."""
_CASE = pytest.StashKey[int]()
_cases: Counter[str] = Counter()
SLOW_FIXTURES = {"cluster", "kube_apiserver", "postgresql"}
OF_A_MODULE = {"stepmemo", "strongest", "keeping", "inside", "plain", "image_volume", "walked", "modelled"}
"""Fixtures of a module that are dear: servers, devclusters, walks through the model of the protocol."""
ANY_OF_A_MODULE = "any_cluster"
"""A fixture whose parameter is the name of one of these."""

PATIENT = 60.0
"""Seconds in place of time-outs that a busy machine would meet where a test is about something else …"""
NO_SUBJECT = {
    "keeper.api.auth.TIMEOUT": PATIENT,
    "keeper.api.claim.TIMEOUT": PATIENT,
    "keeper.api.handlers.TURN_SECONDS": PATIENT,
    "keeper.api.people.SECONDS": PATIENT,
    "keeper.cache.configmap.TIMEOUT": PATIENT,
    "keeper.cache.store.ConfigMapStore.read.__defaults__": (PATIENT,),
    "keeper.cache.view.View.read.__defaults__": (PATIENT,),
    "keeper.postgresql.removal.CONFIG_MAP_TIMEOUT": PATIENT,
    "keeper.postgresql.removal.LEAST": PATIENT,
    "keeper.postgresql.store.PostgresStore.read.__defaults__": (PATIENT,),
    "keeper.postgresql.store.WRITE_SECONDS": PATIENT,
    "keeper.postgresql.upkeep.PERIOD": 3600.0,  # what tests put there may have expired, by its clock
    "server.child.START_SECONDS": PATIENT,
}
"""… which are these; a test that is about one sets it itself."""

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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep ten thousand tests, and what they are read from, out of every search for garbage.

    While they are collected nothing is garbage: to look for it takes a fifth of the time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have those tests traced for coverage that may say something new: it takes three quarters more time."""
    coverage = sys.modules.get("coverage")
    traced = coverage.Coverage.current() if coverage is not None and not _may_cover_more(item) else None
    if traced is not None:
        traced.stop()
    try:
        return (yield)
    finally:
        if traced is not None:
            traced.start()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means here."""
    each = 1 if _leaves_out_slow(config) else WORKERS_A_CORE
    return each * len(os.sched_getaffinity(0))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read the slow rooms where `-m` leaves them out."""
    return True if _leaves_out_slow(config) and collection_path in SLOW_ROOMS else None


def _leaves_out_slow(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "not slow")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is slow by its room, and by its need of an API server that runs; say who must have it.

    Tests of the real API server go to two workers, each of which starts one: a keeper that a test installs
    looks after every namespace, and would decide the Pods that another worker's test holds. Tests that share
    what is dear to make go to one worker, which makes it once. So do those of a module that are over in no
    time, that a worker need not ask for the next one after each. (Here, since xdist reads the groups before
    pytest_collection_modifyitems of a conftest.)
    """
    test = item.nodeid.partition("[")[0]
    item.stash[_CASE] = _cases[test] = _cases[test] + 1
    fixtures = set(getattr(item, "fixturenames", ()))
    params, group = _params(item), ""
    module = item.nodeid.partition("::")[0]
    if _tier(item) == KUBE_APISERVER or KUBE_APISERVER.replace("-", "_") in fixtures:
        group = f"{KUBE_APISERVER} {_half(item)}"
    elif shared := (fixtures | {params.get(ANY_OF_A_MODULE)}) & OF_A_MODULE:
        which = [f"{name} {params.get(name)}" for name in sorted(shared)]
        group = " ".join([module, *which])
    if fixtures & SLOW_FIXTURES or _is_in_a_slow_room(item.path):
        item.add_marker(pytest.mark.slow)
    elif not group and not any(map(item.get_closest_marker, ("slow", "xdist_group"))):
        group = module
    if group:
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take off what xdist puts behind the id of a test with a group: `pytest ID` and `--lf` know none."""
    name, at, group = report.nodeid.rpartition("@")
    if at and hasattr(report, "node") and group.startswith((f"{_HERE.name}/", KUBE_APISERVER)):
        report.nodeid = name


def _may_cover_more(item: pytest.Item) -> bool:
    """Not a second tier, nor one case after another; nor where what we ship runs in processes untraced."""
    if _tier(item) == KUBE_APISERVER or not UNTRACED_ROOMS.isdisjoint(item.path.parents):
        return False
    return item.stash[_CASE] <= TRACED_CASES


def _params(item: pytest.Item) -> Json:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _tier(item: pytest.Item) -> object:
    """What `cluster` is for a test; None for one that does not ask for it."""
    return _params(item).get("cluster")


@cache
def _is_in_a_slow_room(path: Path) -> bool:
    return not set(SLOW_ROOMS).isdisjoint(path.parents)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that are one after the other on one worker, and take longest."""
    items.sort(key=_is_on_the_real_api_server, reverse=True)


def _is_on_the_real_api_server(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("xdist_group")
    return marker is not None and marker.args[0].startswith(KUBE_APISERVER)


def _half(item: pytest.Item) -> int:
    """0 or 1: which of two workers has the module of a test; all workers have to say the same.

    Any sum would do; by this one each has about half of the time.
    """
    return zlib.adler32(item.path.name.encode()) % 2


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep texts out of the ids: one may hold the time, and workers must have the same tests."""
    text = val.pattern if isinstance(val, re.Pattern) else val
    return argname if isinstance(text, str | bytes) and len(text) > _LONGEST_ID else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `cluster` on the tiers that it is meant for."""
    if "cluster" in metafunc.fixturenames:
        on_both = metafunc.definition.get_closest_marker("contract") is not None
        tiers = [DEVCLUSTER, KUBE_APISERVER] if on_both else [DEVCLUSTER]
        metafunc.parametrize("cluster", tiers, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def in_the_program() -> Iterator[dict[str, Any]]:
    """Have no test depend on how fast the machine is, where its subject is something else.

    What each of NO_SUBJECT is in the program, for a test that is about it.
    """
    own = {name: resolve_name(name) for name in NO_SUBJECT}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NO_SUBJECT.items():
            patch.setattr(name, value)
        yield own


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
    """A real etcd and kube-apiserver of this worker's, with our own definitions of Argo's kinds."""
    with control_plane.running(tmp_path_factory.mktemp(KUBE_APISERVER)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    """A PostgreSQL of this worker's, that no test stops: take a database of your own."""
    with postgresql_server.running() as server:
        yield server


@contextmanager
def _in_thread(directory: Path) -> Iterator[Api]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=DEVCLUSTER)
    thread.start()
    server = serve(directory)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(PATIENCE)
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(PATIENCE)
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
