import asyncio

from kube.rate_limiter import RateLimiter


async def test_a_bucket_lets_a_seconds_worth_through_at_once_and_then_keeps_its_rate() -> None:
    bucket, through = RateLimiter(50), [0]

    async def take() -> None:
        await bucket.take()
        through[0] += 1

    tasks = [asyncio.create_task(take()) for _ in range(60)]
    await asyncio.sleep(0)
    assert 50 <= through[0] <= 51
    await asyncio.gather(*tasks)
