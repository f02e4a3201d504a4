"""What the webhooks have to know beyond the review: of a Namespace, of a Workflow.

A look-up never raises. What cannot be read in time is None, which the decision turns into a reason to leave
things alone: memoization is not worth a step's delay.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo import artifact_gc
from argo import names as argo
from argo.shape import mapping
from argo.steppod import Owner
from kube import client
from kube.caching import CachedReads
from kube.errors import ApiError
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

Json = Mapping[str, Any]


class Lookups:
    """The look-ups. `on_failed` is told which resource could not be read, for the metrics."""

    def __init__(
        self,
        api: ApiClient,
        on_failed: Callable[[str], None],
        *,
        seconds: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._on_failed, self._seconds = api, on_failed, seconds
        self._namespaces = CachedReads[str, Json | None](_serves, most=MOST, clock=clock)
        self._workflows = CachedReads[Owner, Json | None](_serves, most=MOST, clock=clock)
        self._deletions = CachedReads[Owner, bool | None](_serves, most=MOST, clock=clock)

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a Namespace; None where it could not be read."""
        metadata = await self._namespaces.get(name, partial(self._read_namespace, name))
        return None if metadata is None else metadata.get("labels") or {}

    async def of_step(self, owner: Owner) -> tuple[Json | None, Mapping[str, str] | None]:
        """The `metadata` of a step's Workflow and the labels of its Namespace, read side by side."""
        self._namespaces.begin(owner.namespace, partial(self._read_namespace, owner.namespace))
        return await self.workflow_metadata(owner), await self.namespace_labels(owner.namespace)

    async def workflow_metadata(self, owner: Owner) -> Json | None:
        """The `metadata` of the Workflow with this name and UID; None where there is none to be read."""
        return await self._workflows.get(owner, partial(self._read_workflow, owner))

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        """Whether the specs of the Workflow and of the template it refers to have its artifacts deleted.

        None where one could not be read. This reads whole objects: ask where the metadata do not tell.
        """
        return await self._deletions.get(owner, partial(self._read_deletion, owner))

    async def _read_namespace(self, name: str) -> Json | None:
        return await self._metadata("namespaces", f"/api/v1/namespaces/{quote(name, safe='')}")

    async def _read_workflow(self, owner: Owner) -> Json | None:
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

    async def _metadata(self, resource: str, path: str | None) -> Json | None:
        found = await self._read(resource, path, client.METADATA_ONLY)
        return None if found is None else found["metadata"]

    async def _read(self, resource: str, path: str | None, accept: str = client.JSON) -> Json | None:
        if path is None:
            return None
        try:
            answer = await client.request(self._api, "GET", path, seconds=self._seconds, accept=accept)
        except ApiError as error:
            problem = str(error)
        else:
            if isinstance(answer.get("metadata"), dict):
                return answer
            problem = "the answer holds no metadata"
        self._on_failed(resource)
        _log.warning("cannot read %s", path, extra=fields(error=problem))
        return None


def _serves(found: object) -> float:
    """The seconds that an answer serves."""
    return FRESH if found is not None else FRESH_NOTHING


def _argo(namespace: str, resource: str, name: str) -> str | None:
    """The path of an object of Argo's; None for a name that is none.

    A tenant wrote it, and it must not lead the request elsewhere.
    """
    if not spec.is_dns1123_subdomain(name):
        return None
    within = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{argo.API_VERSION}/{within}{resource}/{name}"
