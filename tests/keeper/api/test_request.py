import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.api import request
from keeper.api.errors import ErrorAnswer
from keeper.api.request import Claim
from memoize import configmap
from memoize.entry import Entry
from memoize.key import data_key
from memoize.spec import Memo

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
CLAIM = Claim("ns", "pod", Memo("hello-1", "my-cache", "1h"), "hello-1", "wf-1", "wf", True, True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def sent(**fields: Any) -> bytes:
    made = {
        "nodeID": "wf-1",
        "outputs": {"result": "r"},
        "creationTimestamp": None,
        "lastHitTimestamp": None,
        **fields,
    }
    return json.dumps({"entry": json.dumps(made)}).encode()


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_answered(content: bytes) -> None:
    request.lookup(content, CLAIM)
    assert isinstance(request.entry(content, CLAIM, NOW), ErrorAnswer)


@given(st.text())
def test_any_entry_is_answered(text: str) -> None:
    assert isinstance(request.entry(json.dumps({"entry": text}).encode(), CLAIM, NOW), ErrorAnswer)


@given(st.dictionaries(st.sampled_from(["key", "maxAge", "pod", "workflow"]), st.text(), max_size=4))
def test_nothing_is_taken_that_the_pod_does_not_say(own: dict[str, str]) -> None:
    so = {"key": "hello-1", "maxAge": "1h", "pod": "pod", "workflow": "wf"}
    taken = isinstance(request.entry(sent(stepmemo=own), CLAIM, NOW), str)
    assert taken == all(value in ("", so[name]) for name, value in own.items())


@pytest.mark.parametrize(("field", "said"), [("maxAge", "1h"), ("workflow", "wf")])
def test_nothing_is_taken_where_the_pod_says_nothing(field: str, said: str) -> None:
    silent = CLAIM._replace(memo=Memo("hello-1", "my-cache", ""), workflow="")
    refusal = request.entry(sent(stepmemo={field: said}), silent, NOW)
    assert isinstance(refusal, ErrorAnswer)
    assert refusal.code == 403


def test_fields_that_a_later_version_adds_stay() -> None:
    text = request.entry(sent(stepmemo={"pod": "pod", "later": 1}), CLAIM, NOW)
    assert isinstance(text, str)
    assert Entry.parse(text).own_extra == {"later": 1}


def test_what_is_stored_is_ascii_and_what_an_entry_is() -> None:
    text = request.entry(sent(outputs={"result": "é"}), CLAIM, NOW)
    assert isinstance(text, str)
    assert text.isascii()
    assert Entry.parse(text).created == NOW


def test_an_entry_that_only_grows_too_large_as_it_is_written_is_too_large() -> None:
    made = {"nodeID": "wf-1", "outputs": {"result": "é" * 300_000}}
    content = json.dumps({"entry": json.dumps(made, ensure_ascii=False)}).encode()
    refusal = request.entry(content, CLAIM, NOW)
    assert isinstance(refusal, ErrorAnswer)
    assert refusal.code == 413
    assert configmap.size(json.dumps(made, ensure_ascii=False)) < configmap.MOST_BYTES


def test_a_pod_that_carries_the_digest_alone_says_that_of_its_key() -> None:
    place = data_key("a b")
    claim = CLAIM._replace(memo=Memo("", "my-cache", digest=place), data_key=place)
    assert isinstance(request.entry(sent(stepmemo={"key": place}), claim, NOW), str)
    for other in ("", "a b ", data_key("other")):
        assert isinstance(request.entry(sent(stepmemo={"key": other}), claim, NOW), ErrorAnswer)


def test_a_hashed_key_must_be_said() -> None:
    key = "a b"
    claim = CLAIM._replace(memo=Memo(key, "my-cache"), data_key=data_key(key))
    assert isinstance(request.entry(sent(), claim, NOW), ErrorAnswer)
    assert isinstance(request.entry(sent(stepmemo={"key": key}), claim, NOW), str)
