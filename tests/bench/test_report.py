import json
from pathlib import Path

import pytest

from bench import report
from bench.figures import Figure, Report, Target, compare
from bench.machine import Machine

MACHINE = Machine("A CPU", 2, 23.5, "Linux 6", "CPython 3.11", 0.5, "2026-01-01 00:00 UTC")


def figure(target: Target | None = None) -> Figure:
    return compare("a miss", "ms", [30, 40, 50], "the | least", [10, 10, 10], target)


def made(name: str = "check", *figures: Figure, machine: Machine = MACHINE) -> Report:
    return Report(name, f"Title of {name}", "How.", {"API server": "real"}, machine, figures or (figure(),))


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("at most", 4), True),
        (Target("at most", 3.9), False),
        (Target("at least", 4), True),
        (Target("at least", 4.1), False),
        (Target("at most", 40, of="value"), True),
        (Target("at most", 39, of="value"), False),
    ],
)
def test_a_target_is_met_by_the_median_of_what_it_is_about(target: Target, met: bool) -> None:
    assert target.met(figure()) is met


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    before = made("check", figure(Target("at most", 3)), figure())
    report.save(before, tmp_path)
    assert report.load([], tmp_path) == [before]


def test_reports_stand_in_the_order_of_the_benchmarks_then_by_name(tmp_path: Path) -> None:
    for name in ("cluster-200ms", "check", "cluster-1s", "webhook"):
        report.save(made(name), tmp_path)
    order = [one.name for one in report.load(["webhook", "check"], tmp_path)]
    assert order == ["webhook", "check", "cluster-1s", "cluster-200ms"]


def test_a_newer_run_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for title in ("How.", "Otherwise."):
        report.save(Report("check", "Title", title, {}, MACHINE, (figure(),)), tmp_path)
    assert [one.method for one in report.load([], tmp_path)] == ["Otherwise."]


def test_the_document_names_each_machine_once() -> None:
    other = Machine("Another", 4, 8, "Linux 6", "CPython 3.13", 0, "2026-01-02 00:00 UTC")
    text = report.render([made("check"), made("webhook"), made("cluster-1s", machine=other)])
    assert text.count("A CPU") == text.count("Another") == 1
    assert "A CPU, 2 cores, 23.5 GiB; Linux 6; CPython 3.11" in text


def test_a_row_shows_the_figure_its_reference_the_ratio_and_the_verdict() -> None:
    text = report.render([made("check", figure(Target("at most", 3)))])
    row = (
        "| a miss | 3 | 40 ms (30–50) | 50 | the ¦ least | 10 ms (10–10) | 10 | 4 × (3–5) | ≤ 3 × | **no** |"
    )
    assert row in text.splitlines()
    assert "API server: real; date: 2026-01-01 00:00 UTC; load average at the start: 0.5." in text


def test_every_row_has_as_many_cells_as_the_head() -> None:
    lines = [line for line in report.render([made()]).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.000001234, "0.000001"),
        (0.01234, "0.0123"),
        (1.0, "1"),
        (12.345, "12.3"),
        (5396.4, "5396"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert report.number(value) == text


def test_what_is_written_is_made_of_all_reports(tmp_path: Path) -> None:
    results, document = tmp_path / "results", tmp_path / "RESULTS.md"
    report.save(made("check"), results)
    report.save(made("webhook"), results)
    report.write(["check"], results, document)
    text = document.read_text()
    assert text.index("## Title of check") < text.index("## Title of webhook")
    assert json.loads((results / "check.json").read_text())["machine"]["cores"] == 2
