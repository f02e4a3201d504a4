"""The devcluster's own client: what it makes of a watch that breaks, and of an API that says no."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devcluster import api
from devcluster.client import CONFIG_MAPS, NAMESPACES, ApiError, Client, Object, path_of
from tests.beside import beside
from tests.waiting import PATIENCE

HISTORY = 3


def named(name: str) -> Object:
    return {"metadata": {"name": name}}


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an API that forgets changes soon."""
    async with (
        api.serve(tmp_path, history=HISTORY) as server,
        Client(server.url, str(server.ca_file), server.admin_token) as client,
    ):
        yield client


async def test_following_goes_on_over_changes_that_the_server_has_forgotten(client: Client) -> None:
    seen: set[str] = set()
    caught_up = asyncio.Event()

    async def follow() -> None:
        async for kind, item in client.follow(CONFIG_MAPS):
            name = item["metadata"]["name"]
            if kind == "DELETED":
                seen.discard(name)
            else:
                seen.add(name)
            if name == "last":
                caught_up.set()

    async with beside(follow()):
        names = [f"c-{number}" for number in range(8)]
        for _ in range(20):
            await asyncio.gather(*(client.create(CONFIG_MAPS, "default", named(name)) for name in names))
            await asyncio.gather(*(client.delete(CONFIG_MAPS, "default", name) for name in names))
        await client.create(CONFIG_MAPS, "default", named("last"))

        await asyncio.wait_for(caught_up.wait(), PATIENCE)
        assert seen == {"last", "kube-root-ca.crt"}


async def test_a_refusal_carries_the_servers_words_and_status(client: Client) -> None:
    with pytest.raises(ApiError, match='configmaps "none" not found') as refused:
        await client.get(CONFIG_MAPS, "default", "none")

    assert (refused.value.code, refused.value.status["reason"]) == (404, "NotFound")


async def test_deleting_what_is_gone_is_no_error(client: Client) -> None:
    await client.delete(CONFIG_MAPS, "default", "none")


async def test_a_server_that_does_not_answer_is_an_api_error(tmp_path: Path) -> None:
    async with api.serve(tmp_path) as server:
        url, ca_file = server.url, str(server.ca_file)
    async with Client(url, ca_file, "token") as client:
        with pytest.raises(ApiError, match="no answer") as refused:
            await client.list(NAMESPACES)

    assert refused.value.code == 503


def test_paths_are_those_of_kubernetes() -> None:
    assert path_of(CONFIG_MAPS, "n", "c") == "api/v1/namespaces/n/configmaps/c"
    assert path_of(CONFIG_MAPS, None) == "api/v1/configmaps"
