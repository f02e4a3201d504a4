"""The child process: real processes, and functions of tests/server/in_child.py that run in one."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.child import (
    LEAST,
    OF_ONE,
    QUIET,
    REMEMBERED,
    WAITING,
    Child,
    EndedError,
    FailedError,
    FullError,
    KilledError,
    LateError,
)
from tests.server import in_child
from tests.server.in_child import HOLDS_START
from tests.waiting import until

pytestmark = pytest.mark.slow

HERE = in_child.__name__
LONG = b"60"


@asynccontextmanager
async def child(**changes: Any) -> AsyncIterator[Child]:
    one = Child(HERE, **({"seconds": 30.0, "queue_timeout": 30.0} | changes))
    try:
        yield one
    finally:
        await one.close()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def busy(one: Child, share: str = "") -> "asyncio.Task[bytes]":
    """A task that runs until the process is ended."""
    task = asyncio.create_task(one.call(f"{HERE}:sleep", LONG, share=share))
    await until(lambda: one._limit and one._share == share)
    return task


async def ended(*tasks: "asyncio.Task[bytes]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_function_gets_its_bytes_whole_and_so_does_who_called_it() -> None:
    body = os.urandom(1 << 20) * 7
    async with child() as one:
        assert await one.call(f"{HERE}:backwards", b"head", body) == (b"head" + body)[::-1]
        assert await one.call(f"{HERE}:backwards") == b""


async def test_one_process_serves_many_calls_one_after_the_other() -> None:
    async with child() as one:
        pids = await asyncio.gather(*(one.call(f"{HERE}:number") for _ in range(WAITING)))
        assert set(pids) == {str(one.pid).encode()}


async def test_a_task_that_takes_too_long_is_killed_and_the_next_one_has_a_new_process() -> None:
    async with child(seconds=1.0) as one:
        task = await busy(one)
        first = one.pid
        assert first is not None
        with pytest.raises(KilledError, match="took more than 1 s"):
            await task
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert one.pid is None
    async with child() as one:
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_a_task_that_takes_too_much_memory_meets_a_limit_of_the_process() -> None:
    async with child(memory=256 << 20) as one:
        with pytest.raises(KilledError, match="256 MiB"):
            await one.call(f"{HERE}:take", str(300 << 20).encode())
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_a_process_that_has_grown_goes_after_its_task() -> None:
    async with child(memory=256 << 20) as one:
        before = await one.call(f"{HERE}:number")
        assert await one.call(f"{HERE}:keep", str(140 << 20).encode()) == b"kept"
        assert one.pid is None
        assert await one.call(f"{HERE}:number") != before


async def test_a_process_that_dies_at_its_task_or_between_two_is_followed_by_another() -> None:
    async with child() as one:
        with pytest.raises(EndedError, match="came to an end"):
            await one.call(f"{HERE}:leave")
        pid = int(await one.call(f"{HERE}:number"))
        os.kill(pid, signal.SIGKILL)
        process = one._process
        await until(lambda: process is not None and process.returncode is not None)
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_a_process_that_cannot_be_started_says_nothing_about_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with child() as one:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere")
            with pytest.raises(EndedError):
                await asyncio.gather(*(one.call(f"{HERE}:backwards", b"ab") for _ in range(3)))
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_what_the_function_raises_comes_back_and_the_process_stays() -> None:
    async with child() as one:
        before = await one.call(f"{HERE}:number")
        with pytest.raises(FailedError, match="ZeroDivisionError"):
            await one.call(f"{HERE}:divide")
        with pytest.raises(FailedError, match="KeyError"):
            await one.call("os:system", b"true")
        assert await one.call(f"{HERE}:number") == before


async def test_no_more_wait_than_there_are_places_for_and_some_find_fewer() -> None:
    async with child() as one:
        tasks = [await busy(one)]
        for waiting in range(WAITING):
            if waiting == 2:
                with pytest.raises(FullError):
                    await one.call(f"{HERE}:number", places=2)
            tasks.append(asyncio.create_task(one.call(f"{HERE}:number")))
            await asyncio.sleep(0)
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number")
        await ended(*tasks)
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_nobody_takes_all_places() -> None:
    async with child() as one:
        tasks = [await busy(one, "a")]
        tasks += (asyncio.create_task(one.call(f"{HERE}:number", share="a")) for _ in range(OF_ONE - 1))
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number", share="a")
        tasks.append(asyncio.create_task(one.call(f"{HERE}:number", share="b")))
        await asyncio.sleep(0)
        assert not tasks[-1].done()
        await ended(*tasks)
        assert not one._shares


async def takes(one: Child, clock: Clock, share: str, seconds: float) -> None:
    """A task takes so many seconds, and its process with it."""
    task = await busy(one, share)
    clock.now += seconds
    await ended(task)


async def call(one: Child, done: list[str], share: str, again: bool = False) -> None:
    await one.call(f"{HERE}:number", share=share, again=again)
    done.append(share + "+" * again)


async def order(one: Child, clock: Clock, seconds: float, *waiting: tuple[str, bool]) -> list[str]:
    """The shares of tasks in the order in which they are done, behind one of `a` that takes so many seconds.

    Each is a share, and whether it is for what an earlier task was for.
    """
    done: list[str] = []
    first = await busy(one, "a")
    tasks = [asyncio.create_task(call(one, done, *each)) for each in waiting]
    await until(lambda: len(one._waiting) == len(waiting))
    clock.now += seconds
    await ended(first)
    await all_done(one, clock, *tasks)
    return done


async def all_done(one: Child, clock: Clock, *tasks: "asyncio.Task[None]") -> None:
    """Time passes while none of them may begin."""

    def done() -> bool:
        if one._later and not one._running:
            clock.now += QUIET
        return all(task.done() for task in tasks)

    await until(done)


A, AGAIN, B = ("a", False), ("a", True), ("b", False)


@pytest.mark.parametrize(
    ("seconds", "waiting", "done"),
    [
        (0.0, [A, A, A, B, B], "a b a b a"),
        (3.0, [A, A, A, B, B], "b b a a a"),
        (0.0, [A, A, B, AGAIN, AGAIN], "a+ b a+ a a"),
    ],
    ids=["by turns", "who took long waits", "what was begun goes first in its share"],
)
async def test_shares_have_their_turns(seconds: float, waiting: list[tuple[str, bool]], done: str) -> None:
    clock = Clock()
    async with child(clock=clock) as one:
        assert await order(one, clock, seconds, *waiting) == done.split()
        assert not one._waiting
        assert not one._running


@pytest.mark.parametrize(
    ("seconds", "later", "done"),
    [
        (3.0, 0.0, "b b+ a"),
        (3.0, QUIET - 0.01, "b b+ a"),
        (3.0, QUIET, "b a b+"),
        (0.0, 0.0, "b a b+"),
    ],
    ids=["at once", "in a moment", "too late", "beside one who took no longer than usual"],
)
async def test_who_took_long_has_no_turn_between_two_of_another_share(
    seconds: float, later: float, done: str
) -> None:
    clock, seen = Clock(), list[str]()
    async with child(clock=clock) as one:
        await takes(one, clock, "a", seconds)
        await call(one, seen, "b")
        tasks = [asyncio.create_task(call(one, seen, "a"))]
        await until(lambda: one._later or one._running or seen != ["b"])
        clock.now += later
        if "a b" in done:
            await all_done(one, clock, *tasks)
        tasks.append(asyncio.create_task(call(one, seen, "b", again=True)))
        await all_done(one, clock, *tasks)
    assert seen == done.split()


async def test_who_took_long_is_as_others_after_some_seconds() -> None:
    clock, seen = Clock(), list[str]()
    async with child(clock=clock) as one:
        await takes(one, clock, "a", 3.0)
        clock.now += REMEMBERED
        await call(one, seen, "b")
        await call(one, seen, "a")
    assert seen == ["b", "a"]


async def test_of_two_who_took_long_the_one_who_took_less_goes_first() -> None:
    clock, seen = Clock(), list[str]()
    async with child(clock=clock) as one:
        await takes(one, clock, "a", 3.0)
        await takes(one, clock, "b", 0.5)
        tasks = [asyncio.create_task(call(one, seen, share)) for share in "ab"]
        await all_done(one, clock, *tasks)
    assert seen == ["b", "a"]


async def test_the_start_of_a_process_is_charged_to_whose_task_ended_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = Clock(), list[str]()
    os.mkfifo(fifo := tmp_path / "start")
    async with child(clock=clock) as one:
        await takes(one, clock, "a", 0.0)
        monkeypatch.setenv(HOLDS_START, str(fifo))
        tasks = [asyncio.create_task(call(one, seen, share)) for share in "bbccaa"]
        await until(lambda: one.pid)
        clock.now += 2.0
        await asyncio.to_thread(fifo.write_bytes, b"go")
        await all_done(one, clock, *tasks)
    assert seen == list("bcbcaa")


async def test_a_task_of_who_took_long_is_ended_sooner_where_another_waits() -> None:
    clock = Clock()
    async with child(clock=clock, suffered=0.0) as one:
        await takes(one, clock, "a", 3.0)
        task = await busy(one, "a")
        assert await one.call(f"{HERE}:backwards", b"ab", share="b") == b"ba"
        with pytest.raises(LateError, match="took more than 0 s"):
            await task


async def test_a_task_of_who_took_no_longer_than_usual_is_not() -> None:
    async with child(suffered=0.0) as one:
        first = await busy(one, "a")
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number", share="b", within=LEAST + 0.05)
        assert not first.done()
        await ended(first)


async def test_what_was_begun_waits_longer_than_a_newcomer() -> None:
    async with child(queue_timeout=0.05) as one:
        first = await busy(one, "a")
        task = asyncio.create_task(one.call(f"{HERE}:number", share="b", again=True))
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number", share="c")
        assert not task.done()
        await ended(first)
        assert await task == str(one.pid).encode()


async def test_what_was_begun_finds_a_place_where_a_newcomer_does_not() -> None:
    async with child(of_one=1) as one:
        first = await busy(one, "a")
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number", share="a")
        task = asyncio.create_task(one.call(f"{HERE}:number", share="a", places=0, again=True))
        await until(lambda: one._waiting)
        await ended(first)
        assert await task == str(one.pid).encode()


async def test_a_turn_that_comes_as_its_task_is_given_up_goes_to_the_next() -> None:
    ending: list[asyncio.Task[bytes]] = []

    def clock() -> float:
        for task in ending:
            task.cancel()
        return 0.0

    async with child(clock=clock) as one:
        await one.call(f"{HERE}:number")
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        first, second, third = (asyncio.create_task(one.call(f"{HERE}:backwards", b"ab")) for _ in range(3))
        await until(lambda: one._limit and len(one._waiting) == 2)
        ending.append(second)  # at the moment at which the first one ends
        os.kill(one.pid, signal.SIGCONT)
        assert await first == b"ba"
        assert await third == b"ba"
        assert second.cancelled()
        assert not one._running


async def test_a_task_that_has_waited_too_long_is_shed() -> None:
    async with child(queue_timeout=0.05) as one:
        first = await busy(one)
        with pytest.raises(FullError):
            await one.call(f"{HERE}:number")
        await ended(first)


@pytest.mark.parametrize(("left", "error"), [(LEAST + 0.1, KilledError), (LEAST - 0.1, FullError)])
async def test_a_wait_counts_for_the_time_of_who_has_little(left: float, error: type[Exception]) -> None:
    clock = Clock()
    async with child(clock=clock) as one:
        first = await busy(one)
        second = asyncio.create_task(one.call(f"{HERE}:sleep", LONG, within=30.0))
        await until(lambda: one._waiting)
        clock.now += 30.0 - left
        await ended(first)
        with pytest.raises(error) as raised:
            await second
        assert str(raised.value) == ("took more than 0.4 s" if error is KilledError else "")
        assert (one.pid is None) is (error is KilledError)
        assert await one.call(f"{HERE}:backwards", b"ab") == b"ba"


async def test_who_has_little_time_waits_no_longer_than_that_and_harms_nobody() -> None:
    async with child() as one:
        first = await busy(one)
        pid = one.pid
        for within in (LEAST + 0.05, LEAST, 0.0):
            with pytest.raises(FullError):
                await one.call(f"{HERE}:number", within=within)
        assert one.pid == pid
        assert not first.done()
        await ended(first)


async def test_a_call_that_is_given_up_takes_its_process_with_it() -> None:
    async with child() as one:
        task = await busy(one)
        pid = one.pid
        assert pid is not None
        await ended(task)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_process_ends_with_its_parent() -> None:
    async with child() as one:
        await one.call(f"{HERE}:number")
        process, connection = one._process, one._socket
        assert process is not None
        assert connection is not None
        connection.close()  # as the kernel does it for a parent that was killed
        assert await process.wait() == 0
