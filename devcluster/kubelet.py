"""The devcluster's node: watches Pods, runs their containers as processes, reports their status.

Init containers run one after the other, then all other containers side by side, once each unless a rule of
their own says to start them again. It is its own scheduler: a Pod is bound to this node, and runs, as soon as
it is there and has no scheduling gate. Left out: probes, lifecycle hooks, resource limits, users and
capabilities, native sidecars, other restarts, networks.
"""

import asyncio
import collections
import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devcluster import containers, sandbox
from devcluster.client import PODS, ApiError, Client
from devcluster.clock import now
from devcluster.environment import UnsupportedPodError
from devcluster.images import Images
from devcluster.process import ContainerProcess
from devcluster.volumes import Volumes

NODE = "devcluster"
_FINISHED = ("Succeeded", "Failed")
_GRACE_SECONDS = 30
"""Kubernetes' default for terminationGracePeriodSeconds."""


class Kubelet:
    """Runs every Pod of the API that `client` speaks to; volumes and logs lie in `directory`.

    `isolation` is one of devcluster.sandbox's three; `variables` are what every container is told of the
    cluster (KUBERNETES_SERVICE_HOST and the like). `services` are names of Services of this machine, which
    containers find in their /etc/hosts instead of asking a cluster's DNS.
    """

    def __init__(
        self,
        client: Client,
        images: Images,
        volumes: Volumes,
        directory: Path,
        isolation: str,
        variables: Mapping[str, str],
        services: Sequence[str] = (),
    ) -> None:
        self.client = client
        self._images = images
        self._volumes = volumes
        self._directory = directory
        self._isolation = isolation
        self._variables = variables
        self._hosts = directory / "hosts"
        directory.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text(f"127.0.0.1 {' '.join(['localhost', *services])}\n", encoding="ascii")
        self._workers: dict[str, PodWorker] = {}

    async def run(self) -> None:
        """Follow the Pods until cancelled; every process has ended when it returns."""
        async with asyncio.TaskGroup() as tasks:
            try:
                async for kind, pod in self.client.follow(PODS):
                    self._handle(kind, pod, tasks)
            finally:
                await asyncio.gather(*(worker.abort() for worker in self._workers.values()))

    async def signal_inside(self, namespace: str, pod: str, container: str, number: int) -> bool:
        """Signal a container's first process from inside; False where it does not run, or not yet."""
        process = self._process(namespace, pod, container)
        return process is not None and await process.signal_inside(number)

    def kill(self, namespace: str, pod: str, container: str) -> bool:
        """End a container as the kernel does when memory runs out: SIGKILL, for all that runs in it.

        False where it was not started yet, or has ended: containers start side by side, and another may be
        quicker.
        """
        process = self._process(namespace, pod, container)
        if process is not None:
            process.kill()
        return process is not None

    def _process(self, namespace: str, pod: str, container: str) -> ContainerProcess | None:
        for worker in self._workers.values():
            if (worker.namespace, worker.name) == (namespace, pod):
                return worker.running.get(container)
        return None

    def log_file(self, namespace: str, pod: str, container: str) -> Path:
        """Where a container's output goes; kept after the Pod."""
        return self._directory / "logs" / namespace / pod / f"{container}.log"

    def _handle(self, kind: str, pod: Mapping[str, Any], tasks: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        ending = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
        finished = (pod.get("status") or {}).get("phase") in _FINISHED
        worker = self._workers.get(uid)
        if worker is None:
            if not (ending or finished or pod["spec"].get("schedulingGates")):
                self._workers[uid] = PodWorker(pod, self, tasks)
        elif ending:
            worker.stop()
        if worker is not None and kind == "DELETED":
            worker.task.add_done_callback(lambda _: self._workers.pop(uid, None))

    async def prepare(self, pod: Mapping[str, Any]) -> containers.PodPlace:
        """Make the Pod's directory and volumes; UnsupportedPodError or ApiError where that cannot be."""
        containers.check_supported(pod)
        directory = self._directory / "pods" / pod["metadata"]["uid"]
        directory.mkdir(parents=True)
        volumes = await self._volumes.prepare(pod, directory / "volumes")
        variables, hosts = self._variables, self._hosts
        return containers.PodPlace(directory, volumes, self._isolation, variables, hosts, os.getpid())

    async def start(
        self, container: Mapping[str, Any], pod: Mapping[str, Any], place: containers.PodPlace
    ) -> ContainerProcess:
        """Start one container of the Pod."""
        plan = containers.plan(container, pod, self._images.of(container["image"]), place)
        metadata = pod["metadata"]
        log = self.log_file(metadata["namespace"], metadata["name"], container["name"])
        return await ContainerProcess.start(plan, place.directory / f"{container['name']}.plan", log)


class PodWorker:
    """One Pod, from its start to its end."""

    def __init__(self, pod: Mapping[str, Any], kubelet: Kubelet, tasks: asyncio.TaskGroup) -> None:
        self._pod = pod
        self._kubelet = kubelet
        self.running: dict[str, ContainerProcess] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._restarts: collections.Counter[str] = collections.Counter()
        self._stopping = False
        self._last_resort: asyncio.TimerHandle | None = None
        self._reporting = asyncio.Lock()
        self._start_time = now()
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.task = tasks.create_task(self._run(), name=f"pod {self.namespace}/{self.name}")

    def stop(self) -> None:
        """The Pod is being deleted: SIGTERM now, SIGKILL after the grace period."""
        if self._stopping:
            return
        self._stopping = True
        for process in self.running.values():
            process.terminate()
        seconds = self._pod["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        self._last_resort = asyncio.get_running_loop().call_later(seconds, self._kill)

    async def abort(self) -> None:
        """End everything at once: the devcluster itself ends."""
        self._stopping = True
        self._kill()
        await asyncio.wait([self.task])

    def _kill(self) -> None:
        for process in self.running.values():
            process.kill()

    async def _run(self) -> None:
        place = None
        try:
            await self._kubelet.client.bind(self.namespace, self.name, NODE)
            place = await self._kubelet.prepare(self._pod)
            phase = await self._run_containers(place)
            await self._report({"phase": phase})
        except (UnsupportedPodError, ApiError, OSError) as error:
            await self._report({"phase": "Failed", "reason": type(error).__name__, "message": str(error)})
        finally:
            if self._last_resort is not None:
                self._last_resort.cancel()
            if place is not None:
                shutil.rmtree(place.directory, ignore_errors=True)

    async def _run_containers(self, place: containers.PodPlace) -> str:
        """Init containers in their order, then the others at once; the Pod's last phase."""
        spec = self._pod["spec"]
        for container in spec.get("initContainers") or []:
            if await self._run_to_the_end(container, place, "Pending") != 0:
                return "Failed"
        codes = await asyncio.gather(
            *(self._run_to_the_end(container, place, "Running") for container in spec["containers"])
        )
        return "Failed" if any(codes) else "Succeeded"

    async def _run_to_the_end(
        self, container: Mapping[str, Any], place: containers.PodPlace, phase: str
    ) -> int:
        """Run one container as often as its rules want; its last exit code."""
        while True:
            code = await self._run_container(container, place, phase)
            if self._stopping or not containers.starts_again(container, code):
                return code
            self._restarts[container["name"]] += 1

    async def _run_container(
        self, container: Mapping[str, Any], place: containers.PodPlace, phase: str
    ) -> int:
        """Start one container, wait for its end and report both; its exit code."""
        name = container["name"]
        if self._stopping:
            return 128 + 15
        started = now()
        process = await self._kubelet.start(container, self._pod, place)
        self.running[name] = process
        if self._stopping:
            process.kill()
        await self._report({"phase": phase}, name, {"running": {"startedAt": started}})
        code = await process.wait()
        del self.running[name]
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": _REASONS.get(code, "Error"),
            "startedAt": started,
            "finishedAt": now(),
        }
        if message := containers.termination_message(container, place):
            terminated["message"] = message
        await self._report({"phase": phase}, name, {"terminated": terminated})
        return code

    async def _report(
        self, status: dict[str, Any], name: str = "", state: dict[str, Any] | None = None
    ) -> None:
        """Write the Pod's status, with container `name` in `state`; a Pod that is gone has none."""
        if state is not None:
            self._states[name] = state
        spec = self._pod["spec"]
        async with self._reporting:
            status |= {
                "startTime": self._start_time,
                "initContainerStatuses": self._statuses(spec.get("initContainers") or []),
                "containerStatuses": self._statuses(spec["containers"]),
            }
            with contextlib.suppress(ApiError):
                await self._kubelet.client.patch(
                    PODS, self.namespace, self.name, {"status": status}, subresource="status"
                )

    def _statuses(self, among: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        waiting = {"waiting": {"reason": "PodInitializing"}}
        return [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": "running" in self._states.get(container["name"], waiting),
                "restartCount": self._restarts[container["name"]],
                "state": self._states.get(container["name"], waiting),
            }
            for container in among
        ]


_REASONS = {0: "Completed", sandbox.START_ERROR: "StartError"}
