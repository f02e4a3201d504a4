"""The caches of a cluster, or of some namespaces, as the API server last told.

The view answers at once whether an entry is there and fresh, by index; or that it does not know, while it is
not in sync. It never takes what it does not know for a miss. Values are read when they are needed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper.cache.index import Cache, Index, fresh
from keeper.cache.lru import DataCache
from kube import client
from kube.caching import CachedReads
from kube.client import Json
from kube.errors import ApiError, NotFound
from kube.reflector import Reflector
from memoize import configmap, spec
from memoize.entry import Memoized
from memoize.keeper_status import Known
from memoize.outcome import Outcome
from server.outcomes import outcome_of

SELECTOR = f"{argo.CONFIGMAP_TYPE}={argo.CONFIGMAP_TYPE_CACHE}"
PAGE = 10
"""The most ConfigMaps in a page of the list: the ones that follow small ones may each weigh a megabyte."""
KEPT_BYTES = 16 << 20
"""Of caches that changed or were read lately; a list keeps none, since most of them nobody asks for."""
READ_SECONDS = 5.0

Told = Callable[[str, str], None]
Data = Mapping[str, str]


class View:
    """A watched view of the caches of `namespaces`; of all where none is named. `clock` counts seconds."""

    def __init__(
        self,
        api: ApiClient,
        namespaces: Sequence[str] = (),
        *,
        kept_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._kept = DataCache(kept_bytes)
        self._reads: CachedReads[tuple[Cache, str], Data | Outcome] = CachedReads()
        self._subscribers: list[Told] = []
        self._parts = {
            namespace: _Part(
                api, namespace, self._kept, clock=clock, told=self._tell, on_synced=self._tell_all
            )
            for namespace in (namespaces or ("",))
        }

    async def run(self) -> None:
        """Follow the caches for ever."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts.values():
                group.create_task(part.reflector.run())

    @property
    def in_sync(self) -> bool:
        """Whether nothing that `ask` is asked is unknown for want of the API server."""
        return all(part.reflector.in_sync for part in self._parts.values())

    @property
    def heard(self) -> float:
        """`clock()` when the API server last said something, of the namespace where that is longest ago."""
        return min(part.reflector.heard for part in self._parts.values())

    @property
    def entries(self) -> int:
        """How many entries the view knows."""
        return sum(part.index.entries for part in self._parts.values())

    def subscribe(self, told: Told) -> None:
        """Have `told(namespace, cache)` called after every change of a cache.

        It is called for all caches each time that the view has come in sync. It must not block.
        """
        self._subscribers.append(told)

    def ask(self, namespace: str, cache: str, memo: Memoized, now: datetime) -> tuple[Known, str]:
        """Say whether there is an entry for `memo` that is fresh at the time `now` (aware).

        With FRESH comes the entry's creationTimestamp as it is written ("" for one without), else "". The
        value is not read: what is FRESH may still be broken, incomplete, or of another key.
        """
        part, key = self._part(namespace), (namespace, cache)
        if part is None or not part.reflector.in_sync or not part.index.holds(key):
            return Known.UNKNOWN, ""
        seen = part.index.find(key, memo.data_key)
        if seen is None or not fresh(seen, memo.max_age, now):
            return Known.ABSENT, ""
        return Known.FRESH, seen.created

    async def read(self, namespace: str, cache: str) -> Data | Outcome:
        """Give all of a cache's data, no older than what subscribers were told of before the call.

        Empty where there is none; an Outcome where it cannot be read, or is no cache. Do not change it.
        """
        if not spec.is_dns1123_subdomain(cache):
            return {}  # a tenant wrote the name, and it must not lead the request elsewhere
        key = (namespace, cache)
        version = self._version(key)
        if version and (data := self._kept.get(key, version)) is not None:
            return data
        # Reads of one version share a request: one from before the last event may be out of date.
        return await self._reads.get((key, version), partial(self._read, key))

    async def _read(self, key: Cache) -> Data | Outcome:
        namespace, name = key
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{name}"
        try:
            found = await client.request(self._api, "GET", path, seconds=READ_SECONDS)
        except NotFound:
            return {}
        except ApiError as error:
            return outcome_of(error)
        if refused := configmap.not_a_cache(found):
            return refused
        data = configmap.data(found)
        version = found["metadata"].get("resourceVersion")
        if version and version == self._version(key):
            self._kept.put(key, version, data)
        return data

    def _version(self, key: Cache) -> str:
        """The resourceVersion that the cache is at; "" where that is not known."""
        part = self._part(key[0])
        return part.index.version(key) if part is not None and part.reflector.in_sync else ""

    def _part(self, namespace: str) -> "_Part | None":
        return self._parts.get(namespace) or self._parts.get("")

    def _tell(self, cache: Cache) -> None:
        for told in self._subscribers:
            told(*cache)

    def _tell_all(self) -> None:
        if self.in_sync:
            for part in self._parts.values():
                for cache in list(part.index):
                    self._tell(cache)


class _Part:
    """The caches of one namespace, or of all: what their reflector tells goes into an index."""

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        kept: DataCache,
        *,
        clock: Callable[[], float],
        told: Callable[[Cache], None],
        on_synced: Callable[[], None],
    ) -> None:
        self._kept, self._told = kept, told
        self.index = Index()
        within = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
        self.reflector = Reflector(
            api,
            f"/api/v1/{within}configmaps",
            self,
            name=f"the caches of {namespace or 'all namespaces'}",
            selector=SELECTOR,
            page=PAGE,
            clock=clock,
            on_synced=on_synced,
        )

    def begin(self) -> None:
        self.index.begin()

    def listed(self, obj: Json) -> None:
        self._put(obj)

    def end(self) -> None:
        for cache in self.index.end():
            self._kept.drop(cache)

    def changed(self, type_: str, obj: Json) -> None:
        cache = _key(obj)
        if type_ == "DELETED":
            self.index.drop(cache)
            self._kept.drop(cache)
        else:
            self._kept.put(cache, *self._put(obj))
        self._told(cache)

    def _put(self, obj: Json) -> tuple[str, Data]:
        """Index it; its resourceVersion and its data."""
        version, data = obj["metadata"]["resourceVersion"], configmap.data(obj)
        self.index.put(_key(obj), version, data)
        return version, data


def _key(obj: Json) -> Cache:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
