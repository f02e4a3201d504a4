import asyncio

import pytest

from kube.workqueue import RateLimiter, WorkQueue
from tests.waiting import until


async def test_a_bucket_lets_a_seconds_worth_through_at_once_and_then_keeps_its_rate() -> None:
    bucket, through = RateLimiter(50), [0]

    async def take() -> None:
        await bucket.take()
        through[0] += 1

    tasks = [asyncio.create_task(take()) for _ in range(60)]
    await asyncio.sleep(0)
    assert 50 <= through[0] <= 51
    await asyncio.gather(*tasks)


async def test_a_name_stands_in_the_queue_once() -> None:
    queue = WorkQueue()
    for name in "abab":
        queue.add(name)
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    assert len(queue) == 0


async def test_urgent_names_come_first() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("b", urgent=True)
    assert [await queue.take(), await queue.take()] == ["b", "a"]


async def test_a_name_that_is_worked_on_comes_again_only_after() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.take()
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_of_several_times_for_a_name_the_last_counts() -> None:
    queue = WorkQueue()
    queue.add_later("a", 0.0)
    queue.add_later("a", 60.0)
    queue.add_later("b", 0.001)
    assert await queue.take() == "b"
    assert len(queue) == 0
    queue.cancel("a")


async def test_who_waits_gets_what_comes() -> None:
    queue = WorkQueue()
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    await until(waiting.done)
    assert waiting.result() == "a"
