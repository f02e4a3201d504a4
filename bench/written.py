"""What a hit writes to the API server, for caches of several sizes: ours, and Argo's own."""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from urllib.parse import urlsplit

import aiohttp

from argo import names as argo
from bench import api, machine
from bench.argo import Stand, standing
from bench.figures import Figure, Report, Target, compare
from bench.installed import installed
from bench.measure import Series
from bench.pace import at_rate
from bench.relay import Relay, relayed
from bench.steps import entries
from tests.cluster import Cluster

NAME = "written"
_METHOD = """Bytes on the wire from the client to the API server, counted by a relay between them: TLS, heads
and all. Ours: everything that both programs write while Pods hit, the Lease included, and the time of the
last hit, written after a second here instead of ten minutes, old text and new of every entry that has hit.
Argo's: the GET of the ConfigMap and the PUT of all of it with one entry's lastHitTimestamp changed, which is
what its controller does on a hit (`configmap_cache.go`), without the controller's other work."""
_ENTRY = 4000
"""Bytes of an entry, about what 250 of them fill a ConfigMap with."""
_KEYS = 10
"""That are asked for, in caches of every size."""
_RATE = 20.0
_SETTLE_SECONDS = 3.0
_OURS, _ARGOS = "ours", "Argo's own hit"


def add_arguments(parser: ArgumentParser) -> None:
    """How many hits, in which caches."""
    parser.add_argument("--hits", type=int, default=40, metavar="N", help="in a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--entries",
        type=int,
        nargs="+",
        default=[10, 50, 250],
        metavar="N",
        help=f"of {_ENTRY} bytes in a cache, {_KEYS} at least (default %(default)s)",
    )


def run(arguments: Namespace) -> Report:
    """Measure both sides for every size in turn."""
    described = machine.describe()
    with api.scratch() as (cluster, directory), ExitStack() as stack:
        where = urlsplit(cluster.url)
        ours, argos = (stack.enter_context(relayed(str(where.hostname), where.port or 443)) for _ in range(2))
        both = stack.enter_context(installed(cluster, directory, "--hit-interval=1s", url=ours.url))
        namespace = both.namespace()
        uid = api.workflow(cluster, namespace)
        series = asyncio.run(_measure(cluster, namespace, uid, ours, argos, arguments))
        facts = {
            "API server": api.describe(cluster),
            "hits": f"{arguments.hits} in each of {arguments.rounds} rounds, {_RATE:g} a second",
        }
    smallest, largest = min(arguments.entries), max(arguments.entries)
    figures: list[Figure] = []
    for count in arguments.entries:
        size = f"a hit in a cache of {_kilobytes(count)}"
        figures.append(compare(size, "KiB", series[f"{_OURS} {count}"], _ARGOS, series[f"{_ARGOS} {count}"]))
    for side, target in ((_OURS, Target("at most", 1.25)), (_ARGOS, None)):
        figures.append(
            compare(
                f"{side}, {_kilobytes(largest)}",
                "KiB",
                series[f"{side} {largest}"],
                f"{side}, {_kilobytes(smallest)}",
                series[f"{side} {smallest}"],
                target,
            )
        )
    return Report(NAME, "What a hit writes", _METHOD, facts, described, tuple(figures))


def _kilobytes(count: int) -> str:
    return f"{count * _ENTRY // 1000} KB"


async def _measure(
    cluster: Cluster, namespace: str, uid: str, ours: Relay, argos: Relay, arguments: Namespace
) -> Series:
    series: Series = {}
    async with standing(cluster, namespace, "wf", uid) as stand:
        for count in arguments.entries:
            await _have_cache(stand, count)
        await asyncio.sleep(1)  # for the watch to bring them
        for number in range(-1, arguments.rounds):
            for count in arguments.entries:
                taken = {
                    _OURS: await _our_hits(stand, count, ours, arguments.hits),
                    _ARGOS: await _argos_hits(stand, count, argos, arguments.hits),
                }
                if number >= 0:
                    for side, value in taken.items():
                        series.setdefault(f"{side} {count}", []).append(value / arguments.hits / 1024)
    return series


async def _our_hits(stand: Stand, count: int, relay: Relay, hits: int) -> float:
    before = relay.sent

    async def hit(number: int) -> None:
        await stand.create(number, key=f"key-{number % _KEYS}", cache=_cache(count))

    await at_rate(_RATE, hits, hit)
    await stand.until(lambda: len(stand.over) == hits)
    await asyncio.sleep(_SETTLE_SECONDS)
    sent = relay.sent - before
    await stand.clear()
    return sent


async def _argos_hits(stand: Stand, count: int, relay: Relay, hits: int) -> float:
    """As its controller does: one connection, one hit after the other."""
    path = relay.url + stand.cluster.path("ConfigMap", stand.namespace, _cache(count))
    headers = {"Authorization": f"Bearer {stand.cluster.admin_token}"}
    connector = aiohttp.TCPConnector(ssl=stand.cluster.context(), limit=1)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        before = relay.sent
        for number in range(hits):
            async with session.get(path) as response:
                found = await response.json()
            key = f"key-{number % _KEYS}"
            hit = json.loads(found["data"][key]) | {"lastHitTimestamp": f"2025-01-02T00:00:{number % 60:02}Z"}
            found["data"][key] = json.dumps(hit)
            async with session.put(path, json=found) as response:
                if response.status != 200:
                    raise RuntimeError(f"PUT {path}: {response.status} {await response.text()}")
        return relay.sent - before


async def _have_cache(stand: Stand, count: int) -> None:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    body = {"metadata": {"name": _cache(count), "labels": labels}, "data": entries(count, count * _ENTRY)}
    await stand.ask("POST", stand.cluster.path("ConfigMap", stand.namespace), body)


def _cache(count: int) -> str:
    return f"cache-{count}"
