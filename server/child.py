"""A child process for work on what tenants wrote: a function by its name, bytes in, bytes out.

Python cannot end a function that takes too long, but it can end a process. And since Kubernetes 1.28 the
kernel ends a container as a whole where one of its processes takes too much memory (`memory.oom.group`), so
that the child has a limit of its own, which it meets first.

Parent and child talk over a pair of sockets. A message is a head of lengths and then the bytes. The child
runs the same code as its parent on the same bytes; it is no sandbox, and what it answers is believed.
"""

import asyncio
import gc
import importlib
import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from itertools import count
from pathlib import Path
from typing import Any

from kube.fair_queue import ALLOWANCE, FairQueue

SECONDS = 3.0
"""For one task; then its process is killed. The webhooks' time-out is 5."""
START_SECONDS = 10.0
"""For the start of a process, which takes some 0.2: one that is killed in it has to be started again."""
MEMORY = 256 << 20
"""Bytes of address space."""
WAITING = 16
"""Tasks that wait for the one that runs …"""
OF_ONE = 8
"""… and those of one share, such as a Namespace, the running one included: most take 10 to 50 ms."""
QUEUE_TIMEOUT = 2.0
"""Seconds that a task waits. One that begins later would end when nobody waits for it any more."""
USUAL = 0.05
"""Seconds of a task that costs its share no later turn."""
REMEMBERED = 10.0
"""Seconds for which a share owes what its tasks took beyond that …"""
QUIET = 0.1
"""… and has no turn before so many in which nobody waits who owes less: who is not through may have to look
something up between two tasks …"""
OVERDUE = 1.0
"""… or after so many of waiting, once in so many: nobody is kept out by those who come again and again …"""
SUFFERED = 1.0
"""… and of such a turn, once somebody waits who owes less."""
LEAST = 0.3
"""Seconds without which no task begins: it would only be killed, and the next one would wait for a start."""

_REQUEST = struct.Struct(">HI")
"""The lengths of a function's name and of the bytes that it is given."""
_ANSWER = struct.Struct(">BI")
"""A _Status and the length of what follows."""
_HEAD = struct.Struct(">I")
_READY = b"!"
"""What the child says first: all is imported."""
_ROOT = Path(__file__).parents[1]


class _Status(IntEnum):
    DONE = 0
    LAST = 1
    """Done, and the process ends, since it has grown."""
    NO_MEMORY = 2
    FAILED = 3
    """The function raised; its traceback follows."""


def with_head(head: object) -> bytes:
    """What a function is given before the bytes that it is about; `headed` takes the two apart again."""
    pickled = pickle.dumps(head)
    return _HEAD.pack(len(pickled)) + pickled


def headed(data: bytes) -> tuple[Any, bytes]:
    """The head, and the bytes behind it."""
    (length,) = _HEAD.unpack_from(data)
    at = _HEAD.size + length
    return pickle.loads(data[_HEAD.size : at]), data[at:]


class FullError(Exception):
    """Too many tasks wait, or for this one no time is left."""


class KilledError(Exception):
    """The task took more time or memory than it may; the text says which."""


class LateError(KilledError):
    """The task took more time than it may, or the machine was too busy for it."""


class EndedError(KilledError):
    """The process could not be started, or ended by itself; it says nothing about the task."""


class FailedError(Exception):
    """The function raised: a bug. The text is its traceback."""


