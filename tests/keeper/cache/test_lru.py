from hypothesis import given
from hypothesis import strategies as st

from keeper.cache.lru import DataCache

A, B, C = ("work", "a"), ("work", "b"), ("work", "c")
ROOM_FOR_TWO = 2_000
"""Bytes, with data as below."""


def data(text: str) -> dict[str, str]:
    return {"key": text * 500}


def test_data_are_given_at_their_version_alone() -> None:
    kept = DataCache(10_000)
    kept.put(A, "1", data("a"))
    assert kept.get(A, "1") == data("a")
    assert kept.get(A, "2") is None
    kept.put(A, "2", data("b"))
    assert kept.get(A, "1") is None
    assert kept.get(A, "2") == data("b")
    kept.drop(A)
    assert kept.get(A, "2") is None


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = DataCache(ROOM_FOR_TWO)
    kept.put(A, "1", data("a"))
    kept.put(B, "1", data("b"))
    kept.get(A, "1")
    kept.put(C, "1", data("c"))
    assert kept.get(A, "1")
    assert kept.get(B, "1") is None
    assert kept.get(C, "1")


def test_what_is_larger_than_all_room_is_not_kept_and_takes_nobodys_place() -> None:
    kept = DataCache(ROOM_FOR_TWO)
    kept.put(A, "1", data("a"))
    kept.put(B, "1", {"key": "b" * ROOM_FOR_TWO})
    assert kept.get(A, "1")
    assert kept.get(B, "1") is None


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 3000), st.booleans())))
def test_bytes_are_counted_right(steps: list[tuple[tuple[str, str], int, bool]]) -> None:
    kept = DataCache(ROOM_FOR_TWO)
    for cache, size, drop in steps:
        if drop:
            kept.drop(cache)
        else:
            kept.put(cache, "1", {"key": "x" * size})
    held = [found for cache in (A, B, C) if (found := kept.get(cache, "1")) is not None]
    assert sum(len(found["key"]) for found in held) <= kept.bytes <= ROOM_FOR_TWO
    for cache in (A, B, C):
        kept.drop(cache)
    assert kept.bytes == 0
