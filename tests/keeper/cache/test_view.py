import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from keeper.cache.view import View
from memoize.keeper_status import Known
from memoize.key import data_key
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, broken, gibberish, overloaded
from tests.kube.collection import LABELS, Collection, gone, silent
from tests.waiting import until
from tests.webhook.serving import api_client

CREATED = "2026-05-04T11:00:00Z"
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TEXT = json.dumps({"nodeID": "wf-1", "outputs": {}, "creationTimestamp": CREATED})
OLD_TEXT = TEXT.replace("2026", "2025")


class Memo(NamedTuple):
    key: str
    max_age: str = ""

    @property
    def data_key(self) -> str:
        return data_key(self.key)


K = Memo("k")


@asynccontextmanager
async def running(view: View) -> AsyncIterator[View]:
    task = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        task.cancel()
        await asyncio.wait([task])


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


@pytest.mark.contract
async def test_it_knows_what_is_there_and_what_is_not(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    put(cluster, namespace, "cache", {"k": TEXT, "broken": "{"})
    put(cluster, namespace, "unlabelled", {"k": TEXT}, label=False)
    async with viewing(cluster) as view:
        assert view.ask(namespace, "cache", K, NOW) == (Known.FRESH, CREATED)
        assert view.ask(namespace, "cache", Memo("k", "2h"), NOW) == (Known.FRESH, CREATED)
        assert view.ask(namespace, "cache", Memo("k", "1h"), NOW) == (Known.FRESH, CREATED)
        assert view.ask(namespace, "cache", Memo("k", "59m"), NOW) == (Known.ABSENT, "")
        assert view.ask(namespace, "cache", Memo("k", "soon"), NOW) == (Known.ABSENT, "")
        for cache, key in (("cache", "l"), ("cache", "broken"), ("nothing", "k"), ("unlabelled", "k")):
            assert view.ask(namespace, cache, Memo(key), NOW) == (Known.ABSENT, "")
        assert view.entries >= 1


@pytest.mark.contract
async def test_a_key_that_argo_would_refuse_is_found_at_its_digest(cluster: Cluster) -> None:
    namespace, memo = cluster.namespace(), Memo("a/b c")
    put(cluster, namespace, "cache", {data_key(memo.key): TEXT})
    async with viewing(cluster) as view:
        assert view.ask(namespace, "cache", memo, NOW) == (Known.FRESH, CREATED)


@pytest.mark.contract
async def test_it_follows_every_change_and_tells_of_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    told: list[tuple[str, str]] = []
    async with viewing(cluster, namespace) as view:
        view.subscribe(lambda *cache: told.append(cache))

        async def becomes(known: Known) -> None:
            await until(lambda: view.ask(namespace, "cache", K, NOW)[0] is known)

        put(cluster, namespace, "cache", {"k": TEXT})
        await becomes(Known.FRESH)
        patch(cluster, namespace, "cache", {"data": {"k": None, "l": TEXT}})
        await becomes(Known.ABSENT)
        patch(cluster, namespace, "cache", {"data": {"k": OLD_TEXT}})
        await becomes(Known.FRESH)
        patch(cluster, namespace, "cache", {"metadata": {"labels": dict.fromkeys(LABELS)}})
        await becomes(Known.ABSENT)
        patch(cluster, namespace, "cache", {"metadata": {"labels": LABELS}})
        await becomes(Known.FRESH)
        cluster.delete("ConfigMap", namespace, "cache")
        await becomes(Known.ABSENT)
        assert view.entries == 0
    assert told == [(namespace, "cache")] * 6


@pytest.mark.contract
async def test_what_was_told_is_what_is_read(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    put(cluster, namespace, "cache", {"k": TEXT})
    async with viewing(cluster) as view:
        changed = asyncio.Event()
        view.subscribe(lambda _, cache: changed.set() if cache == "cache" else None)
        assert await view.read(namespace, "cache") == {"k": TEXT}
        patch(cluster, namespace, "cache", {"data": {"l": OLD_TEXT}})
        await changed.wait()
        assert await view.read(namespace, "cache") == {"k": TEXT, "l": OLD_TEXT}


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
        assert view.ask(ours, "cache", K, NOW) == (Known.FRESH, CREATED)
        assert view.ask(foreign, "cache", K, NOW) == (Known.UNKNOWN, "")
        assert (await view.read(foreign, "cache")).reason is Reason.FORBIDDEN
    async with viewing(cluster, ours, another) as view:
        assert view.ask(another, "cache", K, NOW) == (Known.FRESH, CREATED)
        assert view.entries == 2


@pytest.mark.contract
async def test_without_rights_it_knows_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    namespace = cluster.namespace()
    put(cluster, namespace, "cache", {"k": TEXT})
    token = cluster.service_account(namespace, "powerless", [])
    async with api_client(cluster, token=token) as api, running(View(api)) as view:
        await until(lambda: "cannot watch the caches of all namespaces" in caplog.text)
        assert not view.in_sync
        assert view.ask(namespace, "cache", K, NOW) == (Known.UNKNOWN, "")


# --- an API server that does as it is told -----------------------------------------------------------


async def test_what_is_not_in_sync_is_unknown_and_never_a_miss(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT})
    listed = asyncio.Event()

    async def hesitate(request: web.Request) -> web.StreamResponse:
        await listed.wait()
        return await collection._list(request)

    collection.on_list.append(hesitate)
    async with viewed(cluster, collection) as view:
        await until(lambda: collection.lists)
        assert view.ask("work", "cache", K, NOW) == (Known.UNKNOWN, "")
        assert view.ask("work", "nothing", K, NOW) == (Known.UNKNOWN, "")
        listed.set()
        await until(lambda: view.in_sync)
        assert view.ask("work", "nothing", K, NOW) == (Known.ABSENT, "")

        listed.clear()
        collection.on_list.append(hesitate)
        collection.on_watch.append(gone)
        collection.forget("cache")
        collection.cut_watches()
        await until(lambda: len(collection.lists) == 2)
        assert view.ask("work", "cache", K, NOW) == (Known.UNKNOWN, "")
        assert view.ask("work", "nothing", K, NOW) == (Known.UNKNOWN, "")
        listed.set()
        await until(lambda: view.in_sync)
        assert view.ask("work", "cache", K, NOW) == (Known.ABSENT, "")


async def test_all_caches_are_told_of_once_in_sync(cluster: Cluster) -> None:
    collection = Collection()
    for name in "abc":
        collection.put(name, {"k": TEXT})
    told: list[tuple[bool, str]] = []
    async with viewed(cluster, collection) as view:
        view.subscribe(lambda _, cache: told.append((view.in_sync, cache)))
        await until(lambda: view.in_sync)
        assert told == [(True, "a"), (True, "b"), (True, "c")]
        collection.cut_watches()
        await until(lambda: len(told) == 6)
        assert told[3:] == told[:3]


async def test_of_two_namespaces_each_answers_for_itself(cluster: Cluster) -> None:
    collection, told = Collection(), []
    collection.put("cache", {"k": TEXT}, "one")
    collection.put("cache", {"k": TEXT}, "other")
    opened = asyncio.Event()

    async def hesitate(request: web.Request) -> web.StreamResponse:
        await opened.wait()
        return await collection._list(request)

    collection.on_list += [collection._list, hesitate]
    async with viewed(cluster, collection, namespaces=["one", "other"]) as view:
        view.subscribe(lambda *cache: told.append(cache))
        known = {Known.FRESH, Known.UNKNOWN}
        await until(lambda: {view.ask(name, "cache", K, NOW)[0] for name in ("one", "other")} == known)
        assert not view.in_sync
        assert told == []
        opened.set()
        await until(lambda: view.in_sync)
        assert told == [("one", "cache"), ("other", "cache")]


async def test_a_cache_that_was_told_of_or_read_is_read_without_a_request(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("listed", {"k": TEXT})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        for _ in range(2):
            assert await view.read("work", "listed") == {"k": TEXT}
        assert len(collection.gets) == 1
        collection.put("listed", {"k": OLD_TEXT, "l": TEXT})
        await until(lambda: view.entries == 2)
        assert await view.read("work", "listed") == {"k": OLD_TEXT, "l": TEXT}
        assert len(collection.gets) == 1


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
            assert await view.read("work", "cache") == {"k": TEXT}
    assert collection.gets == ["/api/v1/namespaces/work/configmaps/cache"] * 2


async def test_what_the_view_cannot_vouch_for_is_read_anew(cluster: Cluster) -> None:
    collection = Collection()
    collection.put("cache", {"k": OLD_TEXT})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert await view.read("work", "cache") == {"k": OLD_TEXT}
        collection.on_watch += [overloaded] * 100
        collection.cut_watches()
        await until(lambda: not view.in_sync)
        collection.put("cache", {"k": TEXT})
        assert await view.read("work", "cache") == {"k": TEXT}
        assert len(collection.gets) == 2


async def test_equal_reads_share_a_request_until_there_is_something_new(cluster: Cluster) -> None:
    collection, answers = Collection(), asyncio.Event()
    collection.put("cache", {"k": OLD_TEXT})

    async def slow(_: web.Request) -> web.StreamResponse:
        found = json.loads(json.dumps(collection.objects["work", "cache"]))
        await answers.wait()
        return web.json_response(found)

    collection.on_get += [slow, slow]
    async with viewed(cluster, collection, kept_bytes=0) as view:
        await until(lambda: view.in_sync)
        first = [asyncio.create_task(view.read("work", "cache")) for _ in range(3)]
        await until(lambda: len(collection.gets) == 1)
        first.pop().cancel()
        collection.put("cache", {"k": TEXT})
        told = asyncio.Event()
        view.subscribe(lambda *_: told.set())
        await told.wait()
        later = asyncio.create_task(view.read("work", "cache"))
        await until(lambda: len(collection.gets) == 2)
        answers.set()
        assert await asyncio.gather(*first) == [{"k": OLD_TEXT}] * 2
        assert await later == {"k": TEXT}


async def test_an_answer_that_an_event_overtook_is_not_kept(cluster: Cluster) -> None:
    collection, answers = Collection(), asyncio.Event()
    collection.put("cache", {"k": OLD_TEXT})

    async def slow(_: web.Request) -> web.StreamResponse:
        found = json.loads(json.dumps(collection.objects["work", "cache"]))
        await answers.wait()
        return web.json_response(found)

    collection.on_get.append(slow)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        late = asyncio.create_task(view.read("work", "cache"))
        await until(lambda: collection.gets)
        told = asyncio.Event()
        view.subscribe(lambda *_: told.set())
        collection.put("cache", {"k": TEXT})
        await told.wait()
        answers.set()
        assert await late == {"k": OLD_TEXT}
        assert await view.read("work", "cache") == {"k": TEXT}
        assert len(collection.gets) == 1, "what came with the event is still there"


@pytest.mark.parametrize("trouble", [broken, gibberish, overloaded])
async def test_a_cache_that_cannot_be_read_is_no_empty_one(cluster: Cluster, trouble: Answer) -> None:
    collection = Collection()
    collection.put("cache", {"k": TEXT})
    collection.on_get.append(trouble)
    async with viewed(cluster, collection, kept_bytes=0) as view:
        await until(lambda: view.in_sync)
        assert (await view.read("work", "cache")).reason is Reason.API_UNAVAILABLE
        assert await view.read("work", "cache") == {"k": TEXT}, "a failure is not remembered"


async def test_when_it_last_heard_of_the_api_server_is_known(cluster: Cluster) -> None:
    collection, now = Collection(), [5.0]
    collection.on_watch.append(silent)
    async with viewed(cluster, collection, clock=lambda: now[0]) as view:
        assert view.heard == float("-inf")
        await until(lambda: view.in_sync)
        assert view.heard == 5.0
        now[0] = 7.0
        collection.put("cache", {})
        assert view.heard == 5.0
