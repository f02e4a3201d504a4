"""`python -m bench` measures what stepmemo costs and writes bench/RESULTS.md.

Without a name it takes every benchmark that needs no cluster; with one, that one.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from bench import (
    artifacts,
    check,
    cluster,
    fanout,
    full,
    holds,
    lookup,
    report,
    requeue,
    stores,
    tenants,
    view,
    waiting,
    webhook,
    written,
)

HERMETIC: tuple[ModuleType, ...] = (
    check,
    waiting,
    webhook,
    lookup,
    holds,
    written,
    full,
    view,
    tenants,
    stores,
    artifacts,
)
BENCHMARKS: tuple[ModuleType, ...] = (*HERMETIC, cluster, fanout, requeue)
"""In the order of RESULTS.md. Each has NAME, add_arguments(parser) and run(arguments) -> Report."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and show; the exit code is 0 whether or not a target is met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for benchmark in BENCHMARKS:
        benchmark.add_arguments(names.add_parser(benchmark.NAME, help=benchmark.__doc__))
    names.add_parser("report", help="only write RESULTS.md anew from bench/results")
    chosen = parser.parse_args(argv)
    print("load average: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()), flush=True)
    for benchmark in BENCHMARKS:
        if chosen.name == benchmark.NAME:
            _take(benchmark, chosen)
        elif chosen.name is None and benchmark in HERMETIC:
            _take(benchmark, parser.parse_args([benchmark.NAME]))
    report.write([benchmark.NAME for benchmark in BENCHMARKS])
    return 0


def _take(benchmark: ModuleType, arguments: argparse.Namespace) -> None:
    taken = benchmark.run(arguments)
    report.save(taken)
    print(report.as_text(taken), flush=True)


if __name__ == "__main__":
    sys.exit(main())
