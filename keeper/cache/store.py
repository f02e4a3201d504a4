"""The store that keeps entries where Argo does: a cache is a ConfigMap, and is read and written as one."""

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from keeper.cache.configmap import CacheError, ConfigMap
from keeper.cache.last_hit import LastHits
from keeper.cache.view import SELECTOR, View
from keeper.cache.writer import Writer
from keeper.gc import CacheGC
from keeper.store import (
    NOT_NOW,
    READ_TIMEOUT,
    CacheInfo,
    EntryInfo,
    Followed,
    Found,
    OnChange,
    Page,
    entry_info,
)
from kube import client
from kube.errors import ApiError, Conflict, Invalid, NotFound
from memoize import configmap, spec
from memoize.earlier import earlier
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.outcomes import outcome_of
from server.program import again, until_first_ends

_LIST_SECONDS = 10.0
_ATTEMPTS = 4


class ConfigMapStore:
    """The caches that the view follows; `keeper.store.Store` says what it does."""

    def __init__(
        self, api: ApiClient, view: View, writer: Writer, hits: LastHits, collector: CacheGC | None = None
    ) -> None:
        """With a `collector` its caches are cleaned up."""
        self._api, self._view, self._writer, self._hits = api, view, writer, hits
        self._parts = [view.run, hits.run, *([collector.run] if collector else [])]
        self.knows, self.last_contact, self.fills = view.knows, view.last_contact, view.fills
        self.hit, self.close = hits.hit, writer.close

    @property
    def in_sync(self) -> bool:
        return self._view.in_sync

    @property
    def kept_bytes(self) -> int:
        return self._view.kept_bytes

    async def run(self) -> object:
        return await until_first_ends(*map(again, self._parts))

    async def read(
        self, namespace: str, cache: str, data_key: str, seconds: float | None = READ_TIMEOUT
    ) -> str | Outcome:
        data = await self._view.read(namespace, cache, seconds)
        return data if isinstance(data, Outcome) else data.get(data_key, "")

    async def put(self, namespace: str, cache: str, data_key: str, text: str, now: datetime) -> Outcome:
        if not spec.is_dns1123_subdomain(cache):
            return Outcome(Reason.NOT_A_CACHE, "no ConfigMap can have this name")
        outcome = await self._writer.put(namespace, cache, data_key, text, now)
        if outcome.reason is Reason.STORED or outcome.reason in NOT_NOW:  # it may be there all the same
            self._view.forget(namespace, cache)  # those who wait for this step look for its entry at once
        return outcome

    async def drop(self, namespace: str, cache: str, data_key: str, text: str) -> bool | Outcome:
        try:
            async with self._writer.turn(namespace):
                await ConfigMap(self._api, namespace, cache).patch(configmap.dropped(data_key, text))
        except CacheError as error:
            if isinstance(error.error, NotFound | Invalid):
                return False  # it is another one by now, or gone, or no cache any more
            return error.outcome
        self._view.forget(namespace, cache)
        return True

    def subscribe(self, on_change: OnChange, followed: Followed) -> None:
        def told(namespace: str, cache: str, data: Mapping[str, str]) -> None:
            # Of a text only a hash is handed on: values of thousands of entries might be gigabytes.
            wanted = followed.data_keys(namespace, cache)
            on_change(namespace, cache, {data_key: hash(data.get(data_key, "")) for data_key in wanted})

        self._view.subscribe(told, followed.caches)
        # What is to go is chosen in a thread.
        self._writer.spare(lambda namespace, cache: frozenset(followed.data_keys(namespace, cache)))

    async def delete(self, namespace: str, cache: str, data_key: str) -> bool | Outcome:
        if not spec.is_dns1123_subdomain(cache):
            return False
        config_map = ConfigMap(self._api, namespace, cache)
        trouble = CacheError("patch configmaps", Conflict())
        for _ in range(_ATTEMPTS):
            try:
                seen = await config_map.get()
                if refused := configmap.refused(seen):
                    return refused
                if data_key not in configmap.data(seen):
                    return False
                await config_map.patch(configmap.seen(seen, {}, [data_key]))
            except CacheError as error:
                if isinstance(error.error, NotFound):
                    return False
                if not isinstance(error.error, Conflict):
                    return error.outcome
                trouble = error
            else:
                self._view.forget(namespace, cache)
                return True
        return trouble.outcome

    async def entries(
        self, namespace: str, cache: str, after: str = "", limit: int = 500
    ) -> Page[EntryInfo] | Outcome:
        data = await self._view.read(namespace, cache)
        if isinstance(data, Outcome):
            return data
        left = sorted(data_key for data_key in data if data_key > after)
        items = [entry_info(data_key, data[data_key]) for data_key in left[:limit]]
        return Page(items, left[limit - 1] if len(left) > limit else "")

    async def earlier(
        self, namespace: str, cache: str, template: str, but_not: str, before: datetime | None
    ) -> Found | Outcome | None:
        data = await self._view.read(namespace, cache)
        if isinstance(data, Outcome):
            return data
        found = earlier(data, template, but_not, before)
        return Found(found, data[found]) if found else None

    async def caches(self, namespace: str, after: str = "", limit: int = 500) -> Page[CacheInfo] | Outcome:
        within = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
        query = [("labelSelector", SELECTOR), ("limit", str(limit))]
        if after:
            query.append(("continue", after))
        try:
            text = await client.read(
                self._api,
                f"/api/v1/{within}configmaps",
                seconds=_LIST_SECONDS,
                query=query,
                accept=client.METADATA_LIST,
            )
        except ApiError as error:
            return outcome_of(error)
        page, items = client.parsed(text), list[CacheInfo]()
        for found in page.get("items") or ():  # an empty list of metadata comes as null
            key = found["metadata"]["namespace"], found["metadata"]["name"]
            data = await self._view.read(*key, seconds=None)
            if not isinstance(data, Outcome):
                items.append(CacheInfo(*key, len(data), sum(map(configmap.size, data.values()))))
            elif data.reason in NOT_NOW:
                return data
        return Page(items, page["metadata"].get("continue", ""))
