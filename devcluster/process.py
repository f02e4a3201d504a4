"""Starting containers behind devcluster/sandbox.py, and finding out how far this kernel keeps them apart."""

import asyncio
import contextlib
import marshal
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from devcluster import sandbox
from devcluster.images import interpreter

_COMMAND = (str(interpreter()), "-S", "-E", "-B", str(Path(sandbox.__file__).resolve()))


class ContainerProcess:
    """One running container."""

    def __init__(self, process: asyncio.subprocess.Process, plan_file: Path, pid_file: Path) -> None:
        self._process = process
        self._plan_file = plan_file
        self._pid_file = pid_file

    @classmethod
    async def start(cls, plan: Mapping[str, Any], plan_file: Path, log: Path) -> "ContainerProcess":
        """Start what `plan` says (devcluster.containers.plan); its output is appended to `log`."""
        with _prepared(plan, plan_file, log) as output:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(plan_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={},
            )
        return cls(process, plan_file, Path(plan["pidFile"]))

    async def wait(self) -> int:
        """The exit code: the process's own, 128+n for signal n, sandbox.START_ERROR when it never ran."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask the container to end, as a runtime does: SIGTERM from outside its PID namespace."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the container with everything in it."""
        self._signal(signal.SIGQUIT)

    async def signal_inside(self, number: int) -> bool:
        """Signal the container's first process from inside, as `argoexec kill` does by `kubectl exec`.

        False where there is none yet.
        """
        try:
            pid = self._pid_file.read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        sender = await asyncio.create_subprocess_exec(
            *_COMMAND, str(self._plan_file), "kill", pid, str(number), stderr=asyncio.subprocess.DEVNULL
        )
        await sender.wait()
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _prepared(plan: Mapping[str, Any], plan_file: Path, log: Path) -> BinaryIO:
    plan_file.write_bytes(marshal.dumps(dict(plan)))
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("ab")


async def strongest_isolation(directory: Path) -> str:
    """The best isolation that works here, found by running `true` in it; files go to `directory`."""
    kinds = [sandbox.USER_NAMESPACE]
    if os.getuid() == 0:
        kinds.insert(0, sandbox.ROOT_NAMESPACE)
    for kind in kinds:
        place = directory / kind
        (place / "root").mkdir(parents=True)
        plan = {
            "kubelet": os.getpid(),
            "isolation": kind,
            "root": str(place / "root"),
            "readOnlyRoot": True,
            "mounts": [],
            "argv": ["true"],
            "env": {"PATH": os.defpath},
            "cwd": "/",
            "pidFile": str(place / "pid"),
        }
        trial = await ContainerProcess.start(plan, place / "plan", place / "log")
        if await trial.wait() == 0:
            return kind
    return sandbox.NO_NAMESPACE
