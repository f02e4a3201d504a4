"""Functions for a child process to run; what this imports, every one of many processes starts with."""

import os
import time
from pathlib import Path
from typing import Any

HOLDS_START = "STEPMEMO_TEST_HOLDS_START"
"""A FIFO that a process which imports this module waits for."""
if fifo := os.environ.get(HOLDS_START):
    Path(fifo).read_bytes()

IN_CHILD = ("backwards", "number", "sleep", "take", "keep", "divide", "leave", "nowhere")


def backwards(data: bytes) -> bytes:
    return data[::-1]


def number(_: bytes) -> bytes:
    return str(os.getpid()).encode()


def sleep(data: bytes) -> bytes:
    time.sleep(float(data))
    return b"awake"


def take(data: bytes) -> bytes:
    return bytes(len(bytearray(int(data))) and 1)


kept: list[bytes] = []


def keep(data: bytes) -> bytes:
    kept.append(b"x" * int(data))
    return b"kept"


def divide(data: bytes) -> bytes:
    return bytes(1 // len(data))


def leave(_: bytes) -> bytes:
    os._exit(0)


nowhere: Any = None
