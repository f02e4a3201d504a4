"""A step Pod of real entrypoints, sidecar and Python, whose API server can be stopped at a request."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argo import names as argo
from memoize import names
from memoize.taskresult import posted_by_us
from tests.sidecar import faults
from tests.sidecar.faults import RESULTS, Call
from tests.sidecar.protocol import Result
from tests.sidecar.steppod import ENOUGH_MS, Pod
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, *names.SIDECAR_COMMAND[1:]]
REPORTED = {"parameters": [{"name": "out", "value": "of the step itself"}]}
NODE = "wf-123"


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.002)


@dataclass(frozen=True)
class Seen:
    """What there was when a request came."""

    call: Call
    claim: bool
    word: str
    result: Result


class Stop:
    """Where a request is held up: before it takes effect, or after that and before its answer."""

    def __init__(self, call: Call, when: str) -> None:
        self.point = call, when
        self.lands = True
        self.reached, self.released, self.over = threading.Event(), threading.Event(), threading.Event()

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE), f"nothing came to {self.point}"

    def release(self, lands: bool = True) -> None:
        """The request takes effect now, or never will."""
        self.lands = lands
        self.released.set()


class Api(faults.Api):
    """Stops at requests, and knows the protocol's state in the model's words."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = Path()
        self.seen: list[Seen] = []
        self.stops: list[Stop] = []

    def stop(self, call: Call, when: str) -> Stop:
        """The next such request is held up."""
        self.stops.append(Stop(call, when))
        return self.stops[-1]

    def serve(
        self, method: str, path: str, content_type: str, body: Any
    ) -> tuple[faults.Fault, int, dict[str, Any]]:
        call = faults.call_of(method, self._where(path)[0], content_type, body)
        self.seen.append(Seen(call, (self.shared / names.CLAIM_FILE).exists(), self.word, self.result))
        before = self._held(call, "before")
        try:
            if before and not before.lands:
                return faults.Fault("reset"), 0, {}
            answer = super().serve(method, path, content_type, body)
        finally:
            if before:
                before.over.set()
        if after := self._held(call, "after"):
            after.over.set()
        return answer

    def _held(self, call: Call, when: str) -> Stop | None:
        for stop in self.stops:
            if stop.point == (call, when) and not stop.reached.is_set():
                stop.reached.set()
                stop.released.wait(PATIENCE)
                return stop
        return None

    def report(self) -> None:
        """The step's own container reports: it makes the result, or merges into the one that is there."""
        metadata = {"name": NODE, "labels": {argo.OUTPUTS_COMPLETED: "true"}, "annotations": {}}
        whole, part = {"metadata": metadata, "outputs": REPORTED}, {"outputs": REPORTED}
        with self._lock:
            if self._apply("POST", RESULTS, "", "", whole)[0] == 409:
                part["metadata"] = {"labels": metadata["labels"]}
                self._apply("PATCH", RESULTS, NODE, "application/merge-patch+json", part)

    @property
    def word(self) -> str:
        decision = self.shared / names.DECISION_FILE
        return decision.read_text() if decision.exists() else ""

    @property
    def outputs(self) -> object:
        return self.objects[RESULTS].get(NODE, {}).get("outputs")

    @property
    def result(self) -> Result:
        result = self.objects[RESULTS].get(NODE)
        if result is None:
            return Result.NONE
        ours = posted_by_us(result)
        if self.outputs == REPORTED:
            return Result.OVER_OURS if ours else Result.STEP
        return Result.OURS if ours else Result.EMPTY


@dataclass
class Containers:
    """The containers: `main` and `wait` behind their entrypoints, and the sidecar."""

    pod: Pod
    entrypoint: Path
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [str(self.entrypoint), *arguments],
            cwd=ROOT,
            env={**self.pod.variables(), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def sidecar(self, check_ms: int = ENOUGH_MS) -> "subprocess.Popen[str]":
        """As the webhook writes it for a step that is only looked up: it leaves when the word is there."""
        return self.start("capture", "-c", str(check_ms), "--", *PYTHON)

    def step(self, patience_ms: int) -> list["subprocess.Popen[str]"]:
        return [
            self.start("-t", str(patience_ms), "-r", name, "--", "echo", "ran") for name in ("main", "wait")
        ]

    @staticmethod
    def python(sidecar: "subprocess.Popen[str]") -> int:
        children = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children")
        until(lambda: children.read_text().split(), "Python to run")
        return int(children.read_text().split()[0])

    def kill_python(self, sidecar: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
        os.kill(self.python(sidecar), 9)
        return sidecar

    def kill_all(self, sidecar: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
        """The kernel kills the container; when nothing of it is left, the kubelet starts it again."""
        python = self.python(sidecar)
        sidecar.kill()
        sidecar.communicate()
        until(lambda: not _lives(python), "Python to be gone")
        return self.sidecar()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
