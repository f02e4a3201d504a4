"""How fast the keeper works: a bucket of requests, and a queue in which each Pod stands once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimiter:
    """Lets `rate` requests a second through, `rate` at once after a rest; the others wait for their turn."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._rest, self._clock = 1 / rate, 1.0, clock
        self._next = clock() - self._rest

    async def take(self) -> None:
        """Return when one more request may go."""
        now = self._clock()
        turn = self._next = max(self._next + self._every, now - self._rest)
        if turn > now:
            await asyncio.sleep(turn - now)


class WorkQueue:
    """Names to be worked on, each by one worker at a time; a name that is added meanwhile comes again after.

    `urgent` names come before all others, and each kind in its order.
    """

    def __init__(self) -> None:
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._working: set[str] = set()
        self._again: dict[str, bool] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def add(self, name: str, urgent: bool = False) -> None:
        """Have the name worked on as soon as may be."""
        if name in self._working:
            self._again[name] = urgent or self._again.get(name, False)
            return
        if name in self._urgent:
            return
        if urgent:
            self._waiting.pop(name, None)
            self._urgent[name] = None
        else:
            self._waiting[name] = None
        self._filled.set()

    def add_later(self, name: str, seconds: float, urgent: bool = False) -> None:
        """Have the name worked on after so many seconds, unless a later call names another time."""
        self.cancel(name)
        self._later[name] = asyncio.get_running_loop().call_later(
            max(0.0, seconds), self._is_due, name, urgent
        )

    def cancel(self, name: str) -> None:
        """Forget what `add_later` was told of the name."""
        if handle := self._later.pop(name, None):
            handle.cancel()

    async def take(self) -> str:
        """The next name; it is being worked on until `done` is told."""
        while not self._urgent and not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        name, _ = (self._urgent or self._waiting).popitem(last=False)
        self._working.add(name)
        return name

    def done(self, name: str) -> None:
        """Nobody works on the name any more."""
        self._working.discard(name)
        if name in self._again:
            self.add(name, self._again.pop(name))

    def _is_due(self, name: str, urgent: bool) -> None:
        self._later.pop(name, None)
        self.add(name, urgent)
