"""WorkflowTaskResults, as Argo or anybody else leaves them, and the entries that they make."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import names as argo
from memoize import names
from memoize.entry import LONGEST_TOOK, Entry
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.report import new_entry, reported, taken_over
from memoize.step import Step
from tests.memoize.test_strictjson import VALUES

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DECLARED = Declared(parameters=({"name": "out"},))
OUTPUTS = {"parameters": [{"name": "out", "value": "x"}]}
STEP = Step("hello-1", "c", "1h", "wf-1", "wf", "uid", "", False, False, DECLARED)


def result(complete: str = "true", posted_for: str = "", **fields: Any) -> dict[str, Any]:
    annotations = {names.POSTED_FOR: posted_for} if posted_for else {}
    labels = {argo.OUTPUTS_COMPLETED: complete}
    metadata = {"name": "wf-1", "labels": labels, "annotations": annotations, "resourceVersion": "7"}
    return {"metadata": metadata, "outputs": OUTPUTS, **fields}


def refused(made: object) -> Reason:
    assert isinstance(made, Outcome), made
    return made.reason


def test_what_a_step_reported_complete_is_returned():
    assert reported(result(), DECLARED) == OUTPUTS


def test_a_step_that_declares_nothing_has_reported_nothing():
    assert reported(result(outputs=None), Declared()) == {}


def test_a_node_that_succeeded_has_its_outputs_in_its_workflow():
    workflow = {"status": {"nodes": {"wf-1": {"phase": "Succeeded", "outputs": OUTPUTS}}}}
    assert taken_over(workflow, "wf-1", DECLARED) == OUTPUTS
    assert refused(taken_over(workflow, "wf-2", DECLARED)) is Reason.OUTPUTS_INCOMPLETE


@pytest.mark.parametrize(
    "workflow",
    [
        {},
        {"status": {"compressedNodes": "…"}},
        {"status": {"nodes": {"wf-1": {"phase": "Failed", "outputs": OUTPUTS}}}},
        {"status": {"nodes": {"wf-1": {"phase": "Succeeded"}}}},
        {"status": {"nodes": []}},
    ],
)
def test_no_other_node_tells_what_a_step_put_out(workflow: dict[str, Any]):
    assert refused(taken_over(workflow, "wf-1", DECLARED)) is Reason.OUTPUTS_INCOMPLETE


@pytest.mark.parametrize(
    "found",
    [
        result(complete="false"),
        result(complete="True"),
        result(posted_for="uid"),
        result(outputs=None),
        result(outputs={"parameters": [{"name": "out"}]}),
        result(outputs=[]),
        result(metadata=None),
        {},
    ],
)
def test_anything_less_is_incomplete(found: dict[str, Any]):
    assert refused(reported(found, DECLARED)) is Reason.OUTPUTS_INCOMPLETE


@given(VALUES, VALUES, VALUES)
def test_a_result_of_any_form_is_read(metadata: Any, labels: Any, outputs: Any):
    for found in (
        {"metadata": metadata, "outputs": outputs},
        {"metadata": {"labels": labels, "annotations": labels, "resourceVersion": labels}},
        result(outputs=outputs),
    ):
        assert isinstance(reported(found, DECLARED), dict | Outcome)


def test_an_entry_says_who_made_it_and_how_long_that_took():
    made = new_entry(STEP, DECLARED, OUTPUTS, NOW, "wf-a-1", 312.34567)
    assert isinstance(made, Entry)
    assert made == Entry(
        node_id="wf-1",
        outputs={**OUTPUTS, "exitCode": "0"},
        created=NOW,
        last_hit=NOW,
        max_age="1h",
        pod="wf-a-1",
        workflow="wf",
        took=312.346,
    )


def test_a_key_is_in_the_entry_where_its_place_does_not_say_it():
    made = new_entry(STEP._replace(key="a b"), DECLARED, OUTPUTS, NOW, "p")
    assert isinstance(made, Entry)
    assert made.key == "a b"


@given(st.floats(allow_nan=False))
def test_any_measured_time_makes_an_entry_that_can_be_read_again(took: float):
    made = new_entry(STEP, DECLARED, OUTPUTS, NOW, "p", took)
    assert isinstance(made, Entry)
    assert 0 <= made.took <= LONGEST_TOOK
    assert math.isfinite(Entry.parse(made.dump()).took)


def test_outputs_that_argo_will_delete_make_no_entry():
    declared = Declared(artifacts=({"name": "res"},))
    outputs = {"artifacts": [{"name": "res", "s3": {"endpoint": "e", "bucket": "b", "key": "k"}}]}
    assert refused(new_entry(STEP._replace(gc=True), declared, outputs, NOW, "p")) is Reason.ARTIFACT_GC
