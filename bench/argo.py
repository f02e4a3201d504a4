"""What Argo's controller and a kubelet do with a step, where neither runs: Pods made, results reported."""

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache as remembered
from typing import Any

import aiohttp

from argo import names as argo
from bench.api import ROOT
from memoize import names
from tests.cluster import MERGE, PARTIAL, Cluster

_RECORDED = ROOT / "tests/data/pods/v4.1.2-legacy/container.json"
"""A Pod with one output parameter, `out`, as Argo submitted it."""
TEMPLATE = "step"
_CONNECTIONS = 32
_PATIENCE = 60.0

Object = dict[str, Any]


def step_pod(namespace: str, workflow: str, uid: str, number: int, *, key: str, cache: str) -> Object:
    """The Pod of the workflow's step with this number."""
    pod = copy.deepcopy(_recorded())
    node = node_id(workflow, _node_name(workflow, number))
    metadata = pod["metadata"]
    metadata["namespace"] = namespace
    metadata["name"] = f"{workflow}-{TEMPLATE}-{node.rpartition('-')[2]}"
    metadata["labels"][argo.WORKFLOW_LABEL] = workflow
    metadata["annotations"] |= {
        names.KEY: key,
        names.CACHE: cache,
        argo.NODE_ID: node,
        argo.NODE_NAME: _node_name(workflow, number),
    }
    for owner in metadata["ownerReferences"]:
        owner |= {"name": workflow, "uid": uid}
    return pod


def node_id(workflow: str, node_name: str) -> str:
    """As Argo makes it (Workflow.NodeID): the workflow's name and the 32-bit FNV-1a hash of the node's."""
    value = 0x811C9DC5
    for byte in node_name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{workflow}-{value}"


def result(pod: Mapping[str, Any], value: str) -> Object:
    """What the step's `wait` reports when it is over."""
    metadata = pod["metadata"]
    owner = {name: metadata["ownerReferences"][0][name] for name in ("apiVersion", "kind", "name", "uid")}
    return {
        "apiVersion": argo.API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": metadata["annotations"][argo.NODE_ID],
            "labels": {
                argo.WORKFLOW_LABEL: metadata["labels"][argo.WORKFLOW_LABEL],
                argo.OUTPUTS_COMPLETED: "true",
            },
            "ownerReferences": [owner],
        },
        "outputs": {"parameters": [{"name": "out", "value": value}]},
    }


def succeeded(pod: Mapping[str, Any]) -> Object:
    """The status that the kubelet writes when every container has ended with 0."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}

    def over(kind: str) -> list[Object]:
        return [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": ended,
            }
            for one in pod["spec"].get(kind, ())
        ]

    return {
        "phase": "Succeeded",
        "startTime": now,
        "initContainerStatuses": over("initContainers"),
        "containerStatuses": over("containers"),
    }


@dataclass
class Stand:
    """The controller and the kubelet of one namespace, over connections that are kept."""

    cluster: Cluster
    session: aiohttp.ClientSession
    namespace: str
    workflow: str
    uid: str
    over: dict[str, float] = field(default_factory=dict)
    """When a Pod of this name was seen Succeeded, by `time.perf_counter`."""
    running: set[str] = field(default_factory=set)
    """The Pods that nothing holds, as far as labels tell: those that a scheduler would place."""
    results: dict[str, str] = field(default_factory=dict)
    """The label of each Pod that says how far its memoization is, as it was last seen; "" for none."""
    made: dict[str, Object] = field(default_factory=dict)
    """The Pods as they were submitted."""
    versions: dict[str, int] = field(default_factory=dict)
    """The resourceVersion that the watch told last of each Pod: a revision of etcd, which grows."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, number: int, *, key: str, cache: str) -> tuple[str, float]:
        """Make the Pod of a step; its name, and when that was begun."""
        pod = step_pod(self.namespace, self.workflow, self.uid, number, key=key, cache=cache)
        began = time.perf_counter()
        self.made[pod["metadata"]["name"]] = pod
        await self.ask("POST", self.cluster.path("Pod", self.namespace), pod)
        return pod["metadata"]["name"], began

    async def complete(self, name: str, value: str, *, label: str = "") -> None:
        """Have the step be over: its outputs reported, its containers ended. `label`: its result's."""
        pod, path = self.made[name], self.cluster.path("Pod", self.namespace, name)
        await self.ask("POST", self.cluster.path("WorkflowTaskResult", self.namespace), result(pod, value))
        labels = {names.RESULT: label} if label else {}
        body = {"metadata": {"labels": labels}, "status": succeeded(pod)}
        await self.ask("PATCH", f"{path}/status", body, MERGE)

    async def clear(self) -> None:
        """Delete the Pods and results, and forget them."""
        for kind in ("Pod", "WorkflowTaskResult"):
            await self.ask("DELETE", self.cluster.path(kind, self.namespace), {"gracePeriodSeconds": 0})
        await asyncio.sleep(1)  # for those who watch them
        for known in (self.over, self.running, self.results, self.made, self.versions):
            known.clear()

    async def until(self, condition: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Return once the condition holds, which is looked at when a Pod has changed; TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ask(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> Object:
        """The answer's object; RuntimeError for anything but a 2xx."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content else {}
        url = self.cluster.url + path
        async with self.session.request(method, url, data=content, headers=headers) as response:
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {await response.text()}")
            return dict(await response.json())

    async def watch(self, opened: asyncio.Event) -> None:
        """Follow the Pods, of which labels are enough to tell how far they are."""
        query = {"watch": "1", "timeoutSeconds": "3600", "labelSelector": argo.WORKFLOW_LABEL}
        url = self.cluster.url + self.cluster.path("Pod", self.namespace)
        headers = {"Accept": PARTIAL}
        async with self.session.get(url, params=query, headers=headers) as response:
            opened.set()
            async for line in response.content:
                self._heard(json.loads(line)["object"]["metadata"])

    def _heard(self, metadata: Object) -> None:
        label = metadata.get("labels", {}).get(names.RESULT, "")
        self.results[metadata["name"]] = label
        self.versions[metadata["name"]] = int(metadata["resourceVersion"])
        if label == names.RESULT_HIT:
            self.over.setdefault(metadata["name"], time.perf_counter())
        elif label == names.RESULT_MISS:
            self.running.add(metadata["name"])
        self._changed.set()


@asynccontextmanager
async def standing(cluster: Cluster, namespace: str, workflow: str, uid: str) -> AsyncIterator[Stand]:
    """The stand-in until the block ends, its watch open."""
    connector = aiohttp.TCPConnector(ssl=cluster.context(), limit=_CONNECTIONS)
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    limits = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=limits, read_bufsize=1 << 20
    ) as session:
        stand = Stand(cluster, session, namespace, workflow, uid)
        opened = asyncio.Event()
        watching = asyncio.create_task(stand.watch(opened))
        try:
            await opened.wait()
            yield stand
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _node_name(workflow: str, number: int) -> str:
    return f"{workflow}[0].a({number})"


@remembered
def _recorded() -> Object:
    pod: Object = json.loads(_RECORDED.read_text(encoding="utf-8"))
    return pod
