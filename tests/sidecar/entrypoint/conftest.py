"""A step Pod's shared directory and real entrypoints in it; nothing of ours is replaced."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar.entrypoint.build import path_for_host

DEADLINE = 20.0
"""Seconds after which a condition that should hold at once is taken for one that never will."""

UNSHARE = ("unshare",) if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user")


@dataclass
class StepPod:
    """Our volume of a step Pod, and the processes started in its containers."""

    root: Path
    entrypoint: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared, self.bin = self.root / "shared", self.root / "bin"
        self.shared.mkdir()
        self.bin.mkdir()
        for directory in (self.root, self.shared, self.bin):
            directory.chmod(0o777)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """The variables of every container."""
        ours = {"STEPMEMO_SHARED_DIR": str(self.shared), "STEPMEMO_BIN_DIR": str(self.bin)}
        return {"PATH": os.environ["PATH"], **ours, **more}

    def start(
        self, *arguments: object, prefix: tuple[str, ...] = (), **options: Any
    ) -> subprocess.Popen[str]:
        """Starts an entrypoint as a container would."""
        process = subprocess.Popen(
            [*prefix, str(self.entrypoint), *map(str, arguments)],
            env=self.environment(options.pop("env", {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Starts an entrypoint and waits for its end."""
        return self.end(self.start(*arguments, **options))

    def end(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """The process's exit code and output, once it has ended."""
        out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Returns as soon as the condition holds; fails the test when that takes unreasonably long."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"waited in vain for: {what}"
            time.sleep(0.002)

    def wait_for(self, name: str) -> Path:
        """A file in the shared directory, once it is there."""
        self.until((self.shared / name).exists, name)
        return self.shared / name

    @staticmethod
    def status(pid: int, name: str) -> str:
        """One line of /proc/PID/status."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))

    def blocks_signals(self, pid: int) -> bool:
        """The entrypoint has blocked SIGTERM: none is lost from here on."""
        return bool(int(self.status(pid, "SigBlk"), 16) >> (signal.SIGTERM - 1) & 1)

    def holds_signals(self, pid: int) -> bool:
        """The entrypoint has blocked SIGTERM and sleeps: it waits for news."""
        return self.blocks_signals(pid) and self.status(pid, "State").startswith("S")

    def waiting(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """The process, once it has read all news and waits for more: what we did before woke it at once."""
        self.until(lambda: self.holds_signals(process.pid), "the entrypoint to wait")
        return process

    def enter(self, pid: int, *command: str) -> None:
        """Runs a command inside the PID namespace of a process."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        subprocess.run(["nsenter", "--target", str(pid), *user, "--pid", *command], check=True)

    def inner(self, process: subprocess.Popen[str]) -> int:
        """The PID, seen from outside, of the entrypoint that `unshare` made PID 1 of a namespace."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self.until(lambda: children.read_text().split(), "unshare to fork")
        pid = int(children.read_text().split()[0])
        self.until(
            lambda: str(self.entrypoint) in Path(f"/proc/{pid}/cmdline").read_text()[:200], "unshare to exec"
        )
        return pid

    @staticmethod
    def children(pid: int) -> list[str]:
        """The PIDs of a process's children."""
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    @property
    def word(self) -> str | None:
        """The decision, if there is one."""
        path = self.shared / "decision"
        return path.read_text() if path.exists() else None

    def decide(self, word: str) -> None:
        """Decides like the checker does."""
        (self.shared / "claim").touch(exist_ok=False)
        (self.shared / ".decision").write_text(word)
        os.link(self.shared / ".decision", self.shared / "decision")

    def script(self, text: str) -> tuple[str, ...]:
        """A command that stands in for Python: `$1` is the verb; it runs in the shared directory."""
        path = self.root / f"script-{len(list(self.root.iterdir()))}"
        path.write_text(f"cd {self.shared}\n{text}\n")
        path.chmod(0o644)
        return ("sh", str(path))

    def end_main(self, code: str, name: str = "main") -> None:
        """Leaves an exit code as the entrypoint of a container does."""
        (self.shared / ".exit").write_text(code)
        (self.shared / ".exit").rename(self.shared / f"exit-{name}")

    def end_wait(self, code: str) -> None:
        """The same for `wait`."""
        self.end_main(code, "wait")

    def leftovers(self) -> list[str]:
        """Files that an entrypoint wrote aside and did not publish or remove."""
        return [path.name for path in self.shared.iterdir() if path.name.startswith(".aside")]


@pytest.fixture(scope="session")
def entrypoint() -> Path:
    return path_for_host()


@pytest.fixture
def pod(entrypoint: Path) -> Iterator[StepPod]:
    # Not tmp_path: only its owner may enter that, and containers have different users.
    root = Path(tempfile.mkdtemp(prefix="stepmemo-entrypoint-"))
    copy = root / "image-entrypoint"
    shutil.copy(entrypoint, copy)
    pod = StepPod(root, copy)
    yield pod
    for process in pod.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
    shutil.rmtree(root)


def usable(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """The prefix, where this machine lets us use it; skips the test elsewhere."""
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"not allowed here: {' '.join(prefix)}: {tried.stderr.strip()}")
    return prefix


@pytest.fixture
def own_namespace() -> tuple[str, ...]:
    """Prefix of a command: makes it PID 1 of a PID namespace, as the container runtime does."""
    return usable((*UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc"))


@pytest.fixture
def own_mounts() -> Callable[[str], tuple[str, ...]]:
    """Prefix of a command: changes its mounts by a line of shell."""
    return lambda change: usable((*UNSHARE, "--mount", "sh", "-c", f'{change} && exec "$@"', "sh"))


@pytest.fixture
def own_inotify_limit() -> tuple[str, ...]:
    """Prefix of a command: it can have no inotify instance."""
    change = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    return usable(("unshare", "--user", "--map-root-user", "sh", "-c", change, "sh"))


@pytest.fixture
def waiting_entrypoint(pod: StepPod) -> Callable[..., subprocess.Popen[str]]:
    """Starts a container, `wait` unless named, that does not end."""

    def start(name: str = "wait") -> subprocess.Popen[str]:
        process = pod.start("-r", name, "--", "sleep", "600")
        pod.wait_for(f"lock-{name}")
        return pod.waiting(process)

    return start
