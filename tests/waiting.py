"""Waiting inside an event loop for what happens in another thread or process."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable


async def until(condition: Callable[[], object], seconds: float = 200) -> None:
    """Return once the condition, or what it awaits, holds; TimeoutError if it does not within the time.

    No test is about these seconds: they are less than pytest gives a test, and enough on a machine that is
    ten times too small for what it does.
    """
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)
