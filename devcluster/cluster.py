"""The devcluster as a whole: API, our programs, runner and kubelet, started together and ended together."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from devcluster import api, installation, program, runner
from devcluster.client import NAMESPACES, WORKFLOWS, Client, Object
from devcluster.images import Images
from devcluster.kubelet import Kubelet
from devcluster.process import strongest_isolation
from devcluster.volumes import Volumes
from sidecar.entrypoint import build

ENV_ISOLATION = "DEVCLUSTER_ISOLATION"
"""`user`, `root` or `none`: how containers are kept apart; without it, as well as this kernel allows."""
SECONDS = 180.0
"""In which a workflow that takes a few is over, on a machine that has too much to do."""

T = TypeVar("T")


class DevCluster:
    """A running devcluster; made by `start`. `components`: of manifests/, that stepmemo is installed with."""

    def __init__(
        self, client: Client, kubelet: Kubelet, isolation: str, kubeconfig: Path, components: Sequence[str]
    ) -> None:
        self.client = client
        self.isolation = isolation
        self.kubeconfig = kubeconfig
        self._components = components
        self._kubelet = kubelet
        self._background: list[asyncio.Task[None]] = []

    def run_beside(self, part: Coroutine[Any, Any, None]) -> None:
        """Let a part of the cluster run in the background; when it fails, so does whoever waits here."""
        self._background.append(asyncio.create_task(part))

    async def namespace(self, name: str) -> None:
        """Make a Namespace whose steps may do what they have to, and no more."""
        await self.client.create(NAMESPACES, None, {"metadata": {"name": name}})
        await installation.allow_steps(self.client, name, self._components)

    async def submit(self, workflow: Mapping[str, Any], namespace: str) -> Object:
        """Create a Workflow as `kubectl create` does; ApiError when a webhook denies it."""
        return await self.client.create(WORKFLOWS, namespace, workflow)

    async def run(self, workflow: Mapping[str, Any], namespace: str, seconds: float = SECONDS) -> Object:
        """Create a Workflow and wait until it is over; TimeoutError after `seconds`."""
        created = await self.submit(workflow, namespace)
        return await self.finished(created, seconds)

    async def finished(self, workflow: Object, seconds: float = SECONDS) -> Object:
        """The Workflow once it is over."""
        return await self.unless_broken(self._finished(workflow["metadata"]["uid"]), seconds)

    async def unless_broken(self, awaited: Coroutine[Any, Any, T], seconds: float | None = SECONDS) -> T:
        """What `awaited` gives; an error once a part of the cluster fails, or after `seconds`."""
        task = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait(
                {task, *self._background}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for part in self._background:
                if part.done():
                    part.result()
                    raise RuntimeError("a part of the devcluster ended")
            if not task.done():
                raise TimeoutError(f"nothing came of it in {seconds} s")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container has printed so far; empty for one that never started."""
        file = self._kubelet.log_file(namespace, pod, container)
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def kill(self, namespace: str, pod: str, container: str) -> bool:
        """End a container as the kernel does when memory runs out; False where none of that name runs."""
        return self._kubelet.kill(namespace, pod, container)

    async def stop(self) -> None:
        """End every part, and every container with them."""
        for part in self._background:
            part.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _finished(self, uid: str) -> Object:
        async for kind, workflow in self.client.follow(WORKFLOWS):
            if workflow["metadata"]["uid"] == uid:
                if kind == "DELETED":
                    raise RuntimeError("the Workflow was deleted")
                if (workflow.get("status") or {}).get("finishedAt"):
                    return workflow
        raise RuntimeError("the watch ended")


@asynccontextmanager
async def start(
    directory: Path,
    *,
    isolation: str = "",
    kill_seconds: float = runner.KILL_SECONDS,
    components: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    namespaces: Sequence[str] = (),
) -> AsyncIterator[DevCluster]:
    """Start a devcluster with stepmemo installed; everything it keeps lies in `directory`, which is there.

    `components` are folders of manifests/components that are installed with manifests/base, `settings` are
    variables of every program besides those that these give it. `isolation` is one of devcluster.sandbox's
    three, without it what $DEVCLUSTER_ISOLATION says, without that the strongest that works here.
    `kill_seconds`: see devcluster.execution.Surroundings. `namespaces` are there before the programs start.
    """
    entrypoint = await asyncio.to_thread(build.path_for_host)
    isolation = (
        isolation or os.environ.get(ENV_ISOLATION, "") or await strongest_isolation(directory / "trial")
    )
    for part in ("api", installation.WEBHOOK, installation.KEEPER, "artifacts"):
        (directory / part).mkdir()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(api.serve(directory / "api"))
        client = await stack.enter_async_context(Client(server.url, str(server.ca_file), server.admin_token))
        address = urlsplit(server.url)
        variables = {
            "KUBERNETES_SERVICE_HOST": str(address.hostname),
            "KUBERNETES_SERVICE_PORT": str(address.port),
        }
        images = Images(directory / "images", entrypoint)
        volumes, node = Volumes(client, images), directory / "node"
        kubelet = Kubelet(client, images, volumes, node, isolation, variables, [program.KEEPER_HOST])
        cluster = DevCluster(client, kubelet, isolation, server.kubeconfig, components)
        stack.push_async_callback(cluster.stop)
        cluster.run_beside(kubelet.run())
        cluster.run_beside(runner.run(client, directory / "artifacts", kubelet.signal_inside, kill_seconds))
        workloads = await installation.install(client, components)
        for name in namespaces:
            await cluster.namespace(name)
        programs = await program.start_all(workloads, client, server, directory, settings or {})
        for each in programs:
            cluster.run_beside(each.run())
        for each in programs:
            await cluster.unless_broken(each.ready())
        yield cluster
