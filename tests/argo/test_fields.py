from typing import Any

import pytest

from argo.fields import FieldError, Kind, Misspelt, cut, misspelt, show


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", '"x"'),
        ("é", '"é"'),
        (["a", {"b": None}], '["a", {"b": null}]'),
        ("x" * 118, f'"{"x" * 118}"'),
        ("x" * 119, f'"{"x" * 118}…'),
        (list(range(100)), f"{str(list(range(100)))[:119]}…"),
    ],
)
def test_a_value_is_shown_as_json_or_as_the_beginning_of_it(value: object, shown: str) -> None:
    assert show(value) == shown


class Endless(list[Any]):
    def __iter__(self) -> Any:
        while True:
            yield 1


def test_no_more_of_a_value_is_read_than_is_shown() -> None:
    assert show(Endless([1])).startswith("[1, 1, 1")


def test_a_proposal_is_made_of_short_words_and_only_where_it_may_be() -> None:
    meant = misspelt("kye", ["key", "cache"])
    error = FieldError("spec.kye", Kind.UNKNOWN, "", meant=meant)
    assert str(error) == "spec.kye: Unknown field: did you mean key?"
    assert str(meant._replace(proposes=False)) == "only key, cache are known here"
    assert str(Misspelt("k" * 41, ("key", "k" * 42))) == f"only key, {'k' * 42} are known here"


def test_of_the_words_there_are_a_few_are_told() -> None:
    assert len(misspelt("x", map(str, range(1_000_000))).known) == 20


def test_a_text_is_cut_where_it_is_too_long() -> None:
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "ab…")
