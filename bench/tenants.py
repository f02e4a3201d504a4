"""What a neighbour notices of a tenant who is heavy, or means harm: how long his steps wait."""

import asyncio
import json
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeVar

from aiohttp import ClientError

from bench import api, machine, reviews
from bench import tenant_loads as loads
from bench.argo import Stand, standing
from bench.figures import Figure, Report, Target, compare
from bench.installed import Installed, installed
from bench.load import BadAnswerError, Connection, request
from bench.measure import percentile
from bench.peak import Peak, peaks
from bench.report import number
from bench.steps import entry
from bench.tenant_loads import HOSTILE, HOSTILE_LOADS, Extra, Work, World, have_cache, make_step
from keeper.single_flight import SingleFlight
from keeper.steppods import Phase
from memoize import names
from tests.cluster import MERGE
from tests.keeper.gatedsteps import START, gated_step
from webhook.hooks import PODS_PATH

NAME = "tenants"
_METHOD = """Webhook and keeper, one process each with the rights of the manifests, before an API server that
calls the webhook for every Pod. One namespace does what a heavy tenant, or a hostile one, would do; another
one, the neighbour, takes a hit twice a second all the while. A figure is his slowest hit, from the Pod's
POST until it is answered or may run, beside his slowest one while nobody else does anything, some seconds
before on the same installation. A change of a Pod that we have no part in, until a watch shows it, tells at
the same moments what the API server itself has others wait; a hit has two such waits in a row. Where a load
goes to the webhook's port alone, the figure is the p99 of honest reviews, one after the other. The peak is
the most resident memory of a program and its children while the load lasts. A load that is not over after
its time is ended, and how far it came is said; a new API server follows one that leaves much behind."""
_ALONE = "alone, before"
_LIMIT_MIB = 512
"""Of memory, in the manifests."""
_EVERY = 0.5
_PATIENCE = 20.0
"""Seconds for one of the neighbour's; one that takes longer counts as so much."""
_LITTER = 100
"""Objects of a load after which the next one has an API server of its own."""
_ANSWERED = "answered"
_SHOWN = 200
"""Characters of an error."""
_ROW = "{:<74} {:>9} {:>9} {:>7}  {:>13}  {}"


T = TypeVar("T")


class Wait(NamedTuple):
    """Seconds that one of the neighbour's took, what became of it, and those of a plain change meanwhile."""

    seconds: float
    became: str
    plain: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load: `count` of what it says, for `seconds` at the most. `prepare` comes before."""

    name: str
    what: str
    count: int
    seconds: float
    work: Work
    steps: bool = True
    """The neighbour's steps are measured; else honest reviews."""
    most: float = 1.0
    """Seconds that one of the neighbour's may take."""
    prepare: Work | None = None


def _hostile(which: str) -> Load:
    return Load(which, f"{{}} × a review with {HOSTILE[which]}", 10, 20, HOSTILE_LOADS[which], False, 0.1)


LOADS = (
    *map(_hostile, HOSTILE),
    Load("endless", "{} bodies of 7 MB that never end", 60, 15, loads.endless, False, 0.1),
    Load("forged", "{} forged reviews", 3_000, 30, loads.forged, False, 0.1),
    Load("uploads", "{} entries of 1 MB at once to /v1/entries", 300, 40, loads.uploads),
    Load("changing", "a cache of {} keys changes every second", 50_000, 35, loads.changing, most=0.5),
    Load("entries", "{} entries of one tenant", 200_000, 40, loads.many_entries),
    Load("caches", "{} caches of 1 MB with endless times", 415, 60, loads.caches),
    Load("large-pods", "{} Pods of 480 KB", 254, 30, loads.large_pods),
    Load("gated", "{} gated steps at once", 2_000, 50, loads.gated),
    Load("gated-full", "{} gated Pods without room for a mark", 800, 70, loads.gated_without_room),
    Load("finished-full", "{} finished Pods without room for a mark", 900, 50, loads.finished_without_room),
    Load(
        "ends",
        f"{{}} steps end, {loads.ENDS_A_SECOND} a second",
        40 * loads.ENDS_A_SECOND,
        55,
        loads.ends,
        prepare=loads.run_without_a_gate,
    ),
)
_PREPARED_SECONDS = 75
_FAILING, _FAILING_KEYS = "failing", 10_000
"""The one load that needs no server: the table of equal steps is asked directly."""
_NAMES = (*(load.name for load in LOADS), _FAILING)


