"""Hits without a node: how long one takes, what a thousand equal steps at once come to, what steps cost."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from argo import names as argo
from bench import api, machine
from bench.argo import Stand, standing
from bench.figures import Figure, Report, Target, compare
from bench.installed import Installed, installed, memory, parse_metrics
from bench.measure import Series, percentile
from bench.pace import at_rate, side_by_side
from bench.steps import entry
from memoize import names
from memoize.key import data_key
from tests.cluster import MERGE, Cluster

NAME = "holds"
_METHOD = """Webhook and keeper (one process each, with the rights of the manifests) before an API server
that calls the webhook for every Pod. Argo's controller and the kubelet are the benchmark itself: it creates
recorded Pods of one Workflow over connections that it keeps, and a watch tells when they are Succeeded. Hits
begin at a fixed rate whether or not earlier ones have ended, every one under a key of its own; from just
before the Pod's POST to the event. The reference is a client that has nothing to find out: the same three
writes (Pod, result, status) in a namespace that no webhook looks at, at the same rate, in turn with ours. In
the burst every Pod has the same key; when all are there the one that runs is ended, and from then on the
others count. Its reference does their two writes at once, as fast as the connections take them. CPU time
is the keeper's; its reference is that of the client for its writes and its watch. Requests are those that the
API server has answered, watches, Events and the Lease aside. Of steps that miss, each under a key of its own,
all are let run, and then end side by side; their own three writes are left out."""
_THE_WRITES = "the same three writes by one client"
_THE_TWO_WRITES = "the same two writes, as fast as they go"
CACHE = "memo"
_AT_ONCE = 16
_BURST_PATIENCE = 300.0
_ASIDE = ('verb="WATCH"', 'resource="events"', 'resource="leases"')
"""What is not counted: it is not for one step, or waits for its own turn."""


def add_arguments(parser: ArgumentParser) -> None:
    """How many, how fast."""
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=50, metavar="N", help="hits a second (default %(default)s)"
    )
    parser.add_argument("--hits", type=int, default=250, metavar="N", help="in a round (default %(default)s)")
    parser.add_argument(
        "--burst", type=int, default=1000, metavar="N", help="equal Pods at once (default %(default)s)"
    )
    parser.add_argument(
        "--bursts", type=int, default=3, metavar="N", help="rounds of these (default %(default)s)"
    )
    parser.add_argument(
        "--misses", type=int, default=100, metavar="N", help="in a round, as many (default %(default)s)"
    )


@dataclass(frozen=True, slots=True)
class World:
    """The stand-ins for Argo in two namespaces: one that stepmemo looks at, one that nobody does."""

    cluster: Cluster
    ours: Stand
    alone: Stand
    both: Installed

    def sides(self, number: int) -> tuple[tuple[str, Stand], ...]:
        """Both, the one or the other first."""
        sides = (("ours", self.ours), ("alone", self.alone))
        return sides if number % 2 else sides[::-1]

    def spent(self, side: str) -> "_Spent":
        """What a block costs: the keeper, or the client that does without."""
        stand, keeper = getattr(self, side), self.both.keeper
        return _Spent(stand, keeper.cpu_seconds if side == "ours" else time.process_time)


@dataclass(slots=True)
class _Spent:
    """Seconds of a processor, and requests that the API server has answered."""

    stand: Stand
    clock: Callable[[], float]
    cpu: float = 0.0
    calls: float = 0.0
    took: float = 0.0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Count what the block costs."""
        calls, cpu, began = await _requests(self.stand), self.clock(), time.perf_counter()
        yield
        self.cpu, self.took = self.clock() - cpu, time.perf_counter() - began
        self.calls = await _requests(self.stand) - calls


