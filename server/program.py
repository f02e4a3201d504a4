"""What both programs do beside their own work: who they are, stop by a signal, and why one cannot serve."""

import asyncio
import gc
import logging
import platform
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import ApiError
from memoize import __version__
from server import settings
from server.logs import fields
from server.settings import SettingsError

_log = logging.getLogger(__name__)

S = TypeVar("S")

_PAUSE = 1.0
"""Seconds until a part that ended by a bug is begun anew."""
CANCEL_AGAIN = 12.0
"""Seconds until parts that were cancelled and have not ended are cancelled once more: longer than a listener
takes to close, and within the Pod's grace period."""


class ProgramError(Exception):
    """Why a program cannot do what it is for, as one line."""


def exit_code(run: Callable[[], object]) -> int:
    """0 once `run` returns, 1 where it cannot (ProgramError, ApiError, OSError), 2 for wrong settings.

    What is wrong is said on standard error.
    """
    try:
        run()
    except SettingsError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ApiError, OSError) as error:
        print(f"error: cannot serve: {error}", file=sys.stderr)
        return 1
    return 0


def run_once(
    declared: type[S],
    work: Callable[[ApiClient, S], Awaitable[object]],
    argv: Sequence[str] | None,
    environ: Mapping[str, str],
    *,
    name: str,
    program: str,
    description: str,
) -> int:
    """Parse the settings, do the work with a connection to the API server, and end: see `exit_code`.

    `argv`: None for that of the process. `name` is for the API server, the two others for --help.
    """

    async def connected(chosen: S) -> None:
        try:
            api = await client.connect(user_agent(name))
        except ApiError as error:
            raise ProgramError(f"no cluster to talk to: {error}") from None
        async with api:
            await work(api, chosen)

    def run() -> None:
        words = sys.argv[1:] if argv is None else argv
        chosen = settings.parse(
            declared, words, environ, lambda _: (), program=program, description=description
        )
        asyncio.run(connected(chosen))

    return exit_code(run)


def user_agent(program: str) -> str:
    """What this program calls itself in its requests to the API server."""
    return f"stepmemo-{program}/{__version__}"


def announce(program: str) -> None:
    """Say in the log which release of it begins."""
    _log.info("begins", extra=fields(program=program, version=__version__, python=platform.python_version()))


def spare_the_collector() -> None:
    """Have full collections pass over all that is there by now, since none of it will ever be garbage.

    One walks all that was imported, some 50 ms in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


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
    """Run all side by side until one ends, and end the others; gives or raises what that one does.

    A part may lose a cancellation: an error in some `finally`, of a library's too, takes its place, and a
    loop that bears errors goes on. It is cancelled once more then, so that the program ends, and not by
    SIGKILL with a Lease that others wait for.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        results = [task.result() for task in done]
        return results[0]
    finally:
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_AGAIN):  # cancels what gather waits for, and waits for it still
                await asyncio.gather(*tasks, return_exceptions=True)


async def again(run: Callable[[], Awaitable[object]]) -> None:
    """Run for ever. A bug in one part is no reason to end the others."""
    while True:
        try:
            await run()
        except Exception:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # a TaskGroup whose tasks fail while it is cancelled tells of these alone (3.11)
            _log.exception("a part of the program ended, and is begun anew")
        await asyncio.sleep(_PAUSE)
