import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from keeper.cache.lru import Data
from keeper.cache.view import View
from keeper.store import Cache
from memoize import names
from memoize.reasons import Reason
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, broken, gibberish, hang, overloaded
from tests.kube.collection import LABELS, Collection, gone, silent
from tests.waiting import until
from tests.webhook.serving import api_client

TEXT = json.dumps({"nodeID": "wf-1", "outputs": {}, "creationTimestamp": "2026-05-04T11:00:00Z"})
OLD_TEXT = TEXT.replace("2026", "2025")
WORK = "work"
CACHE = (WORK, "cache")
MEGABYTE = {"k": "x" * 1_000_000}


class Told:
    """A subscriber that follows some caches: what it was told."""

    def __init__(self, view: View, *followed: Cache) -> None:
        self.calls: list[tuple[str, Data]] = []
        self.followed = set(followed)
        view.subscribe(lambda namespace, cache, data: self.calls.append((cache, data)), self.followed)

    def last(self, data: Mapping[str, str]) -> Callable[[], bool]:
        return lambda: bool(self.calls) and self.calls[-1][1] == data


@asynccontextmanager
async def running(view: View) -> AsyncIterator[View]:
    async with beside(view.run()):
        yield view


@asynccontextmanager
async def viewing(cluster: Cluster, *namespaces: str, token: str | None = None) -> AsyncIterator[View]:
    """A view of the cluster that is in sync."""
    async with api_client(cluster, token=token) as api, running(View(api, namespaces)) as view:
        await until(lambda: view.in_sync)
        yield view


@asynccontextmanager
async def viewed(cluster: Cluster, collection: Collection, **options: Any) -> AsyncIterator[View]:
    """A view of the collection; it runs, and may not be in sync yet."""
    async with (
        collection.serving() as url,
        api_client(cluster, url=url) as api,
        running(View(api, **options)) as view,
    ):
        yield view


def put(cluster: Cluster, namespace: str, name: str, data: Mapping[str, str], *, label: bool = True) -> None:
    metadata = {"namespace": namespace, "name": name, "labels": LABELS if label else {}}
    status, body = cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
    )
    assert status == 201, body


def patch(cluster: Cluster, namespace: str, name: str, patch: dict[str, Any]) -> None:
    status, body = cluster.patch("ConfigMap", namespace, name, patch)
    assert status == 200, body


class Slow:
    """Answers reads of the collection with what it holds when they come, and only once it is told to."""

    def __init__(self, collection: Collection) -> None:
        self._collection, self.answers = collection, asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        found = json.dumps(self._collection.objects[WORK, request.match_info["name"]])
        await self.answers.wait()
        return web.Response(text=found, content_type="application/json")


@pytest.mark.contract
async def test_of_every_change_of_a_cache_that_is_followed_it_tells_what_the_cache_holds(
    cluster: Cluster,
) -> None:
    namespace = cluster.namespace()
    async with viewing(cluster, namespace) as view:
        told = Told(view, (namespace, "cache"))
        put(cluster, namespace, "other", {"k": TEXT})
        put(cluster, namespace, "cache", {"k": TEXT})
        await until(told.last({"k": TEXT}))
        patch(cluster, namespace, "cache", {"data": {"k": None, "l": TEXT}})
        await until(told.last({"l": TEXT}))
        patch(cluster, namespace, "cache", {"metadata": {"labels": dict.fromkeys(LABELS)}})
        await until(told.last({}))
        patch(cluster, namespace, "cache", {"metadata": {"labels": LABELS}})
        await until(told.last({"l": TEXT}))
        cluster.delete("ConfigMap", namespace, "cache")
        await until(told.last({}))
        put(cluster, namespace, "cache", {"k": OLD_TEXT})
        await until(told.last({"k": OLD_TEXT}))
    assert {cache for cache, _ in told.calls} == {"cache"}


