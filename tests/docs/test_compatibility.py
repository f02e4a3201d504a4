import ast
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from memoize import names
from tests.e2e.probe import Setting, read
from tests.e2e.record import FAILED, PASSED, SKIPPED, merge, sentence
from tests.e2e.table import PAGE, SOURCE, render

SUITE = Path(__file__).parents[1] / "e2e"
HERE = Setting("4.1.2", "legacy", "init", "1.35.4")
OLDER = Setting("3.5.15", "legacy", "init", "1.35.4")
CASE = "test_kinds.py::test_x"


def recorded() -> dict:
    return json.loads(SOURCE.read_text(encoding="utf-8"))


def test_the_page_is_what_the_recorded_outcomes_render_to() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(recorded()), "python -m tests.e2e.table"


def test_every_recorded_case_is_one_that_the_suite_still_has() -> None:
    known = {
        f"{file.name}::{node.name}"
        for file in SUITE.glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set(recorded()["cases"]) <= known


def test_a_case_keeps_the_outcomes_of_other_columns_and_of_variants_that_did_not_run() -> None:
    says = {CASE: "A case"}
    table = merge({}, OLDER, "2026-01-01", says, {CASE: {"a": SKIPPED + "no such thing"}})
    table = merge(table, HERE, "2026-01-02", says, {CASE: {"a": PASSED, "b": FAILED}})
    table = merge(table, HERE, "2026-01-03", says, {CASE: {"b": PASSED}})
    assert table["cases"][CASE]["outcomes"] == {
        OLDER.column: {"a": "skipped: no such thing"},
        HERE.column: {"a": "passed", "b": "passed"},
    }
    assert table["columns"][HERE.column] == {"date": "2026-01-03", "kubernetes": "1.35.4"}


@pytest.mark.parametrize(
    ("outcomes", "cell"),
    [
        ({"": PASSED}, "✓"),
        ({"a": PASSED, "b": PASSED}, "✓"),
        ({"": FAILED}, "✗"),
        ({"a": PASSED, "b": FAILED}, "✗ b"),
        ({"": SKIPPED + "too old"}, "– [1]"),
        ({"a": PASSED, "b": SKIPPED + "too old"}, "✓ 1 of 2, – [1]"),
    ],
)
def test_a_cell_tells_passed_failed_and_skipped_apart(outcomes: dict[str, str], cell: str) -> None:
    page = render(merge({}, HERE, "2026-01-01", {CASE: "A case"}, {CASE: outcomes}))
    (row,) = (line for line in page.splitlines() if line.startswith("| A case"))
    assert row.split(" | ")[1].removesuffix(" |") == cell
    assert ("1. too old" in page) == ("[1]" in cell)


def test_a_case_says_its_docstrings_first_line_or_its_name() -> None:
    assert sentence("test_a_step_is_answered", None) == "A step is answered"
    assert sentence("test_x", "What `x` does.\n\nAt length.") == "What `x` does"


def test_the_newest_version_comes_first() -> None:
    table = merge({}, OLDER, "2026-01-01", {}, {})
    page = render(merge(table, HERE, "2026-01-01", {}, {}))
    assert page.index(HERE.column) < page.index(OLDER.column)


def test_the_setting_is_read_from_a_steps_pod() -> None:
    def pod(init: list[str], volumes: list[str], annotations: Sequence[str] = (), **containers: str) -> dict:
        return {
            "metadata": {"annotations": dict.fromkeys(annotations, "x")},
            "spec": {
                "initContainers": [{"name": name} for name in init],
                "containers": [{"name": name, "image": image} for name, image in containers.items()],
                "volumes": [{"name": name} for name in volumes],
            },
        }

    legacy = pod(["stepmemo-check", "init"], ["stepmemo"], wait="registry.example:5000/argoexec:v3.5.15")
    assert read(legacy, "direct", "1.35.4") == OLDER
    new = pod([], ["stepmemo", "stepmemo-image"], supervisor="argoexec:v4.1.2-rc1")
    assert read(new, "direct", "1.35.4").column == "4.1.2 · init-less · image-volume"
    outside = pod(["init"], [], [names.PLAN], wait="argoexec:v4.1.2")
    assert read(outside, "service", "1.35.4").column == "4.1.2 · legacy · service"
    with pytest.raises(AssertionError, match="STEPMEMO_E2E_ARGO"):
        read(pod(["stepmemo-check"], [], wait="argoexec@sha256:0"), "direct", "1.35.4")
    for left_alone, access in (
        (pod(["init"], [], wait="argoexec:v4.1.2"), "direct"),
        (pod(["init"], [], wait="argoexec:v4.1.2"), "service"),
        (legacy, "service"),
    ):
        with pytest.raises(AssertionError, match="did not look the key"):
            read(left_alone, access, "1.35.4")
