"""The memory of the view of all caches, and what a question to it costs.

`python -m bench.view EMPTY FULL KEPT_BYTES TRACED` is the process that is measured: it follows an empty
namespace, then a full one, and prints one line of JSON.
"""

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kubernetes_asyncio.client import ApiClient

from bench import api, machine
from bench.figures import Figure, Report, Target, compare
from bench.measure import Series, interleave
from bench.steppod import entries, step
from keeper.cache.view import KEPT_BYTES, View
from kube import client
from memoize import configmap
from memoize.keeper_status import Known
from memoize.key import data_key
from tests.cluster import Cluster
from tests.waiting import until

NAME = "view"
_METHOD = """A process that follows the caches of a namespace through the API server, as the server does, with
every ConfigMap as full as Kubernetes allows. First what the index holds of an entry: Python's own count of
allocated bytes (tracemalloc) in sync, less the same in sync with an empty namespace. Then the resident memory
of a process of its own above what it had in sync with the empty namespace: that adds, once, the buffers of
the list and what the allocators do not give back. Values are kept for reading within a fixed number of
bytes; none are right after a list. Last, one question (is there a fresh entry for this key?) to either
view."""
_MOST_BYTES = 1 << 20
_QUESTIONS = 5_000
"""In a row for one value: one takes microseconds."""
_MAX_AGE = "876000h"
"""A century: an age is computed, and every entry is fresh."""
_SYNC_SECONDS = 300.0
_AN_ENTRY = Target("at most", 1024, of="value")
_MIB = 1 << 20


def add_arguments(parser: ArgumentParser) -> None:
    """How often, and how much."""
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--entries",
        type=int,
        nargs="+",
        default=[1_000, 10_000, 50_000],
        metavar="N",
        help="in the view (default %(default)s)",
    )
    parser.add_argument(
        "--each", type=int, default=250, metavar="N", help="entries in a cache (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Measure views of every size against an empty one."""
    described = machine.describe()
    texts = list(entries(arguments.each, _MOST_BYTES).values())
    with api.scratch() as (cluster, _):
        empty = cluster.namespace()
        sizes = {count: _fill(cluster, texts, count) for count in arguments.entries}
        series = interleave(
            arguments.rounds,
            [
                partial(_measure, cluster, empty, namespace, count, traced)
                for count, namespace in sizes.items()
                for traced in (True, False)
            ],
        )
        facts = {
            "API server": api.describe(cluster),
            "a cache": f"{arguments.each} entries, {sum(map(len, texts)):,} bytes",
            "rounds": str(arguments.rounds),
        }
    figures = [figure for count in sizes for figure in _figures(series, count, len(texts[0]))]
    return Report(NAME, "The view of all caches", _METHOD, facts, described, tuple(figures))


def _figures(series: Series, count: int, weight: float) -> list[Figure]:
    def of(what: str) -> list[float]:
        return series[f"{what} {count}"]

    held, resident, idle = of("held"), of("resident"), of("idle")
    return [
        compare(
            f"{count:,} entries: one in the index",
            "bytes",
            [one / count for one in held],
            "its text in the ConfigMap",
            [weight] * len(held),
            _AN_ENTRY,
        ),
        compare(
            f"{count:,} entries: the process above idle",
            "MiB",
            [one / _MIB for one in resident],
            "the process when idle",
            [one / _MIB for one in idle],
        ),
        compare(
            f"{count:,} entries: one question", "µs", of("full"), "the same of an empty view", of("empty")
        ),
    ]


def _key(number: int) -> str:
    """One that Argo would refuse, so that its data key is as long as they usually get."""
    return f"key {number}"


def _fill(cluster: Cluster, texts: Sequence[str], count: int) -> str:
    """A namespace with that many entries in caches of these texts, no two under one key."""
    namespace = cluster.namespace()
    for first in range(0, count, len(texts)):
        data = {data_key(_key(first + number)): text for number, text in enumerate(texts)}
        body = configmap.new(f"cache-{first}", data)
        body["metadata"]["namespace"] = namespace
        api.create(cluster, body)
    return namespace


def _measure(cluster: Cluster, empty: str, full: str, count: int, traced: bool) -> Mapping[str, float]:
    command = [sys.executable, "-B", "-m", "bench.view", empty, full, "0" if traced else str(KEPT_BYTES)]
    done = subprocess.run(
        [*command, *(["traced"] if traced else [])],
        cwd=api.ROOT,
        env={"PATH": os.defpath, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the view failed:\n{done.stderr}")
    taken = json.loads(done.stdout)
    if taken.pop("entries") != count:
        raise RuntimeError("the view does not hold every entry")
    return {f"{what} {count}": value for what, value in taken.items()}


async def _child(empty: str, full: str, kept_bytes: int, traced: bool) -> None:
    async with await client.connect() as connected:
        if traced:
            tracemalloc.start()
        size = _allocated if traced else _resident
        async with _followed(connected, empty, kept_bytes) as view:
            idle, question_empty = size(), _question(view, empty, Known.ABSENT)
        async with _followed(connected, full, kept_bytes) as view:
            grown = size() - idle
            question_full = _question(view, full, Known.FRESH)
            taken: dict[str, float] = {"entries": view.entries}
    if traced:
        taken["held"] = grown
    else:
        taken |= {"idle": idle, "resident": grown, "empty": question_empty, "full": question_full}
    print(json.dumps(taken))


@contextlib.asynccontextmanager
async def _followed(connected: ApiClient, namespace: str, kept_bytes: int) -> AsyncIterator[View]:
    """A view that is in sync."""
    view = View(connected, [namespace], kept_bytes=kept_bytes)
    following = asyncio.create_task(view.run())
    try:
        await until(lambda: view.in_sync, _SYNC_SECONDS)
        yield view
    finally:
        following.cancel()
        await asyncio.wait([following])


def _question(view: View, namespace: str, known: Known) -> float:
    """Microseconds of one, with the answer that it must have."""
    memo, now = step(_key(0))._replace(max_age=_MAX_AGE), datetime.now(UTC)
    began = time.perf_counter()
    for _ in range(_QUESTIONS):
        found, _ = view.ask(namespace, "cache-0", memo, now)
    seconds = time.perf_counter() - began
    if found is not known:
        raise RuntimeError(f"the view said {found}")
    return 1_000_000 * seconds / _QUESTIONS


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]), len(sys.argv) > 4))
