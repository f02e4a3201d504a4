"""docs/monitoring.md lists every metric with its labels, and says of the flags what is so."""

import re
from pathlib import Path

from server.events import Dropped
from server.metrics import NAMESPACE
from tests.exposed import everything, labels, ours

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
METRIC = re.compile(r"`(stepmemo_\w+)(?:\{([\w,]+)\})?`")


def rows() -> list[str]:
    """The rows of the table of metrics."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Metrics\n")[2].partition("\n### ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_the_page_lists_every_metric_once_with_its_labels() -> None:
    listed = [found for row in rows() for found in METRIC.findall(row.split("|")[1])]
    shown = {name: sorted(labels(one)) for name, one in ours(everything()).items()}
    assert sorted(name for name, _ in listed) == sorted(shown)
    assert {name: [label for label in said.split(",") if label] for name, said in listed} == shown


def test_the_page_says_why_events_are_dropped() -> None:
    (row,) = [row for row in rows() if "events_dropped" in row]
    assert all(f"`{dropped.value}`" in row for dropped in Dropped)


def test_the_page_says_which_label_names_a_namespace_and_which_flag_asks_for_it() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n### By Namespace\n")[2].partition("\n## ")[0]
    assert f"`{NAMESPACE}`" in section
    assert "`--metrics-namespaces" in section
