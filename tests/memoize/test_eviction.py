import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize.configmap import object_bytes, size
from memoize.entry import BrokenEntry, Entry
from memoize.eviction import FREE_SHARE, MOST_SHARE, Cause, Policy, make_room, to_collect

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOTHING = timedelta()


def at(minutes: float) -> str:
    """So many minutes ago."""
    return (NOW - minutes * MINUTE).strftime("%Y-%m-%dT%H:%M:%SZ")


def entry(created: float, hit: float | None = None, max_age: str = "", bytes: int = 300, **more: Any) -> str:
    """An entry of so many bytes; times in minutes ago."""
    fields = {
        "nodeID": "n",
        "outputs": {"result": ""},
        "creationTimestamp": at(created),
        "lastHitTimestamp": at(created if hit is None else hit),
        "stepmemo": {"maxAge": max_age, "pod": "p"},
        **more,
    }
    return filled(fields, bytes)


def filled(fields: dict[str, Any], bytes: int) -> str:
    text = json.dumps(fields)
    assert len(text) <= bytes
    return text + " " * (bytes - len(text))


BROKEN = {
    "no JSON": "{" + " " * 299,
    "no object": "[]" + " " * 298,
    "no node": filled({"nodeID": "", "creationTimestamp": at(900), "lastHitTimestamp": at(900)}, 300),
    "no time": filled({"nodeID": "n", "creationTimestamp": "long ago"}, 300),
    "outputs of no type of Argo's": entry(900, outputs={"parameters": "x"}),
    "nested deep": "[" * 100_000,
}


def evicted(present: dict[str, str], bytes: int = 300, limit: int = 1200, **more: Any) -> dict[str, str]:
    """By data key why an entry went, so that one of so many bytes finds room."""
    room = make_room(present, {"new": entry(0, bytes=bytes)}, NOW, limit, **more)
    return {one.data_key: one.cause.value for one in room.evicted}


FULL = {"a": entry(50), "b": entry(40), "c": entry(30), "d": entry(20)}

CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing, where there is room": ({"a": entry(50), "b": entry(40), "c": entry(30)}, {}),
    "the oldest, where none was hit, and one more": (FULL, {"a": "unused", "b": "unused"}),
    "not one that was hit since": ({**FULL, "a": entry(50, hit=5)}, {"b": "unused", "c": "unused"}),
    "what has expired by its own word first": (
        {**FULL, "c": entry(30, hit=2, max_age="10m")},
        {"c": "expired", "a": "unused"},
    ),
    "nothing whose age cannot be read, out of turn": (
        {**FULL, "c": entry(30, max_age="ten")},
        {"a": "unused", "b": "unused"},
    ),
    "not the newest, though it was not hit and others were": (
        {"a": entry(50, 2), "b": entry(40, 3), "c": entry(30, 2), "d": entry(20)},
        {"b": "unused", "a": "unused"},
    ),
    "of recent ones the oldest": (
        {"a": entry(0.5), "b": entry(0.4), "c": entry(0.3), "d": entry(0.2)},
        {"a": "unused", "b": "unused"},
    ),
    "one from the time to come as if it were used now": (
        {**FULL, "a": entry(-1000)},
        {"b": "unused", "c": "unused"},
    ),
}


@pytest.mark.parametrize(("present", "expected"), CASES.values(), ids=CASES)
def test_goes(present: dict[str, str], expected: dict[str, str]):
    assert evicted(present) == expected


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_entry_takes_room_and_stays(text: str):
    limit = 900 + len(text)
    gone = evicted({"x": text, "a": entry(50), "b": entry(40), "c": entry(30)}, limit=limit).keys()
    assert {"a"} <= gone <= {"a", "b"}
    assert to_collect({"x": text, "new": entry(0)}, NOW, Policy(MINUTE, 1)) == []


def test_what_is_waited_for_stays():
    assert evicted(FULL, keep={"a"}).keys() == {"b", "c"}
    assert evicted(FULL, keep=FULL.keys()) == {}
    assert "a" not in {one.data_key for one in to_collect(FULL, NOW, Policy(MINUTE), keep={"a"})}


