"""What the runner has seen of Pods and results: two watched caches and a way to wait for a change."""

import asyncio
from collections.abc import Callable

from devcluster.client import PODS, TASK_RESULTS, Client, Object, Resource


class Observed:
    """The newest state of every Pod and WorkflowTaskResult, by namespace and name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods: dict[tuple[str, str], Object] = {}
        self._deleted: set[str] = set()
        self._results: dict[tuple[str, str], Object] = {}
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Keep both caches fresh until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(PODS, self._pods))
            tasks.create_task(self._follow(TASK_RESULTS, self._results))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is asked again after every change."""
        async with self._changed:
            await self._changed.wait_for(condition)

    def pod(self, created: Object) -> Object:
        """The newest state of a Pod that we created: its last one where it was deleted since."""
        key = created["metadata"]["namespace"], created["metadata"]["name"]
        newest = self._pods.get(key, created)
        return newest if newest["metadata"]["uid"] == created["metadata"]["uid"] else created

    def is_deleted(self, created: Object) -> bool:
        """Whether that Pod is gone."""
        return created["metadata"]["uid"] in self._deleted

    def result(self, namespace: str, node_id: str) -> Object | None:
        """The node's WorkflowTaskResult, None where there is none."""
        return self._results.get((namespace, node_id))

    async def _follow(self, resource: Resource, cache: dict[tuple[str, str], Object]) -> None:
        async for kind, item in self._client.follow(resource):
            key = item["metadata"]["namespace"], item["metadata"]["name"]
            async with self._changed:
                if kind == "DELETED" and resource == PODS:
                    self._deleted.add(item["metadata"]["uid"])
                if kind == "DELETED" and resource == TASK_RESULTS:
                    cache.pop(key, None)
                else:
                    cache[key] = item
                self._changed.notify_all()
