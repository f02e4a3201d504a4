"""`python -m keeper` as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.processes import MEASURED
from tests.webhook.test_main import Process

ROOT = Path(__file__).parents[2]
NOWHERE = {"PATH": os.defpath, "HOME": "/nonexistent", **MEASURED}
COMMAND = [sys.executable, "-B", "-m", "keeper"]


def run(*argv: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *argv],
        cwd=ROOT,
        env={**NOWHERE, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(directory: Path, environ: Mapping[str, str], *argv: str) -> Iterator[Process]:
    """Have it run until the block ends, which kills it; its state lies in the directory."""
    log = directory / "log"
    ports = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
    command = [*COMMAND, *ports, "--shutdown-delay=0s", f"--state-dir={directory / 'state'}"]
    with (
        log.open("ab") as out,
        subprocess.Popen([*command, *argv], cwd=ROOT, env={**NOWHERE, **environ}, stderr=out) as process,
    ):
        try:
            yield Process(process, log)
        finally:
            process.kill()
