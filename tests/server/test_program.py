import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from kube.errors import Forbidden
from server import program
from server.program import again, exit_code, spare_the_collector, until_first_ends
from server.settings import SettingsError


def ending(error: BaseException | None) -> Callable[[], None]:
    def serve() -> None:
        if error is not None:
            raise error

    return serve


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (SettingsError(["--a must be b", "--c too"]), 2, "error: --a must be b\nerror: --c too\n"),
        (OSError("no such address"), 1, "error: cannot serve: no such address\n"),
        (TimeoutError("no answer"), 1, "error: cannot serve: no answer\n"),
        (Forbidden("403 leases", status=403), 1, "error: cannot serve: 403 leases\n"),
    ],
    ids=["a signal", "settings", "no socket", "no answer", "an API server"],
)
def test_how_a_program_ends_is_said(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, code: int, said: str
) -> None:
    assert exit_code(ending(error)) == code
    assert capsys.readouterr().err == said


async def test_a_part_that_fails_while_it_is_ended_is_not_begun_anew() -> None:
    """A TaskGroup of Python 3.11 raises what its tasks raise then, and not that it was cancelled."""
    begun = asyncio.Event()

    async def part() -> None:
        async def fails() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionError

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    task = asyncio.create_task(again(part))
    await begun.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    assert done
    with pytest.raises(ExceptionGroup):
        task.result()


@pytest.mark.parametrize("level", [0, 1, 2], ids="in {} more".format)
async def test_a_part_that_lost_its_cancellation_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """As one does where a library's error in some `finally` took the place of the cancellation."""
    monkeypatch.setattr(program, "CANCEL_AGAIN", 0.01)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def part() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    work: Coroutine[Any, Any, object] = part()
    for _ in range(level):
        work = until_first_ends(work)
    async with asyncio.timeout(30):
        await until_first_ends(begun.wait(), work)
    assert ended.is_set()


async def test_a_part_that_ends_at_once_is_cancelled_once() -> None:
    cancelled = 0

    async def part() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        finally:
            task = asyncio.current_task()
            assert task is not None
            cancelled = task.cancelling()

    assert await until_first_ends(asyncio.sleep(0, "what it says"), part()) == "what it says"
    assert cancelled == 1


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        exit_code(ending(KeyError("x")))


@pytest.mark.slow
def test_what_is_there_at_the_start_is_not_looked_at_by_the_collector() -> None:
    gc.unfreeze()
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
