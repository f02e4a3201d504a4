"""JSON from somebody else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize import strictjson

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_what_every_reader_understands_is_read(value: object):
    assert strictjson.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'a': 1}",
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        "1e999",
        "-1e999",
        "9223372036854775808",
        "-9223372036854775809",
        "1" * 5000,
        '{"a": 1, "a": 2}',
        '{"x": {"a": 1, "a": 2}}',
        r'"\ud800"',
        r'{"\udfff": 1}',
        r'["\udc00\ud800"]',
        "[" * 65 + "]" * 65,
        '{"a":' * 65 + "1" + "}" * 65,
        "[" * 1_000_000,
        '{"a":' * 1_000_000,
        "\ufeff{}",
    ],
    ids=lambda text: text[:20],
)
def test_what_readers_would_take_differently_is_refused(text: str):
    with pytest.raises(ValueError):
        strictjson.loads(text)


def test_a_whole_surrogate_pair_is_a_character():
    assert strictjson.loads(r'"\ud83d\ude00"') == "😀"


def test_an_error_never_repeats_a_value():
    with pytest.raises(ValueError, match=r"^not JSON at character 11: ") as caught:
        strictjson.loads('{"secret": swordfish}')
    assert "swordfish" not in str(caught.value)


@given(st.text(max_size=30))
def test_nothing_but_a_value_error_comes_out(text: str):
    try:
        strictjson.loads(text)
    except ValueError:
        return
