"""The proxy to Services: who may use it, and what of a request arrives behind it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cluster import Cluster
from tests.proxied import behind_a_service

pytestmark = pytest.mark.contract

NAME = "echo"
SERVICE = f"https:{NAME}:https"


def path(namespace: str, rest: str, service: str = SERVICE) -> str:
    return f"/api/v1/namespaces/{namespace}/services/{service}/proxy{rest}"


def rule(*names: str) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": names, "verbs": ["create"]}


async def echo(request: web.Request) -> web.Response:
    told = {
        "path": request.path,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": await request.text(),
    }
    return web.json_response(
        told, status=int(request.query.get("status", "200")), headers={"Retry-After": "7"}
    )


@pytest.fixture
def app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    return app


async def test_all_of_a_request_arrives_but_its_authorization(
    cluster: Cluster, app: web.Application, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "person", [rule(SERVICE)])
    async with behind_a_service(cluster, app, tmp_path, namespace, NAME):
        status, body, headers = await asyncio.to_thread(
            cluster.request, "POST", path(namespace, "/v1/x"), {"a": 1}, token=token
        )
    assert status == 200, body
    assert (body["path"], body["body"]) == ("/v1/x", '{"a": 1}')
    assert "authorization" not in body["headers"]
    assert ("Retry-After", "7") in headers
    assert body["headers"]["x-forwarded-for"]
    assert len(body["headers"]) <= 12, "the keeper takes 24"


@pytest.mark.parametrize("status", [403, 404, 429, 503])
async def test_what_the_service_answers_is_handed_on_as_it_is(
    cluster: Cluster, app: web.Application, tmp_path: Path, status: int
) -> None:
    namespace = cluster.namespace()
    async with behind_a_service(cluster, app, tmp_path, namespace, NAME):
        answer = await asyncio.to_thread(
            cluster.request, "POST", path(namespace, "/x"), {}, query={"status": str(status)}
        )
    assert (answer.status, answer.body["path"]) == (status, "/x")
    assert ("Retry-After", "7") in answer.headers


async def test_the_right_is_that_to_create_the_services_proxy_by_its_whole_name(
    cluster: Cluster, app: web.Application, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    tokens = [
        cluster.service_account(namespace, "other", [rule(NAME)]),
        cluster.service_account(namespace, "person", [rule(SERVICE)]),
    ]
    async with behind_a_service(cluster, app, tmp_path, namespace, NAME):
        answers = [
            await asyncio.to_thread(cluster.request, "POST", path(namespace, "/"), {}, token=token)
            for token in tokens
        ]
        reading = await asyncio.to_thread(cluster.request, "GET", path(namespace, "/"), token=tokens[1])
    assert [answer.status for answer in (*answers, reading)] == [403, 200, 403]
    assert answers[0].body["message"] == (
        f'services "{SERVICE}" is forbidden: User "system:serviceaccount:{namespace}:other" cannot create '
        f'resource "services/proxy" in API group "" in the namespace "{namespace}"'
    )


def test_a_service_that_is_not_there_is_not_found(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, body, _ = cluster.request("POST", path(namespace, "/", "https:none:https"), {})
    assert (status, body["message"]) == (404, 'services "none" not found')
