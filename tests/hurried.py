"""A plugin of pytest: a clock that runs faster than the machine, which to the tests is a slower machine.

It finds tests that only a fast and quiet machine passes. What other processes do, and what is waited for
in them, takes its time as ever: `make hurried` runs the rooms whose tests start few.
"""

import os
import selectors
import time

TIMES = float(os.environ["HURRY"])
"""How many times as fast."""

_monotonic, _sleep, _select = time.monotonic, time.sleep, selectors.EpollSelector.select
_BEGAN = _monotonic()


def _hurried_select(
    self: selectors.EpollSelector, timeout: float | None = None
) -> list[tuple[selectors.SelectorKey, int]]:
    return _select(self, timeout if timeout is None else timeout / TIMES)


time.monotonic = lambda: _BEGAN + (_monotonic() - _BEGAN) * TIMES
time.sleep = lambda seconds: _sleep(seconds / TIMES)
selectors.EpollSelector.select = _hurried_select  # type: ignore[method-assign]
