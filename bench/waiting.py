"""The sidecar while the step runs: memory and wake-ups of many that wait."""

import subprocess
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from argo import names as argo
from bench import machine
from bench.figures import Report, Target, compare
from bench.steppod import PYTHON, Installation
from memoize import names

NAME = "waiting"
_METHOD = """Real sidecars (`entrypoint capture`), one shared directory each, for steps that do not end;
beside them as many Python processes that do no more than look for a file every ten seconds. One value per
process: memory from `/proc/PID/smaps_rollup` at the end, context switches of the time between from
`/proc/PID/status`. RSS counts the pages of the one binary in every process, PSS once. Containers cost the
kernel memory of their own, whatever runs in them."""
_AGAINST = "Python, looking every 10 s"
_POLLING = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]):\n    time.sleep(10)"
_MEBIBYTE = 1024
_PER_MINUTE = 6
"""Wake-ups in a minute, at one in ten seconds."""
_SETTLED = 20.0
"""Seconds within which a process has started and waits."""


def add_arguments(parser: ArgumentParser) -> None:
    """How many, how long."""
    parser.add_argument(
        "--sidecars", type=int, default=100, metavar="N", help="processes (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="to count switches for (default %(default)g)"
    )


def run(arguments: Namespace) -> Report:
    """Start them all, wait, and look."""
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="stepmemo-bench-") as name:
        directory = Path(name)
        installation = Installation(directory / "image")
        pods = [directory / f"pod-{number}" for number in range(arguments.sidecars)]
        with (
            _started(pods, lambda pod: _polling(pod)) as python,
            _started(pods, lambda pod: _sidecar(installation, pod)) as sidecars,
        ):
            began = time.monotonic()
            before = [[_switches(pid) for pid in pids] for pids in (sidecars, python)]
            time.sleep(arguments.seconds)
            minutes = (time.monotonic() - began) / 60
            after = [[_switches(pid) for pid in pids] for pids in (sidecars, python)]
            memory = [[_memory(pid) for pid in pids] for pids in (sidecars, python)]
    ours, theirs = ([one.rss for one in side] for side in memory)
    our_pss, their_pss = ([one.pss for one in side] for side in memory)
    woken, theirs_woken = (
        [(last - first) / minutes for first, last in zip(*side, strict=True)]
        for side in zip(before, after, strict=True)
    )
    limit = Target("at most", _MEBIBYTE, of="value")
    figures = (
        compare("resident memory (RSS) of one", "KiB", ours, _AGAINST, theirs, limit),
        compare("its share of the machine (PSS)", "KiB", our_pss, _AGAINST, their_pss),
        compare(
            "context switches of one in a minute",
            "per minute",
            woken,
            _AGAINST,
            theirs_woken,
            Target("at most", _PER_MINUTE, of="value"),
        ),
    )
    facts = {
        "sidecars": str(len(pods)),
        "all together": f"RSS {sum(ours) / _MEBIBYTE:.1f} MiB, PSS {sum(our_pss) / _MEBIBYTE:.1f} MiB, "
        f"{sum(woken):.0f} context switches in a minute",
        "watched for": f"{60 * minutes:.0f} s",
    }
    return Report(NAME, "Sidecars that wait", _METHOD, facts, described, figures)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in KiB."""

    rss: float
    pss: float


def _sidecar(installation: Installation, pod: Path) -> "subprocess.Popen[bytes]":
    options = ["-t", "2000", "-m", "56", "-M", argo.MAIN_CONTAINER, "-w", argo.WAIT_CONTAINER]
    return _start([str(installation.entrypoint), "capture", *options, "--", *installation.sidecar], pod)


def _polling(pod: Path) -> "subprocess.Popen[bytes]":
    return _start([PYTHON, "-S", "-E", "-B", "-c", _POLLING, str(pod / "end")], pod)


def _start(command: Sequence[str], pod: Path) -> "subprocess.Popen[bytes]":
    pod.mkdir(exist_ok=True)
    environment = {names.ENV_SHARED_DIR: str(pod)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def _started(pods: Sequence[Path], start: Callable[[Path], "subprocess.Popen[bytes]"]) -> Iterator[list[int]]:
    """The pids of processes that have settled down; killed at the end."""
    processes = [start(pod) for pod in pods]
    try:
        for process in processes:
            _until_asleep(process)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _until_asleep(process: "subprocess.Popen[bytes]") -> None:
    """Return when the process has been asleep, without a switch, between two looks."""
    deadline, seen = time.monotonic() + _SETTLED, -1
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        switches = _switches(process.pid)
        if switches == seen and _status(process.pid, "State").startswith("S"):
            return
        seen = switches
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not settle down")


def _switches(pid: int) -> int:
    return sum(int(_status(pid, name)) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))


def _memory(pid: int) -> Memory:
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return Memory(rss=_kibibytes(rollup["Rss"]), pss=_kibibytes(rollup["Pss"]))


def _status(pid: int, name: str) -> str:
    return _fields(Path(f"/proc/{pid}/status").read_text())[name]


def _fields(text: str) -> dict[str, str]:
    """`Name:  value` by name, as most files of proc(5) have it."""
    return {
        name: value.strip()
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }


def _kibibytes(value: str) -> float:
    return float(value.removesuffix("kB"))