def run(arguments: Namespace) -> Report:
    """Measure hits at a rate, then the burst, then misses."""
    described = machine.describe()
    with api.scratch() as (cluster, directory), installed(cluster, directory) as both:
        series = asyncio.run(_measure(both, arguments))
        facts = {
            "API server": api.describe(cluster),
            "hits": f"{arguments.hits} in each of {arguments.rounds} rounds, {arguments.rate:g} a second",
            "burst": f"{arguments.burst} equal Pods, of which 1 ran, in each of {arguments.bursts} rounds",
            "misses": f"{arguments.misses} in each of {arguments.bursts} rounds",
            "memory of the webhook at the end": f"{series.pop('webhook')[0]:.0f} MiB",
            "memory of the keeper at the end": f"{series.pop('keeper')[0]:.0f} MiB",
        }

    def figure(what: str, unit: str, name: str, against: str, target: Target | None = None) -> Figure:
        return compare(what, unit, series[f"ours {name}"], against, series[f"alone {name}"], target)

    hit = f"a hit at {arguments.rate:g} a second, Pod created to Succeeded"
    rest = f"{arguments.burst - 1} that waited, from the end of the one that ran"
    missed = f"{arguments.misses} steps that miss and are stored, beside their own writes"
    figures = (
        figure(f"{hit}: p50 of a round", "ms", "p50", _THE_WRITES, Target("at most", 1.3)),
        figure(f"{hit}: p99 of a round", "ms", "p99", _THE_WRITES, Target("at most", 500, "value")),
        figure(f"{hit}: CPU time", "ms", "cpu", _THE_WRITES),
        figure(f"{hit}: requests", "each", "calls", _THE_WRITES),
        figure(rest, "s", "burst", _THE_TWO_WRITES, Target("at most", 1.5)),
        figure(f"{rest}: CPU time of one", "ms", "burst cpu", _THE_TWO_WRITES),
        figure("requests to the API server meanwhile", "/s", "burst calls", _THE_TWO_WRITES),
        figure(f"{missed}: requests of one", "each", "missed", "these writes", Target("at most", 4, "value")),
    )
    return Report(NAME, "Hits without a node", _METHOD, facts, described, figures)


