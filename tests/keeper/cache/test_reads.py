import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from keeper.cache.lru import Answer, size_of
from keeper.cache.reads import AT_ONCE, AT_ONCE_OF_ONE, BYTES_PER_SECOND, Reads
from keeper.store import Cache
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.waiting import until

A, B, OTHER = ("work", "a"), ("work", "b"), ("other", "a")
LARGE = {"key": "x" * BYTES_PER_SECOND}
"""What a namespace may read in a second."""


class Api:
    """Answers reads as it is told: with `answers`, else nothing; while `open` is not set it leaves them
    waiting."""

    def __init__(self) -> None:
        self.answers: dict[Cache, tuple[str, Answer]] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[Cache] = []
        self.kept: list[tuple[Cache, str, Answer]] = []
        self.left: list[tuple[Cache, Answer]] = []
        self.now = 1000.0
        self.slept: list[float] = []
        self.reads = Reads(
            self.fetch,
            lambda *what: self.kept.append(what),
            lambda *what: self.left.append(what),
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    async def fetch(self, cache: Cache) -> tuple[str, Answer]:
        self.asked.append(cache)
        answer = self.answers.get(cache, ("", {}))
        await self.open.wait()
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def asking(api: Api, *caches: Cache) -> AsyncIterator[list["asyncio.Task[Answer]"]]:
    """All of them at once; ends when they are answered."""
    tasks = [asyncio.ensure_future(api.reads.get(cache)) for cache in caches]
    yield tasks
    api.open.set()
    await asyncio.gather(*tasks)


@pytest.fixture
async def api() -> Api:
    return Api()


async def test_those_who_ask_at_the_same_time_share_a_read(api: Api) -> None:
    api.open.clear()
    api.answers[A] = ("1", {"k": "v"})
    async with asking(api, A, A, A) as tasks:
        await until(lambda: api.asked)
        tasks.append(asyncio.ensure_future(api.reads.get(A)))
        await asyncio.sleep(0)
    assert {str(task.result()) for task in tasks} == {"{'k': 'v'}"}
    assert api.asked == [A]
    assert api.kept == [(A, "1", {"k": "v"})]


async def test_who_asks_after_an_event_waits_for_the_next_read_and_there_is_one_at_a_time(api: Api) -> None:
    api.open.clear()
    api.answers[A] = ("1", {"k": "old"})
    async with asking(api, A) as tasks:
        await until(lambda: api.asked)
        for version in "23":
            api.reads.on_event(A, version)
            api.answers[A] = (version, {"k": version})
            tasks += [asyncio.ensure_future(api.reads.get(A)) for _ in range(3)]
            await asyncio.sleep(0)
        assert api.asked == [A]
    assert [task.result() for task in tasks] == [{"k": "old"}] + [{"k": "3"}] * 6
    assert api.asked == [A, A]
    assert api.kept == [(A, "3", {"k": "3"})]


async def test_what_is_heard_of_while_the_second_read_is_under_way_is_not_lost_with_the_first(
    api: Api,
) -> None:
    api.open.clear()
    first = asyncio.ensure_future(api.reads.get(A))
    await until(lambda: api.asked)
    api.reads.on_event(A, "1")
    api.answers[A] = ("1", {"k": "1"})
    second = asyncio.ensure_future(api.reads.get(A))
    await asyncio.sleep(0)
    api.open.set()
    api.open.clear()
    await first
    await until(lambda: api.asked == [A, A])
    api.reads.on_event(A, "2")
    api.open.set()
    await second
    assert api.kept == []


async def test_an_answer_is_kept_unless_something_newer_was_heard_of(api: Api) -> None:
    for told, kept in ((["1"], True), (["1", "2"], False), (["2", "1"], True), ([""], False), ([], True)):
        api.open.clear()
        api.kept.clear()
        api.answers[A] = ("1", {})
        api.asked.clear()
        async with asking(api, A):
            await until(lambda: api.asked)
            for version in told:
                api.reads.on_event(A, version)
            api.reads.on_event(B, "7")
        assert bool(api.kept) == kept, told


async def test_what_is_read_while_a_list_begins_is_not_kept(api: Api) -> None:
    api.open.clear()
    async with asking(api, A):
        await until(lambda: api.asked)
        api.reads.on_list()
    assert api.kept == []


async def test_a_namespace_reads_so_many_bytes_a_second_and_others_do_not_wait_for_it(api: Api) -> None:
    for number in range(5):
        api.answers["work", str(number)] = ("1", LARGE)
        await api.reads.get(("work", str(number)))
    seconds = size_of(LARGE) / BYTES_PER_SECOND
    assert api.now - 1000 == pytest.approx(3 * seconds, rel=0.01), "the first two are the burst"
    before, slept = api.now, len(api.slept)
    for number in range(100):
        api.answers[f"other-{number}", "a"] = ("1", {"k": "small"})
        await api.reads.get((f"other-{number}", "a"))
    assert (api.now, len(api.slept)) == (before, slept)


async def test_small_reads_of_a_namespace_that_rested_wait_for_nothing(api: Api) -> None:
    api.answers[A] = ("1", LARGE)
    for _ in range(3):
        await api.reads.get(A)
    api.now += 10
    api.slept.clear()
    for _ in range(1000):
        await api.reads.get(B)
    assert api.slept == []


async def test_reads_under_way_are_bounded_for_one_namespace_and_for_all(api: Api) -> None:
    api.open.clear()
    mine = [("work", str(number)) for number in range(10)]
    others = [(f"other-{number}", "a") for number in range(20)]
    async with asking(api, *mine):
        await until(lambda: len(api.asked) == AT_ONCE_OF_ONE)
        async with asking(api, *others):
            await until(lambda: len(api.asked) == AT_ONCE)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(api.asked) == AT_ONCE
            assert sum(cache in mine for cache in api.asked) == AT_ONCE_OF_ONE
    assert sorted(api.asked) == sorted([*mine, *others])


async def test_who_has_no_patience_is_told_that_it_is_not_known_and_the_read_goes_on(api: Api) -> None:
    api.open.clear()
    api.answers[A] = ("1", {"k": "v"})
    found = await api.reads.get(A, 0.01)
    assert isinstance(found, Outcome)
    assert found.reason is Reason.RATE_LIMITED
    later = asyncio.ensure_future(api.reads.get(A, 60))
    api.open.set()
    assert await later == {"k": "v"}
    assert api.asked == [A]
    assert api.left == [(A, {"k": "v"})]
    await api.reads.get(B, 60)
    assert len(api.left) == 1


async def test_who_hangs_up_does_not_end_the_read_that_others_wait_for(api: Api) -> None:
    api.open.clear()
    async with asking(api, A) as tasks:
        first = asyncio.ensure_future(api.reads.get(A))
        await until(lambda: api.asked)
        first.cancel()
        await asyncio.wait([first])
    assert tasks[0].result() == {}


async def test_when_it_is_closed_nothing_is_under_way_any_more(api: Api) -> None:
    api.open.clear()
    tasks = [asyncio.ensure_future(api.reads.get(cache)) for cache in (A, A, B, OTHER)]
    await until(lambda: len(api.asked) == 3)
    await api.reads.close()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_namespaces_that_rest_are_forgotten(api: Api) -> None:
    for number in range(1_000):
        await api.reads.get((f"n-{number}", "a"))
        api.now += 1
    assert len(api.reads._due) < 300
