import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from kube.caching import CachedReads, TtlCache

FRESH, FRESH_NOTHING, MOST = 5.0, 1.0, 10


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def served(answer: str | None) -> float:
    return FRESH if answer is not None else FRESH_NOTHING


class Source:
    """Answers `<key> <how many reads so far>`, or nothing for the key "none"."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.cached: CachedReads[str, str | None] = CachedReads(served, most=MOST, clock=clock or Clock())
        self.reads: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def get(self, key: str) -> str | None:
        return await self.cached.get(key, partial(self.read, key))

    def begin(self, key: str) -> None:
        self.cached.begin(key, partial(self.read, key))

    async def read(self, key: str) -> str | None:
        self.reads.append(key)
        await self.open.wait()
        return None if key == "none" else f"{key} {len(self.reads)}"


async def test_an_answer_serves_for_some_seconds_and_is_then_read_anew() -> None:
    clock = Clock()
    source = Source(clock)
    assert await source.get("a") == "a 1"
    clock.now += FRESH - 0.1
    assert await source.get("a") == "a 1"
    clock.now += 0.1
    assert await source.get("a") == "a 2"


async def test_a_failure_is_not_kept_for_long() -> None:
    clock = Clock()
    source = Source(clock)
    assert await source.get("none") is None
    assert await source.get("none") is None
    assert len(source.reads) == 1
    clock.now += FRESH_NOTHING
    assert await source.get("none") is None
    assert len(source.reads) == 2


async def test_equal_questions_at_once_are_asked_once() -> None:
    source = Source()
    source.open.clear()
    asking = [asyncio.create_task(source.get(key)) for key in ("a", "b", "a", "a")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.open.set()
    assert await asyncio.gather(*asking) == ["a 2", "b 2", "a 2", "a 2"]
    assert source.reads == ["a", "b"]


async def test_a_read_that_was_begun_is_the_one_that_is_waited_for() -> None:
    source = Source()
    source.begin("a")
    source.begin("a")
    assert await source.get("a") == "a 1"
    source.begin("a")
    assert await source.get("a") == "a 1"


async def test_one_that_hangs_up_does_not_end_the_read_for_the_others() -> None:
    source = Source()
    source.open.clear()
    first, second = (asyncio.create_task(source.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.open.set()
    assert await second == "a 1"


async def test_a_read_that_breaks_breaks_no_later_one() -> None:
    failures = [RuntimeError("a bug")]

    async def read(key: str) -> str | None:
        if failures:
            raise failures.pop()
        return key

    cached: CachedReads[str, str | None] = CachedReads()
    with pytest.raises(RuntimeError):
        await cached.get("a", partial(read, "a"))
    assert await cached.get("a", partial(read, "a")) == "a"


async def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    source = Source()
    for number in range(MOST + 1):
        await source.get(str(number))
    reads = len(source.reads)
    await source.get(str(MOST))
    assert len(source.reads) == reads
    await source.get("0")
    assert len(source.reads) == reads + 1


async def test_what_serves_for_no_time_is_read_each_time() -> None:
    cached: CachedReads[str, str | None] = CachedReads(clock=Clock())
    source = Source()
    for number in (1, 2):
        assert await cached.get("a", partial(source.read, "a")) == f"a {number}"
        assert cached.known("a") is None
    assert cached.under_way == 0


async def test_whether_a_question_costs_a_read_is_known_before_it_is_asked() -> None:
    source = Source()
    assert not source.cached.is_near("a")
    source.begin("a")
    assert source.cached.is_near("a")
    assert source.cached.under_way == 1
    await source.get("a")
    assert source.cached.is_near("a")
    assert source.cached.under_way == 0


def test_a_value_is_remembered_for_its_time_and_the_oldest_goes_first() -> None:
    clock = Clock()
    values: TtlCache[str, int] = TtlCache(2, clock)
    values.put("a", 1, 10)
    values.put("b", 2, 20)
    values.put("a", 3, 10)
    values.put("c", 4, 20)
    assert [values.get(key) for key in "abc"] == [3, None, 4]
    clock.now += 10
    assert [values.get(key) for key in "abc"] == [None, None, 4]


def test_all_values_are_known_whose_time_is_not_over() -> None:
    clock = Clock()
    cache = TtlCache[str, int](10, clock, group=lambda key: key[0])
    cache.put("a1", 1, 5)
    cache.put("b1", 2, 10)
    cache.put("a2", 3, 10)
    assert sorted(cache.values()) == [1, 2, 3]
    clock.now += 5
    assert sorted(cache.values()) == [2, 3]
