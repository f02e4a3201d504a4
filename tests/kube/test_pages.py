import json
from typing import Any

import pytest
from aiohttp import web

from kube import client, pages
from kube.client import Json
from kube.errors import ApiError, TooLarge
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, overloaded
from tests.kube.collection import Collection
from tests.webhook.serving import api_client

PATH = "/api/v1/configmaps"
MEGABYTE = "x" * 1_000_000


async def listed(cluster: Cluster, collection: Collection, **options: Any) -> list[Json]:
    """The objects of every page."""
    options = {"name": "test", "most": 500, **options}
    async with collection.serving() as url, api_client(cluster, url=url) as api:
        return [obj async for page in pages.pages(api, PATH, **options) for obj in page["items"]]


def limits(collection: Collection) -> list[int]:
    return [int(query["limit"]) for query in collection.lists]


async def test_pages_grow_while_objects_are_small_and_shrink_when_they_are_large(cluster: Cluster) -> None:
    collection = Collection()
    for number in range(20):
        collection.put(f"{number:02}", {"x": MEGABYTE if number in (6, 7) else ""})
    assert len(await listed(cluster, collection, most=5)) == 20
    assert limits(collection) == [2, 4, 5, 2, 4, 5]


async def test_a_page_that_is_too_large_is_asked_for_again_with_half_as_many_objects(
    cluster: Cluster,
) -> None:
    collection = Collection()
    for number in range(30):
        collection.put(f"{number:02}", {"x": MEGABYTE if number >= 14 else ""})
    found = await listed(cluster, collection)
    assert [obj["metadata"]["name"] for obj in found] == [f"{number:02}" for number in range(30)]
    assert limits(collection)[:6] == [2, 4, 8, 16, 8, 4]
    assert collection.lists[3]["continue"] == collection.lists[5]["continue"] == "14"


@pytest.mark.parametrize("metadata_only", [True, False])
async def test_of_an_object_beyond_every_bound_the_metadata_are_told(
    cluster: Cluster, metadata_only: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 10_000)
    monkeypatch.setattr(pages, "MOST_PAGE_BYTES", 5_000)
    collection = Collection()
    for number in range(9):
        collection.put(str(number), {"x": "y" * (20_000 if number == 4 else 1)})
    found = await listed(cluster, collection, metadata_only=metadata_only)
    assert [obj["metadata"]["name"] for obj in found] == [str(number) for number in range(9)]
    whole = [number for number, obj in enumerate(found) if "data" in obj]
    assert whole == ([] if metadata_only else [0, 1, 2, 3, 5, 6, 7, 8])
    assert ("an object of test is too large" in caplog.text) != metadata_only


async def test_no_more_of_a_page_is_received_than_its_bound(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of an API server that does not end, or squeezes it all into some bytes."""
    sent: list[int] = []

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression()
        sent.append(0)
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b" " * 100_000)
            sent[-1] += 100_000
        return response

    async with answering(endless) as url, api_client(cluster, url=url) as api:
        with pytest.raises(TooLarge):
            [page async for page in pages.pages(api, PATH, name="test", most=500)]
    assert sent[0] < pages.MOST_PAGE_BYTES + (8 << 20)
    assert max(sent) < client.MOST_BYTES + (8 << 20)


@pytest.mark.parametrize("trouble", [broken, gibberish, overloaded])
async def test_a_page_that_cannot_be_had_ends_the_list(cluster: Cluster, trouble: Answer) -> None:
    collection = Collection()
    for name in "abc":
        collection.put(name, {})
    collection.on_list += [collection._list, trouble]
    with pytest.raises(ApiError):
        await listed(cluster, collection, most=1)
    assert limits(collection) == [1, 1]


@pytest.mark.contract
@pytest.mark.parametrize("metadata_only", [True, False])
async def test_every_object_of_a_list_is_in_one_page(cluster: Cluster, metadata_only: bool) -> None:
    namespace = cluster.namespace()
    names = [f"c-{number:02}" for number in range(12)]
    for number, name in enumerate(names):
        data = {"x": "\n" * 1_000_000 if number > 7 else ""}
        metadata = {"namespace": namespace, "name": name, "labels": {"stepmemo.dev/test": "yes"}}
        assert cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})[0] == 201
    found: list[Json] = []
    sizes: list[int] = []
    async with api_client(cluster) as api:
        path = cluster.path("ConfigMap", namespace)
        query = [("labelSelector", "stepmemo.dev/test=yes")]
        options: dict[str, Any] = {"name": "test", "most": 500, "metadata_only": metadata_only}
        async for page in pages.pages(api, path, query, **options):
            found += page["items"]
            sizes.append(len(json.dumps(page)))
    assert [obj["metadata"]["name"] for obj in found] == names
    assert max(sizes) <= (20_000 if metadata_only else pages.MOST_PAGE_BYTES)
    assert any("data" in obj for obj in found) != metadata_only
