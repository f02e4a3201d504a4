"""Either store, with as many keepers on it as a test wants."""

from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from argo import names as argo
from keeper.cache.last_hit import LastHits
from keeper.cache.store import ConfigMapStore
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.store import Cache, Store
from server.lookups import Lookups
from tests.cluster import Cluster
from tests.keeper.stores import in_postgresql, running
from tests.webhook.serving import api_client

CACHE = "cache"
HIT_INTERVAL = 1.0
"""Seconds; a tenth of it is what hits are gathered for."""


class Backing(Protocol):
    """Where entries lie; `namespace` is a fresh one, for which every keeper of it looks."""

    namespace: str
    cluster: Cluster

    def keeper(self) -> AbstractAsyncContextManager[Store]:
        """Another keeper's store, in sync and running until the block ends."""


class ConfigMaps:
    """Entries in ConfigMaps."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.namespace = cluster, cluster.namespace()

    @asynccontextmanager
    async def keeper(self) -> AsyncIterator[Store]:
        async with api_client(self.cluster) as api:
            view, writer = View(api, [self.namespace]), Writer(api)
            async with running(
                ConfigMapStore(api, view, writer, LastHits(writer, view, HIT_INTERVAL))
            ) as store:
                yield store


class Postgres:
    """Entries in PostgreSQL."""

    def __init__(self, cluster: Cluster, dsn_file: Path) -> None:
        self.cluster, self.namespace, self._dsn_file = cluster, cluster.namespace(), dsn_file

    @asynccontextmanager
    async def keeper(self, *, in_sync: bool = True) -> AsyncIterator[Store]:
        async with api_client(self.cluster) as api:
            created = Lookups(api, lambda resource: None, seconds=10).namespace_created
            store = in_postgresql(
                api, self._dsn_file, [self.namespace], hit_interval=HIT_INTERVAL, created=created
            )
            async with running(store, in_sync=in_sync):
                yield store


def seed(backing: Backing, data: Mapping[str, str], name: str = CACHE, *, cache: bool = True) -> None:
    """Make a ConfigMap, as somebody does with kubectl."""
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE} if cache else {}
    metadata: dict[str, Any] = {"name": name, "namespace": backing.namespace, "labels": labels}
    status, body = backing.cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": dict(data)})
    assert status == 201, body


class Waiting:
    """Somebody who waits for entries of the cache, and what he was told of them."""

    def __init__(self, namespace: str, *data_keys: str) -> None:
        self.caches: Collection[Cache] = {(namespace, CACHE)}
        self.caches_of: Mapping[str, Collection[str]] = {namespace: {CACHE}}
        self._data_keys = data_keys
        self.told: dict[str, Hashable] = {}
        """The last of each entry."""

    def data_keys(self, namespace: str, cache: str) -> Collection[str]:
        return self._data_keys if (namespace, cache) in self.caches else ()

    def on_change(self, namespace: str, cache: str, entries: Mapping[str, Hashable]) -> None:
        assert (namespace, cache) in self.caches
        assert entries.keys() <= set(self._data_keys)
        self.told.update(entries)
