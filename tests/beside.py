"""Running a part of a program while a block of a test lasts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(*parts: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run these, each of which is to go on for ever, and cancel them at the end of the block.

    What a part raised is raised then; one that has returned fails the test, since it ends its program.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception(), f"it has ended by itself: {task}"
            if not task.cancelled():
                task.result()
