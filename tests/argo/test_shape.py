"""The types of Argo's Outputs: every field, and what it does not take."""

from collections.abc import Iterator
from typing import Any

import pytest

from argo.artifacts import DRIVERS
from argo.shape import OUTPUTS, ShapeError, check
from memoize.outputs import BrokenOutputsError, sound

WRONG: dict[Any, tuple[object, ...]] = {
    str: (1, 1.5, True, {}, []),
    bool: ("true", 0, 1, {}, []),
    "integer": ("1", 1.0, True, {}, [], 1 << 64, -(1 << 64)),
    "object": ("x", 1, True, []),
    "list": ("x", 1, True, {}),
}
RIGHT = {str: "x", bool: True, "integer": 1, "object": {}, "list": []}


def fields(shape: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every path below a shape and what is there; `[]` is the item of a list."""
    kind = {dict: "object", list: "list", range: "integer"}.get(type(shape), shape)
    yield path, kind
    if kind == "object":
        for name, inner in shape.items():
            yield from fields(inner, *path, name)
    elif kind == "list":
        for inner in shape:
            yield from fields(inner, *path, "[]")


FIELDS = dict(fields(OUTPUTS))


def outputs(path: tuple[str, ...], value: object) -> Any:
    """Outputs with nothing but a value at a path."""
    for name in reversed(path):
        value = [value] if name == "[]" else {name: value}
    return value


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_field_takes_its_type_and_null_and_no_other(path: tuple[str, ...]):
    for value in (RIGHT[FIELDS[path]], None):
        check(outputs(path, value), OUTPUTS, "outputs")
    for value in WRONG[FIELDS[path]]:
        with pytest.raises(ShapeError) as caught:
            check(outputs(path, value), OUTPUTS, "outputs")
        assert str(caught.value).startswith("outputs" + "".join(f".{n}" for n in path).replace(".[]", "[0]"))


def test_the_locations_are_those_of_every_driver():
    (artifact,) = OUTPUTS["artifacts"]
    assert all(isinstance(artifact[driver], dict) for driver in DRIVERS)


@pytest.mark.parametrize(
    "value",
    [{"new": 1}, {"parameters": [{"name": "a", "new": []}]}, {"artifacts": [{"name": "a", "new": 1}]}],
)
def test_a_field_that_we_do_not_know_may_be_of_any_type(value: dict[str, Any]):
    assert sound(value) == value


def test_an_error_names_neither_a_value_nor_a_label():
    with pytest.raises(BrokenOutputsError) as caught:
        sound({"artifacts": [{"name": "a", "artifactGC": {"podMetadata": {"labels": {"swordfish": 7}}}}]})
    assert str(caught.value) == "outputs.artifacts[0].artifactGC.podMetadata.labels.* is not a string"
