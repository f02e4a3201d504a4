"""Hits whose artifacts are looked for first (`--verify-artifacts`), beside the same hits without."""

import asyncio
import itertools
import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import api, holds, machine
from bench.argo import standing
from bench.figures import Report, Target, compare
from bench.installed import Installed, installed
from bench.measure import interleave, percentile
from memoize import configmap
from memoize.entry import Entry
from tests.cluster import Cluster
from tests.keeper.artifacts.objects import BUCKET

NAME = "artifacts"
_METHOD = """Webhook and keeper before an API server, twice: with `--verify-artifacts` and without. Each has a
cache of its own with the same entries, each of which has an output parameter and two artifacts, under keys of
their own. An object store of the benchmark, in a process of its own, answers as S3 does. Hits as in
`bench holds`, once at a fixed rate, once all at the same time; both keepers in turn. Between two rounds
passes more time than what was found is remembered."""
_ARTIFACTS = 2
_LOOKED_FOR, _NOT = "looked for", "without"
_SIDES = (_LOOKED_FOR, _NOT)
_FORGOTTEN = 10.5
"""Seconds: keeper.artifacts.verifier.THERE_SECONDS, and some."""
_TWICE = Target("at most", 2)


def add_arguments(parser: ArgumentParser) -> None:
    """How many, how fast."""
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument("--hits", type=int, default=200, metavar="N", help="in a round (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=50, metavar="N", help="hits a second (default %(default)s)"
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=_FORGOTTEN,
        metavar="N",
        help="seconds before a round (default %(default)s)",
    )


def run(arguments: Namespace) -> Report:
    """Measure both keepers in turn."""
    described = machine.describe()
    numbers = itertools.count()
    with api.scratch() as (cluster, directory), _store() as address, ExitStack() as stack:
        sides = {
            side: stack.enter_context(_installed(cluster, directory, address, arguments.hits, side))
            for side in _SIDES
        }
        series = interleave(
            arguments.rounds,
            [partial(_round, cluster, side, *sides[side], arguments, numbers) for side in _SIDES],
        )
        facts = {
            "API server": api.describe(cluster),
            "hits": f"{arguments.hits} in each of {arguments.rounds} rounds, {_ARTIFACTS} artifacts each",
            "rate": f"{arguments.rate:g} a second",
        }
    figures = tuple(
        compare(what, unit, series[f"{name} {_LOOKED_FOR}"], "without", series[f"{name} {_NOT}"], target)
        for what, unit, name, target in (
            (f"{arguments.hits} hits at the same time, to the last of them", "s", "all", _TWICE),
            (f"a hit at {arguments.rate:g} a second, p50 of a round", "ms", "p50", _TWICE),
            (f"a hit at {arguments.rate:g} a second, p99 of a round", "ms", "p99", None),
        )
    )
    return Report(NAME, "Hits whose artifacts are looked for", _METHOD, facts, described, figures)


def _round(
    cluster: Cluster,
    side: str,
    both: Installed,
    namespace: str,
    arguments: Namespace,
    numbers: Iterator[int],
) -> Mapping[str, float]:
    async def measured(rate: float) -> list[float]:
        name = f"wf-{next(numbers)}"
        await asyncio.sleep(arguments.pause)
        async with standing(cluster, namespace, name, api.workflow(cluster, namespace, name)) as stand:
            return await holds.hits(stand, arguments.hits, rate)

    at_once = asyncio.run(measured(1e6))
    taken = [1000 * seconds for seconds in asyncio.run(measured(arguments.rate))]
    return {
        f"all {side}": max(at_once),
        **{f"p{percent} {side}": percentile(taken, percent) for percent in (50, 99)},
    }


@contextmanager
def _installed(
    cluster: Cluster, directory: Path, address: str, hits: int, side: str
) -> Iterator[tuple[Installed, str]]:
    """Both programs before a fresh namespace whose cache has the entries; that namespace."""
    namespace = cluster.namespace()
    body = configmap.new(holds.CACHE, {f"key-{number}": _entry(number, address) for number in range(hits)})
    body["metadata"]["namespace"] = namespace
    api.create(cluster, body)
    flags = []
    if side == _LOOKED_FOR:
        repository = {"name": "s3", "s3": {"endpoint": address, "bucket": BUCKET, "insecure": True}}
        file = directory / "repositories.yaml"
        file.write_text(json.dumps({"repositories": [repository]}))
        flags = [f"--verify-artifacts={file}"]
    with installed(cluster, directory, *flags, caches=[namespace]) as both:
        yield both, namespace


def _entry(number: int, address: str) -> str:
    artifacts = [
        {"name": key, "s3": {"endpoint": address, "bucket": BUCKET, "key": key, "insecure": True}}
        for key in _keys(number)
    ]
    parameters = [{"name": "out", "value": f"answer {number}"}]
    made = datetime(2025, 1, 1, tzinfo=UTC)
    outputs = {"parameters": parameters, "artifacts": artifacts, "exitCode": "0"}
    return Entry("wf-0", outputs, made, made).dump()


def _keys(number: int) -> list[str]:
    return [f"wf/pod-{number}/{artifact}.tgz" for artifact in range(_ARTIFACTS)]


@contextmanager
def _store() -> Iterator[str]:
    """The object store until the block ends; its address."""
    command = [sys.executable, "-B", "-m", "bench.object_store"]
    with subprocess.Popen(
        command, cwd=api.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