def test_the_newest_goes_only_where_nothing_else_makes_room():
    assert evicted(FULL, bytes=1200).keys() == FULL.keys()
    assert "d" not in evicted(FULL, bytes=900)


def test_what_cannot_go_does_not_make_all_others_go():
    present = {f"k{number}": entry(100 + number) for number in range(20)}
    room = make_room({**present, "x": "y" * 100_000}, {"new": entry(0)}, NOW, 106_000)
    assert {one.data_key for one in room.evicted} == {"k19", "k18", "k17", "k16"}


def test_nothing_goes_in_vain():
    room = make_room({**FULL, "x": BROKEN["no JSON"]}, {"new": entry(0, bytes=1201)}, NOW, 1500)
    assert room.evicted == []
    assert not room.fitting


def test_what_finds_no_room_does_not_keep_others_out():
    entries = {"large": entry(0, bytes=1300), "small": entry(0)}
    room = make_room(FULL, entries, NOW, 1200)
    assert room.fitting == {"small": entries["small"]}


def test_what_adds_least_comes_first():
    present = {"fill": "x" * 990, "old": "x" * 5}
    new = {"large": "x" * 11, "b": "x" * 6, "a": "x" * 4, "old": "x"}
    assert make_room(present, new, NOW, 1000).fitting.keys() == {"a", "old"}


def test_an_entry_that_takes_its_own_place_needs_what_it_grows_by():
    assert make_room(FULL, {"a": entry(0)}, NOW, 1200) == ({"a": entry(0)}, [])
    room = make_room(FULL, {"a": entry(0, bytes=301)}, NOW, 1200)
    assert room.fitting
    assert [one.data_key for one in room.evicted] == ["b"]


def test_values_that_are_no_data_count():
    assert evicted({"a": entry(50)}, other_bytes=600).keys() == set()
    assert evicted({"a": entry(50)}, other_bytes=601).keys() == {"a"}


def test_data_keys_count_where_the_object_would_be_too_large():
    long = {f"{'k' * 250}{number}": entry(100 + number) for number in range(3)}
    weight = sum(object_bytes(*item) for item in long.items())
    assert evicted(long, object_limit=weight).keys() == {"k" * 250 + "2"}


def test_the_key_of_what_is_written_counts_in_the_object_and_what_is_no_data_does():
    weight = sum(object_bytes(*item) for item in {**FULL, "new": entry(0)}.items())
    for other in (0, 600):
        fits = {"limit": 10_000, "other_bytes": other, "object_limit": weight + other}
        assert evicted(FULL, **fits) == {}
        assert "a" in evicted(FULL, **{**fits, "object_limit": weight + other - 1})


GONE: dict[str, tuple[dict[str, str], Policy, dict[str, str]]] = {
    "nothing, where nothing is asked for": (FULL, Policy(), {}),
    "what has expired": ({**FULL, "b": entry(40, max_age="5m")}, Policy(), {"b": "expired"}),
    "what was not used": ({**FULL, "a": entry(50, 5)}, Policy(35 * MINUTE), {"b": "unused"}),
    "what is too much": (FULL, Policy(limit=1000), {"a": "unused"}),
    "no more than a share": (FULL, Policy(MINUTE, 100), {"a": "unused"}),
    "never the newest": ({"a": entry(50, max_age="1m")}, Policy(MINUTE, 1), {}),
    "nothing that tells no time": (
        {
            "a": entry(0, creationTimestamp=None, lastHitTimestamp=None),
            **{one: FULL[one] for one in "bcd"},
        },
        Policy(45 * MINUTE),
        {},
    ),
}


@pytest.mark.parametrize(("data", "policy", "expected"), GONE.values(), ids=GONE)
def test_a_clean_up_removes(data: dict[str, str], policy: Policy, expected: dict[str, str]):
    assert {one.data_key: one.cause.value for one in to_collect(data, NOW, policy)} == expected


def test_a_clean_up_counts_values_that_are_no_data():
    for other, expected in ((300, []), (301, ["a"])):
        removed = to_collect(FULL, NOW, Policy(limit=1500), other_bytes=other)
        assert [one.data_key for one in removed] == expected


