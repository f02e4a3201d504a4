import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from server.own_image import own_image
from server.settings import SettingsError
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.manifests.rendering import BASE, WEBHOOK, find, render
from tests.webhook.serving import api_client

Json = dict[str, Any]


def permissions() -> list[Json]:
    return list(find(render(BASE), "Role", WEBHOOK)["rules"])


def own_pod(cluster: Cluster) -> tuple[str, str]:
    """A Pod of the webhook beside which a mesh runs a container; its Namespace, and the webhook's token."""
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "stepmemo", permissions())
    containers = [{"name": "mesh", "image": "mesh:1"}, {"name": "webhook", "image": "mirror.test/memo:7"}]
    pod = {
        "kind": "Pod",
        "metadata": {"name": "stepmemo-1", "namespace": namespace},
        "spec": {"containers": containers},
    }
    status, body = cluster.create(pod)
    assert status == 201, body
    return namespace, token


@pytest.mark.contract
async def test_it_is_the_image_of_the_container_with_the_rights_of_the_manifests(cluster: Cluster) -> None:
    namespace, token = await asyncio.to_thread(own_pod, cluster)
    async with api_client(cluster, token=token) as api:
        assert await own_image(api, namespace, "stepmemo-1", "webhook") == "mirror.test/memo:7"


@pytest.mark.contract
async def test_what_will_not_change_is_said_at_once_with_what_to_do(cluster: Cluster) -> None:
    namespace, token = await asyncio.to_thread(own_pod, cluster)
    powerless = cluster.service_account(namespace, "powerless", [])
    for bearer, pod, container, text in (
        (token, "stepmemo-2", "webhook", "cannot read the image that Pod .*/stepmemo-2 runs: 404 "),
        (powerless, "stepmemo-1", "webhook", "cannot read the image that Pod .*/stepmemo-1 runs: 403 "),
        (token, "stepmemo-1", "server", "it has no container named server"),
    ):
        async with api_client(cluster, token=bearer) as api:
            with pytest.raises(SettingsError, match=text + r".*--image \(STEPMEMO_IMAGE\)"):
                await own_image(api, namespace, pod, container)


@pytest.mark.parametrize("trouble", [hang, overloaded, broken, gibberish])
async def test_an_api_server_in_trouble_is_asked_until_patience_ends(
    cluster: Cluster, trouble: Answer
) -> None:
    async with answering(trouble) as url, api_client(cluster, url=url) as api:
        with pytest.raises(TimeoutError, match=r"could not read the image that Pod memo/me runs in 0\.3 s: "):
            await own_image(api, "memo", "me", "webhook", seconds=0.3, pause=0.01)


async def test_trouble_that_passes_is_forgotten(cluster: Cluster) -> None:
    asked = 0

    async def recovering(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < 3:
            return await broken(request)
        pod = {"kind": "Pod", "spec": {"containers": [{"name": "webhook", "image": "i:1"}]}}
        return web.Response(text=json.dumps(pod), content_type="application/json")

    async with (
        answering(recovering, path="/api/v1/namespaces/memo/pods/me") as url,
        api_client(cluster, url=url) as api,
    ):
        assert await own_image(api, "memo", "me", "webhook", seconds=20, pause=0.01) == "i:1"
    assert asked == 3
