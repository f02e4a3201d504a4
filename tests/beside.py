"""Running a part of a program while a block of a test lasts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(*parts: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run these, each of which is to go on for ever, and cancel them at the end of the block.

    What a part raised is raised then; one that has ended by itself fails the test, since it ends its program.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        assert not ended, "a part has ended by itself"
        assert all(task.cancelled() for task in tasks), "a part made something else of being cancelled"
