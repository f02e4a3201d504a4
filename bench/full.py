"""Admission beside a keeper of fifty thousand entries, and beside one of none."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from argo import names as argo
from bench import api, machine, reviews
from bench.figures import Figure, Report, Target, compare
from bench.installed import installed, memory, metrics
from bench.measure import Series, interleave
from bench.servers import Server
from bench.steppod import entries
from bench.webhook import Case, driven, patched, write
from tests.cluster import Cluster, wait_for
from webhook.hooks import PODS_PATH

NAME = "full"
_METHOD = """Two installations, one whose keeper keeps a namespace with so many entries and one whose keeper
keeps a namespace with none. Their webhooks are sent the review of a Pod whose key neither has. Driven in turn
as above; nothing is created, so the keepers have nothing to do. The memory is that of the keeper's whole
process (RSS), from one at a time: first without any entry, then started anew beside more and more."""
_EMPTY = "no entry"
_TENTH = Target("at most", 1.1)
_SAME_RATE = Target("at least", 0.9)
_KILOBYTE = Target("at most", 1, "value")
_PATIENCE = 120.0
_CACHE_BYTES = 1_000_000


def add_arguments(parser: ArgumentParser) -> None:
    """How often, how full."""
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument("--pods", type=int, default=500, metavar="N", help="in a round (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--caches",
        type=int,
        nargs="+",
        default=[4, 40, 200],
        metavar="N",
        help="of 1 MB, fewest first (default %(default)s)",
    )
    parser.add_argument(
        "--each", type=int, default=250, metavar="N", help="entries in one (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Fill, measure the memory at each size, then both webhooks side by side."""
    described = machine.describe()
    with api.scratch() as (cluster, directory), ExitStack() as stack:
        empty, full = cluster.namespace(), cluster.namespace()
        sizes = [0, *(count * arguments.each for count in arguments.caches)]
        taken = [_memory(cluster, directory, full, 0)]
        made = 0
        for count in arguments.caches:
            _fill(cluster, full, range(made, count), arguments.each)
            made = count
            taken.append(_memory(cluster, directory, full, made * arguments.each))
        both = [
            stack.enter_context(installed(cluster, directory, caches=[namespace]))
            for namespace in (full, empty)
        ]
        _until_known(both[0].keeper, made * arguments.each)
        webhooks = [one.webhook for one in both]
        series = _side_by_side(cluster, directory, webhooks, (full, empty), arguments)
        facts = {
            "API server": api.describe(cluster),
            "entries": f"{made * arguments.each:,} in {made} caches of {_CACHE_BYTES:,} bytes",
            "connections": str(arguments.concurrency),
        }
    return Report(
        NAME, "A full view", _METHOD, facts, described, (*_admission(series), *_sizes(sizes, taken))
    )


def _side_by_side(
    cluster: Cluster,
    directory: Path,
    servers: Sequence[Server],
    namespaces: Sequence[str],
    arguments: Namespace,
) -> Series:
    """The same load on both; what is measured of them by `full …` and `empty …`."""
    measurements = []
    for which, this, namespace in zip(("full", "empty"), servers, namespaces, strict=True):
        review = reviews.of_pod(namespace, "wf", api.workflow(cluster, namespace))
        body = write(directory / f"{which}.json", review)
        case = Case(which, which, PODS_PATH, body, arguments.pods)
        server = replace(this, name=which)
        patched(server, case)
        measurements.append(partial(driven, case, server, arguments.concurrency))
    return interleave(arguments.rounds, measurements)


def _admission(series: Series) -> list[Figure]:
    def figure(what: str, unit: str, name: str, target: Target | None = None) -> Figure:
        return compare(what, unit, series[f"full {name}"], _EMPTY, series[f"empty {name}"], target)

    return [
        figure("a Pod: throughput", "/s", "rate", _SAME_RATE),
        figure("a Pod: median of a round", "ms", "median", _TENTH),
        figure("a Pod: p99 of a round", "ms", "p99"),
        figure("a Pod: CPU of one request", "ms", "cpu", _TENTH),
    ]


def _sizes(sizes: Sequence[int], taken: Sequence[float]) -> list[Figure]:
    """What each entry takes of the memory that the keeper had not without any."""
    idle = taken[0]
    return [
        compare(
            f"memory for each of {count:,} entries, above idle",
            "KiB",
            [max(0.0, rss - idle) / count],
            "the whole keeper, idle",
            [idle],
            _KILOBYTE,
        )
        for count, rss in zip(sizes[1:], taken[1:], strict=True)
    ]


def _memory(cluster: Cluster, directory: Path, namespace: str, entries: int) -> float:
    """KiB of a keeper that has just come to know so many entries."""
    with installed(cluster, directory, caches=[namespace]) as both:
        _until_known(both.keeper, entries)
        return memory(both.keeper)


def _until_known(keeper: Server, count: int) -> None:
    """Return once the view has so many entries; RuntimeError where it does not get them."""

    def known() -> bool:
        return sum(value for name, value in metrics(keeper).items() if "view_entries" in name) >= count

    try:
        wait_for(known, _PATIENCE)
    except AssertionError:
        raise RuntimeError(f"the view does not come to {count} entries: {metrics(keeper)}") from None


def _fill(cluster: Cluster, namespace: str, numbers: range, each: int) -> None:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    data = entries(each, _CACHE_BYTES)
    for number in numbers:
        metadata = {"name": f"cache-{number}", "namespace": namespace, "labels": labels}
        api.create(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
