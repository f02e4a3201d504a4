import asyncio
import gc

import pytest

from kube.cost import BYTES_OF_A_REQUEST, SECONDS_OF_A_REQUEST, Cost, charge, create_task, metered
from kube.errors import Unavailable


class Clock:
    """Stands still while something is waited for; a second passes whenever somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_a_cost_is_told_in_requests() -> None:
    assert Cost(2, BYTES_OF_A_REQUEST // 2, 3 * SECONDS_OF_A_REQUEST).total == pytest.approx(5.5)


async def test_work_is_charged_for_its_requests_and_for_the_time_in_which_nobody_else_could_work() -> None:
    clock, cost = Clock(), Cost()

    async def elsewhere() -> None:
        clock.work(100)

    async def work() -> str:
        charge(requests=1)
        clock.work(1)
        other = asyncio.create_task(elsewhere())
        await other
        clock.work(2)
        charge(requests=1, bytes=10)
        return "done"

    assert await metered(cost, work(), clock) == "done"
    assert cost == Cost(2, 10, 3)
    charge(requests=1)
    assert cost.requests == 2, "it is over"


@pytest.mark.parametrize("charged", [True, False])
async def test_a_failure_that_nobody_waits_for_any_more_is_no_line_of_the_log(charged: bool) -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    goes_on, ended = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        await goes_on.wait()
        ended.set()
        raise Unavailable("gone")

    async def wait() -> None:
        await asyncio.shield(create_task(read()))

    waiting = asyncio.create_task(metered(Cost(), wait()) if charged else wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del waiting
    goes_on.set()
    await ended.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []


async def test_what_work_begins_is_charged_to_it() -> None:
    cost = Cost()

    async def part() -> int:
        charge(requests=1, bytes=7)
        return 1

    async def work() -> int:
        return await asyncio.shield(create_task(part())) + await create_task(part())

    assert await metered(cost, work()) == 2
    assert (cost.requests, cost.bytes) == (2, 14)
    assert cost.seconds > 0
    assert await create_task(part()) == 1, "nobody is charged"
    assert cost.requests == 2


async def test_errors_and_cancellation_pass_through() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        await metered(Cost(), fails())

    async def hangs() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(metered(Cost(), hangs()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()

    async def times_out() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "told"
        return "not told"

    assert await metered(Cost(), times_out()) == "told"
