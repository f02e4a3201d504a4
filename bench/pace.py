"""Work that is done again and again: so many times a second, or so many at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def at_rate(rate: float, count: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Begin the work so many times a second whether or not earlier ones have ended; wait for all of them."""
    began = time.perf_counter()
    tasks = []
    for number in range(count):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        tasks.append(asyncio.ensure_future(work(number)))
    await asyncio.gather(*tasks)


async def side_by_side(count: int, most: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Do the work so many times, at most `most` at once."""
    numbers = iter(range(count))

    async def again_and_again() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(again_and_again() for _ in range(most)))
