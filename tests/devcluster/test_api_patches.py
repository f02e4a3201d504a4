"""JSON Patch and merge patch against the RFCs, apart from the two places where the API server is laxer."""

import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devcluster.api import patches
from devcluster.api.errors import ApiError

KEYS = st.sampled_from(["a", "b", "~", "/", "x/y~z"])
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=150)
@given(DOCUMENTS, DOCUMENTS)
def test_a_patch_that_another_library_makes_leads_where_it_should(source: Any, target: Any) -> None:
    operations = json.loads(jsonpatch.make_patch(source, target).to_string())
    before = json.dumps(source)
    assert patches.apply_operations(operations, source) == target
    assert json.dumps(source) == before, "the patched object itself stays"


@settings(max_examples=150)
@given(DOCUMENTS, DOCUMENTS)
def test_merging_is_idempotent_and_leaves_no_null_behind_where_it_wrote(target: Any, patch: Any) -> None:
    merged = patches.merge(target, patch)
    assert patches.merge(merged, patch) == merged
    for key, value in patch.items():
        assert (key in merged) == (value is not None)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/number", "value": True},
        {"op": "test", "path": "/list", "value": [True]},
        {"op": "test", "path": "/map", "value": {"a": True}},
        {"op": "test", "path": "/map", "value": {"a": 1, "b": None}},
        {"op": "add", "path": "/list/-1", "value": 0},
        {"op": "add", "path": "/list/2", "value": 0},
        {"op": "remove", "path": "/list/-"},
        {"op": "remove", "path": "/number/x"},
        {"op": "add", "path": "number", "value": 0},
        {"op": "add", "path": "/number"},
        {"path": "/number", "value": 0},
        "not an operation",
    ],
)
def test_an_operation_that_does_not_fit_is_refused(operation: Any) -> None:
    document = {"number": 1, "list": [1], "map": {"a": 1}}
    with pytest.raises(patches.PatchError):
        patches.apply_operations([operation], document)
    assert document == {"number": 1, "list": [1], "map": {"a": 1}}


def test_operations_before_the_one_that_fails_leave_no_trace() -> None:
    document = {"a": 1}
    operations = [{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 3}]
    with pytest.raises(patches.PatchError):
        patches.apply_operations(operations, document)
    assert document == {"a": 1}


GATES = {"spec": {"schedulingGates": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "main"}]}}


def strategic(patch: Any) -> Any:
    return patches.apply(patches.STRATEGIC_PATCH, patch, GATES)


def test_a_strategic_merge_patch_merges_a_list_by_its_items_names() -> None:
    merged = strategic({"spec": {"schedulingGates": [{"name": "b", "$patch": "delete"}, {"name": "c"}]}})
    assert merged["spec"] == GATES["spec"] | {"schedulingGates": [{"name": "a"}, {"name": "c"}]}
    assert len(GATES["spec"]["schedulingGates"]) == 2, "the patched object itself stays"
    assert strategic({"metadata": {"labels": {"x": "y"}}, "spec": None}) == {
        "metadata": {"labels": {"x": "y"}}
    }


@pytest.mark.parametrize(
    "patch",
    [
        {"$patch": "replace", "spec": {}},
        {"spec": {"$retainKeys": ["containers"]}},
        {"spec": {"schedulingGates": [{"$patch": "replace", "name": "a"}]}},
        {"spec": {"containers": [{"name": "main", "image": "x"}]}},
    ],
)
def test_a_strategic_merge_patch_of_which_it_does_not_know_enough_is_refused(patch: Any) -> None:
    with pytest.raises(ApiError) as refused:
        strategic(patch)
    assert refused.value.code == 501