class Child:
    """The process, started when there is work for it, and anew after it was killed.

    `modules` are imported at its start; functions are called `module:function`. Shares have their turns: a
    task waits for the one that runs, and not for what another share has piled up. Who took long lately, or
    had a process killed, goes behind those who did not, but not behind `anybody`: the share of whose tasks it
    is not known whose they are.
    """

    def __init__(
        self,
        *modules: str,
        seconds: float = SECONDS,
        memory: int = MEMORY,
        queue_timeout: float = QUEUE_TIMEOUT,
        of_one: int = OF_ONE,
        suffered: float = SUFFERED,
        anybody: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._modules, self._memory, self._of_one, self._clock = modules, memory, of_one, clock
        self._seconds, self._queue_timeout, self._suffered = seconds, queue_timeout, suffered
        self._turns = FairQueue(
            share=1, clock=clock, remembered=REMEMBERED, quiet=QUIET, overdue=OVERDUE, anybody=anybody
        )
        self._numbers = count()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._running = ""
        """The task that has the process; "": none."""
        self._share = ""
        """Its share."""
        self._limit: asyncio.Timeout | None = None
        """Set once it has begun."""
        self._begun = self._until = 0.0
        """When it began, and when it is to be over, by the loop's clock."""
        self._shares = Counter[str]()
        self._starting: asyncio.Task[None] | None = None
        self._ended_by: str | None = None
        """The share whose task ended the last process: it is charged for the start of the next one."""
        self._later: asyncio.TimerHandle | None = None
        """Set while all who wait owe, and nobody else may have come."""
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return self._process.pid if self._process else None

    async def call(
        self,
        function: str,
        *data: bytes,
        share: str = "",
        places: int = WAITING,
        within: float = math.inf,
        again: bool = False,
    ) -> bytes:
        """What the function makes of the bytes, which may come in parts.

        `places`: how many tasks may wait before this one; of each non-empty `share` there are `of_one`.
        `within`: seconds for its wait and itself together, where the caller has less than the two may take.
        `again`: what was done for the caller before would be lost, so it needs no place, goes before others
        of its share, and waits as long as there is time for it.
        FullError, KilledError (EndedError among it) or FailedError where there is no result.
        """
        full = len(self._waiting) >= places or (share and self._shares[share] >= self._of_one)
        if full and not again:
            raise FullError
        until = self._clock() + within
        self._shares[share] += 1
        task = str(next(self._numbers))
        try:
            queue_timeout, left = self._queue_timeout, within - LEAST
            if self._socket is None or self._starting:
                queue_timeout += self._seconds  # a start is nobody's fault, and on a busy machine takes long
            await self._wait(task, share, left if again else min(queue_timeout, left), again)
            begun = self._clock()
            try:
                left = until - begun
                if left < LEAST:
                    raise FullError
                return await self._exchange(share, function.encode(), data, min(self._seconds, left))
            finally:
                self._end(task, self._clock() - begun)
        finally:
            self._shares[share] -= 1
            if not self._shares[share]:
                del self._shares[share]

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._later is not None:
            self._later.cancel()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._end_process()

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _wait(self, task: str, share: str, seconds: float, first: bool) -> None:
        """Wait for the task's turn; `first`: before others of its share."""
        turn = self._waiting[task] = asyncio.get_running_loop().create_future()
        self._turns.add(share, task, urgent=first, untried=True)
        self._begin_next()
        self._end_sooner()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if task == self._running:  # its turn came as it gave up
                self._end(task, 0.0)
            else:
                self._turns.discard(share, task)
            if isinstance(error, TimeoutError):
                raise FullError from None
            raise
        finally:
            self._waiting.pop(task, None)

    def _begin_next(self) -> None:
        """Begin the next task, as soon as there is a process for it."""
        if self._running or self._starting or not len(self._turns):
            return
        if self._socket is None or (self._process and self._process.returncode is not None):
            self._starting = asyncio.create_task(self._start())
        elif (task := self._turns.pop()) is not None:
            self._running = task
            turn = self._waiting.pop(task)
            if not turn.done():  # else it gives up, and hands its turn on as soon as it gets to it
                turn.set_result(None)
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(QUIET, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self._begin_next()

    def _end_sooner(self) -> None:
        """End the task that runs soon, if somebody waits who owes less."""
        if self._limit is None or self._limit.expired():
            return
        owed = self._turns.owed(self._share)
        if any(self._turns.owed(share) < owed for share in self._shares):
            self._until = min(self._until, self._begun + self._suffered)
            self._limit.reschedule(self._until)

    def _end(self, task: str, seconds: float) -> None:
        self._running = ""
        self._turns.done(task, ALLOWANCE * seconds / USUAL)
        self._begin_next()

    async def _exchange(self, share: str, name: bytes, data: Sequence[bytes], seconds: float) -> bytes:
        """One task. Where it does not come to its end the child goes: nobody could tell answers apart."""
        status, loop, connection = None, asyncio.get_running_loop(), self._socket
        assert connection is not None
        self._share, self._begun = share, loop.time()
        self._until = self._begun + seconds
        try:
            async with asyncio.timeout_at(self._until) as self._limit:
                self._end_sooner()
                await loop.sock_sendall(connection, _REQUEST.pack(len(name), sum(map(len, data))) + name)
                for part in data:
                    await loop.sock_sendall(connection, part)
                code, length = _ANSWER.unpack(await _received(connection, _ANSWER.size))
                content = await _received(connection, length)
                status = _Status(code)
        except TimeoutError:
            raise LateError(f"took more than {self._until - self._begun:.3g} s") from None
        except (OSError, EOFError):
            raise EndedError("the process came to an end") from None
        finally:
            self._limit = None
            if status not in (_Status.DONE, _Status.FAILED):
                self._ended_by = share
                await self._end_process()
        if status is _Status.NO_MEMORY:
            raise KilledError(f"took more than {self._memory >> 20} MiB")
        if status is _Status.FAILED:
            raise FailedError(content.decode(errors="replace"))
        return bytes(content)

    async def _start(self) -> None:
        """Start a process for those who wait, in the place of one that ended."""
        begun = self._clock()
        try:
            await self._end_process()
            async with asyncio.timeout(START_SECONDS):
                await self._spawn()
        except (OSError, EOFError, TimeoutError):
            await self._end_process()
            for turn in self._waiting.values():
                if not turn.done():
                    turn.set_exception(EndedError("the process does not start"))
        finally:
            self._starting = None
        if self._ended_by is not None:
            self._turns.charge(self._ended_by, ALLOWANCE * (self._clock() - begun) / USUAL)
            self._ended_by = None
        if self._socket is not None:
            self._begin_next()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._socket = ours
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", __name__, str(theirs.fileno()), str(self._memory), *self._modules),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
            )
        await _received(ours, len(_READY))


async def _received(connection: socket.socket, length: int) -> bytearray:
    loop, content, at = asyncio.get_running_loop(), bytearray(length), 0
    with memoryview(content) as view:
        while at < length:
            count = await loop.sock_recv_into(connection, view[at:])
            if not count:
                raise EOFError
            at += count
    return content


# --- In the child -------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> None:
    """Work on tasks until the parent is gone."""
    descriptor, memory, *modules = argv
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the parent
    os.nice(5)  # whoever answers the others goes first
    functions: dict[str, Callable[[bytes], bytes]] = {}
    for name in modules:
        module = importlib.import_module(name)
        functions |= {f"{name}:{each}": getattr(module, each) for each in module.IN_CHILD}
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing but exceptions makes cycles, and a collection would walk all that was parsed
    with socket.socket(fileno=int(descriptor)) as connection:
        connection.sendall(_READY)
        while head := connection.recv(_REQUEST.size, socket.MSG_WAITALL):
            status, content = _worked(connection, head, functions)
            gc.collect()
            if status is _Status.DONE and _resident() > int(memory) // 2:
                status = _Status.LAST  # freed memory does not always go back
            connection.sendall(_ANSWER.pack(status, len(content)) + content)
            del content


def _worked(
    connection: socket.socket, head: bytes, functions: Mapping[str, Callable[[bytes], bytes]]
) -> tuple[_Status, bytes]:
    try:
        name_length, length = _REQUEST.unpack(head)
        name = connection.recv(name_length, socket.MSG_WAITALL).decode()
        data = connection.recv(length, socket.MSG_WAITALL) if length else b""
        return _Status.DONE, functions[name](data)
    except MemoryError:
        return _Status.NO_MEMORY, b""
    except Exception:
        return _Status.FAILED, traceback.format_exc().encode(errors="replace")


def _resident() -> int:
    """Bytes of memory; the maximum that getrusage gives begins with the parent's."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1:])