def add_arguments(parser: ArgumentParser) -> None:
    """Which loads, how large, and how long the neighbour is alone before each."""
    parser.add_argument(
        "--loads",
        type=_chosen,
        default=_NAMES,
        metavar="NAME,…",
        help=f"those alone, into results/{NAME}-part.json: {', '.join(_NAMES)}",
    )
    parser.add_argument(
        "--share", type=_share, default=1.0, metavar="N", help="of the size of each (default %(default)s)"
    )
    parser.add_argument(
        "--alone", type=float, default=3, metavar="N", help="seconds of the control (default %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        metavar="N",
        help="of a load that takes no end by itself (default %(default)s)",
    )


def run(arguments: Namespace) -> Report:
    """The loads in turn; a line of the table as soon as one is over. Ctrl-C ends it with those that are."""
    described = machine.describe()
    figures: list[Figure] = []
    facts = {"share of the sizes": f"{arguments.share:g}"}
    _show("load", "beside", "alone", "ratio", "peak MiB", "outcome")
    with ExitStack() as installation:
        both: Installed | None = None
        try:
            if _FAILING in arguments.loads:
                figures.append(_failing(max(10, int(_FAILING_KEYS * arguments.share))))
            for load in (load for load in LOADS if load.name in arguments.loads):
                if both is None:
                    both = installation.enter_context(_installation())
                    facts["API server"] = api.describe(both.cluster)
                count = max(1, round(load.count * arguments.share))
                taken, died = asyncio.run(_measure(both, load, count, arguments))
                figures += taken
                if died or count > _LITTER:
                    installation.close()
                    both = None
        except KeyboardInterrupt:
            print("ended by hand", flush=True)
    if not figures:
        raise SystemExit("no load was over")
    name = NAME if set(arguments.loads) == set(_NAMES) else f"{NAME}-part"
    return Report(name, "Many tenants", _METHOD, facts, described, tuple(figures))


