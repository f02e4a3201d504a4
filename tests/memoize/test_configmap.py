from copy import deepcopy
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from memoize import configmap
from memoize.configmap import MOST_BYTES
from memoize.reasons import Reason

CACHE: dict[str, Any] = {
    "metadata": {
        "name": "c",
        "resourceVersion": "7",
        "labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE},
    },
    "data": {"a": "1", "b": "2"},
}


def apply(patch: list[dict[str, Any]], config_map: dict[str, Any]) -> Any:
    return jsonpatch.apply_patch(deepcopy(config_map), patch)


def test_a_new_config_map_is_a_cache():
    made = configmap.new("c", {"a": "1"})
    assert configmap.refused(made) is None
    assert configmap.data(made) == {"a": "1"}


def test_added_entries_leave_the_others_alone():
    assert apply(configmap.added({"b": "3", "c": "4"}), CACHE)["data"] == {"a": "1", "b": "3", "c": "4"}


@pytest.mark.parametrize("labels", [{}, {argo.CONFIGMAP_TYPE: "Parameter"}])
@pytest.mark.parametrize("patch", [configmap.added({"a": "2"}), configmap.replaced({"a": ("1", "2")})])
def test_no_patch_applies_without_the_label(labels: dict[str, str], patch: list[dict[str, Any]]):
    other = {**CACHE, "metadata": {"labels": labels}}
    with pytest.raises(jsonpatch.JsonPatchException):
        apply(patch, other)


def test_what_was_replaced_before_is_not_replaced_again():
    assert apply(configmap.replaced({"a": ("1", "2")}), CACHE)["data"] == {"a": "2", "b": "2"}
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        apply(configmap.replaced({"a": ("1", "2"), "b": ("old", "x")}), CACHE)


def test_what_was_seen_is_written_on_its_condition():
    assert configmap.seen(CACHE, {"b": "3"}, without=["a", "b"]) == {
        "metadata": {"resourceVersion": "7"},
        "data": {"a": None, "b": "3"},
    }


@pytest.mark.parametrize("data", [None, [], "x"])
def test_data_of_another_kind_is_none(data: object):
    assert configmap.data({"data": data}) == {}


def test_values_that_are_no_text_are_left_out():
    assert configmap.data({"data": {"a": 1, "b": "2"}}) == {"b": "2"}


@pytest.mark.parametrize("config_map", [{}, {"metadata": None}, {"metadata": {"labels": None}}])
def test_a_config_map_without_the_label_is_refused(config_map: dict[str, Any]):
    outcome = configmap.refused(config_map)
    assert outcome is not None
    assert outcome.reason is Reason.NOT_A_CACHE


def test_an_immutable_cache_is_refused_but_is_one():
    immutable = {**CACHE, "immutable": True}
    assert configmap.not_a_cache(immutable) is None
    assert configmap.refused(immutable) is not None


@pytest.mark.parametrize(
    ("status", "causes", "message", "too_large"),
    [
        (413, set(), "", True),
        (422, {"FieldValueTooLong"}, "", True),
        (422, {"FieldValueInvalid"}, "", False),
        (422, set(), "etcdserver: request is too large", False),
        (500, set(), "etcdserver: request is too large", True),
        (500, set(), "rpc error: desc = trying to send message larger than max (2 vs. 1)", True),
        (500, set(), "etcdserver: request timed out", False),
        (409, {"FieldValueTooLong"}, "", False),
    ],
)
def test_answers_that_say_that_it_is_too_large(status: int, causes: set[str], message: str, too_large: bool):
    assert configmap.too_large(status, causes, message) is too_large


def test_a_size_is_counted_in_utf8():
    assert configmap.size("aé") == 3
    assert configmap.too_large_for("x" * MOST_BYTES) is None
    assert configmap.too_large_for("é" * MOST_BYTES) is not None


def test_an_entry_larger_than_the_limit_is_told_with_both():
    outcome = configmap.too_large_for("é" * 600, 1000)
    assert outcome is not None
    assert outcome.reason is Reason.CACHE_FULL
    assert "1200 bytes does not fit into the 1000 that" in outcome.detail


@pytest.mark.parametrize(
    ("binary", "expected"), [({}, 0), ({"binaryData": {"a": "AAAA", "b": "AAAA"}}, 6), ({"binaryData": 1}, 0)]
)
def test_binary_data_counts_as_bytes(binary: dict[str, Any], expected: int):
    assert configmap.binary_bytes({**CACHE, **binary}) == expected


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (413, "", True),
        (500, "etcdserver: request is too large", True),
        (500, "etcdserver: request timed out", False),
        (422, "Too long", False),
    ],
)
def test_an_object_that_is_too_large_is_told_from_values_that_are(status: int, message: str, expected: bool):
    assert configmap.object_too_large(status, message) is expected
