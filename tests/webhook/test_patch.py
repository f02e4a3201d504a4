from typing import Any

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from webhook.patch import END, add, pointer, remove, replace


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
