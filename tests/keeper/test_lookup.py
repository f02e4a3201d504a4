import asyncio
import json
from datetime import UTC, datetime

import pytest

from keeper.cache.view import View
from keeper.lookup import CacheLookup
from memoize.entry import Hit, Miss
from memoize.key import data_key
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.step import Step
from tests.cluster import Cluster
from tests.keeper.cache.test_view import running, viewed
from tests.keeper.stores import config_maps
from tests.keeper.troubled import Answer, broken, gibberish, hang, overloaded
from tests.kube.collection import Collection
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TEXT = json.dumps({"nodeID": "wf-1", "outputs": {}, "creationTimestamp": "2026-05-04T11:00:00Z"})
WORK, CACHE = "work", "cache"
BOUND = "keeper.lookup.LOOKUP_TIMEOUT"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BOUND, 60.0)


def step(key: str = "k", max_age: str = "", declared: Declared | None = Declared()) -> Step:  # noqa: B008
    return Step(key, CACHE, max_age, "n", "wf", "u", "", False, False, declared)


def lookup(view: View) -> CacheLookup:
    return CacheLookup(config_maps(view._api, view=view), lambda: NOW)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (step(), None),
        (step(max_age="2h"), None),
        (step(max_age="1h"), None),
        (step(max_age="59m"), Reason.EXPIRED),
        (step(max_age="soon"), Reason.INVALID_ANNOTATIONS),
        (step("l"), Reason.MISS),
        (step("broken"), Reason.BROKEN_ENTRY),
        (step("a/b c"), None),
        (step("d/e f"), Reason.KEY_MISMATCH),
    ],
)
async def test_it_says_what_the_entry_is_worth_to_the_step(
    cluster: Cluster, asked: Step, reason: Reason | None
) -> None:
    collection = Collection()
    hashed = TEXT.replace('Z"}', 'Z", "stepmemo": {"key": "a/b c"}}')
    collection.put(CACHE, {"k": TEXT, "broken": "{", data_key("a/b c"): hashed, data_key("d/e f"): hashed})
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        found, text = await lookup(view).look_up(WORK, CACHE, asked)
    if reason is None:
        assert isinstance(found, Hit)
        assert text == (TEXT if asked.key == "k" else hashed)
    else:
        assert isinstance(found, Miss)
        assert found.reason is reason


async def test_where_there_is_no_cache_it_is_a_miss(cluster: Cluster) -> None:
    collection = Collection()
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        found, _ = await lookup(view).look_up(WORK, CACHE, step())
    assert found == Miss(Reason.MISS)


async def test_what_is_not_in_sync_is_unknown_and_never_a_miss(cluster: Cluster) -> None:
    collection = Collection()
    async with collection.serving() as url, api_client(cluster, url=url) as api:
        assert (await lookup(View(api)).look_up(WORK, CACHE, step())).found is None
    assert collection.gets == []


async def test_of_a_namespace_that_is_not_looked_after_nothing_is_known(cluster: Cluster) -> None:
    collection = Collection()
    async with viewed(cluster, collection, namespaces=["other"]) as view:
        await until(lambda: view.in_sync)
        assert (await lookup(view).look_up(WORK, CACHE, step())).found is None


async def test_a_step_whose_template_is_not_known_is_not_looked_up(cluster: Cluster) -> None:
    collection = Collection()
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert (await lookup(view).look_up(WORK, CACHE, step(declared=None))).found is None


@pytest.mark.parametrize("trouble", [broken, gibberish, overloaded, hang])
async def test_what_cannot_be_read_now_is_unknown_and_never_a_miss(
    cluster: Cluster, trouble: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BOUND, 0.25)
    collection = Collection()
    collection.on_get.append(trouble)
    async with viewed(cluster, collection) as view:
        await until(lambda: view.in_sync)
        assert (await lookup(view).look_up(WORK, CACHE, step())).found is None


async def test_those_who_look_up_in_one_cache_read_it_once(cluster: Cluster) -> None:
    collection = Collection()
    collection.put(CACHE, {f"k-{number}": TEXT for number in range(100)})
    async with collection.serving() as url, api_client(cluster, url=url) as api, running(View(api)) as view:
        await until(lambda: view.in_sync)
        asking = [lookup(view).look_up(WORK, CACHE, step(f"k-{number}")) for number in range(100)]
        found = await asyncio.gather(*asking)
    assert all(isinstance(one.found, Hit) for one in found)
    assert len(collection.gets) == 1
