"""What a piece of work costs: requests to the API server, bytes of its answers, time of the event loop.

The context (contextvars) says whose work it is: what a task begins, and the tasks that it begins, are charged
to the same Cost.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

BYTES_OF_A_REQUEST = 64 << 10
SECONDS_OF_A_REQUEST = 0.005
"""At 200 requests a second, as many of the loop's seconds as there are."""


@dataclass(slots=True)
class Cost:
    """What was spent so far."""

    requests: int = 0
    bytes: int = 0
    """Of the answers."""
    seconds: float = 0.0
    """During which the event loop could do nothing else."""

    @property
    def total(self) -> float:
        """All of it, in requests."""
        return self.requests + self.bytes / BYTES_OF_A_REQUEST + self.seconds / SECONDS_OF_A_REQUEST


_current: ContextVar[Cost | None] = ContextVar("cost", default=None)


def charge(*, requests: int = 0, bytes: int = 0) -> None:
    """Charge it to whoever works here, if anybody is to be charged."""
    if (cost := _current.get()) is not None:
        cost.requests += requests
        cost.bytes += bytes


def create_task(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Begin the work in a task of its own, which may serve others too; charge it to whoever works here.

    Its failure is told to all who wait for it; where none of them is left, nobody is to hear of it.
    """
    current = _current.get()
    task = asyncio.create_task(work if current is None else metered(current, work))
    task.add_done_callback(_on_done)
    return task


def _on_done(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # else asyncio logs a traceback when the task is collected


async def metered(
    cost: Cost, work: Coroutine[Any, Any, T], clock: Callable[[], float] = time.perf_counter
) -> T:
    """What the work comes to; it is charged to `cost`, each stretch between two of its waits as `seconds`."""
    token = _current.set(cost)
    try:
        return await _Timed(cost, work, clock)
    finally:
        _current.reset(token)


class _Timed(Generic[T]):
    def __init__(self, cost: Cost, work: Coroutine[Any, Any, T], clock: Callable[[], float]) -> None:
        self._cost, self._work, self._clock = cost, work, clock

    def __await__(self) -> Generator[Any, Any, T]:
        step, given = self._work.send, None
        while True:
            begun = self._clock()
            try:
                waits_for = step(given)
            except StopIteration as ended:
                value: T = ended.value
                return value
            finally:
                self._cost.seconds += self._clock() - begun
            try:
                step, given = self._work.send, (yield waits_for)
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # what the loop throws into a task, such as its cancellation
                step, given = self._work.throw, error
