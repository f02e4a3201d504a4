import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube import jsonpatch as patch
from kube.jsonpatch import END, Op, add, apply, pointer, put, remove, replace


def test_a_pointer_escapes_what_means_something_in_pointers() -> None:
    assert (
        pointer("metadata", "annotations", "stepmemo.dev/key~1")
        == "/metadata/annotations/stepmemo.dev~1key~01"
    )


def test_no_parts_point_to_the_whole_document() -> None:
    assert pointer() == ""


def test_a_number_points_into_a_list_and_end_behind_it() -> None:
    ops = [replace(("list", 0), "first"), add(("list", END), "last"), add(("list", 1), "second")]
    assert jsonpatch.apply_patch({"list": ["a"]}, ops) == {"list": ["first", "second", "last"]}


@given(st.text(), st.text(), st.integers())
def test_every_name_can_be_set_replaced_and_removed(outer: str, inner: str, value: int) -> None:
    document: dict[str, Any] = {outer: {}}
    document = jsonpatch.apply_patch(document, [add((outer, inner), value)])
    assert document == {outer: {inner: value}}
    document = jsonpatch.apply_patch(document, [replace((outer, inner), value + 1)])
    assert document == {outer: {inner: value + 1}}
    assert jsonpatch.apply_patch(document, [remove((outer, inner))]) == {outer: {}}


@pytest.mark.parametrize(
    ("metadata", "after"),
    [
        ({}, {"labels": {"a/b": "1"}}),
        ({"labels": {}}, {"labels": {"a/b": "1"}}),
        ({"labels": {"a/b": "0"}}, {"labels": {"a/b": "1"}}),
        ({"labels": {"other": "x"}}, {"labels": {"other": "x", "a/b": "1"}}),
    ],
)
def test_a_member_is_put_beside_others_or_into_an_object_of_its_own(
    metadata: dict[str, Any], after: dict[str, Any]
) -> None:
    op = put(("metadata", "labels"), "a/b", "1", there=metadata.get("labels"))
    assert jsonpatch.apply_patch({"metadata": metadata}, [op]) == {"metadata": after}


def test_a_patch_with_a_test_is_for_one_value_alone() -> None:
    ops = [patch.test(("a/b", 0), "x"), remove(("a/b", 0))]
    assert jsonpatch.apply_patch({"a/b": ["x"]}, ops) == {"a/b": []}
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch({"a/b": ["y"]}, ops)


VALUES = {"a/b": [1, 2], "~": {"": 0, "a": {}}, "n": None, "s": "text"}


@pytest.mark.parametrize(
    "op",
    [
        op
        for parts in [
            ("a/b",),
            ("a/b", 0),
            ("a/b", 1),
            ("a/b", 2),
            ("a/b", 3),
            ("a/b", -1),
            ("a/b", END),
            ("a/b", "x"),
            ("~", ""),
            ("~", "a", "b"),
            ("~", "b"),
            ("~", "b", "c"),
            ("n", "a"),
            ("s", 0),
            ("none",),
        ]
        for op in (add(parts, 9), replace(parts, 9), remove(parts))
    ],
    ids=lambda op: f"{op['op']} {op['path']}",
)
def test_an_operation_is_carried_out_as_the_library_does_it(op: Op) -> None:
    document = copy.deepcopy(VALUES)
    try:
        expected = jsonpatch.apply_patch(document, [op])
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError):
        with pytest.raises((LookupError, TypeError, ValueError)):
            apply(document, op)
        assert document == VALUES
    else:
        apply(document, op)
        assert document == expected
