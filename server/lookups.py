"""What the webhooks have to know beyond the review: of a Namespace, of a Workflow.

A look-up never raises. What cannot be read in time is None, which the decision turns into a reason to leave
things alone: memoization is not worth a step's delay.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo import artifact_gc
from argo import names as argo
from argo.shape import mapping
from argo.steppod import Owner
from kube import client
from memoize import spec
from server.logs import fields

_log = logging.getLogger(__name__)

TIMEOUT = 1.0
"""Seconds for one request: with three in a row well below the webhooks' time-out of 5 s."""
FRESH = 5.0
"""Seconds that an answer serves: a fan-out of hundreds of Pods then reads its Workflow once."""
FRESH_NOTHING = 1.0
"""Seconds that a failure serves: long enough to spare a struggling API server, short enough to be over."""
MOST = 1000
"""Answers kept; metadata is some kilobytes."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cached(Generic[K, V]):
    """Answers of `read` by key, for some seconds each; one read at a time for equal keys.

    `read` returns None for what it could not read and does not raise. `clock` counts seconds.
    """

    def __init__(self, read: Callable[[K], Awaitable[V | None]], clock: Callable[[], float]) -> None:
        self._read, self._clock = read, clock
        self._answers: OrderedDict[K, tuple[float, V | None]] = OrderedDict()
        self._reading: dict[K, asyncio.Task[V | None]] = {}

    async def get(self, key: K) -> V | None:
        """The answer, from memory where it is fresh."""
        answer = self._fresh(key)
        # One caller that hangs up must not end the read that others wait for.
        return answer[1] if answer is not None else await asyncio.shield(self._read_once(key))

    def begin(self, key: K) -> None:
        """Read what `get` would have to wait for, beside whatever the caller does before it asks."""
        if self._fresh(key) is None:
            self._read_once(key)

    def _fresh(self, key: K) -> tuple[float, V | None] | None:
        answer = self._answers.get(key)
        return answer if answer is not None and self._clock() < answer[0] else None

    def _read_once(self, key: K) -> asyncio.Task[V | None]:
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.ensure_future(self._answer(key))
        return task

    async def _answer(self, key: K) -> V | None:
        try:
            value = await self._read(key)
        finally:
            del self._reading[key]
        self._answers[key] = (self._clock() + (FRESH if value is not None else FRESH_NOTHING), value)
        self._answers.move_to_end(key)
        while len(self._answers) > MOST:
            self._answers.popitem(last=False)
        return value


class Lookups:
    """The look-ups. `failed` is told which resource could not be read, for the metrics."""

    def __init__(
        self,
        api: ApiClient,
        failed: Callable[[str], None],
        *,
        seconds: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._failed, self._seconds = api, failed, seconds
        self._namespaces: Cached[str, Mapping[str, Any]] = Cached(self._read_namespace, clock)
        self._workflows: Cached[Owner, Mapping[str, Any]] = Cached(self._read_workflow, clock)
        self._deletions: Cached[Owner, bool] = Cached(self._read_deletion, clock)

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a Namespace; None where it could not be read."""
        metadata = await self._namespaces.get(name)
        return None if metadata is None else metadata.get("labels") or {}

    async def of_step(self, owner: Owner) -> tuple[Mapping[str, Any] | None, Mapping[str, str] | None]:
        """The `metadata` of a step's Workflow and the labels of its Namespace, read side by side."""
        self._namespaces.begin(owner.namespace)
        return await self.workflow_metadata(owner), await self.namespace_labels(owner.namespace)

    async def workflow_metadata(self, owner: Owner) -> Mapping[str, Any] | None:
        """The `metadata` of the Workflow with this name and UID; None where there is none to be read."""
        return await self._workflows.get(owner)

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        """Whether the specs of the Workflow and of the template it refers to have its artifacts deleted.

        None where one could not be read. This reads whole objects: ask where the metadata do not tell.
        """
        return await self._deletions.get(owner)

    async def _read_namespace(self, name: str) -> Mapping[str, Any] | None:
        return await self._metadata("namespaces", f"/api/v1/namespaces/{quote(name, safe='')}")

    async def _read_workflow(self, owner: Owner) -> Mapping[str, Any] | None:
        metadata = await self._metadata("workflows", _argo(owner.namespace, "workflows", owner.name))
        return metadata if metadata is not None and metadata.get("uid") == owner.uid else None

    async def _read_deletion(self, owner: Owner) -> bool | None:
        workflow = await self._read("workflows", _argo(owner.namespace, "workflows", owner.name))
        if workflow is None or workflow["metadata"].get("uid") != owner.uid:
            return None
        own = artifact_gc.strategy(mapping(workflow.get("spec")))
        template = artifact_gc.reference(workflow)
        if own or template is None:
            return artifact_gc.deletes(own)
        resource = "clusterworkflowtemplates" if template.cluster else "workflowtemplates"
        path = _argo("" if template.cluster else owner.namespace, resource, template.name)
        holder = await self._read(resource, path)
        return (
            None if holder is None else artifact_gc.deletes(artifact_gc.strategy(mapping(holder.get("spec"))))
        )

    async def _metadata(self, resource: str, path: str | None) -> Mapping[str, Any] | None:
        found = await self._read(resource, path, client.METADATA_ONLY)
        return None if found is None else found["metadata"]

    async def _read(
        self, resource: str, path: str | None, accept: str = client.JSON
    ) -> Mapping[str, Any] | None:
        if path is None:
            return None
        try:
            answer = await client.request(self._api, "GET", path, seconds=self._seconds, accept=accept)
        except client.FAILURES as error:
            problem = client.explain(error)
        else:
            if isinstance(answer, dict) and isinstance(answer.get("metadata"), dict):
                return answer
            problem = "the answer holds no metadata"
        self._failed(resource)
        _log.warning("cannot read %s", path, extra=fields(error=problem))
        return None


def _argo(namespace: str, resource: str, name: str) -> str | None:
    """The path of an object of Argo's; None for a name that is none.

    A tenant wrote it, and it must not lead the request elsewhere.
    """
    if not spec.is_dns1123_subdomain(name):
        return None
    within = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{argo.API_VERSION}/{within}{resource}/{name}"