def test_clean_ups_in_a_row_come_to_an_end():
    data = {f"k{number}": entry(100 + number) for number in range(100)}
    for _ in range(25):
        removed = to_collect(data, NOW, Policy(50 * MINUTE))
        assert len(removed) <= max(1, len(data) // MOST_SHARE)
        for one in removed:
            del data[one.data_key]
    assert data.keys() == {"k0"}


ages = st.floats(-60, 10_000)
entries = st.builds(
    entry,
    ages,
    st.none() | ages,
    st.sampled_from(["", "1m", "24h", "soon"]),
    st.integers(300, 900),
)
texts = entries | st.sampled_from([BROKEN[name] for name in BROKEN if name != "nested deep"]) | st.text()
data = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), texts, max_size=30)
names = st.sets(st.text("abcdefgh", max_size=2))
some = st.dictionaries(st.text("abcdefghxyz", min_size=1, max_size=4), entries, min_size=1, max_size=5)


def is_entry(text: str) -> bool:
    try:
        Entry.parse(text)
    except BrokenEntry:
        return False
    return True


def total(values: dict[str, str]) -> int:
    return sum(map(size, values.values()))


@given(data, some, st.integers(300, 20_000), st.integers(0, 500), names)
def test_of_any_cache(
    present: dict[str, str], new: dict[str, str], limit: int, other: int, keep: set[str]
) -> None:
    object_limit = limit + 2000
    room = make_room(
        present, new, NOW, limit, object_limit=object_limit, other_bytes=other, keep=keep, settled=MINUTE
    )
    gone = {one.data_key for one in room.evicted}
    after = {key: text for key, text in present.items() if key not in gone} | dict(room.fitting)
    # Only entries go; never what is written, nor what is waited for.
    assert all(is_entry(present[key]) for key in gone)
    assert not gone & (new.keys() | keep)
    assert len(gone) == len(room.evicted)
    assert all(one.bytes == size(present[one.data_key]) for one in room.evicted)
    # What is written fits, and nothing goes for nothing.
    if room.fitting and total(after) + other > limit:
        assert total(after) <= total(present)
    assert room.fitting or not gone
    # What does not find room would not without all that may go.
    left = {key: text for key, text in present.items() if key in keep or not is_entry(text)}
    for key in new.keys() - room.fitting.keys():
        beside = total({k: t for k, t in {**left, **room.fitting}.items() if k != key})
        weight = sum(object_bytes(*item) for item in {**left, **room.fitting, key: new[key]}.items())
        others = {k: present[k] for k in new.keys() & present.keys() if k != key and k not in room.fitting}
        assert (
            beside + total(others) + other + size(new[key]) > limit
            or weight + other + sum(object_bytes(*item) for item in others.items()) > object_limit
        )


@given(data, st.none() | st.integers(0, 1000), st.integers(300, 20_000), names)
def test_of_any_clean_up(present: dict[str, str], minutes: int | None, limit: int, keep: set[str]) -> None:
    policy = Policy(None if minutes is None else minutes * MINUTE, limit)
    removed = to_collect(present, NOW, policy, keep=keep)
    gone = {one.data_key for one in removed}
    assert all(is_entry(present[key]) for key in gone)
    assert not gone & keep
    assert len(gone) <= max(1, len(present) // MOST_SHARE)
    created = {key: Entry.parse(text).created for key, text in present.items() if is_entry(text)}
    if created:
        last = max(one for one in created.values() if one)
        assert any(created[key] == last for key in created.keys() - gone)
    for one in removed:
        if one.cause is Cause.EXPIRED:
            assert Entry.parse(present[one.data_key]).expired(NOW)


@given(st.integers(1, 60))
def test_what_is_written_after_room_was_made_finds_some(number: int):
    limit = 300 * 60
    present = {f"k{i}": entry(100 + i) for i in range(60)}
    room = make_room(present, {f"new{i}": entry(0) for i in range(number)}, NOW, limit)
    left = 60 - len(room.evicted) + len(room.fitting)
    assert len(room.fitting) == number
    assert left * 300 <= max(limit - limit // FREE_SHARE, number * 300 + 300)
