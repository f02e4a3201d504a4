"""What a neighbour notices of a tenant who is heavy, or means harm: how long his steps wait."""

import asyncio
import json
import socket
import ssl
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from argo import names as argo
from bench import api, machine, reviews
from bench.argo import Stand, at_rate, side_by_side, standing
from bench.figures import Figure, Report, Target, compare
from bench.installed import Installed, installed, memory
from bench.load import BadAnswerError, Connection, request
from bench.measure import percentile
from bench.servers import Server
from bench.steppod import entry
from webhook.hooks import PODS_PATH, WORKFLOWS_PATH

NAME = "tenants"
_METHOD = """Webhook and keeper, one process each, before an API server that calls the webhook for every Pod.
One namespace does what a heavy tenant, or a hostile one, would do; another one, the neighbour, takes a hit
twice a second all the while. A figure is his slowest hit, from the Pod's POST to Succeeded, beside his
slowest one while nobody else does anything, in the same run. What needs no API server (forged reviews,
bodies that never end) goes to the webhook's port, and what counts is an honest review's time. Memory is the
resident memory of a program after the load, above that before it."""
_ALONE = "the neighbour alone"
_SECOND = Target("at most", 1, "value")
_TENTH = Target("at most", 100, "value")
_FLAT = Target("at most", 150, "value")
_CACHE = "memo"
_AT_ONCE = 32
_EVERY = 0.5
_FULL = 256 * 1024
"""Bytes that the annotations of one object may have (TotalAnnotationSizeLimitB of apimachinery)."""

Json = dict[str, Any]
Work = Callable[["World", int], Awaitable[None]]


@dataclass
class World:
    """Both programs, the tenant whose load it is, and his neighbour."""

    installed: Installed
    tenant: Stand
    neighbour: Stand
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    async def hit(self) -> float:
        """The seconds of one hit of the neighbour's."""
        number = next(self._numbers)
        name, began = await self.neighbour.create(number, key="answered", cache=_CACHE)
        await self.neighbour.until(lambda: name in self.neighbour.over, _PATIENCE)
        return self.neighbour.over[name] - began


_PATIENCE = 120.0
"""Seconds for a hit of the neighbour's; one that takes longer counts as so much."""


