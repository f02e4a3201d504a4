import asyncio

from kube.rate_limiter import RateLimiter


async def test_a_bucket_lets_a_seconds_worth_through_at_once_and_then_keeps_its_rate() -> None:
    bucket, through = RateLimiter(64, lambda: 0.0), [0]

    async def take() -> None:
        await bucket.take()
        through[0] += 1

    tasks = [asyncio.create_task(take()) for _ in range(80)]
    await asyncio.sleep(0)
    assert through[0] == 64
    await asyncio.gather(*tasks)


async def test_requests_are_left_while_the_next_one_would_not_wait() -> None:
    now = [0.0]
    bucket = RateLimiter(2, lambda: now[0])
    left = [bucket.has_left]
    for _ in range(2):
        await bucket.take()
        left.append(bucket.has_left)
    now[0] = 0.6
    assert [*left, bucket.has_left] == [True, True, False, True]


async def test_what_is_left_is_taken_by_one_and_never_in_advance() -> None:
    now = [0.0]
    bucket = RateLimiter(2, lambda: now[0])
    assert [bucket.take_if_left() for _ in range(4)] == [True, True, False, False]
    now[0] = 0.5
    assert [bucket.take_if_left() for _ in range(2)] == [True, False]


async def test_no_more_goes_at_once_than_a_burst_however_long_the_rest() -> None:
    now = [100.0]
    bucket = RateLimiter(10, lambda: now[0], burst=3.0)
    assert 30 <= await _at_once(bucket) <= 31
    now[0] += 1.0
    assert 9 <= await _at_once(bucket) <= 10
    now[0] += 1000.0
    assert 30 <= await _at_once(bucket) <= 31


async def _at_once(bucket: RateLimiter) -> int:
    """How many go through until one has to wait."""
    count = 0
    while True:
        taking = asyncio.create_task(bucket.take())
        await asyncio.sleep(0)
        if not taking.done():
            taking.cancel()
            return count
        count += 1
