"""How kinds of hits are run three ways, told hanging from slow, judged, and shown in the docs."""

import json
from typing import Any

import pytest

from argo import names as argo_names
from memoize import names
from tests.e2e.hits import ROWS
from tests.e2e.hits_table import AGAIN, FIRST, PAGE, SOURCE, Outcome, merge, render, told
from tests.e2e.judge import (
    ENDS,
    HANGS,
    HOOK,
    METRIC,
    NODE,
    OUTPUTS,
    REFUSED,
    TAG,
    VALUE,
    Ended,
    Fault,
    faults,
    hits,
)
from tests.e2e.judge import KINDS as FAULTS
from tests.e2e.many import STILL, Sight, Watch, sights
from tests.e2e.probe import Setting
from tests.e2e.ways import ARGO, PLAIN, STEPMEMO, WAYS, made, memoized, objects

HERE = Setting("4.1.2", "legacy", "service", "1.35.4")
OLDER = Setting("3.7.18", "legacy", "service", "1.35.4")
ROW, HOOKED, RETRIED = (
    "steps, one after the other",
    "hook while it runs, of a task",
    "`retryStrategy`, a task after it",
)

Json = Any


def recorded() -> Json:
    return json.loads(SOURCE.read_text(encoding="utf-8"))


# the page


def test_the_page_is_what_was_recorded() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(recorded()), "python -m tests.e2e.hits_table"


def test_every_recorded_row_is_one_that_the_suite_still_has() -> None:
    assert set(recorded()["rows"]) == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_was_run_on_each_argo(row: str) -> None:
    assert set(recorded()["rows"][row]) == set(recorded()["columns"])


@pytest.mark.parametrize("row", ROWS)
def test_nothing_was_wrong_with_stepmemo_but_what_its_limits_name(row: str) -> None:
    for found in recorded()["rows"][row].values():
        assert found[STEPMEMO][FIRST]["faults"] == []
        kinds = [kind for kind, _ in found[STEPMEMO][AGAIN]["faults"]]
        assert set(kinds) <= ({HOOK} if ROWS[row].lacks != "$^" else set())


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_breaks_says_why(row: str) -> None:
    wrong = [
        run for found in recorded()["rows"][row].values() for run in found[ARGO].values() if run["faults"]
    ]
    assert not wrong or ROWS[row].because


STORED, HIT = Outcome([], "0 of 1"), Outcome([], "1 of 1")
HUNG, FAILED = Outcome([Fault(HANGS, "…")], "1 of 1"), Outcome([Fault(ENDS, "…")], "")
UNHOOKED = Outcome([Fault(HOOK, "a.hooks.x")], "1 of 1")


def outcomes(first: Outcome, again: Outcome, ours: Outcome = HIT) -> Json:
    return told({ARGO: {FIRST: first, AGAIN: again}, STEPMEMO: {FIRST: STORED, AGAIN: ours}})


@pytest.mark.parametrize(
    ("row", "found", "cells"),
    [
        (ROW, outcomes(STORED, HIT), ["✓", "✓"]),
        (ROW, outcomes(STORED, STORED), ["✓ *runs again*", "✓"]),
        (ROW, outcomes(STORED, HUNG), ["the workflow hangs", "✓"]),
        (ROW, outcomes(FAILED, HUNG), ["first the workflow fails; then the workflow hangs", "✓"]),
        (ROW, outcomes(FAILED, HIT), ["first the workflow fails", "✓"]),
        (ROW, outcomes(FAILED, FAILED), ["the workflow fails", "✓"]),
        (
            HOOKED,
            outcomes(STORED, UNHOOKED, UNHOOKED),
            ["the hook is not run", "the hook is not run ([as said](limits.md#what-a-hit-lacks))"],
        ),
    ],
)
def test_a_cell_tells_what_both_runs_did(row: str, found: Json, cells: list[str]) -> None:
    page = render(merge({}, HERE, "2026-01-01", {row: found}))
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {row} |"))
    assert line.split(" | ")[1:3] == cells or line.removesuffix(" |").split(" | ")[1:3] == cells


