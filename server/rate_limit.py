"""How often somebody may ask: a token bucket each, and one that all share fairly."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 10_000
"""Buckets kept; the one that was not used for longest is forgotten, and is then full again."""


_LONGEST = 100.0
"""Seconds more that one must have had none where all that can be had in advance was."""


class RateLimits:
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


class FairLimit:
    """One bucket of `burst` requests for all, which fills up again by `rate` a second.

    The emptier it is, the less one may have had of it in the last seconds (an average that decays). So who
    asks for more than there is gets what the others leave, and as much as any other of that kind. Who had
    none for a second gets one even where nothing is left, up to a burst in advance: the more are in advance,
    the longer one must have had none; and beyond that nobody gets any. So in t seconds all together get
    2 * burst + rate * t at most. Names that a caller can make up need one `who` for all of them. `clock`
    counts seconds.
    """

    def __init__(
        self, rate: float, burst: int, *, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._most, self._clock = rate, burst, most, clock
        self._left, self._since = float(burst), clock()
        """What is left; below 0: what was had in advance."""
        self._had: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What each had in the last seconds, as of when."""

    def take(self, who: str) -> bool:
        """Count a request; False where it is one too many."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        had, since = self._had.get(who, (0.0, now))
        had *= math.exp(since - now)
        # one that was had so many seconds ago counts as exp(-seconds)
        may_have_had = math.exp(-1 + _LONGEST * min(0.0, self._left) / self._burst)
        if self._left - 1 < -self._burst or had > max(2 * self._left, may_have_had):
            return False
        self._left -= 1
        self._had[who] = had + 1, now
        self._had.move_to_end(who)
        if len(self._had) > self._most:
            self._had.popitem(last=False)
        return True
