"""Every hermetic benchmark once, as small as it gets: it measures, and what it says can be shown."""

from argparse import ArgumentParser
from types import ModuleType

import pytest

from bench import (
    artifacts,
    check,
    full,
    holds,
    lookup,
    report,
    stores,
    tenants,
    view,
    waiting,
    webhook,
    written,
)
from bench.__main__ import BENCHMARKS, HERMETIC

SMALL = {
    check: ["--rounds=1"],
    waiting: ["--sidecars=2", "--seconds=0.1"],
    webhook: [
        "--rounds=1",
        "--pods=8",
        "--workflows=4",
        "--concurrency=2",
        "--bytes=20000",
        "--templates",
        "4",
        "8",
    ],
    lookup: ["--rounds=1", "--entries=50"],
    holds: ["--rounds=1", "--hits=5", "--rate=10", "--burst=8", "--bursts=1", "--misses=4"],
    full: ["--rounds=1", "--captures=20", "--large-captures=8"],
    written: ["--rounds=1", "--hits=3", "--entries", "10", "20"],
    tenants: ["--share=0.0005", "--alone=0.1", "--seconds=0.1"],
    stores: [
        *("--rounds=1", "--entries=40", "--caches=4", "--rate=40", "--seconds=0.2", "--hits=3"),
        *("--expired=5", "--captures=5"),
    ],
    artifacts: ["--rounds=1", "--hits=3", "--rate=20", "--pause=0"],
    view: ["--rounds=1", "--caches=2", "--keys=50", "--seconds=0.2"],
}


@pytest.mark.parametrize(
    "benchmark", [one for one in HERMETIC if one is not holds], ids=lambda one: str(one.NAME)
)
@pytest.mark.usefixtures("no_kube_apiserver")
def test_it_runs_and_every_figure_has_its_reference(benchmark: ModuleType) -> None:
    runs_and_says_what_it_measured(benchmark)


def test_it_runs_with_the_api_server_that_bench_takes_here_and_every_figure_has_its_reference() -> None:
    """A real one where it is built, with the benchmark that asks most of it."""
    runs_and_says_what_it_measured(holds)


def runs_and_says_what_it_measured(benchmark: ModuleType) -> None:
    parser = ArgumentParser()
    benchmark.add_arguments(parser)
    taken = benchmark.run(parser.parse_args(SMALL[benchmark]))
    assert taken.name == benchmark.NAME
    assert all(figure.reference.n == figure.value.n >= 1 for figure in taken.figures)
    assert report.Report.from_json(taken.to_json()) == taken
    assert report.as_text(taken)


def test_names_are_unlike() -> None:
    assert len({benchmark.NAME for benchmark in BENCHMARKS}) == len(BENCHMARKS)