def _chosen(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in _NAMES]:
        raise ArgumentTypeError(f"no such load: {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return names


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ArgumentTypeError(f"{text!r} is not more than 0 and at most 1, such as 0.1")
    return share


@contextmanager
def _installation() -> Iterator[Installed]:
    with api.scratch() as (cluster, directory), installed(cluster, directory) as both:
        yield both


@asynccontextmanager
async def _world(both: Installed, seconds: float) -> AsyncIterator[World]:
    """Three fresh namespaces: the tenant's, the neighbour's with an entry for his steps, a bystander's."""
    cluster = both.cluster
    tenant, neighbour, bystander = both.namespace(), both.namespace(), cluster.namespace()
    uids = [api.workflow(cluster, namespace) for namespace in (tenant, neighbour)]
    review = reviews.of_pod(neighbour, "wf", uids[1])
    async with (
        standing(cluster, tenant, "wf", uids[0]) as theirs,
        standing(cluster, neighbour, "wf", uids[1]) as his,
        standing(cluster, bystander, "wf", uids[1]) as nobodys,
    ):
        await have_cache(his, {_ANSWERED: entry("the answer")})
        await asyncio.sleep(1)  # for the watches to bring it
        await make_step(nobodys, 0, key="k")
        yield World(both, theirs, his, nobodys, request(PODS_PATH, json.dumps(review).encode()), seconds)


async def _measure(
    both: Installed, load: Load, count: int, arguments: Namespace
) -> tuple[list[Figure], bool]:
    """The figures of one load, and whether one of the programs died of it."""
    beside = _steps_beside if load.steps else _reviews_beside
    async with _world(both, arguments.seconds) as world:
        await beside(world, asyncio.sleep(0.1))  # whoever comes first opens connections
        _, alone = await beside(world, asyncio.sleep(arguments.alone))
        with peaks(both.keeper.pid, both.webhook.pid) as memory, _cpu(both) as cpu:
            if load.prepare is not None:
                await _bounded(world, load.prepare, count, _PREPARED_SECONDS)
            (extras, outcome), waits = await beside(world, _bounded(world, load.work, count, load.seconds))
    keeper, webhook = memory
    dead = [what for what, one in (("keeper", keeper), ("webhook", webhook)) if one.died]
    outcome = "; ".join([*(f"THE {what} DIED" for what in dead), outcome, *_became(waits), *cpu])
    return _figures(load, count, outcome, (alone, waits), memory, extras), bool(dead)


@contextmanager
def _cpu(both: Installed) -> Iterator[list[str]]:
    """What the programs computed for in the block, in a line; nothing where one died."""
    said: list[str] = []
    programs = (both.keeper, both.webhook)
    began, before = time.perf_counter(), [one.cpu_seconds() for one in programs]
    yield said
    with suppress(OSError):
        used = [one.cpu_seconds() - so_far for one, so_far in zip(programs, before, strict=True)]
        seconds = time.perf_counter() - began
        said.append("CPU k {:.0f} s, w {:.0f} s of {:.0f} s".format(*used, seconds))


async def _bounded(world: World, work: Work, count: int, seconds: float) -> tuple[Sequence[Extra], str]:
    """What the work measured, and what came of it, in a line."""
    try:
        async with asyncio.timeout(seconds):
            return await work(world, count), world.said
    except TimeoutError:
        return (), f"not over after {seconds:g} s: {world.said}"
    except (RuntimeError, OSError, BadAnswerError, ClientError) as error:
        return (), f"failed: {str(error)[:_SHOWN]}; {world.said}"


def _figures(
    load: Load,
    count: int,
    outcome: str,
    waits: tuple[Sequence[Wait], Sequence[Wait]],
    memory: Sequence[Peak],
    extras: Sequence[Extra],
) -> list[Figure]:
    """Those of a load, which are shown as well."""
    what = load.what.format(f"{count:,}")
    which, percent = ("slowest hit", 100) if load.steps else ("p99 of a review", 99)
    reference, value = (percentile([wait.seconds for wait in one], percent) for one in waits)
    figures = [
        compare(f"{what} ({outcome}): {which}", "s", [value], _ALONE, [reference], _most(load.most)),
        *(
            compare(f"… peak of the {name}", "MiB", [one.mib], "before", [one.before], _most(_LIMIT_MIB))
            for name, one in zip(("keeper", "webhook"), memory, strict=True)
        ),
        *(
            compare(
                f"… {extra.what}", extra.unit, [extra.value], "ordinary", [extra.reference], _most(extra.most)
            )
            for extra in extras
        ),
    ]
    if load.steps:
        before, beside = (max(wait.plain or 0.0 for wait in one) for one in waits)
        figures.append(
            compare("… slowest plain change, the API server's alone", "s", [beside], _ALONE, [before])
        )
        outcome += f"; slowest plain change {number(beside)} s"
    _show(
        f"{load.name}: {what}",
        f"{number(value)} s",
        f"{number(reference)} s",
        f"{number(figures[0].ratio.median)} ×",
        "k {:.0f}, w {:.0f}".format(*(one.mib for one in memory)),
        "; ".join([outcome, *(f"{one.what} {number(one.value)} {one.unit}" for one in extras)]),
    )
    return figures


def _most(limit: float) -> Target:
    return Target("at most", limit, "value")


def _show(*cells: str) -> None:
    print(_ROW.format(*cells), flush=True)


# --- The neighbour ---------------------------------------------------------------------------------------


async def _steps_beside(world: World, load: Awaitable[T]) -> tuple[T, Sequence[Wait]]:
    """What came of the load, and the neighbour's steps from before it to after it."""
    loading = asyncio.ensure_future(load)
    hits: list[asyncio.Task[Wait]] = []
    try:
        while not loading.done():
            hits.append(asyncio.create_task(_hit_and_change(world)))
            await asyncio.wait([loading], timeout=_EVERY)
        return await loading, await asyncio.gather(*hits)
    finally:
        loading.cancel()


async def _hit_and_change(world: World) -> Wait:
    """A step, and beside it a change that we have no part in: what the API server itself has others wait."""
    hit, plain = await asyncio.gather(_hit(world.neighbour), _change(world.bystander))
    return hit._replace(plain=plain)


async def _change(stand: Stand) -> float:
    """Seconds from the write of one until the watch shows it."""
    (name,) = stand.made
    path = stand.cluster.path("Pod", stand.namespace, name)
    began = time.perf_counter()
    with suppress(TimeoutError, RuntimeError, OSError, ClientError):
        async with asyncio.timeout(_PATIENCE):
            body = {"metadata": {"annotations": {"bench.test/written": f"{began}"}}}
            pod = await stand.ask("PATCH", path, body, MERGE)
            await stand.until(lambda: stand.versions.get(name, 0) >= int(pod["metadata"]["resourceVersion"]))
    return time.perf_counter() - began


async def _hit(stand: Stand) -> Wait:
    """One step until it is answered, or may run: it waits for nobody then."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            pod = await make_step(stand, len(stand.made), key=_ANSWERED)
            became = pod["metadata"].get("labels", {}).get(names.RESULT, "not looked at")
            if became == names.RESULT_GATED:
                name = pod["metadata"]["name"]
                await stand.until(lambda: stand.results.get(name, became) != names.RESULT_GATED)
                became = stand.results[name]
    except (TimeoutError, RuntimeError, OSError, ClientError):
        return Wait(_PATIENCE, "never decided")
    return Wait(time.perf_counter() - began, became)


async def _reviews_beside(world: World, load: Awaitable[T]) -> tuple[T, Sequence[Wait]]:
    """What came of the load, and honest reviews one after the other meanwhile."""
    loading, reviewer = asyncio.ensure_future(load), _Reviewer(world)
    taken: list[Wait] = []
    try:
        while not loading.done() or not taken:
            taken.append(await asyncio.to_thread(reviewer.ask))
            await asyncio.sleep(0.01)
        return await loading, taken
    finally:
        loading.cancel()
        reviewer.close()


class _Reviewer:
    """Asks as an API server does: on a connection that it keeps."""

    def __init__(self, world: World) -> None:
        self._port, self._review = world.installed.webhook.port, world.honest
        self._connection: Connection | None = None

    def ask(self) -> Wait:
        began = time.perf_counter()
        try:
            self._connection = self._connection or Connection(self._port)
            self._connection.ask(self._review)
        except (OSError, BadAnswerError):
            self.close()
            return Wait(_PATIENCE, "not answered")
        return Wait(time.perf_counter() - began, _ANSWERED)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _became(waits: Sequence[Wait]) -> Iterator[str]:
    """What became of those that were not answered."""
    other = Counter(wait.became for wait in waits if wait.became not in (names.RESULT_HIT, _ANSWERED))
    if other:
        said = ", ".join(f"{count} {what}" for what, count in other.most_common())
        yield f"of {len(waits)} of the neighbour's {said}"


# --- The table of equal steps ----------------------------------------------------------------------------


def _failing(count: int) -> Figure:
    """CPU for one of so many keys whose first run fails within the time that a key is blocked for."""

    def each(keys: int) -> float:
        table = SingleFlight()
        pods = [gated_step(f"u{one}", phase=Phase.RUNNING, place=f"k{one}") for one in range(keys)]
        began = time.process_time()
        for one, pod in enumerate(pods):
            now = START + one * timedelta(milliseconds=1)
            table.on_pod(pod, now)
            table.on_failed(pod.uid, now)
        return 1e6 * (time.process_time() - began) / keys

    rounds = [(each(count), each(count // 10)) for _ in range(5)]
    values, references = zip(*rounds, strict=True)
    what = f"{count:,} keys whose first run fails: CPU for one of them"
    figure = compare(what, "µs", values, f"of {count // 10:,}", references, Target("at most", 2))
    _show(
        f"{_FAILING}: {what}",
        f"{number(figure.value.median)} µs",
        f"{number(figure.reference.median)} µs",
        f"{number(figure.ratio.median)} ×",
        "",
        f"{number(figure.value.median * count / 1e6)} s for all",
    )
    return figure
