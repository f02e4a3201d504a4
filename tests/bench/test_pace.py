import asyncio
import time

from bench.pace import at_rate


async def test_work_begins_at_its_rate_though_earlier_work_has_not_ended() -> None:
    began: list[float] = []
    over = asyncio.Event()

    async def work(number: int) -> None:
        began.append(time.perf_counter())
        if number == 4:
            over.set()
        await over.wait()

    called = time.perf_counter()
    await at_rate(200, 5, work)
    assert began[-1] - called >= 4 / 200  # the first may be late, and the others are not for that
