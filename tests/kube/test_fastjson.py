import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube import fastjson
from tests.recordedpods import PODS

NUMBERS = st.integers() | st.floats() | st.integers(min_value=1 << 60, max_value=1 << 70)
TEXTS = st.text() | st.text(st.characters(categories=["Cs", "Cc", "L"]))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


def same(text: bytes) -> None:
    """Both read it to the same, or refuse it in the same way."""
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError) as error:
        with pytest.raises(type(error)):
            fastjson.loads(text)
    else:
        assert shown(fastjson.loads(text)) == shown(expected)


def shown(value: Any) -> str:
    """With the types of numbers, the order of names, and NaN as itself."""
    return repr(value)


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_whatever_json_writes_is_read_as_json_reads_it(
    document: object, ascii_only: bool, indent: int | None
) -> None:
    same(json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode(errors="surrogatepass"))


@given(DOCUMENTS, st.data())
def test_whatever_becomes_of_a_text_on_the_way_is_read_or_refused_as_json_does(
    document: object, data: st.DataObject
) -> None:
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    at = data.draw(st.integers(0, len(text)))
    same(text[:at] + data.draw(st.binary(max_size=3)) + text[data.draw(st.integers(at, len(text))) :])


@given(st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_every_number_is_the_same_number(text: str) -> None:
    same(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"a": 1, "b": 2, "a": 3}', id="a name twice"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', id="a name twice, written otherwise"),
        pytest.param(b"9007199254740993", id="beyond 2^53"),
        pytest.param(b"18446744073709551616", id="beyond 64 bits"),
        pytest.param(b"-9223372036854775809", id="below 64 bits"),
        pytest.param(b"100000000000000000000", id="a float64 as Go writes it"),
        pytest.param(b"1" * 4000, id="very long"),
        pytest.param(b"1" * 5000, id="longer than Python reads"),
        pytest.param(b"1e400", id="infinite"),
        pytest.param(b"-0", id="minus zero"),
        pytest.param(b"-0.0", id="minus zero, a float"),
        pytest.param(b"NaN", id="no number"),
        pytest.param(b"-Infinity", id="minus infinity"),
        pytest.param(b'"\\ud800"', id="half a pair"),
        pytest.param(b'"\\udc00\\ud800"', id="a pair the wrong way"),
        pytest.param(b'"\\ud83d\\ude00"', id="a pair"),
        pytest.param(b'"\\u0000"', id="NUL"),
        pytest.param(b'"\\/"', id="an escape that need not be"),
        pytest.param(b'"a\x00b"', id="NUL as it is"),
        pytest.param(b'"\xed\xa0\x80"', id="half a pair in UTF-8"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"[" * 100_000, id="deep, without an end"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep"),
        pytest.param(b"[" * 500 + b"]" * 500, id="less deep"),
        pytest.param(b"", id="nothing"),
        pytest.param(b" ", id="a space"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b"[1,]", id="a comma too many"),
        pytest.param(b"01", id="a zero too many"),
        pytest.param(b"'a'", id="other quotes"),
    ],
)
def test_what_readers_differ_in_is_read_as_json_reads_it(text: bytes) -> None:
    same(text)


@pytest.mark.parametrize(
    "path", sorted(PODS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_recorded_pod_comes_back_byte_by_byte(path) -> None:
    text = json.dumps(json.loads(path.read_bytes()), separators=(",", ":"))
    assert json.dumps(fastjson.loads(text.encode()), separators=(",", ":")) == text


class Spec(msgspec.Struct):
    shutdown: Any = None


class Object(msgspec.Struct):
    spec: Spec | None = None


@pytest.mark.parametrize(
    ("text", "shutdown"),
    [
        (
            b'{"status": {"nodes": [1e400, "\\u00e4", {"spec": 1}]}, "spec": {"a": [], "shutdown": "Stop"}}',
            "Stop",
        ),
        (b'{"spec": {"shutdown": 18446744073709551616}}', 1 << 64),
        (b'{"spec": {"shutdown": "a"}, "spec": {"shutdown": "b"}}', "b"),
        (b'{"spec": {}}', None),
    ],
)
def test_of_a_part_the_fields_that_are_named_are_read(text: bytes, shutdown: object) -> None:
    found = fastjson.part(text, Object).spec
    assert found is not None
    assert found.shutdown == shutdown


@pytest.mark.parametrize("text", [b"{}", b'{"spec": null}'])
def test_what_is_not_there_is_none(text: bytes) -> None:
    assert fastjson.part(text, Object).spec is None


@pytest.mark.parametrize("text", [b"", b"[]", b'{"spec": []}', b'{"spec"', b'{"a": ' + b"[" * 100_000])
def test_what_is_of_other_types_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        fastjson.part(text, Object)
