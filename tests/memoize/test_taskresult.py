"""What programs tell each other by a WorkflowTaskResult, whoever wrote it."""

from typing import Any

import pytest
from hypothesis import given

from argo import names as argo
from memoize import names
from memoize.outputs import Declared
from memoize.step import Step
from memoize.taskresult import (
    answer,
    closed,
    completed,
    empty,
    placeholder,
    placeholder_for,
    posted_by_us,
    taken_back,
    version,
)
from tests.memoize.test_strictjson import VALUES

DECLARED = Declared(parameters=({"name": "out", "globalName": "g"},), archives_logs=True)
STEP = Step("hello-1", "c", "1h", "wf-1", "wf", "wf-uid", "", False, False, DECLARED)
OUTPUTS = {
    "parameters": [{"name": "out", "value": "42"}],
    "artifacts": [{"name": "main-logs", "s3": {"key": "a"}}],
    "exitCode": "0",
}
OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "wf", "uid": "wf-uid"}


def test_an_answer_is_complete_marked_the_readers_and_owned_by_the_workflow():
    assert answer(STEP, DECLARED, "pod-uid", OUTPUTS) == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": "wf-1",
            "labels": {argo.WORKFLOW_LABEL: "wf", argo.OUTPUTS_COMPLETED: "true"},
            "annotations": {names.POSTED_FOR: "pod-uid"},
            "ownerReferences": [OWNER],
        },
        "outputs": {
            "parameters": [{"name": "out", "globalName": "g", "value": "42"}],
            "artifacts": [{"name": "main-logs", "s3": {"key": "a"}, "artifactGC": {"strategy": "Never"}}],
        },
    }


def test_an_empty_result_says_nothing_but_whose_it_is():
    assert empty(STEP) == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": "wf-1",
            "labels": {argo.WORKFLOW_LABEL: "wf", argo.OUTPUTS_COMPLETED: "false"},
            "ownerReferences": [OWNER],
        },
    }


@pytest.mark.parametrize("outputs", [None, {}])
def test_an_entry_without_outputs_makes_an_answer_without_any(outputs: dict[str, Any] | None):
    assert "outputs" not in answer(STEP, Declared(), "pod-uid", outputs)


def test_both_carry_the_instance_id_of_their_controller():
    blue = STEP._replace(instance_id="blue")
    for body in (answer(blue, DECLARED, "pod-uid", OUTPUTS), empty(blue)):
        assert body["metadata"]["labels"][argo.INSTANCE_ID] == "blue"


def test_each_is_told_for_what_it_is():
    posted, unreported = answer(STEP, DECLARED, "pod-uid", OUTPUTS), empty(STEP)
    assert (posted_by_us(posted), completed(posted)) == ("pod-uid", True)
    assert (posted_by_us(unreported), completed(unreported)) == ("", False)


def test_taking_back_leaves_neither_outputs_nor_a_mark_in_that_version_alone():
    assert taken_back("7") == {
        "metadata": {
            "labels": {argo.OUTPUTS_COMPLETED: "false"},
            "annotations": {names.POSTED_FOR: None},
            "resourceVersion": "7",
        },
        "outputs": None,
    }


def test_without_a_version_nothing_is_taken_back():
    assert taken_back("")["metadata"]["resourceVersion"] not in ("", None)


@given(VALUES, VALUES)
def test_a_result_of_any_form_is_read(metadata: Any, fields: Any):
    for found in (
        {"metadata": metadata},
        {"metadata": {"labels": fields, "annotations": fields, "resourceVersion": fields}},
    ):
        assert isinstance(posted_by_us(found), str)
        assert isinstance(version(found), str)
        assert completed(found) in (True, False)


def test_a_result_that_keeps_answers_out_is_an_empty_one_that_says_for_which_pod():
    body = placeholder(STEP, "pod-uid")
    assert (placeholder_for(body), placeholder_for(empty(STEP)), posted_by_us(body)) == ("pod-uid", "", "")
    del body["metadata"]["annotations"]
    assert body == empty(STEP)


def test_closing_says_that_nothing_more_comes_in_that_version_alone():
    labels = {argo.OUTPUTS_COMPLETED: "true"}
    assert closed("7") == {"metadata": {"labels": labels, "resourceVersion": "7"}}
    assert closed("")["metadata"]["resourceVersion"] not in ("", None)
