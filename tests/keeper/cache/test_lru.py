import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.cache.lru import KEPT_SECONDS, Answer, DataCache, size_of
from memoize.outcome import Outcome
from memoize.reasons import Reason

A, B, C = ("work", "a"), ("work", "b"), ("work", "c")
OTHER, THIRD = ("other", "a"), ("third", "a")
ROOM = 20_000
"""Bytes, of which one namespace has room for two like `data`."""


def data(text: str) -> dict[str, str]:
    return {"key": text * 3000}


def test_what_was_read_is_given_with_its_version() -> None:
    kept = DataCache(ROOM)
    assert kept.get(A) is None
    assert kept.version(A) is None
    kept.put(A, "1", data("a"))
    assert (kept.get(A), kept.version(A)) == (data("a"), "1")
    kept.put(A, "2", data("b"))
    assert (kept.get(A), kept.version(A)) == (data("b"), "2")
    kept.drop(A)
    assert kept.get(A) is None


def test_nothing_is_kept_for_longer_than_some_minutes_however_often_it_is_used() -> None:
    now = [0.0]
    kept = DataCache(ROOM, lambda: now[0])
    kept.put(A, "1", data("a"))
    for _ in range(3):
        now[0] += KEPT_SECONDS / 3 - 1
        assert kept.get(A)
    now[0] += 3
    assert kept.get(A) is None
    assert kept.bytes == 0


def test_that_there_is_nothing_and_that_it_is_no_cache_are_kept_as_well() -> None:
    kept = DataCache(ROOM)
    refused = Outcome(Reason.NOT_A_CACHE)
    kept.put(A, "", {})
    kept.put(B, "", refused)
    assert (kept.get(A), kept.version(A)) == ({}, "")
    assert kept.get(B) == refused


def test_what_a_namespace_used_least_lately_goes_first() -> None:
    kept = DataCache(ROOM)
    kept.put(A, "1", data("a"))
    kept.put(B, "1", data("b"))
    kept.get(A)
    kept.put(C, "1", data("c"))
    assert kept.get(A)
    assert kept.get(B) is None
    assert kept.get(C)


def test_a_namespace_has_half_of_the_room_at_most_and_takes_nobodys_place() -> None:
    kept = DataCache(ROOM)
    kept.put(OTHER, "1", data("o"))
    for number in range(100):
        kept.put(("work", str(number)), "1", data("w"))
    assert kept.get(OTHER)
    assert len(kept.caches("work")) == 2


def test_where_there_is_no_room_who_has_most_gives_up() -> None:
    kept = DataCache(ROOM)
    kept.put(OTHER, "1", data("o"))
    kept.put(A, "1", data("a"))
    kept.put(B, "1", data("b"))
    for number in range(3):
        kept.put((f"small-{number}", "a"), "1", {"key": "x" * 2000})
    assert kept.caches("work") == [B]
    assert kept.get(OTHER)
    assert all(kept.get((f"small-{number}", "a")) for number in range(3))


def test_what_is_larger_than_a_namespaces_share_is_not_kept_and_takes_nobodys_place() -> None:
    kept = DataCache(ROOM)
    kept.put(A, "1", data("a"))
    kept.put(B, "1", {"key": "b" * ROOM})
    assert kept.get(A)
    assert kept.get(B) is None


def test_those_that_are_kept_can_be_told_by_namespace() -> None:
    kept = DataCache(ROOM)
    for cache in (A, OTHER, B):
        kept.put(cache, "1", {})
    assert kept.caches("work") == [A, B]
    assert kept.caches("nobody") == []
    assert sorted(kept.caches("")) == sorted([A, B, OTHER])


@pytest.mark.parametrize("answer", [{f"key-{n}": "x" * 20 for n in range(1000)}, {"key": "€" * 20_000}])
def test_many_small_entries_and_wide_letters_count_what_they_take(answer: Answer) -> None:
    assert not isinstance(answer, Outcome)
    assert size_of(answer) > 1.9 * sum(len(key) + len(text) for key, text in answer.items())


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C, OTHER, THIRD]), st.integers(0, ROOM), st.booleans())),
)
def test_bytes_are_counted_right_and_bounded(steps: list[tuple[tuple[str, str], int, bool]]) -> None:
    kept = DataCache(ROOM)
    for cache, size, drop in steps:
        if drop:
            kept.drop(cache)
        else:
            kept.put(cache, "1", {"key": "x" * size})
        for namespace in ("work", "other", "third"):
            held = [kept.get(one) for one in kept.caches(namespace)]
            assert sum(size_of(one) for one in held if one is not None) <= ROOM // 2
        held = [kept.get(one) for one in kept.caches("")]
        assert sum(size_of(one) for one in held if one is not None) == kept.bytes <= ROOM
    for cache in kept.caches(""):
        kept.drop(cache)
    assert kept.bytes == 0
