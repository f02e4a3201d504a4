"""A node alone, an API and a kubelet, for tests of the kubelet; and short ways to write Pods."""

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devcluster.client import PODS, Client, Object
from devcluster.kubelet import Kubelet
from tests.waiting import PATIENCE, until

_numbers = itertools.count(1)


class Node:
    """An API and a kubelet, without anything else."""

    def __init__(self, client: Client, kubelet: Kubelet, isolation: str) -> None:
        self.client = client
        self.kubelet = kubelet
        self.isolation = isolation

    async def create(self, *containers: Object, **spec: Any) -> Object:
        name = f"pod-{next(_numbers)}"
        whole = {"restartPolicy": "Never", "containers": list(containers)} | spec
        metadata = {"name": name, "labels": {"step": "yes"}, "annotations": {"stepmemo.dev/key": "k"}}
        return await self.client.create(PODS, "default", {"metadata": metadata, "spec": whole})

    async def run(self, *containers: Object, **spec: Any) -> Object:
        return await self.until(await self.create(*containers, **spec), ended)

    async def until(self, pod: Object, condition: Callable[[Object], bool]) -> Object:
        """The Pod as soon as `condition` holds; when it is deleted, as it was last."""

        async def wait() -> Object:
            async for kind, found in self.client.follow(PODS):
                if found["metadata"]["uid"] == pod["metadata"]["uid"] and (
                    kind == "DELETED" or condition(found)
                ):
                    return found
            raise AssertionError("the watch ended")

        return await asyncio.wait_for(wait(), PATIENCE)

    def log(self, pod: Object, container: str = "main") -> str:
        file = self.kubelet.log_file("default", pod["metadata"]["name"], container)
        return file.read_text() if file.exists() else ""

    async def until_printed(self, pod: Object, text: str, container: str = "main") -> None:
        await until(lambda: text in self.log(pod, container))


def shell(script: str, name: str = "main", **fields: Any) -> Object:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script]} | fields


def running(pod: Object) -> bool:
    """Whether the kubelet says so of every container: what one printed may be there before."""
    found = (pod.get("status") or {}).get("containerStatuses") or [{"state": {}}]
    return all("running" in each["state"] for each in found)


def ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def codes(pod: Object) -> dict[str, int]:
    status = pod["status"]
    every = status["initContainerStatuses"] + status["containerStatuses"]
    return {c["name"]: c["state"]["terminated"]["exitCode"] for c in every if "terminated" in c["state"]}


def on_host(path: str) -> bool:
    return Path(path).exists()


def volume(name: str, **source: Any) -> Object:
    return {"name": name} | (source or {"emptyDir": {}})


def mounted(path: str, name: str = "shared", **fields: Any) -> list[Object]:
    return [{"name": name, "mountPath": path} | fields]


def marked(pod: Object) -> list[int]:
    """The processes of a Pod, found by the name that the kubelet gives their host."""
    return processes_with(f"HOSTNAME={pod['metadata']['name']}")


def processes_with(text: str) -> list[int]:
    """The processes whose command line or variables contain `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in seen and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


async def until_gone(pod: Object) -> None:
    await until(lambda: not marked(pod))
