"""What the caches of others cost: the memory of the view, and how long a look-up takes beside them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench import api, machine
from bench.figures import Figure, Report, Target, compare
from bench.measure import Series, interleave
from bench.steps import entries
from bench.view_process import CACHE
from keeper.cache.view import KEPT_BYTES
from memoize import configmap
from tests.cluster import Cluster

NAME = "view"
_METHOD = """A process that follows the caches of some namespaces through the API server, as the keeper does.
First its memory: the most that it ever had (VmHWM) above what it had while all namespaces were empty, once it
has come in sync with a tenant's caches that nobody asks for, and once all of them have been asked for in
turn, more than it keeps. A cache of another namespace, asked for before, must still be there without a
request. Then the look-up of a step in a cache of 100 entries that has just changed, so that it has to be
read, twenty a second, while another tenant changes one entry of 50 bytes in a cache of his own that steps
wait for, once a second and as fast as the API server takes it. Last, what one read of a large cache costs the
process: its CPU time."""
_MOST_BYTES = 1_000_000
_MIB = 1 << 20
_BOUNDED = Target("at most", 2 * KEPT_BYTES / _MIB, of="value")
_HALF_A_SECOND = Target("at most", 500, of="value")
_ALONE, _EACH_SECOND, _WITHOUT_END = "alone", "1 s", "0 s"


def add_arguments(parser: ArgumentParser) -> None:
    """How often, and how much."""
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--caches", type=int, default=415, metavar="N", help="of 1 MB, of one tenant (default %(default)s)"
    )
    parser.add_argument(
        "--keys", type=int, default=50_000, metavar="N", help="of a cache of many (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20, metavar="N", help="of look-ups in a round (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Measure beside large caches, beside many entries, and beside one that changes."""
    described = machine.describe()
    with api.scratch() as (cluster, _):
        quiet, large, many = (cluster.namespace() for _ in range(3))
        _put(cluster, quiet, CACHE, entries(100, 40_000))
        for number in range(arguments.caches):
            _put(cluster, large, f"cache-{number}", entries(250, _MOST_BYTES))
        keys = {f"{number:05}": "x" for number in range(arguments.keys)}
        for number in range(4):
            _put(cluster, many, f"cache-{number}", keys)
        series = interleave(
            arguments.rounds,
            [
                partial(_memory, cluster, quiet, "large", large, arguments.caches),
                partial(_memory, cluster, quiet, "many", many, 4),
                *(
                    partial(_look_ups, cluster, quiet, many, each, arguments.seconds)
                    for each in (_ALONE, _EACH_SECOND, _WITHOUT_END)
                ),
            ],
        )
        facts = {
            "API server": api.describe(cluster),
            "large": f"{arguments.caches} caches of {_MOST_BYTES:,} bytes, 250 entries each",
            "many": f"4 caches of {arguments.keys:,} entries",
            "kept at most": f"{KEPT_BYTES // _MIB} MiB",
            "rounds": str(arguments.rounds),
        }
    figures = (
        *_figures(series, "large", f"{arguments.caches} caches of 1 MB"),
        *_figures(series, "many", f"{4 * arguments.keys:,} entries of one tenant"),
        *_disturbed(series, _EACH_SECOND, "a cache of many entries changes once a second"),
        *_disturbed(series, _WITHOUT_END, "a cache of many entries changes without end"),
        compare(
            f"one read of {arguments.keys:,} entries: CPU",
            "ms",
            series["cpu many"],
            "one of 250 entries, 1 MB",
            series["cpu large"],
        ),
        compare(
            f"one read of {arguments.keys:,} entries: memory",
            "MiB",
            series["size many"],
            "one of 250 entries, 1 MB",
            series["size large"],
        ),
    )
    return Report(NAME, "The caches of others", _METHOD, facts, described, figures)


def _figures(series: Series, which: str, what: str) -> Iterator[Figure]:
    idle = series[f"idle {which}"]
    for when, said in (("listed", "that nobody asks for"), ("asked", "that are all asked for")):
        yield compare(
            f"{what} {said}: the process above idle",
            "MiB",
            series[f"{when} {which}"],
            "the process when idle",
            idle,
            _BOUNDED,
        )


def _disturbed(series: Series, each: str, what: str) -> Iterator[Figure]:
    for percent, target in (("p50", None), ("p99", _HALF_A_SECOND)):
        yield compare(
            f"{what}: a look-up in another namespace, {percent} of a round",
            "ms",
            series[f"{percent} {each}"],
            "while nobody changes anything",
            series[f"{percent} {_ALONE}"],
            target,
        )


def _put(cluster: Cluster, namespace: str, name: str, data: Mapping[str, str]) -> None:
    body = configmap.new(name, data)
    body["metadata"]["namespace"] = namespace
    api.create(cluster, body)


def _memory(cluster: Cluster, quiet: str, which: str, namespace: str, caches: int) -> Mapping[str, float]:
    taken = _child(
        cluster,
        {"do": "memory", "quiet": quiet, "other": namespace, "caches": caches, "idle": cluster.namespace()},
    )
    return {f"{what} {which}": value for what, value in taken.items()}


def _look_ups(cluster: Cluster, quiet: str, other: str, each: str, seconds: float) -> Mapping[str, float]:
    with _changing(cluster, other, each) as changed:
        taken = _child(cluster, {"do": "look_ups", "quiet": quiet, "other": other, "seconds": seconds})
    if each != _ALONE and not changed:
        raise RuntimeError("nothing was changed")
    return {f"{what} {each}": value for what, value in taken.items()}


@contextlib.contextmanager
def _changing(cluster: Cluster, namespace: str, each: str) -> Iterator[list[int]]:
    """Have an entry of the namespace's first cache change until the block ends; one item for each time."""
    over, changed = threading.Event(), list[int]()

    def change() -> None:
        while not over.wait(float(each.removesuffix(" s"))):
            data = {"00000": f"{len(changed):050}"}
            if cluster.patch("ConfigMap", namespace, "cache-0", {"data": data})[0] != 200:
                return
            changed.append(0)

    thread = threading.Thread(target=change if each != _ALONE else over.wait)
    thread.start()
    try:
        yield changed
    finally:
        over.set()
        thread.join()


def _child(cluster: Cluster, what: Mapping[str, Any]) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "bench.view_process", json.dumps(what)],
        cwd=api.ROOT,
        env={"PATH": os.defpath, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the view failed:\n{done.stderr}")
    found: Mapping[str, float] = json.loads(done.stdout)
    return found