@pytest.mark.contract
async def test_what_was_read_is_given_until_it_changes(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    put(cluster, namespace, "cache", {"k": TEXT})
    async with viewing(cluster, namespace) as view:
        assert await view.read(namespace, "cache") == {"k": TEXT}
        patch(cluster, namespace, "cache", {"data": {"l": OLD_TEXT}})
        await until(lambda: not view.kept_bytes)
        assert await view.read(namespace, "cache") == {"k": TEXT, "l": OLD_TEXT}
        patch(cluster, namespace, "cache", {"metadata": {"labels": dict.fromkeys(LABELS)}})
        await until(lambda: not view.kept_bytes)
        assert (await view.read(namespace, "cache")).reason is Reason.NOT_A_CACHE
        patch(cluster, namespace, "cache", {"metadata": {"labels": LABELS}})
        await until(lambda: not view.kept_bytes)
        assert await view.read(namespace, "cache") == {"k": TEXT, "l": OLD_TEXT}
        cluster.delete("ConfigMap", namespace, "cache")
        await until(lambda: not view.kept_bytes)
        assert await view.read(namespace, "cache") == {}
        put(cluster, namespace, "cache", {"k": TEXT})
        await until(lambda: not view.kept_bytes)
        assert await view.read(namespace, "cache") == {"k": TEXT}


@pytest.mark.contract
async def test_what_is_no_cache_is_not_read(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    put(cluster, namespace, "unlabelled", {"k": TEXT}, label=False)
    async with viewing(cluster) as view:
        assert (await view.read(namespace, "unlabelled")).reason is Reason.NOT_A_CACHE
        assert await view.read(namespace, "nothing") == {}
        assert await view.read("nowhere", "nothing") == {}


@pytest.mark.contract
async def test_of_namespaces_that_it_does_not_follow_it_knows_nothing(cluster: Cluster) -> None:
    ours, another, foreign = (cluster.namespace() for _ in range(3))
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
    for namespace in (ours, another, foreign):
        put(cluster, namespace, "cache", {"k": TEXT})
    token = cluster.service_account(ours, "viewer", [rule])
    async with viewing(cluster, ours, token=token) as view:
        assert view.knows(ours)
        assert await view.read(ours, "cache") == {"k": TEXT}
        assert not view.knows(foreign)
        assert (await view.read(foreign, "cache")).reason is Reason.FORBIDDEN
    async with viewing(cluster, ours, another) as view:
        assert view.knows(ours)
        assert view.knows(another)
        assert not view.knows(foreign)


@pytest.mark.contract
async def test_without_rights_it_knows_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "powerless", [])
    async with api_client(cluster, token=token) as api, running(View(api)) as view:
        await until(lambda: "cannot watch the caches of all namespaces" in caplog.text)
        assert not view.in_sync
        assert not view.knows(namespace)


@pytest.mark.contract
async def test_of_caches_that_nobody_asks_for_nothing_but_metadata_is_received_and_nothing_kept(
    cluster: Cluster,
) -> None:
    namespace = cluster.namespace()
    for number in range(5):
        put(cluster, namespace, f"cache-{number}", MEGABYTE)
    async with viewing(cluster, namespace) as view:
        told = Told(view, (namespace, "followed"))
        patch(cluster, namespace, "cache-1", {"data": {"l": TEXT}})
        put(cluster, namespace, "followed", {})
        await until(told.last({}))
        assert view.kept_bytes < 10_000


# --- an API server that does as it is told -----------------------------------------------------------


async def test_what_is_not_in_sync_is_not_known(cluster: Cluster) -> None:
    collection = Collection()
    listed = asyncio.Event()

    async def hesitate(request: web.Request) -> web.StreamResponse:
        await listed.wait()
        return await collection._list(request)

    collection.on_list.append(hesitate)
    async with viewed(cluster, collection) as view:
        await until(lambda: collection.lists)
        assert not view.knows(WORK)
        listed.set()
        await until(lambda: view.in_sync)
        assert view.knows(WORK)

        listed.clear()
        collection.on_list.append(hesitate)
        collection.on_watch.append(gone)
        collection.cut_watches()
        await until(lambda: len(collection.lists) == 2)
        assert not view.knows(WORK)
        listed.set()
        await until(lambda: view.in_sync)
        assert view.knows(WORK)


async def test_of_two_namespaces_each_is_known_for_itself(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT}, "one")
    collection.put("cache", {"k": OLD_TEXT}, "other")
    opened = asyncio.Event()

    async def hesitate(request: web.Request) -> web.StreamResponse:
        await opened.wait()
        return await collection._list(request)

    collection.on_list += [collection._list, hesitate]
    async with viewed(cluster, collection, namespaces=["one", "other"]) as view:
        told = Told(view, ("one", "cache"), ("other", "cache"))
        await until(lambda: {view.knows(name) for name in ("one", "other")} == {True, False})
        assert not view.in_sync
        assert told.calls == []
        opened.set()
        await until(lambda: len(told.calls) == 2)
        assert view.in_sync
        assert {str(data) for _, data in told.calls} == {str({"k": TEXT}), str({"k": OLD_TEXT})}


