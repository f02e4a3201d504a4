"""What the ConfigMap store has beside its view, its writer and the times of hits."""

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from keeper.cache.store import ConfigMapStore
from keeper.store import Cache, CacheInfo, Page
from memoize.entry import Entry
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.stores import config_maps
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
pytestmark = pytest.mark.contract


def text(key: str, max_age: str = "") -> str:
    return Entry("node", None, NOW, None, key, max_age).dump()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace()


@pytest_asyncio.fixture
async def store(cluster: Cluster, namespace: str) -> AsyncIterator[ConfigMapStore]:
    async with api_client(cluster) as api:
        store = config_maps(api, [namespace])
        running = asyncio.create_task(store.run())
        await until(lambda: store.in_sync)
        yield store
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await store.close()


async def test_what_was_put_is_read_at_once_and_what_was_deleted_is_not(
    store: ConfigMapStore, namespace: str
) -> None:
    where = namespace, "cache"
    assert await store.read(*where, "a") == ""
    assert (await store.put(*where, "a", text("a"), NOW)).reason is Reason.STORED
    assert (await store.put(*where, "b", text("b"), NOW)).reason is Reason.STORED
    assert await store.read(*where, "a") == text("a")
    assert await store.delete(*where, "a") is True
    assert (await store.read(*where, "a"), await store.read(*where, "b")) == ("", text("b"))
    assert await store.delete(*where, "a") is False


@pytest.mark.parametrize("name", ["absent", "../pods"])
async def test_there_is_nothing_to_delete_in_what_is_not_there(
    store: ConfigMapStore, namespace: str, name: str
) -> None:
    assert await store.delete(namespace, name, "a") is False


async def test_nothing_is_deleted_of_what_is_no_cache(
    store: ConfigMapStore, namespace: str, cluster: Cluster
) -> None:
    metadata = {"name": "mine", "namespace": namespace}
    cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}})
    refused = await store.delete(namespace, "mine", "a")
    assert not isinstance(refused, bool)
    assert refused.reason is Reason.NOT_A_CACHE


async def test_entries_are_listed_page_by_page_without_what_they_hold(
    store: ConfigMapStore, namespace: str
) -> None:
    texts = {"a": text("a"), "b": text("b", "1h"), "c": "{"}
    for data_key, one in texts.items():
        await store.put(namespace, "cache", data_key, one, NOW)
    first = await store.entries(namespace, "cache", limit=2)
    assert isinstance(first, Page)
    last = await store.entries(namespace, "cache", first.after, limit=2)
    assert isinstance(last, Page)
    found = {one.data_key: one for one in (*first.items, *last.items)}
    assert (len(first.items), len(last.items), last.after) == (2, 1, "")
    assert {data_key: one.bytes for data_key, one in found.items()} == {
        data_key: len(one) for data_key, one in texts.items()
    }
    assert (found["a"].created, found["a"].expires, found["c"].created) == (NOW, None, None)
    assert (found["b"].expires or NOW) - NOW >= timedelta(hours=1)


async def test_caches_are_listed_page_by_page(store: ConfigMapStore, namespace: str) -> None:
    for name in ("one", "two", "three"):
        await store.put(namespace, name, "a", text("a"), NOW)
    await store.put(namespace, "two", "b", text("b"), NOW)
    found, after = list[CacheInfo](), ""
    while True:
        page = await store.caches(namespace, after, limit=2)
        assert isinstance(page, Page)
        assert len(page.items) <= 2
        found += page.items
        if not (after := page.after):
            break
    size = len(text("a"))
    assert {one.cache: (one.entries, one.bytes) for one in found} == {
        "one": (1, size),
        "two": (2, 2 * size),
        "three": (1, size),
    }
    assert {one.namespace for one in found} == {namespace}


class Following:
    def __init__(self, namespace: str, *data_keys: str) -> None:
        self.caches: Collection[Cache] = {(namespace, "cache")}
        self._data_keys = data_keys
        self.told: list[Mapping[str, Hashable]] = []

    def data_keys(self, namespace: str, cache: str) -> Collection[str]:
        return self._data_keys

    def on_change(self, namespace: str, cache: str, entries: Mapping[str, Hashable]) -> None:
        self.told.append(entries)


async def test_whoever_follows_an_entry_is_told_another_value_once_it_is_another_one(
    store: ConfigMapStore, namespace: str
) -> None:
    following = Following(namespace, "a", "b")
    store.subscribe(following.on_change, following)
    await store.put(namespace, "cache", "a", text("a"), NOW)
    await until(lambda: following.told)
    before = following.told[-1]
    await store.put(namespace, "cache", "b", text("b"), NOW)
    await until(lambda: following.told[-1] != before)
    after = following.told[-1]
    assert (before.keys(), after.keys()) == ({"a", "b"}, {"a", "b"})
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]
