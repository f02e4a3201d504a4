"""Servers as processes of their own: started, ready, and what their CPU time was."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.api import ROOT
from bench.load import BadAnswerError, Connection
from devcluster.ports import free_port
from server.listener import READY_PATH

_START_SECONDS = 120.0
_CPUCLOCK_SCHED = 2
"""With a process's number, the clock of clock_getcpuclockid(3): nanoseconds, where /proc has ticks."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs on a port of this host."""

    name: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Time that the process has computed for so far, all threads, user mode and kernel."""
        return time.clock_gettime(~self.pid << 3 | _CPUCLOCK_SCHED)


@contextmanager
def started(
    name: str, module: str, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """`python -m MODULE …` until the block ends; RuntimeError with its log when it does not get ready.

    `{port}` in the arguments is filled in.
    """
    port = free_port()
    command = [sys.executable, "-B", "-m", module, *(one.format(port=port) for one in arguments)]
    log = directory / f"{name}.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, cwd=ROOT, env={"PATH": os.defpath, **environment}, stdout=out, stderr=out
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} does not get ready:\n{log.read_text()}")
                time.sleep(0.05)
            yield Server(name, port, process.pid)
        finally:
            process.kill()


def _ready(port: int) -> bool:
    try:
        connection = Connection(port)
        try:
            connection.ask(f"GET {READY_PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        finally:
            connection.close()
    except (OSError, BadAnswerError):
        return False
    return True