async def test_all_that_is_followed_is_told_of_each_time_that_it_has_come_in_sync(cluster: Cluster) -> None:
    collection = Collection()
    for name in "abc":
        collection.put(name, {"k": TEXT})
    async with viewed(cluster, collection) as view:
        told = Told(view, (WORK, "a"), (WORK, "c"), (WORK, "none"))
        for times in (1, 2):
            await until(lambda times=times: len(told.calls) == 3 * times)
            assert sorted(told.calls[-3:], key=str) == [("a", {"k": TEXT}), ("c", {"k": TEXT}), ("none", {})]
            collection.cut_watches()


async def test_a_cache_is_read_once_until_it_changes_and_so_is_one_that_is_not_there(
    cluster: Cluster,
) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        for _ in range(3):
            assert await view.read(*CACHE) == {"k": TEXT}
            assert await view.read(WORK, "none") == {}
        assert len(collection.gets) == 2
        collection.put("cache", {"k": OLD_TEXT})
        collection.put("none", {"k": TEXT})
        await until(lambda: not view.kept_bytes)
        for _ in range(3):
            assert await view.read(*CACHE) == {"k": OLD_TEXT}
            assert await view.read(WORK, "none") == {"k": TEXT}
        assert len(collection.gets) == 4


async def test_a_list_forgets_what_changed_or_went_unheard_of_and_nothing_else(cluster: Cluster) -> None:
    collection = Collection()
    for name in ("stays", "changes", "goes"):
        collection.put(name, {"k": TEXT})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        names = ("stays", "changes", "goes", "comes")
        for name in names:
            await view.read(WORK, name)
        collection.gets.clear()
        collection.on_watch.append(gone)
        collection.cut_watches()
        for name in ("changes", "comes"):
            collection.put(name, {"k": OLD_TEXT})
        collection.forget("goes")
        await until(lambda: len(collection.lists) > 3 and view.in_sync)
        found = {name: await view.read(WORK, name) for name in names}
    assert found == {"stays": {"k": TEXT}, "changes": {"k": OLD_TEXT}, "goes": {}, "comes": {"k": OLD_TEXT}}
    assert [path.rpartition("/")[2] for path in collection.gets] == ["changes", "goes", "comes"]


async def test_caches_that_nobody_asks_for_cost_their_metadata(cluster: Cluster) -> None:
    collection = Collection()
    for number in range(20):
        collection.put(f"cache-{number}", MEGABYTE)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        collection.put("cache-0", MEGABYTE)
        collection.put("last", {})
        told = Told(view, (WORK, "last"))
        await until(told.last({}))
    assert collection.told < 20_000
    assert collection.gets == ["/api/v1/namespaces/work/configmaps/last"]


async def test_a_name_that_is_no_name_is_not_asked_for(cluster: Cluster) -> None:
    collection = Collection()
    async with viewed(cluster, collection) as view:
        assert await view.read("work", "../configmaps/cache") == {}
    assert collection.gets == []


