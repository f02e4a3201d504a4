"""How often somebody may ask: a token bucket each."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 10_000
"""Buckets kept; the one that was not used for longest is forgotten, and is then full again."""


class Limits:
    """Buckets of `burst` requests that fill up again by `rate` a second. `clock` counts seconds."""

    def __init__(
        self, rate: float, burst: int, *, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._most, self._clock = rate, burst, most, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> int:
        """Count a request: 0 where it is within the limit, else in how many whole seconds one will be."""
        now = self._clock()
        left, since = self._buckets.pop(who, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        wait = 0 if left >= 1 else math.ceil((1 - left) / self._rate)
        self._buckets[who] = (left if wait else left - 1, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return wait