async def _measure(both: Installed, arguments: Namespace) -> Series:
    series: Series = {}

    def note(side: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            series.setdefault(f"{side} {name}", []).append(value)

    async with _world(both) as world:
        keys = {f"key-{number}": entry(f"answer {number}") for number in range(arguments.hits)}
        await _have_cache(world.ours, keys)
        for number in range(-1, arguments.rounds):
            for side, stand in world.sides(number):
                spent = world.spent(side)
                taken = await hits(
                    stand, arguments.hits, arguments.rate, alone=side == "alone", around=spent.counted()
                )
                each = {"cpu": 1000 * spent.cpu / arguments.hits, "calls": spent.calls / arguments.hits}
                p50, p99 = (1000 * percentile(taken, percent) for percent in (50, 99))
                if number >= 0:
                    note(side, {"p50": p50, "p99": p99, **each})
        for number in range(arguments.bursts):
            for side, _ in world.sides(number):
                note(side, await _burst(world, side, arguments.burst))
        for number in range(arguments.bursts):
            misses = {
                side: await _misses(world, side, number, arguments.misses) for side in ("ours", "alone")
            }
            note("ours", {"missed": misses["ours"] - misses["alone"]})
            note("alone", {"missed": misses["alone"]})
        series |= {"webhook": [memory(both.webhook) / 1024], "keeper": [memory(both.keeper) / 1024]}
    return series


async def hits(
    stand: Stand,
    count: int,
    rate: float,
    *,
    alone: bool = False,
    around: AbstractAsyncContextManager[object] | None = None,
) -> list[float]:
    """The seconds of each of so many hits on CACHE. `alone`: the benchmark itself answers, at once.

    `around` is entered for the hits themselves, and left before they are looked at and cleared away.
    """
    begun: dict[str, float] = {}

    async def hit(number: int) -> None:
        name, began = await stand.create(number, key=f"key-{number}", cache=CACHE)
        begun[name] = began
        if alone:
            await stand.complete(name, f"answer {number}", label=names.RESULT_HIT)

    async with around or nullcontext():
        await at_rate(rate, count, hit)
        await stand.until(lambda: begun.keys() <= stand.over.keys())
    await _look(stand, count, 0)
    taken = [stand.over[name] - began for name, began in begun.items()]
    await stand.clear()
    return taken


async def _burst(world: World, side: str, count: int) -> Mapping[str, float]:
    """Seconds from the leader's end to the last one's, and the requests that the API server had in each."""
    stand, alone = getattr(world, side), side == "alone"
    made = await _created(stand, count, lambda number: "burst", CACHE)
    if alone:
        leader, *others = made
    else:
        await stand.until(lambda: bool(stand.running))
        await asyncio.sleep(1)  # nobody else may start either
        (leader,) = await _only(stand, count)
    spent = world.spent(side)
    async with spent.counted():
        began = time.perf_counter()
        await stand.complete(leader, "burst")
        if alone:

            async def answer(number: int) -> None:
                await stand.complete(others[number], "burst", label=names.RESULT_HIT)

            await side_by_side(len(others), _AT_ONCE, answer)
        await stand.until(lambda: len(stand.over) >= count - 1, _BURST_PATIENCE)
    seconds = max(stand.over.values()) - began
    if not alone:
        await _only(stand, count)
    await _look(stand, count, 0 if alone else 1)
    if not alone:
        await _forget(stand, "burst")
    await stand.clear()
    cpu, calls = 1000 * spent.cpu / (count - 1), spent.calls / spent.took
    return {"burst": seconds, "burst cpu": cpu, "burst calls": calls}


async def _misses(world: World, side: str, number: int, count: int) -> float:
    """The requests of one step, of so many that have nothing in the cache, and end side by side."""
    stand, alone, spent = getattr(world, side), side == "alone", world.spent(side)
    async with spent.counted():
        made = await _created(stand, count, lambda one: f"miss-{number}-{one}", "missed")
        if not alone:
            await stand.until(lambda: len(stand.running) == count)

        async def end(one: int) -> None:
            await stand.complete(made[one], f"ran {one}", label=names.RESULT_STORED if alone else "")

        await side_by_side(count, _AT_ONCE, end)
        await stand.until(lambda: list(stand.results.values()).count(names.RESULT_STORED) == count)
    await stand.clear()
    return spent.calls / count


async def _created(stand: Stand, count: int, key: Callable[[int], str], cache: str) -> list[str]:
    made: list[str] = []

    async def create(number: int) -> None:
        name, _ = await stand.create(number, key=key(number), cache=cache)
        made.append(name)

    await side_by_side(count, _AT_ONCE, create)
    return made


async def _only(stand: Stand, count: int) -> set[str]:
    """The one of so many equal Pods that nothing holds; RuntimeError, with reasons, if there are others."""
    if len(stand.running) != 1:
        pods = (await stand.ask("GET", stand.cluster.path("Pod", stand.namespace)))["items"]
        of = [pod["metadata"] for pod in pods if pod["metadata"]["name"] in stand.running]
        reasons = Counter(metadata.get("annotations", {}).get(names.REASON, "") for metadata in of)
        raise RuntimeError(f"{len(stand.running)} of {count} equal Pods run: {dict(reasons)}")
    return set(stand.running)


async def _look(stand: Stand, count: int, ran: int) -> None:
    """See that all Pods are what their labels say; RuntimeError otherwise."""
    pods = (await stand.ask("GET", stand.cluster.path("Pod", stand.namespace)))["items"]
    over = [pod for pod in pods if pod["status"]["phase"] == "Succeeded" and not pod["spec"].get("nodeName")]
    if len(over) != count or len(pods) != count:
        raise RuntimeError(f"{len(over)} of {len(pods)} Pods are Succeeded, not {count}")
    by_us = sum(pod["status"].get("reason") == "Memoized" for pod in over)
    if by_us not in (0, count - ran):
        raise RuntimeError(f"{by_us} Pods were answered, not {count - ran}")


async def _requests(stand: Stand) -> float:
    """How many requests the API server has answered, without those of _ASIDE."""
    async with stand.session.get(f"{stand.cluster.url}/metrics") as response:
        text = await response.text()
    if response.status != 200:
        raise RuntimeError(f"the API server shows no metrics: {response.status} {text}")
    samples = parse_metrics(text)
    return sum(
        value
        for name, value in samples.items()
        if name.startswith("apiserver_request_total") and not any(aside in name for aside in _ASIDE)
    )


async def _have_cache(stand: Stand, data: Mapping[str, str]) -> None:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    body = {"metadata": {"name": CACHE, "labels": labels}, "data": dict(data)}
    await stand.ask("POST", stand.cluster.path("ConfigMap", stand.namespace), body)
    await asyncio.sleep(1)  # for the watch to bring it


async def _forget(stand: Stand, key: str) -> None:
    """Have the next step of this key miss."""
    body = {"data": {data_key(key): None}}
    await stand.ask("PATCH", stand.cluster.path("ConfigMap", stand.namespace, CACHE), body, MERGE)


@asynccontextmanager
async def _world(both: Installed) -> AsyncIterator[World]:
    cluster = both.cluster
    namespaces = both.namespace(), cluster.namespace()
    uids = [api.workflow(cluster, namespace) for namespace in namespaces]
    async with (
        standing(cluster, namespaces[0], "wf", uids[0]) as ours,
        standing(cluster, namespaces[1], "wf", uids[1]) as alone,
    ):
        yield World(cluster, ours, alone, both)
