"""Time that runs out: points on the monotonic clock, so that a set clock changes nothing."""

import os
import time


def process_age() -> float:
    """Return the seconds since this process was forked (proc_pid_stat(5), starttime); 0 where none can tell.

    The entrypoint counts from there, and under a small CPU limit the interpreter takes a good part of the
    time to come up. The kernel's clock ticks make it wrong by up to 10 ms.
    """
    try:
        with open("/proc/self/stat") as file:
            after_name = file.read().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError):
        return 0.0


class Deadline:
    """A moment until which something may take; made before the work starts."""

    def __init__(self, seconds: float, start: float | None = None) -> None:
        """Set it `seconds` after `start` (of time.monotonic; now unless given)."""
        self._start = time.monotonic() if start is None else start
        self._at = self._start + seconds

    def part(self, share: float) -> "Deadline":
        """Return the moment when `share` (0 to 1) of the whole time is over."""
        return Deadline((self._at - self._start) * share, self._start)

    @property
    def remaining(self) -> float:
        """Seconds left, never less than 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def over(self) -> bool:
        """No time is left."""
        return self.remaining == 0.0

    def pause(self, seconds: float) -> bool:
        """Sleep, unless the time would be over by then; say whether there is time to go on."""
        if seconds >= self.remaining:
            return False
        time.sleep(seconds)
        return True
