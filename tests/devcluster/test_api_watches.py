"""Watches and pages where a real server cannot be brought there by a test: forgotten history, time."""

import asyncio
from typing import Any

import pytest

from devcluster.api import kinds, paging, watch
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Object
from devcluster.api.store import Store
from tests.waiting import PATIENCE


def put(store: Store, name: str, **content: Any) -> Object:
    return store.put(kinds.CONFIG_MAP, {"metadata": {"name": name, "namespace": "n"}, **content})


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


def page(store: Store, **query: str) -> tuple[list[str], Object]:
    found, metadata = paging.page(store, kinds.CONFIG_MAP, "n", lambda _: True, query)
    return names(found), metadata


def test_a_page_whose_first_one_is_forgotten_is_410_with_a_way_on() -> None:
    store = Store(history=3)
    for name in "abc":
        put(store, name)
    _, metadata = page(store, limit="1")
    for name in "defg":
        put(store, name)

    with pytest.raises(ApiError) as refused:
        page(store, limit="1", **{"continue": metadata["continue"]})

    status = refused.value.status
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith("The provided continue parameter is too old to display a consistent")
    rest, metadata = page(store, **{"continue": status["metadata"]["continue"]})
    assert rest == list("bcdefg"), "from there on, as it is now"
    assert metadata["resourceVersion"] == str(store.revision)


def test_objects_are_seen_as_they_were() -> None:
    store = Store()
    put(store, "a", data={"x": "1"})
    put(store, "gone")
    then = store.revision
    put(store, "a", data={"x": "2"})
    put(store, "new")
    store.remove(kinds.CONFIG_MAP, "n", "gone")

    found = store.objects_at(kinds.CONFIG_MAP, None, then)

    assert [(obj["metadata"]["name"], obj.get("data")) for obj in found] == [
        ("a", {"x": "1"}),
        ("gone", None),
    ]
    assert names(store.objects_at(kinds.CONFIG_MAP, None, store.revision)) == ["a", "new"]


async def test_a_quiet_watch_is_told_how_far_it_is_if_it_asks() -> None:
    store = Store()
    put(store, "a")
    version = str(store.revision)
    query = {"resourceVersion": version, "allowWatchBookmarks": "true"}
    events = watch.events(store, kinds.CONFIG_MAP, None, lambda _: True, query, bookmark_seconds=0.01)
    store.put(kinds.SECRET, {"metadata": {"name": "other", "namespace": "n"}})

    type_, bookmark = await asyncio.wait_for(anext(events), PATIENCE)

    assert type_ == "BOOKMARK"
    assert bookmark == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(store.revision)},
    }
    told = watch.events(store, kinds.CONFIG_MAP, None, lambda _: True, query, bookmark_seconds=0.01)
    without = {"resourceVersion": version}
    quiet = watch.events(store, kinds.CONFIG_MAP, None, lambda _: True, without, bookmark_seconds=0.01)
    waiting = asyncio.ensure_future(anext(quiet))
    assert (await asyncio.wait_for(anext(told), PATIENCE))[0] == "BOOKMARK"
    assert not waiting.done()
    put(store, "b")
    assert (await asyncio.wait_for(waiting, PATIENCE))[0] == "ADDED"


async def test_what_is_written_while_a_watch_is_read_slowly_is_told_too() -> None:
    store = Store()
    version = str(store.revision)
    put(store, "a")
    put(store, "b")
    query = {"resourceVersion": version}
    events = watch.events(store, kinds.CONFIG_MAP, None, lambda _: True, query)

    seen = [(await anext(events))[1]]
    put(store, "c")
    seen += [(await asyncio.wait_for(anext(events), PATIENCE))[1] for _ in range(2)]

    assert names(seen) == ["a", "b", "c"]
