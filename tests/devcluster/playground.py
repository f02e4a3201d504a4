"""A namespace of a running devcluster for tests, and steps that count how often they ran."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from argo import names as argo
from devcluster.client import CONFIG_MAPS, PODS, ApiError, Client, Object, Resource
from devcluster.cluster import DevCluster
from memoize import names
from tests.waiting import PATIENCE, until

CACHE = "memo"
RANDOM = "cat /proc/sys/kernel/random/uuid"


class Space:
    """One namespace of the cluster; `directory` is shared with the steps as /ran.

    Without `gated` its steps ask for a node, so that a keeper has them looked up inside their Pods.
    """

    def __init__(self, cluster: DevCluster, name: str, directory: Path, *, gated: bool = True) -> None:
        self.cluster = cluster
        self._gated = gated
        self.client: Client = cluster.client
        self.name = name
        self._directory = directory

    async def run(self, *templates: Object, **workflow: Any) -> Object:
        """The finished Workflow whose entrypoint is the first template."""
        return await self.cluster.run(self.workflow(*templates, **workflow), self.name)

    async def submit(self, *templates: Object) -> Object:
        """The Workflow, just created."""
        return await self.cluster.submit(self.workflow(*templates), self.name)

    def workflow(
        self,
        *templates: Object,
        annotations: dict[str, str] | None = None,
        parameters: dict[str, str] | None = None,
    ) -> Object:
        """An opted-in Workflow of these templates."""
        arguments = [{"name": name, "value": value} for name, value in (parameters or {}).items()]
        return {
            "apiVersion": argo.API_VERSION,
            "kind": "Workflow",
            "metadata": {
                "generateName": "run-",
                "annotations": {"stepmemo.dev/memoize": "true"} | (annotations or {}),
            },
            "spec": {
                "entrypoint": templates[0]["name"],
                "arguments": {"parameters": arguments},
                "volumes": [{"name": "ran", "hostPath": {"path": str(self._directory)}}],
                "templates": [each if self._gated else _with_a_node(each) for each in templates],
            },
        }

    def file(self, name: str) -> Path:
        """A file that the steps see in /ran."""
        return self._directory / name

    async def until_ran(self, times: int) -> None:
        """Wait until a step's own command has started so often."""
        await until(lambda: self.times_ran() >= times)

    async def kill(self, workflow: Object, container: str) -> None:
        """End a container of a one-step Workflow as the kernel does when memory runs out, once it runs."""
        await until(lambda: self.cluster.kill(self.name, workflow["metadata"]["name"], container))

    def times_ran(self) -> int:
        """How often a step's own command ran in this namespace."""
        file = self._directory / "count"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def reasons(self, workflow: Object, container: str) -> list[str]:
        """The reasons that stepmemo gave in the log of a container of a one-step Workflow."""
        return re.findall(
            r"reason=(\w+)", self.cluster.log(self.name, workflow["metadata"]["name"], container)
        )

    def decided(self, workflow: Object) -> str:
        """What the check of a one-step Workflow decided."""
        return "".join(self.reasons(workflow, "stepmemo-check")[-1:])

    def kept(self, workflow: Object) -> str:
        """What became of the capture of a one-step Workflow."""
        return "".join(self.reasons(workflow, "stepmemo")[-1:])

    async def entries(self) -> dict[str, Any]:
        """The cache's entries, decoded; empty where there is no cache."""
        try:
            cache = await self.client.get(CONFIG_MAPS, self.name, CACHE)
        except ApiError as error:
            if error.code != 404:
                raise
            return {}
        return {key: json.loads(value) for key, value in (cache.get("data") or {}).items()}

    async def write(self, data: dict[str, str], labels: dict[str, str] | None = None) -> None:
        """Make the cache, as somebody with kubectl would."""
        await self.client.create(
            CONFIG_MAPS, self.name, {"metadata": {"name": CACHE, "labels": labels or {}}, "data": data}
        )

    async def pod(self, name: str) -> Object:
        return await self.client.get(PODS, self.name, name)

    async def settled(self, workflow: Object) -> list[Object]:
        """The Pods of a Workflow, once their labels say what became of each."""
        selector = f"{argo.WORKFLOW_LABEL}={workflow['metadata']['name']}"
        last = (names.RESULT_HIT, names.RESULT_STORED, names.RESULT_SKIPPED)
        async with asyncio.timeout(PATIENCE):
            while True:
                pods: list[Object] = (await self.client.list(PODS, self.name, selector))["items"]
                if pods and all(result(pod) in last for pod in pods):
                    return pods
                await asyncio.sleep(0.02)

    async def until_there(self, resource: Resource, count: int, selector: str = "") -> list[Object]:
        """So many objects of a kind, once they are there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found: list[Object] = (await self.client.list(resource, self.name, selector))["items"]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)


def _with_a_node(template: Object) -> Object:
    metadata = template.get("metadata") or {}
    annotations = {**metadata.get("annotations", {}), names.GATED: "false"}
    return {**template, "metadata": {**metadata, "annotations": annotations}}


def container(script: str = f"{RANDOM} > /tmp/out", *, key: str = "k", **template: Any) -> Object:
    """A memoized step with the output `out`, which counts its runs."""
    return {
        "name": "step",
        "memoize": memo(key),
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
        "container": {
            "image": "busybox",
            "command": ["sh", "-c", f"echo ran >> /ran/count; {script}"],
            "volumeMounts": [{"name": "ran", "mountPath": "/ran"}],
        },
    } | template


def script(source: str, *, key: str = "k", **template: Any) -> Object:
    """A memoized script step."""
    return {
        "name": "step",
        "memoize": memo(key),
        "script": {
            "image": "busybox",
            "command": ["sh"],
            "source": f"echo ran >> /ran/count\n{source}\n",
            "volumeMounts": [{"name": "ran", "mountPath": "/ran"}],
        },
    } | template


def memo(key: str) -> Object:
    """Argo's own block."""
    return {"key": key, "cache": {"configMap": {"name": CACHE}}}


def steps(*groups: list[Object], **template: Any) -> Object:
    """A `steps` template `main`."""
    return {"name": "main", "steps": list(groups)} | template


def result(pod: Object) -> str:
    """What the Pod's label says of its memoization."""
    found: str = pod["metadata"]["labels"].get(names.RESULT, "")
    return found


def phase(workflow: Object) -> str:
    found: str = workflow["status"]["phase"]
    return found


def outputs(workflow: Object, node: str = "") -> Object:
    """The outputs of the one node, or of the node with that display name."""
    for status in workflow["status"]["nodes"].values():
        if status["displayName"] == (node or workflow["metadata"]["name"]):
            found: Object = status.get("outputs") or {}
            return found
    raise KeyError(node)


def out(workflow: Object) -> str:
    """The output parameter `out` of the one node."""
    [parameter] = outputs(workflow)["parameters"]
    value: str = parameter["value"]
    return value