async def test_what_there_is_no_room_for_is_read_each_time(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT})
    async with viewed(cluster, collection, kept_bytes=0) as view:
        await until(lambda: view.in_sync)
        for _ in range(2):
            assert await view.read(*CACHE) == {"k": TEXT}
    assert collection.gets == ["/api/v1/namespaces/work/configmaps/cache"] * 2


async def test_what_the_view_cannot_vouch_for_is_read_anew(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": OLD_TEXT})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert await view.read(*CACHE) == {"k": OLD_TEXT}
        collection.on_watch += [overloaded] * 100
        collection.cut_watches()
        await until(lambda: not view.in_sync)
        collection.put("cache", {"k": TEXT})
        for _ in range(2):
            assert await view.read(*CACHE) == {"k": TEXT}
        assert len(collection.gets) == 3


async def test_what_was_written_by_the_caller_is_read_before_an_event_tells_of_it(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": OLD_TEXT})
    collection.on_watch.append(silent)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert await view.read(*CACHE) == {"k": OLD_TEXT}
        collection.put("cache", {"k": TEXT})
        assert await view.read(*CACHE) == {"k": OLD_TEXT}
        view.forget(*CACHE)
        assert await view.read(*CACHE) == {"k": TEXT}


async def test_equal_reads_share_a_request_until_there_is_something_new(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": OLD_TEXT})
    slow = Slow(collection)
    collection.on_get.append(slow)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        first = [asyncio.create_task(view.read(*CACHE, seconds=None)) for _ in range(3)]
        await until(lambda: len(collection.gets) == 1)
        first.pop().cancel()
        told = Told(view, (WORK, "next"))
        collection.put("cache", {"k": TEXT})
        collection.put("next", {})
        await until(told.last({}))
        later = [asyncio.create_task(view.read(*CACHE, seconds=None)) for _ in range(3)]
        slow.answers.set()
        assert await asyncio.gather(*first) == [{"k": OLD_TEXT}] * 2
        assert await asyncio.gather(*later) == [{"k": TEXT}] * 3
    assert collection.gets.count("/api/v1/namespaces/work/configmaps/cache") == 2


async def test_an_answer_that_an_event_overtook_is_not_kept(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": OLD_TEXT})
    slow = Slow(collection)
    collection.on_get.append(slow)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        late = asyncio.create_task(view.read(*CACHE, seconds=None))
        await until(lambda: collection.gets)
        told = Told(view, (WORK, "next"))
        collection.put("cache", {"k": TEXT})
        collection.put("next", {})
        await until(told.last({}))
        slow.answers.set()
        assert await late == {"k": OLD_TEXT}
        assert await view.read(*CACHE) == {"k": TEXT}


async def test_changes_while_a_cache_is_read_are_told_of_once(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {})
    slow = Slow(collection)
    collection.on_get.append(slow)
    async with viewed(cluster, collection) as view:
        told = Told(view, CACHE)
        await until(lambda: collection.gets)
        told.followed.add((WORK, "next"))
        for number in range(50):
            collection.put("cache", {"k": str(number)})
        collection.put("next", {})
        await until(lambda: ("next", {}) in told.calls)
        slow.answers.set()
        await until(lambda: ("cache", {"k": "49"}) in told.calls)
    assert collection.gets.count("/api/v1/namespaces/work/configmaps/cache") == 2


@pytest.mark.parametrize("trouble", [broken, gibberish, overloaded])
async def test_a_change_is_told_of_though_the_cache_cannot_be_read_at_first(
    cluster: Cluster, trouble: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeper.cache.view._FIRST_PAUSE", 0.01)
    collection = Collection()
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        told = Told(view, CACHE)
        collection.on_get += [trouble, trouble]
        collection.put("cache", {"k": TEXT})
        await until(told.last({"k": TEXT}))
    assert told.calls == [("cache", {"k": TEXT})], "a failure is no empty cache"


async def test_a_read_that_somebody_did_not_wait_for_is_told_of_to_those_who_follow_the_cache(
    cluster: Cluster,
) -> None:
    collection = Collection()
    for name in ("cache", "other"):
        collection.put(name, {"k": TEXT})
    slow = Slow(collection)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        told = Told(view, CACHE)
        collection.on_get += [slow, slow]
        for name in ("cache", "other"):
            assert (await view.read(WORK, name, seconds=0)).reason is Reason.RATE_LIMITED
        slow.answers.set()
        assert await view.read(WORK, "other") == {"k": TEXT}
        assert await view.read(*CACHE) == {"k": TEXT}
        await until(lambda: told.calls)
    assert told.calls == [("cache", {"k": TEXT})]


async def test_who_follows_a_cache_no_more_is_not_told_of_it(cluster: Cluster) -> None:
    collection = Collection()
    async with viewed(cluster, collection) as view:
        told = Told(view, CACHE, (WORK, "next"))
        await until(lambda: len(told.calls) == 2)
        told.followed.discard(CACHE)
        collection.put("cache", {"k": TEXT})
        collection.put("next", {"k": TEXT})
        await until(told.last({"k": TEXT}))
    assert ("cache", {"k": TEXT}) not in told.calls


async def test_a_subscriber_with_a_bug_hears_of_the_next_change(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    collection = Collection()
    heard: list[Data] = []

    def told(namespace: str, cache: str, data: Data) -> None:
        heard.append(data)
        raise RuntimeError(cache)

    async with viewed(cluster, collection) as view:
        view.subscribe(told, {CACHE})
        await until(lambda: heard)
        collection.put("cache", {"k": TEXT})
        await until(lambda: heard[-1] == {"k": TEXT})
        assert view.in_sync
    assert "cannot tell of a cache" in caplog.text


@pytest.mark.parametrize("trouble", [broken, gibberish, overloaded])
async def test_a_cache_that_cannot_be_read_is_no_empty_one(cluster: Cluster, trouble: Answer) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT})
    collection.on_get.append(trouble)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert (await view.read(*CACHE)).reason is Reason.API_UNAVAILABLE
        assert await view.read(*CACHE) == {"k": TEXT}, "a failure is not remembered"


async def test_nothing_is_under_way_any_more_once_it_has_ended(cluster: Cluster) -> None:
    collection = Collection()
    collection.on_get += [hang] * 2
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        Told(view, CACHE)
        collection.put("cache", {"k": TEXT})
        other = asyncio.create_task(view.read(WORK, "other", seconds=None))
        await until(lambda: len(collection.gets) == 2)
    await asyncio.wait([other])
    assert other.cancelled()


async def test_when_it_last_heard_of_the_api_server_is_known(cluster: Cluster) -> None:
    collection, now = Collection(), [5.0]
    collection.on_watch.append(silent)
    async with viewed(cluster, collection, clock=lambda: now[0]) as view:
        assert view.last_contact(WORK) == float("-inf")
        await until(lambda: view.in_sync)
        assert view.last_contact(WORK) == 5.0
        now[0] = 7.0
        collection.put("cache", {})
        assert view.last_contact(WORK) == 5.0


async def test_how_full_the_caches_are_that_were_read_is_known_without_a_request(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    own = {"metadata": {"annotations": {names.MAX_BYTES: "4Ki"}}}
    put(cluster, namespace, "small", {"k": "x" * 1000, "l": "é" * 10})
    put(cluster, namespace, "limited", {"k": "x" * 2048})
    put(cluster, namespace, "unread", {"k": "x"})
    patch(cluster, namespace, "limited", own)
    async with (
        api_client(cluster) as api,
        running(View(api, [namespace], most_bytes=lambda _: 8 << 10)) as view,
    ):
        assert view.fills() == []
        for name in ("small", "limited", "absent"):
            await view.read(namespace, name, None)
        assert sorted(view.fills()) == [
            (namespace, 0, 8 << 10),
            (namespace, 1020, 8 << 10),
            (namespace, 2048, 4 << 10),
        ]
        patch(cluster, namespace, "limited", {"data": {"k": None}})

        async def emptied() -> bool:
            await view.read(namespace, "limited", None)
            return (namespace, 0, 4 << 10) in view.fills()

        await until(emptied)
