import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.cache.index import Index, creation, fresh
from memoize.entry import BrokenEntry, Entry, Hit, look_up
from memoize.key import data_key
from memoize.outputs import Declared

A, B = ("work", "a"), ("work", "b")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Memo(NamedTuple):
    key: str
    max_age: str = ""

    @property
    def data_key(self) -> str:
        return data_key(self.key)


def text(created: object = "2026-05-04T11:00:00Z", **others: object) -> str:
    return json.dumps({"nodeID": "wf-1", "outputs": {}, "creationTimestamp": created, **others})


def test_entries_are_found_by_cache_and_data_key() -> None:
    index = Index()
    index.put(A, "1", {"k": text("2026-05-04T11:00:00Z")})
    index.put(B, "7", {"k": text("2026-05-04T10:00:00Z"), "l": text(None)})
    assert index.find(A, "k").created == "2026-05-04T11:00:00Z"
    assert index.find(B, "k").created == "2026-05-04T10:00:00Z"
    assert index.find(B, "l").created == ""
    assert index.find(A, "l") is None
    assert index.find(("play", "a"), "k") is None
    assert (index.version(A), index.version(B), index.version(("play", "a"))) == ("1", "7", "")
    assert index.entries == 3
    assert set(index) == {A, B}


def test_a_cache_that_is_put_again_holds_what_it_holds_now() -> None:
    index = Index()
    index.put(A, "1", {"gone": text(), "same": text(), "changed": text("2026-05-04T11:00:00Z")})
    same = index.find(A, "same")
    index.put(A, "2", {"same": text(), "changed": text("2026-05-04T11:00:01Z"), "new": text()})
    assert index.find(A, "gone") is None
    assert index.find(A, "same") is same
    assert index.find(A, "changed").created == "2026-05-04T11:00:01Z"
    assert index.find(A, "new")
    assert (index.version(A), index.entries) == ("2", 3)


def test_a_cache_that_is_dropped_is_gone() -> None:
    index = Index()
    index.put(A, "1", {"k": text()})
    assert set(index.drop(A)) == {"k"}
    assert index.drop(A) == {}
    assert (index.find(A, "k"), index.version(A), index.entries, list(index)) == (None, "", 0, [])


def test_a_list_forgets_what_it_did_not_name() -> None:
    index = Index()
    index.put(A, "1", {"k": text()})
    index.put(B, "1", {"k": text()})
    index.begin()
    index.put(A, "1", {"k": text()})
    index.begin()  # that one broke off
    index.put(B, "2", {"k": text()})
    assert index.find(A, "k"), "until the list is whole, nothing is forgotten"
    assert index.end() == [A]
    assert (list(index), index.entries) == ([B], 1)


def test_beyond_its_limit_an_index_says_that_it_cannot_tell() -> None:
    index = Index(most=2)
    index.put(A, "1", {"k": text()})
    index.put(B, "1", {"k": text(), "l": text()})
    assert index.holds(A)
    assert not index.holds(B)
    assert index.find(B, "k") is None
    assert index.version(B) == "1", "it can be read all the same"
    index.drop(A)
    index.put(B, "2", {"k": text(), "l": text()})
    assert index.holds(B)
    assert index.holds(A), "that it is gone is known"
    assert index.entries == 2


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"nodeID": ""}',
        '{"nodeID": 1}',
        '{"nodeID": NaN}',
        text(1),
        text(""),
        text("yesterday"),
        text("2026-05-04"),
        text("2026-05-04 11:00:00Z"),
        text("0001-01-01T00:00:00+14:00"),
        '{"nodeID": "\\ud800"}',
        "[" * 100_000,
        '{"nodeID":' + "[" * 100_000,
        '{"nodeID":' + "9" * 10_000 + "}",
    ],
)
def test_what_is_no_entry_is_not_there(broken: str) -> None:
    index = Index()
    index.put(A, "1", {"k": broken})
    assert index.find(A, "k") is None
    assert index.entries == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(timezones=st.sampled_from([UTC, datetime.now().astimezone().tzinfo])).map(
    lambda time: time.isoformat().replace("+00:00", "Z")
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "nodeID": st.just("wf-1") | JSON,
        "outputs": st.just({}) | JSON,
        "creationTimestamp": TIMES | JSON,
        "lastHitTimestamp": TIMES | JSON,
        "stepmemo": JSON,
        "other": JSON,
    },
)


@given(ENTRIES.map(json.dumps) | st.text() | JSON.map(json.dumps))
def test_every_entry_that_can_be_read_is_there_with_its_time(written: str) -> None:
    try:
        entry = Entry.parse(written)
    except BrokenEntry:
        return
    created = creation(written)
    assert created is not None
    assert (datetime.fromisoformat(created) if created else None) == entry.created


@given(
    created=st.none() | st.timedeltas(timedelta(days=-2), timedelta(days=2)).map(lambda age: NOW - age),
    max_age=st.sampled_from(["", "0", "-1h", "1ns", "90s", "24h", "1h30m", "2562047h", "soon", "1d"]),
)
def test_it_is_fresh_where_a_look_up_would_hit(created: datetime | None, max_age: str) -> None:
    written = text(created.isoformat() if created else None)
    memo: Any = Memo("k", max_age)
    hit = isinstance(look_up({"k": written}, memo, Declared(), NOW), Hit)
    index = Index()
    index.put(A, "1", {"k": written})
    assert fresh(index.find(A, "k"), max_age, NOW) is hit