def test_rows_that_break_with_argo_come_first_with_the_reason() -> None:
    found = {ROW: outcomes(STORED, HIT), RETRIED: outcomes(STORED, HUNG)}
    page = render(merge({}, HERE, "2026-01-01", found))
    breaks, right = page.index("## What breaks"), page.index("## Where both are right")
    assert breaks < page.index(f"| {RETRIED} |") < right < page.index(f"| {ROW} |")
    assert ROWS[RETRIED].because in page[breaks:right]


def test_a_row_keeps_other_columns_and_what_did_not_run() -> None:
    table = merge({}, OLDER, "2026-01-01", {ROW: outcomes(STORED, HIT), RETRIED: outcomes(STORED, HUNG)})
    table["rows"]["a row that is gone"] = {}
    table = merge(table, HERE, "2026-01-02", {ROW: outcomes(STORED, STORED)})
    assert set(table["columns"]) == {HERE.column, OLDER.column}
    assert {row: list(found) for row, found in table["rows"].items()} == {
        ROW: [OLDER.column, HERE.column],
        RETRIED: [OLDER.column],
    }


# three ways


def dicts(value: Json) -> list[Json]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [one for part in inner for one in dicts(part)] + ([value] if isinstance(value, dict) else [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_memoized_by_whom_its_way_names(row: str, way: str) -> None:
    shape = ROWS[row].shape
    cache = {"name": "of-the-row"}
    found = dicts([made(shape, way, cache), *objects(shape, way, cache)])
    blocks = [one["memoize"] for one in found if "memoize" in one]
    assert bool(blocks) == (way != PLAIN)
    assert all(block["cache"] == {"configMap": cache} for block in blocks)
    said = {one[names.MEMOIZE] for one in found if names.MEMOIZE in one}
    assert said == {"true" if way == STEPMEMO else "false"}
    assert "/random/" not in json.dumps(found), "runs could not be compared by value"


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_memoized_template(row: str) -> None:
    assert memoized(ROWS[row].shape)


# hanging or slow


def items(phase: str, pod: str | None = None) -> list[Json]:
    workflow = {"kind": "Workflow", "metadata": {"name": "w"}, "status": {"phase": "Running"}}
    workflow["status"]["nodes"] = {"w-1": {"phase": phase}}
    metadata = {"name": "w-step-1", "labels": {argo_names.WORKFLOW_LABEL: "w"}}
    return [workflow, *([{"kind": "Pod", "metadata": metadata, "status": {"phase": pod}}] if pod else [])]


def test_a_workflow_is_still_when_nothing_of_it_has_changed_for_long_enough() -> None:
    watch, key = Watch(), ("ns", "w")
    seen = sights("ns", items("Running", "Succeeded"))
    assert watch.still(seen, 0) == watch.still(seen, STILL - 1) == set()
    assert watch.still(seen, STILL) == {key}
    assert watch.still(sights("ns", items("Succeeded", "Succeeded")), STILL + 1) == set()


@pytest.mark.parametrize(
    ("pod", "unfinished"), [("Pending", 1), ("Running", 1), ("Succeeded", 0), ("Failed", 0)]
)
def test_a_workflow_with_a_pod_that_is_not_over_is_never_still(pod: str, unfinished: int) -> None:
    watch, seen = Watch(), sights("ns", items("Running", pod))
    watch.still(seen, 0)
    assert len(watch.still(seen, 1000 * STILL)) == 1 - unfinished


def test_a_pod_counts_for_its_own_workflow_alone() -> None:
    other = {"kind": "Workflow", "metadata": {"name": "other"}}
    assert sights("ns", [*items("Running", "Running"), other]) == {
        ("ns", "w"): Sight(("Running", "w-1 Running", "w-step-1 Running"), 1),
        ("ns", "other"): Sight(("",), 0),
    }


# the judge


def workflow(name: str, phase: str = "Succeeded", **changed: Json) -> Json:
    """Steps `a` (of the template `step`, retried, with a hook), and `b`, which takes what it gave."""
    nodes = {
        "": {"type": "Steps", "phase": phase},
        "[0].a": {"type": "Retry", "templateName": "step", "phase": "Succeeded"},
        "[0].a(0)": {"type": "Pod", "templateName": "step", "phase": "Succeeded"},
        "[0].a.onExit": {"type": "Pod", "templateName": "told", "phase": "Succeeded"},
        "[1].b": {
            "type": "Pod",
            "templateName": "use",
            "phase": "Succeeded",
            "inputs": {"parameters": [{"name": "x", "value": f"made by {name}"}]},
            "outputs": {"parameters": [{"name": "seen", "value": "made"}]},
        },
    }
    for suffix, change in changed.pop("nodes", {}).items():
        if change is None:
            del nodes[suffix]
        else:
            nodes[suffix] = nodes[suffix] | change
    made_of = {
        f"{name}-{number}": node
        | {"id": f"{name}-{number}", "name": f"{name}{suffix}", "displayName": suffix}
        for number, (suffix, node) in enumerate(nodes.items())
    }
    status = {"phase": phase, "nodes": made_of, "outputs": {"parameters": [{"name": "g", "value": "v"}]}}
    return {"metadata": {"name": name}, "status": status | changed}


def given(value: str) -> Json:
    return {"[1].b": {"inputs": {"parameters": [{"name": "x", "value": value}]}}}


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        (Ended(workflow("hit")), []),
        (Ended(workflow("hit", nodes={"[0].a(0)": None})), []),
        (Ended(workflow("hit", nodes={"[0].a": {"outputs": {"exitCode": "0"}}})), []),
        (Ended(workflow("hit", "Running"), hangs=True), [HANGS]),
        (Ended(workflow("hit"), refused="no parent"), [REFUSED]),
        (Ended(workflow("hit", "Failed", message="why")), [ENDS]),
        (Ended(workflow("hit", nodes=given("{{steps.a.outputs.result}}"))), [TAG]),
        (Ended(workflow("hit", nodes=given("another"))), [VALUE]),
        (Ended(workflow("hit", nodes={"[1].b": {"outputs": None}})), [VALUE]),
        (Ended(workflow("hit", nodes={"[1].b": {"phase": "Skipped"}})), [VALUE]),
        (Ended(workflow("hit", nodes={"[1].b": None})), [NODE]),
        (Ended(workflow("hit", nodes={"[0].a.onExit": None})), [HOOK]),
        (Ended(workflow("hit", outputs=None)), [OUTPUTS]),
    ],
)
def test_what_is_wrong_with_a_run_is_told_by_the_plain_one(run: Ended, kinds: list[str]) -> None:
    assert [fault.kind for fault in faults(Ended(workflow("plain")), run, {"step"})] == kinds
    assert set(kinds) <= set(FAULTS)


