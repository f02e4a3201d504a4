"""How the webhook tells the sidecar of a step."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.outputs import Declared
from memoize.step import Step

TEXT = st.text(st.sampled_from("$()\\u0024AX{}\"' \n\x00é😀") | st.characters(), max_size=20)
NAMES = st.lists(TEXT, max_size=2).map(tuple)
OBJECTS = st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2).map(tuple)
DECLARED = st.builds(
    Declared,
    parameters=OBJECTS,
    artifacts=OBJECTS,
    result=st.booleans(),
    mains=NAMES,
    archive=st.none() | st.fixed_dictionaries({"s3": st.dictionaries(TEXT, TEXT, max_size=2)}),
    archives_logs=st.booleans(),
    resource=st.booleans(),
)
PARTS = st.dictionaries(TEXT, TEXT, max_size=2)
STEPS = st.builds(Step, *[TEXT] * 7, st.booleans(), st.booleans(), st.none() | DECLARED, *[TEXT] * 3, PARTS)


@given(STEPS)
def test_a_step_travels_whole(step: Step):
    assert Step.from_json(step.to_json()) == step


@given(STEPS)
def test_the_kubelet_finds_nothing_to_expand(step: Step):
    assert "$" not in step.to_json()


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"key": 1}', "1", '"x"'])
def test_anything_else_is_an_error(text: str):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Step.from_json(text)


def test_the_declared_outputs_are_readable_json():
    declared = Declared(
        parameters=({"name": "out"},), artifacts=({"name": "res", "artifactGC": {"strategy": "Never"}},)
    )
    assert json.loads(json.dumps(declared.to_dict())) == {
        "parameters": [{"name": "out"}],
        "artifacts": [{"name": "res", "artifactGC": {"strategy": "Never"}}],
        "result": False,
        "mains": ["main"],
        "archive": None,
        "archives_logs": False,
        "resource": False,
    }


def declaring(declared: Declared | None) -> Step:
    return Step("k", "c", "", "n", "w", "u", "", include_result=False, gc=False, declared=declared)


@pytest.mark.parametrize(
    ("declared", "concerned"),
    [
        (None, True),
        (Declared(), False),
        (Declared(archive={"s3": {"bucket": "logs"}}), True),
        (Declared(artifacts=({"name": "a"},)), True),
        (Declared(artifacts=({"name": "a", "artifactGC": {"strategy": "Never"}},)), False),
        (Declared(artifacts=({"name": "a", "artifactGC": {"strategy": "Never"}}, {"name": "b"})), True),
    ],
)
def test_artifacts_follow_the_workflow_where_one_leaves_it_to_it(
    declared: Declared | None, concerned: bool
) -> None:
    assert declaring(declared).artifacts_follow_workflow is concerned
