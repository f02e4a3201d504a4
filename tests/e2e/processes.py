"""Our programs as processes that can be killed: keepers on this host, and what runs in the replicas' Pods."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from devcluster.ports import free_port
from tests.e2e import server
from tests.e2e.kube import kubectl

_ROOT = Path(__file__).parents[2]
_HOURS = 6


class HostKeeper:
    """`python -m keeper` on this host, with the account of the Deployment, and what it is set to."""

    def __init__(self, directory: Path, environment: dict[str, str], flags: list[str]) -> None:
        directory.mkdir()
        self._directory, self._environment, self._flags = directory, environment, flags
        self._process = self._start()

    def kill(self, *, new_pod: bool) -> None:
        """Kill it with -9, and start another: in a Pod of its own, or as the next container of the same."""
        if self._process.poll() is not None:
            raise AssertionError(f"a keeper ended by itself:\n{self.log[-5000:]}")
        self.end()
        if new_pod:
            shutil.rmtree(self._directory / "state", ignore_errors=True)
        self._process = self._start()

    def end(self) -> None:
        """Kill it with -9."""
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """What all of them said."""
        return (self._directory / "log").read_text()

    def _start(self) -> subprocess.Popen[bytes]:
        flags = [f"--cert-dir={self._directory / 'certs'}", f"--state-dir={self._directory / 'state'}"]
        flags.append("--metrics-listen=off")
        command = [sys.executable, "-m", "keeper", *self._flags, f"--listen=127.0.0.1:{free_port()}", *flags]
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=_ROOT, env=self._environment, stdout=log, stderr=log)


@contextmanager
def host_keepers(directory: Path, **more: str) -> Iterator[list[HostKeeper]]:
    """As many as the Deployment has replicas, in their place, until the block ends; with `more` variables."""
    container, flags = server.container(server.KEEPER), [f"--namespace={server.NAMESPACE}"]
    environment = {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(server.KEEPER)))
    kubeconfig.chmod(0o600)
    environment |= {"PATH": os.defpath, "KUBECONFIG": str(kubeconfig), **more}
    with server.away(server.KEEPER) as before, ExitStack() as running:
        found = []
        for number in range(before[server.KEEPER]):
            keeper = HostKeeper(
                directory / f"keeper-{number}", environment, [*container.get("args", ()), *flags]
            )
            running.callback(keeper.end)
            found.append(keeper)
        yield found


def kill_replicas(program: str, chance: random.Random) -> int:
    """Kill one or all of the replicas' processes with -9, by their ids on this host; how many that were.

    A Pod whose container was started again already is replaced, so that the kubelet's back-off plays no part.
    """
    pods = server.pods(program)
    running = {pod["metadata"]["name"]: pid for pod in pods for pid in _pids(pod, program)}
    names = sorted(running)
    chosen = names if chance.random() < 0.5 else chance.sample(names, min(1, len(names)))
    for name in chosen:
        os.kill(running[name], signal.SIGKILL)
    restarted = [
        pod["metadata"]["name"]
        for pod in pods
        if any(one["restartCount"] > 0 for one in pod["status"].get("containerStatuses", ()))
    ]
    if restarted:
        words = ("--grace-period=0", "--force", "--ignore-not-found", "--wait=false")
        kubectl("-n", server.NAMESPACE, "delete", "pod", *restarted, *words)
    return len(chosen)


def are_visible(program: str) -> bool:
    """Whether the replicas' processes can be killed from here."""
    return os.geteuid() == 0 and any(_pids(pod, program) for pod in server.pods(program))


def _pids(pod: dict[str, Any], program: str) -> list[int]:
    """The first process of a Pod's container, which runs the program.

    Its cgroup bears the uid of the Pod, or the container's id, as the runtime likes.
    """
    module = program.removeprefix("stepmemo-").encode()
    uid = pod["metadata"]["uid"]
    ids = [one.get("containerID", "") for one in pod.get("status", {}).get("containerStatuses", ())]
    marks = [uid, uid.replace("-", "_"), *(each.rpartition("/")[2] for each in ids if each)]
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            group = (directory / "cgroup").read_text()
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if any(mark in group for mark in marks) and words[1:3] == [b"-m", module]:
            found.append(int(directory.name))
    return found


def _kubeconfig(account: str) -> dict[str, object]:
    """The way to the cluster as one of our accounts."""
    view = json.loads(kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json").stdout)
    asked = ("create", "token", account, f"--duration={_HOURS}h")
    token = kubectl("-n", server.NAMESPACE, *asked).stdout.strip()
    name = view["contexts"][0]["name"]
    context = {"cluster": view["clusters"][0]["name"], "user": account}
    return view | {
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