def test_a_metric_that_the_plain_run_has_must_be_there() -> None:
    plain, run = Ended(workflow("plain"), metric=True), Ended(workflow("hit"))
    assert [fault.kind for fault in faults(plain, run, {"step"})] == [METRIC]
    assert faults(plain, run._replace(metric=True), {"step"}) == []


def test_a_value_that_names_the_run_it_was_stored_by_is_the_same_value() -> None:
    plain, run = Ended(workflow("plain")), Ended(workflow("hit", nodes=given("made by first")))
    assert [fault.kind for fault in faults(plain, run, {"step"})] == [VALUE]
    assert faults(plain, run, {"step"}, ["first"]) == []


def test_a_node_that_is_kept_apart_may_be_missing() -> None:
    plain, run = Ended(workflow("plain")), Ended(workflow("hit", nodes={"[0].a.onExit": None}))
    assert faults(plain, run, {"step"}, apart=r"onExit$") == []


def test_hits_are_told_by_pods_or_by_argos_nodes() -> None:
    argos = workflow("hit", nodes={"[0].a": {"memoizationStatus": {"hit": True}}})
    assert hits(argos, []) == "1 of 1"
    assert hits(workflow("hit"), [True, False]) == "1 of 2"
    assert hits(workflow("hit"), []) == ""
