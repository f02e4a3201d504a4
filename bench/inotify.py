"""The moment at which a file appears, without polling: the machine's few cores belong to what is measured."""

import ctypes
import os
import select
import struct
import time
from pathlib import Path

_CREATED, _MOVED_IN = 0x100, 0x80
_HEADER = struct.Struct("iIII")
_BUFFER = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Files that appear in a directory from now on (inotify(7)). A context manager."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC))
        _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _CREATED | _MOVED_IN))

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def wait_for(self, name: str, seconds: float) -> float:
        """The time (of time.perf_counter) at which `name` was seen to appear; TimeoutError."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                seen = time.perf_counter()
                if name in _names(os.read(self._descriptor, _BUFFER)):
                    return seen
        raise TimeoutError(f"no file {name} within {seconds:g} s")


def _names(events: bytes) -> list[str]:
    found, position = [], 0
    while position < len(events):
        *_, length = _HEADER.unpack_from(events, position)
        position += _HEADER.size
        found.append(os.fsdecode(events[position : position + length].rstrip(b"\0")))
        position += length
    return found


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    return result
