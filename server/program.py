"""What both programs do beside their own work: they stop at SIGTERM or SIGINT."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds until a part that ended by a bug is begun anew."""


def signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by SIGTERM: stop when nobody calls any more. The second too by SIGINT (Ctrl-C): stop now."""
    stop, stop_now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, _set, stop, stop_now)
    return stop, stop_now


def _set(*events: asyncio.Event) -> None:
    for event in events:
        event.set()


async def until_first_ends(*work: Coroutine[Any, Any, object]) -> object:
    """Run all side by side until one ends, and end the others; gives or raises what that one does."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        results = [task.result() for task in done]
        return results[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def again(run: Callable[[], Awaitable[object]]) -> None:
    """Run for ever. A bug in one part is no reason to end the others."""
    while True:
        try:
            await run()
        except Exception:
            _log.exception("a part of the program ended, and is begun anew")
        await asyncio.sleep(_PAUSE)
