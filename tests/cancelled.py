"""Cancelling what waits for an answer, in the same turn of the loop in which its time is over."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest


async def cancelled_as_it_runs_out_of_time(
    call: Coroutine[Any, Any, object], asked: asyncio.Event, seconds: float
) -> None:
    """Fail unless the call ends with the cancellation. `asked` is set once its request, of which it waits
    for so many seconds, has arrived.

    As when a program is told to stop while who is asked is slow: what goes on regardless ends never.
    """
    task, arrived = asyncio.ensure_future(call), asyncio.ensure_future(asked.wait())
    await asyncio.wait({task, arrived}, return_when=asyncio.FIRST_COMPLETED)
    if not arrived.done():
        arrived.cancel()
        raise AssertionError(f"it ended before its request arrived: {await task}")
    loop = asyncio.get_running_loop()
    now = loop.time
    # Later than the request's own time-out, which began before; the loop's clock then is past both.
    loop.call_later(seconds, task.cancel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now() + 2 * seconds)
        with pytest.raises(asyncio.CancelledError):
            await task
