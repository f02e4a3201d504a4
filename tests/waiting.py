"""Waiting for what happens in another thread or process, without keeping it from happening."""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable

SHORTEST = 0.01
"""Seconds from one look to the next …"""
RESTS = 10
"""… and how many times as long as a look takes: one may be several requests, of which the whole suite once
spent a fifth of its time."""


async def until(condition: Callable[[], object], seconds: float = 200) -> None:
    """Return once the condition, or what it awaits, holds; TimeoutError if it does not within the time.

    No test is about these seconds: they are less than pytest gives a test, and enough on a machine that is
    ten times too small for what it does.
    """
    async with asyncio.timeout(seconds):
        while True:
            began = time.monotonic()
            found = condition()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(rest(began))


def rest(began: float) -> float:
    """Seconds to wait after a look that was begun then."""
    return max(SHORTEST, RESTS * (time.monotonic() - began))
