"""A bucket of requests: so many a second, for whoever asks first."""

import asyncio
import time
from collections.abc import Callable


class RateLimiter:
    """Lets `rate` requests a second through, and after a rest at once as many as in `burst` seconds.

    The others wait for their turn.
    """

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, *, burst: float = 1.0
    ) -> None:
        self._every, self._rest, self._clock = 1 / rate, burst, clock
        self._next = clock() - self._rest

    @property
    def has_left(self) -> bool:
        """Whether one more request may go at once, and so keeps nobody waiting."""
        return self._next + self._every <= self._clock()

    def take_if_left(self) -> bool:
        """Let one more request go if it may at once; whether it may."""
        left = self.has_left
        if left:
            self._take(self._clock())
        return left

    async def take(self) -> None:
        """Return when one more request may go."""
        now = self._clock()
        turn = self._take(now)
        if turn > now:
            await asyncio.sleep(turn - now)

    def _take(self, now: float) -> float:
        self._next = max(self._next + self._every, now - self._rest)
        return self._next
