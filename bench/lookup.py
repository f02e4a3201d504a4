"""The price of one key in a full cache."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from bench import api, machine
from bench.figures import Report, Target, compare
from bench.measure import interleave
from bench.steppod import Workload, tls_get
from bench.steps import entries, step
from memoize.entry import Hit, look_up
from memoize.outputs import Declared
from memoize.reasons import Reason

NAME = "lookup"
_METHOD = """One key of a ConfigMap as full as Kubernetes allows (1 MiB of values), against the only key of a
ConfigMap with one entry of the same size. First the look-up alone (`memoize.entry.look_up`: place, parse,
age, completeness). Then the whole check of a Pod that hits, entrypoint and API included, and the part of it
that is inherent: the API has no way to read one key, so the ConfigMap travels and is decoded whole."""
_FULL, _SINGLE = "full", "single"
_NAMES = {_FULL: "cache-full", _SINGLE: "cache-single"}
_LOOK_UPS = 200
"""In a row for one value: one takes microseconds."""
_MOST_BYTES = 1 << 20
_SAME = Target("at most", 1.5)
"""The issue asks for the cost of the key, not of the map: the same, within what memory caches make of it."""


def add_arguments(parser: ArgumentParser) -> None:
    """How often, and how full."""
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--entries", type=int, default=5000, metavar="N", help="in the full cache (default %(default)s)"
    )


def run(arguments: Namespace) -> Report:
    """Measure both caches side by side."""
    described = machine.describe()
    full = entries(arguments.entries, _MOST_BYTES)
    key = f"key-{arguments.entries // 2}"
    caches = {_FULL: full, _SINGLE: {key: full[key]}}
    with api.scratch() as (cluster, directory):
        workload = Workload(cluster, directory)
        gets = {
            which: tls_get(workload, workload.have_cache(_NAMES[which], data))
            for which, data in caches.items()
        }
        series = interleave(
            arguments.rounds,
            [
                partial(measure, which)
                for which in caches
                for measure in (
                    lambda which: {f"look-up {which}": _look_up(caches[which], key)},
                    lambda which: {f"check {which}": _check(workload, key, _NAMES[which])},
                    lambda which: {f"get {which}": gets[which]()[0]},
                )
            ],
        )
        facts = {
            "API server": api.describe(cluster),
            "full": f"{len(full)} entries of {len(full[key])} bytes",
            "rounds": str(arguments.rounds),
        }
    one = "the same with one entry"
    figures = (
        compare("the look-up of one key", "µs", *_pair(series, "look-up", one), _SAME),
        compare("a whole check that hits, to its decision", "ms", *_pair(series, "check", one)),
        compare("of it inherent: one TLS GET, JSON decoded", "ms", *_pair(series, "get", one)),
    )
    return Report(NAME, "One key in a full cache", _METHOD, facts, described, figures)


def _pair(series: Mapping[str, list[float]], what: str, against: str) -> tuple[list[float], str, list[float]]:
    return series[f"{what} {_FULL}"], against, series[f"{what} {_SINGLE}"]


def _look_up(data: Mapping[str, str], key: str) -> float:
    """Microseconds of one look-up."""
    memo, declared, now = step(key), Declared(parameters=({"name": "out"},)), datetime.now(UTC)
    began = time.perf_counter()
    for _ in range(_LOOK_UPS):
        found = look_up(data, memo, declared, now)
    seconds = time.perf_counter() - began
    if not isinstance(found, Hit):
        raise RuntimeError(f"the look-up missed: {found.reason}")  # noqa: TRY004 - a benchmark gone wrong
    return 1_000_000 * seconds / _LOOK_UPS


def _check(workload: Workload, key: str, cache: str) -> float:
    decided = workload.check(key, cache)
    if decided.reason is not Reason.HIT:
        raise RuntimeError(f"the check said {decided.reason}")
    return decided.to_decision
