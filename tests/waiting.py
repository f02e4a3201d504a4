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
PATIENCE = 200.0
"""Seconds for what is no test's subject: less than pytest gives a test, and enough on a machine that is ten
times too small for what it does."""


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once the condition, or what it awaits, holds; TimeoutError if it does not within the time."""
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
