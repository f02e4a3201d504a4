"""The most memory that a process had for a while, its children's included."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_EVERY = 0.1
_RESET_PEAK = "5"
"""To /proc/PID/clear_refs: VmHWM begins anew (proc(5))."""


class Peak:
    """The most of one process; `look` again and again.

    `mib` is the most so far, `before` what there was at the beginning; `died`: the process is gone.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
        self.before = self.mib = 0.0
        self.died = False
        self.look()
        self.before = self.mib

    def look(self) -> None:
        """Look once more."""
        own = _field(self._pid, "VmRSS")
        self.died = own is None
        together = sum(_field(pid, "VmRSS") or 0.0 for pid in _children(self._pid)) + (own or 0.0)
        self.mib = max(self.mib, together, _field(self._pid, "VmHWM") or 0.0)


@contextmanager
def peaks(*pids: int) -> Iterator[list[Peak]]:
    """Of these processes, until the block ends; memory that two of them share counts twice."""
    found, over = [Peak(pid) for pid in pids], threading.Event()

    def look_again_and_again() -> None:
        while not over.wait(_EVERY):
            for one in found:
                one.look()

    thread = threading.Thread(target=look_again_and_again)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        for one in found:
            one.look()


def most_resident() -> float:
    """The most memory that this process ever had, in MiB."""
    return _field(os.getpid(), "VmHWM") or 0.0


def _field(pid: int, name: str) -> float | None:
    """In MiB; None for a process that is gone, or dead and not waited for."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    _, there, after = status.partition(f"{name}:")
    return float(after.split()[0]) / 1024 if there else None


def _children(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _children(child)
