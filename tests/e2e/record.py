"""Writes what the end-to-end run saw into docs/compatibility.json, which tests/e2e/table.py renders.

The file, by example:

    {"columns": {"4.1.2 · legacy · init": {"date": "2026-01-31", "kubernetes": "1.35.4"}},
     "cases": {"test_kinds.py::test_x": {"says": "What the case shows.", "outcomes": {
         "4.1.2 · legacy · init": {"variant, or empty": "passed", "another": "skipped: the reason"}}}}}
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.probe import Setting, probe

VARIABLE = "STEPMEMO_E2E_RECORD"
"""Names the file; several runs may write to the same one at once."""

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped: "

Table = dict[str, Any]
Outcomes = dict[str, dict[str, str]]
"""Case → variant → outcome."""


def merge(table: Table, setting: Setting, date: str, says: dict[str, str], outcomes: Outcomes) -> Table:
    """The table with this run's outcomes in the setting's column; what did not run stays as it was."""
    columns = dict(table.get("columns", {})) | {
        setting.column: {"date": date, "kubernetes": setting.kubernetes}
    }
    cases = dict(table.get("cases", {}))
    for case, variants in outcomes.items():
        before = cases.get(case, {}).get("outcomes", {})
        column = before.get(setting.column, {}) | variants
        cases[case] = {"says": says[case], "outcomes": before | {setting.column: column}}
    return {"columns": columns, "cases": cases}


def sentence(name: str, docstring: str | None) -> str:
    """What a case shows: the first line of its docstring, else its name."""
    if docstring:
        return docstring.strip().splitlines()[0].rstrip(".")
    words = name.removeprefix("test_").replace("_", " ")
    return words[0].upper() + words[1:]


class Recorder:
    """A pytest plugin for one session."""

    def __init__(self, path: Path, items: Iterable[pytest.Item]) -> None:
        self.path = path
        self.items = {item.nodeid: item for item in items if isinstance(item, pytest.Function)}
        self.says: dict[str, str] = {}
        self.outcomes: Outcomes = {}

    @classmethod
    def from_environment(cls, items: Iterable[pytest.Item]) -> "Recorder | None":
        path = os.environ.get(VARIABLE)
        return cls(Path(path), items) if path else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        item = self.items.get(report.nodeid)
        if item is None:
            return
        case = f"{item.path.name}::{item.originalname}"
        variant = item.callspec.id if hasattr(item, "callspec") else ""
        variants = self.outcomes.setdefault(case, {})
        self.says[case] = sentence(item.originalname, item.function.__doc__)
        if report.failed:
            variants[variant] = FAILED
        elif report.skipped:
            variants[variant] = SKIPPED + _reason(report)
        elif report.when == "call":
            variants.setdefault(variant, PASSED)

    def pytest_sessionfinish(self) -> None:
        if not self.outcomes:
            return
        date = today()
        rewrite(self.path, lambda table: merge(table, probe(), date, self.says, self.outcomes))


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def rewrite(path: Path, change: Callable[[Table], Table]) -> None:
    """Changes a JSON file, which several runs may write to at once; {} where there is none."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        table = change(json.loads(text) if text else {})
        file.seek(0)
        file.truncate()
        file.write(json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _reason(report: pytest.TestReport) -> str:
    """`longrepr` of a skip is (file, line, text)."""
    return str(report.longrepr[2]).removeprefix("Skipped: ")
