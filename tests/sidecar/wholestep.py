"""A whole step: real entrypoints, the real sidecar, stand-ins for what Argo puts into `main` and `wait`."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argo import names as argo
from memoize import names
from sidecar.entrypoint.build import path_for_host
from tests.sidecar import faults
from tests.sidecar.steppod import CACHE_LABELS, OUTPUTS, Files, entry, have_entry

ROOT = Path(__file__).parents[2]
SIDECAR = (sys.executable, *names.SIDECAR_COMMAND[1:])
TIMEOUT_MS = 2000
"""What the webhook gives check and capture unless it is told otherwise."""
MAIN = """
echo run >> "$0/runs"
printf secret-value > "$0/out"
mkdir -p "$0/argo/ctr/main"
printf "$1" > "$0/argo/ctr/main/exitcode"
exit "$1"
"""
WAIT = "read code; exit $code"
GIVE_UP = 180
"""Seconds after which a step is taken for one that hangs: more than ENOUGH_MS."""


@dataclass(frozen=True)
class Seen:
    """What Argo sees of a step, and how long it took."""

    exit_codes: tuple[int, int]
    """Of `main` and `wait`."""
    outputs: Any
    """As reported complete; None where nothing was."""
    seconds: float


class WholeStep:
    """One run of a step Pod whose API server is `api`; `exit_code` is what main ends with."""

    def __init__(
        self, directory: Path, api: faults.Api, server: tuple[str, int], credentials: Path, exit_code: int = 0
    ) -> None:
        self.directory, self.api, self.exit_code = directory, api, exit_code
        self.files = Files(directory, server, credentials)
        self.sidecar: Sequence[str] = SIDECAR
        self.timeout_ms = TIMEOUT_MS
        self.looks_up = True
        """Whether check is more than the delivery of the entrypoint; mode refresh is without."""
        self.through_service = False
        """Whether the cache is reached through our service."""
        self.more: dict[str, str] = {}
        self.log = ""
        self.endings: dict[str, int] = {}
        """Exit codes of `check` and `capture`."""
        self.seconds: dict[str, float] = {}
        """How long the step waited for each."""
        self.of_ours: subprocess.Popen[str] | None = None
        """The entrypoint that runs the sidecar now."""

    def run(self) -> Seen:
        """The Pod's life with us in it."""
        entrypoint, work = str(path_for_host()), ("--", *self.sidecar)
        time_out = ("-t", str(self.timeout_ms))
        if self.through_service:
            self.files.use_service()
        start = time.monotonic()
        self._end("check", self._start(entrypoint, "check", *((*time_out, *work) if self.looks_up else ())))
        capture = self._start(entrypoint, "capture", *time_out, "-M", "main", "-w", "wait", *work)
        codes = self._containers([entrypoint, "-r", "main", "--"], [entrypoint, "-r", "wait", "--"])
        self._end("capture", capture)
        return Seen(codes, self._outputs(), time.monotonic() - start)

    def run_without_us(self) -> Seen:
        """The same Pod as Argo made it."""
        start = time.monotonic()
        codes = self._containers([], [])
        return Seen(codes, self._outputs(), time.monotonic() - start)

    @property
    def runs(self) -> int:
        """How often main's own command was run."""
        path = self.directory / "runs"
        return path.read_text().count("run") if path.exists() else 0

    @property
    def decision(self) -> str:
        """The word that the entrypoints read; empty without one."""
        path = self.files.shared / names.DECISION_FILE
        return path.read_text() if path.exists() else ""

    def _containers(self, before_main: list[str], before_wait: list[str]) -> tuple[int, int]:
        """Run main, report its outputs as Argo's `wait` does, and end that."""
        wait = self._start(*before_wait, "sh", "-c", WAIT)
        main = self._start(*before_main, "sh", "-c", MAIN, str(self.directory), str(self.exit_code))
        main.communicate(timeout=GIVE_UP)
        if self.runs:
            self._report()
        wait.communicate("0\n", timeout=GIVE_UP)
        return main.returncode, wait.returncode

    def _report(self) -> None:
        """Patch or create the result (Argo's upsertTaskResult), over a connection that has no faults."""
        report = {"metadata": {"labels": {argo.OUTPUTS_COMPLETED: "true"}}}
        if (self.directory / "out").exists():
            report["outputs"] = OUTPUTS
        there = self.api.objects[faults.RESULTS].get("wf-123")
        if there is None:
            self.api.put(faults.RESULTS, "wf-123", **report)
        else:
            faults.merge(there, report)
            there["metadata"]["resourceVersion"] += "0"

    def _outputs(self) -> Any:
        result = self.api.objects[faults.RESULTS].get("wf-123")
        if result is None or result["metadata"]["labels"][argo.OUTPUTS_COMPLETED] != "true":
            return None
        return result.get("outputs", {}).get("parameters")

    def _start(self, *command: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **self.files.variables(), **self.more},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.sidecar[0] in command:
            self.of_ours = process
        return process

    def _end(self, verb: str, process: "subprocess.Popen[str]") -> None:
        since = time.monotonic()
        _, log = process.communicate(timeout=GIVE_UP)
        self.seconds[verb] = time.monotonic() - since
        self.endings[verb] = process.returncode
        self.log += log


def cache(**data: str) -> Callable[[faults.Api], object]:
    """Have a cache with this data."""
    fields = {"data": data} if data else {}
    return lambda api: api.put(faults.CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, **fields)


def full_cache(api: faults.Api) -> None:
    """Have a cache without room but for what one expired entry takes."""
    old = entry(creationTimestamp="2020-01-01T00:00:00Z", stepmemo={"maxAge": "1h", "pod": "x" * 500})
    cache(old=old, other="x", fill="y" * (faults.LIMIT - len(old) - 1))(api)


def first_post(fault: faults.Fault) -> Callable[[faults.Api], object]:
    """Have an entry, and the first attempt to answer with it meet a fault."""

    def prepare(api: faults.Api) -> None:
        have_entry(api)
        api.on_next(faults.Call.POST_RESULT, fault)

    return prepare


def answered_before(api: faults.Api) -> None:
    """Have an entry, and a result that was posted for an earlier Pod of the node."""
    have_entry(api)
    labels, annotations = {argo.OUTPUTS_COMPLETED: "true"}, {names.POSTED_FOR: "another-pod"}
    api.put(
        faults.RESULTS, "wf-123", metadata={"labels": labels, "annotations": annotations}, outputs=OUTPUTS
    )