def add_arguments(parser: ArgumentParser) -> None:
    """How much of each."""
    parser.add_argument(
        "--held", type=int, default=2000, metavar="N", help="held steps at once (default %(default)s)"
    )
    parser.add_argument(
        "--ends", type=int, default=130, metavar="N", help="steps that end in a second (default %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=40,
        metavar="N",
        help="of that (default %(default)s)",
    )
    parser.add_argument(
        "--full", type=int, default=900, metavar="N", help="Pods with full annotations (default %(default)s)"
    )
    parser.add_argument(
        "--names", type=int, default=15000, metavar="N", help="in one object (default %(default)s)"
    )
    parser.add_argument(
        "--caches", type=int, default=415, metavar="N", help="ConfigMaps of 1 MB (default %(default)s)"
    )
    parser.add_argument(
        "--keys",
        type=int,
        default=50000,
        metavar="N",
        help="of a ConfigMap that changes (default %(default)s)",
    )
    parser.add_argument(
        "--connections", type=int, default=60, metavar="N", help="that never end (default %(default)s)"
    )
    parser.add_argument(
        "--forged", type=int, default=3000, metavar="N", help="forged reviews (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Each load in turn, on one installation."""
    described = machine.describe()
    with api.scratch() as (cluster, directory), installed(cluster, directory) as both:
        figures = asyncio.run(_measure(both, arguments))
        facts = {"API server": api.describe(cluster)}
    return Report(NAME, "Many tenants", _METHOD, facts, described, tuple(figures))


async def _measure(both: Installed, arguments: Namespace) -> list[Figure]:
    loads: dict[str, tuple[Work, int]] = {
        f"{arguments.held:,} held steps at once": (_held, arguments.held),
        f"{arguments.ends} steps a second end": (_ending, arguments.ends * arguments.seconds),
        f"{arguments.full} finished Pods without room for a mark": (_finished_and_full, arguments.full),
        f"{arguments.full} held Pods without room for a mark": (_held_and_full, arguments.full),
        f"{arguments.caches} ConfigMaps of 1 MB": (_caches, arguments.caches),
        f"a ConfigMap of {arguments.keys:,} keys changes every second": (_changing, arguments.keys),
    }
    figures = []
    async with _world(both) as world:
        for what, (work, count) in loads.items():
            alone = await _slowest(world, asyncio.sleep(2 + arguments.seconds / 8))
            before = memory(both.keeper)
            beside = await _slowest(world, _bounded(work(world, count), arguments))
            grown = max(0.0, memory(both.keeper) - before) / 1024
            figures.append(compare(f"a hit beside: {what}", "s", [beside], _ALONE, [alone], _SECOND))
            figures.append(compare("… the keeper's memory", "MiB", [grown], "before", [before / 1024], _FLAT))
            await world.tenant.clear()
    figures += await asyncio.to_thread(_reviews, both, arguments)
    return figures


async def _bounded(work: Awaitable[None], arguments: Namespace) -> None:
    """A load that takes no end: the neighbour was watched for long enough."""
    with suppress(TimeoutError):
        async with asyncio.timeout(3 * arguments.seconds + 60):
            await work


async def _slowest(world: World, load: Awaitable[None]) -> float:
    """The neighbour's slowest hit, in seconds, from before the load to after it."""
    loading = asyncio.ensure_future(load)
    hits: list[asyncio.Task[float]] = []
    try:
        while not loading.done():
            hits.append(asyncio.create_task(world.hit()))
            await asyncio.sleep(_EVERY)
        await loading
        taken = await asyncio.gather(*hits, return_exceptions=True)
    finally:
        loading.cancel()
    return max(one if isinstance(one, float) else _PATIENCE for one in taken)


# --- Through the API server --------------------------------------------------------------------------


async def _held(world: World, count: int) -> None:
    """So many Pods at once, each with a key of its own and no entry: all have to be decided."""

    async def create(number: int) -> None:
        await world.tenant.create(number, key=f"held-{number}", cache=_CACHE)

    await side_by_side(count, _AT_ONCE, create)
    await world.tenant.until(lambda: len(world.tenant.running) >= count, _PATIENCE)


async def _ending(world: World, count: int) -> None:
    """Steps that were let run end, at a rate; each is stored."""
    await _held(world, count)
    ready = iter(sorted(world.tenant.running))
    rate = max(1.0, count / 40)

    async def end(number: int) -> None:
        await world.tenant.complete(next(ready), f"ended {number}")

    await at_rate(rate, count, end)
    await asyncio.sleep(5)


async def _finished_and_full(world: World, count: int) -> None:
    await _full_of_annotations(world, count, finished=True)
    await asyncio.sleep(20)


async def _held_and_full(world: World, count: int) -> None:
    """Pods that somebody filled up after they were gated: they have to be let run all the same."""
    await _full_of_annotations(world, count, finished=False)

    path = world.tenant.cluster.path("Pod", world.tenant.namespace)
    for _ in range(int(_PATIENCE)):
        pods = (await world.tenant.ask("GET", path))["items"]
        if not any(pod["spec"].get("schedulingGates") for pod in pods):
            return
        await asyncio.sleep(1)
    raise RuntimeError("Pods are held for ever")


async def _full_of_annotations(world: World, count: int, *, finished: bool) -> None:
    stand = world.tenant

    async def make(number: int) -> None:
        # The leader of all of these never ends, so they stay held; or each runs by itself.
        key = f"full-{number}" if finished else "full"
        name, _ = await stand.create(number, key=key, cache=_CACHE)
        path = stand.cluster.path("Pod", stand.namespace, name)
        pod = await stand.ask("GET", path)
        used = sum(len(k) + len(v) for k, v in pod["metadata"].get("annotations", {}).items())
        filled = {"metadata": {"annotations": {"tenant.test/x": "x" * (_FULL - used - len("tenant.test/x"))}}}
        with suppress(RuntimeError):
            await stand.ask("PATCH", path, filled, "application/merge-patch+json")
        if finished:
            await stand.complete(name, "x")

    await side_by_side(count, _AT_ONCE // 4, make)


async def _caches(world: World, count: int) -> None:
    """So many caches as full as they get, whose entries say endless times."""
    forged = json.loads(entry(""))
    forged["creationTimestamp"] = "2025-01-01T00:00:00." + "1" * 900_000 + "Z"
    data = {"forged": json.dumps(forged)}

    async def make(number: int) -> None:
        await _have_cache(world.tenant, data, f"full-{number}")

    await side_by_side(count, 4, make)
    await asyncio.sleep(5)


async def _changing(world: World, count: int) -> None:
    """One key of a large cache changes once a second, while some of the tenant's steps wait on it."""
    stand = world.tenant
    await _have_cache(stand, {f"k{number}": "x" for number in range(count)}, "large")
    path = stand.cluster.path("ConfigMap", stand.namespace, "large")
    for number in range(20):
        await stand.create(number, key="k", cache="large")
    for second in range(30):
        await stand.ask("PATCH", path, {"data": {"k0": f"{second}"}}, "application/merge-patch+json")
        await asyncio.sleep(1)


# --- To the webhook's port -----------------------------------------------------------------------------


def _reviews(both: Installed, arguments: Namespace) -> list[Figure]:
    namespace = both.namespace()
    uid = api.workflow(both.cluster, namespace)
    honest = request(PODS_PATH, json.dumps(reviews.of_pod(namespace, "wf", uid)).encode())
    loads: Mapping[str, Callable[[Server], object]] = {
        f"a Workflow with {arguments.names:,} parameters and templates": lambda server: _ask(
            server, WORKFLOWS_PATH, _many_parameters(namespace, arguments.names)
        ),
        f"a key with {arguments.names:,} wrong tags": lambda server: _ask(
            server, WORKFLOWS_PATH, _wrong_tags(namespace, arguments.names)
        ),
        f"a Pod with {arguments.names:,} containers": lambda server: _ask(
            server, PODS_PATH, _many_containers(namespace, uid, arguments.names)
        ),
        f"{arguments.connections} bodies that never end": lambda server: _endless(
            server, arguments.connections
        ),
        f"{arguments.forged:,} forged reviews": lambda server: _forged(server, arguments.forged),
    }
    figures = []
    for what, load in loads.items():
        alone = _answers(both.webhook, honest, lambda: time.sleep(2))
        before = memory(both.webhook)
        beside = _answers(both.webhook, honest, partial(load, both.webhook))
        grown = max(0.0, memory(both.webhook) - before) / 1024
        slowest, reference = (1000 * percentile(one, 99) for one in (beside, alone))
        figures.append(
            compare(f"a review beside: {what}: p99", "ms", [slowest], "alone", [reference], _TENTH)
        )
        figures.append(compare("… the webhook's memory", "MiB", [grown], "before", [before / 1024], _FLAT))
    return figures


def _answers(server: Server, honest: bytes, load: Callable[[], object]) -> list[float]:
    """Seconds of honest reviews on a connection of their own, one after the other, while the load goes on."""
    taken: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        while not loading.done() or not taken:
            began = time.perf_counter()
            try:
                connection = Connection(server.port)
                connection.ask(honest)
                connection.close()
            except (OSError, BadAnswerError):
                taken.append(_PATIENCE)
                break
            taken.append(time.perf_counter() - began)
            time.sleep(0.01)
        loading.result()
    return taken


def _ask(server: Server, path: str, review: Json) -> None:
    """One review and its answer, whatever that is."""
    connection = Connection(server.port)
    try:
        with suppress(BadAnswerError, OSError):
            connection.ask(request(path, json.dumps(review).encode()))
    finally:
        connection.close()


def _endless(server: Server, count: int) -> None:
    """So many connections send a part of 7 MB each, and then nothing."""
    connections = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = f"POST {PODS_PATH} HTTP/1.1\r\nHost: bench\r\nContent-Length: {7 << 20}\r\n\r\n".encode()
    try:
        for _ in range(count):
            with suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                connection = context.wrap_socket(plain)
                connections.append(connection)
                connection.sendall(head + b" " * (6 << 20))
        time.sleep(5)
    finally:
        for connection in connections:
            connection.close()


def _forged(server: Server, count: int) -> None:
    """Reviews of Pods whose Workflow nobody knows, each of another one."""
    for number in range(count):
        review = reviews.of_pod("kube-system", f"forged-{number}", f"uid-{number}")
        _ask(server, PODS_PATH, review)


def _many_parameters(namespace: str, count: int) -> Json:
    review = reviews.of_workflow(namespace, 4000, 1)
    spec = review["request"]["object"]["spec"]
    spec["templateDefaults"] = {"inputs": {"parameters": [{"name": f"p{number}"} for number in range(count)]}}
    spec["templates"] += [{"name": f"t{number}"} for number in range(count)]
    return review


def _wrong_tags(namespace: str, count: int) -> Json:
    review = reviews.of_workflow(namespace, 4000, 1)
    template = review["request"]["object"]["spec"]["templates"][-1]
    template["memoize"]["key"] = "".join(f"{{{{x{number}}}}}" for number in range(count))
    return review


def _many_containers(namespace: str, uid: str, count: int) -> Json:
    review = reviews.of_pod(namespace, "wf", uid)
    spec = review["request"]["object"]["spec"]
    spec["containers"] += [{"name": f"c{number}", "image": "x", "command": ["x"]} for number in range(count)]
    return review


async def _have_cache(stand: Stand, data: Mapping[str, str], name: str = _CACHE) -> None:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    body = {"metadata": {"name": name, "labels": labels}, "data": dict(data)}
    await stand.ask("POST", stand.cluster.path("ConfigMap", stand.namespace), body)


@asynccontextmanager
async def _world(both: Installed) -> AsyncIterator[World]:
    cluster = both.cluster
    tenant, neighbour = both.namespace(), both.namespace()
    uids = [api.workflow(cluster, namespace) for namespace in (tenant, neighbour)]
    async with (
        standing(cluster, tenant, "wf", uids[0]) as theirs,
        standing(cluster, neighbour, "wf", uids[1]) as his,
    ):
        await _have_cache(his, {"answered": entry("the answer")})
        await asyncio.sleep(1)
        yield World(both, theirs, his)
