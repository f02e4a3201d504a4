"""What our programs hold, told from inside their containers: memory, descriptors, and their own metrics."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.installed import parse_metrics
from tests.e2e import server
from tests.e2e.kube import kubectl

_GAUGES = (
    "stepmemo_gated_pods",
    "stepmemo_queue_depth",
    "stepmemo_queue_oldest_seconds",
    "stepmemo_connections",
    "stepmemo_body_bytes",
    "stepmemo_view_kept_bytes",
)
_LOOK = """
import json, os, urllib.request
status = dict(line.split(":", 1) for line in open("/proc/1/status") if ":" in line)
with urllib.request.urlopen("http://127.0.0.1:8080/metrics") as response:
    metrics = response.read().decode()
fds = [os.readlink(f"/proc/1/fd/{fd}") for fd in os.listdir("/proc/1/fd")]
print(json.dumps({
    "rss": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"]),
    "fds": len(fds), "sockets": sum(fd.startswith("socket:") for fd in fds), "metrics": metrics,
}))
"""
"""Runs in the container, whose first process is the program."""


@dataclass(frozen=True)
class Sample:
    """One replica at one moment; `rss` in MiB, of the program's own process. `gauges` by name."""

    at: float
    rss: float
    threads: int
    fds: int
    sockets: int
    gauges: Mapping[str, float]

    def __str__(self) -> str:
        held = ", ".join(f"{name.removeprefix('stepmemo_')} {value:g}" for name, value in self.gauges.items())
        return (
            f"{self.rss:.0f} MiB, {self.threads} threads, {self.fds} files ({self.sockets} sockets); {held}"
        )


def take() -> dict[str, Sample]:
    """A sample of each replica that can be asked, by the name of its Pod."""
    found = {}
    for program in server.PROGRAMS:
        for pod in server.pods(program):
            name = pod["metadata"]["name"]
            said = kubectl(
                "-n", server.NAMESPACE, "exec", name, "--", "python3", "-c", _LOOK, check=False
            ).stdout
            if said:
                found[name] = _read(json.loads(said))
    return found


def restarts() -> dict[str, int]:
    """How often the containers of each replica were started again."""
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        for program in server.PROGRAMS
        for pod in server.pods(program)
    }


def _read(told: dict[str, object]) -> Sample:
    known = parse_metrics(str(told.pop("metrics")))
    gauges = {name: known[name] for name in _GAUGES if name in known}
    return Sample(at=time.monotonic(), gauges=gauges, **told)  # type: ignore[arg-type]
