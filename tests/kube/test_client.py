import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from devcluster.api.server import write_kubeconfig
from kube import client
from kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unreadable,
    refused,
)
from tests.cancelled import cancelled_as_it_runs_out_of_time
from tests.cluster import Cluster
from tests.keeper.troubled import answering, gibberish, hang
from tests.webhook.serving import api_client

DEEP = "[" * 100_000


async def failure(cluster: Cluster, url: str, seconds: float = 5) -> ApiError:
    async with api_client(cluster, url=url) as api:
        with pytest.raises(ApiError) as raised:
            await client.request(api, "GET", "/api/v1/things", seconds=seconds)
    return raised.value


@pytest.mark.parametrize(
    ("status", "class_"),
    [
        (300, ApiError),
        (400, ApiError),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (413, ApiError),
        (422, Invalid),
        (429, TooManyRequests),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_each_status_is_an_error_of_its_kind(
    cluster: Cluster, status: int, class_: type[ApiError]
) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        body = {"message": "of a value: secret", "details": {"causes": [{"reason": "FieldValueTooLong"}]}}
        return web.json_response(body, status=status, headers={"Retry-After": "7"})

    async with answering(refuse) as url:
        error = await failure(cluster, url)
    assert type(error) is class_
    assert error.status == status
    assert str(error).startswith(f"{status} ")
    assert "secret" not in str(error), "the log says nothing of tenants' values"
    assert error.message == "of a value: secret"
    assert (error.causes, error.retry_after) == (["FieldValueTooLong"], 7)


async def test_a_refusal_that_is_no_status_of_kubernetes_is_told_by_its_text(cluster: Cluster) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, body=b"bad gateway\xff")

    async with answering(refuse) as url:
        error = await failure(cluster, url)
    assert (type(error), error.message, error.causes) == (Unavailable, "bad gateway\ufffd", [])


@pytest.mark.parametrize("body", [DEEP, "[]", "", "nul", '"text"', b"\xff"])
async def test_what_is_no_json_object_is_unreadable(cluster: Cluster, body: str | bytes) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    async with answering(answer) as url:
        error = await failure(cluster, url)
    assert (type(error), error.status) == (Unreadable, 0)


async def test_more_than_anything_comes_to_is_not_received(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 100)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 101, status=int(request.query.get("status", "200")))

    async with answering(answer) as url:
        assert type(await failure(cluster, url)) is TooLarge
        async with api_client(cluster, url=url) as api:
            assert await client.read(api, "/", seconds=5, most_bytes=101) == b"x" * 101
            with pytest.raises(TooLarge):
                await client.read(api, "/", seconds=5, most_bytes=100)
            with pytest.raises(TooLarge):
                await client.read(api, "/", seconds=5, query=[("status", "500")])


async def test_no_answer_in_time_or_at_all_is_unavailable(cluster: Cluster) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with answering(hang) as url:
        late = await failure(cluster, url, seconds=0.05)
    async with answering(cut) as url:
        broken = await failure(cluster, url)
    away = await failure(cluster, url)
    for error in (late, broken, away):
        assert (type(error), error.status, error.retry_after) == (Unavailable, 0, 0)
        assert str(error), "the log says what it was"


@pytest.mark.parametrize("ask", [client.request, client.read, client.date], ids=lambda ask: ask.__name__)
async def test_a_cancellation_that_comes_with_the_time_out_is_none_the_less(
    cluster: Cluster, ask: Callable[..., Coroutine[Any, Any, object]]
) -> None:
    seconds, asked = 60.0, asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await hang(request)

    what = {client.request: ("GET", "/api"), client.read: ("/api",), client.date: ()}[ask]
    async with answering(late, "GET") as url, api_client(cluster, url=url) as api:
        await cancelled_as_it_runs_out_of_time(ask(api, *what, seconds=seconds), asked, seconds)


@pytest.mark.parametrize("room", ["certs", "cli", "keeper", "kube", "server", "sidecar", "webhook"])
def test_no_request_has_a_time_out_of_aiohttps_that_would_lose_it(room: str) -> None:
    files = sorted((Path(__file__).parents[2] / room).rglob("*.py"))
    assert files
    assert [str(file) for file in files if "ClientTimeout(total" in file.read_text()] == []


async def test_the_api_servers_clock_is_read_off_any_answer(cluster: Cluster) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=403, headers={"Date": "Sun, 01 Mar 2026 12:00:00 GMT"})

    async with answering(refuse) as url, api_client(cluster, url=url) as api:
        assert await client.date(api, seconds=5) == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("answer", [{"Date": "yesterday"}, {"Date": ""}])
async def test_an_answer_without_a_clock_is_unreadable(cluster: Cluster, answer: dict[str, str]) -> None:
    async def say(_: web.Request) -> web.StreamResponse:
        return web.Response(headers=answer)

    async with answering(say) as url, api_client(cluster, url=url) as api:
        with pytest.raises(Unreadable, match="no Date"):
            await client.date(api, seconds=5)


@pytest.mark.contract
async def test_the_api_server_tells_its_clock(cluster: Cluster) -> None:
    async with api_client(cluster) as api:
        there = await client.date(api, seconds=5)
    assert abs(there - datetime.now(UTC)) < timedelta(minutes=1)


async def test_an_api_server_that_hangs_tells_no_clock(cluster: Cluster) -> None:
    async with answering(hang) as url, api_client(cluster, url=url) as api:
        with pytest.raises(Unavailable):
            await client.date(api, seconds=0.05)


async def test_without_credentials_there_is_nobody_to_talk_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unavailable):
        await client.connect()


async def test_a_body_that_we_made_wrongly_is_a_bug_of_ours(cluster: Cluster) -> None:
    loop: list[object] = []
    loop.append(float)
    async with answering(gibberish, "POST") as url, api_client(cluster, url=url) as api:
        with pytest.raises(Exception) as raised:
            await client.request(api, "POST", "/api/v1/things", seconds=5, body=loop)
    assert not isinstance(raised.value, ApiError)


@pytest.mark.parametrize(
    "event",
    [
        '{"type": "ADDED"}',
        '{"type": "ADDED", "object": []}',
        "[]",
        DEEP,
    ],
)
async def test_an_event_of_a_watch_that_cannot_be_read_is_unreadable(cluster: Cluster, event: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=f"{event}\n")

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        with pytest.raises(Unreadable):
            async with client.watch(api, "/api/v1/things", [], idle_timeout=5) as events:
                [event async for event in events]


async def test_an_error_that_a_watch_tells_is_of_its_kind(cluster: Cluster) -> None:
    status = {"code": 429, "reason": "TooManyRequests", "message": "later"}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=json.dumps({"type": "ERROR", "object": status}) + "\n")

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        with pytest.raises(TooManyRequests) as raised:
            async with client.watch(api, "/api/v1/things", [], idle_timeout=5) as events:
                [event async for event in events]
    assert (raised.value.status, raised.value.message) == (429, "later")


@pytest.mark.parametrize(("said", "seconds"), [("0", 0), ("7", 7), ("3" * 9, 333_333_333)])
def test_seconds_that_the_api_server_asks_for_are_known(said: str, seconds: float) -> None:
    assert refused(429, "", retry_after=said).retry_after == seconds


@pytest.mark.parametrize("said", ["", "-1", "1.5", "soon", "²", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_of_another_form_asks_for_nothing(said: str) -> None:
    assert refused(429, "", retry_after=said).retry_after == 0


@pytest.mark.parametrize("answer", [None, [], {"details": []}, {"details": {"causes": {}}, "message": None}])
def test_a_status_of_another_form_says_nothing(answer: object) -> None:
    error = refused(422, "", answer)
    assert (error.message, error.causes) == ("", [])


METADATA = {"name": "a.b", "namespace": "work", "uid": "0f-1", "resourceVersion": "12", "labels": {"x": "y"}}


def event(metadata: dict[str, object], type_: str = "MODIFIED") -> bytes:
    """As an API server writes it."""
    about = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return json.dumps({"type": type_, "object": about}, separators=(",", ":")).encode()


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED", "DELETED"])
@pytest.mark.parametrize("generated", [False, True])
def test_which_object_an_event_is_about_is_known_without_reading_on(type_: str, generated: bool) -> None:
    name, *others = METADATA.items()
    metadata = dict([name, *([("generateName", "a.")] if generated else []), *others])
    whole = event(metadata, type_)
    cut = whole[: whole.index(b'"labels"')]
    told = {"name": "a.b", "namespace": "work", "resourceVersion": "12"}
    assert client.identified(cut) == {"type": type_, "object": {"metadata": told}}


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(json.loads(event(METADATA))).encode(),
        event(dict(reversed(METADATA.items()))),
        event({**METADATA, "name": 'a","namespace":"other'}),
        event({"labels": {"name": "b"}, **METADATA}),
        event({"resourceVersion": "13"}, "BOOKMARK"),
        b'{"type":"ERROR","object":{"kind":"Status","code":410}}',
    ],
)
def test_an_event_that_is_written_otherwise_is_read_as_a_whole(line: bytes) -> None:
    assert client.identified(line) == json.loads(line)


async def test_an_answer_that_stops_half_way_leaves_no_connection_open(cluster: Cluster) -> None:
    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        return await hang(request)

    async with answering(begin) as url, api_client(cluster, url=url) as api:
        with pytest.raises(Unavailable):
            await client.request(api, "GET", "/api/v1/things", seconds=0.2)
        assert not api.rest_client.pool_manager.connector._acquired


async def test_each_request_is_told_with_its_answers_status_or_none(cluster: Cluster, tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=403)

    told: list[tuple[str, int]] = []

    async def ask(url: str, method: str, seconds: float) -> None:
        write_kubeconfig(tmp_path / "kubeconfig", url, cluster.ca_file, "token")
        connected = await client.connect(
            kubeconfig=str(tmp_path / "kubeconfig"), on_request=lambda *what: told.append(what)
        )
        async with connected as api:
            with pytest.raises(ApiError):
                await client.request(api, method, "/api/v1/things", seconds=seconds)

    async with answering(refuse) as url:
        await ask(url, "GET", 5)
    async with answering(hang) as url:
        await ask(url, "GET", 0.1)
    await ask("http://127.0.0.1:1", "POST", 5)
    assert told == [("GET", 403), ("GET", 0), ("POST", 0)]


async def test_a_request_looks_for_nothing_outside_of_the_clients_configuration(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and environment are read in threads, each time."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    def refuse(*_: object) -> None:
        raise AssertionError("a thread is asked for something")

    async with answering(answer) as url, await client.connect(kubeconfig=str(cluster.kubeconfig)) as api:
        api.configuration.host = url
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        assert await client.request(api, "GET", "/", seconds=5) == {}


@pytest.mark.parametrize(("not_for", "proxy"), [("", "http://u:p@proxy:3128"), ("127.0.0.1", None)])
async def test_the_proxy_that_the_environment_names_is_used(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, not_for: str, proxy: str | None
) -> None:
    monkeypatch.setenv("https_proxy", "http://u:p@proxy:3128")
    monkeypatch.setenv("no_proxy", not_for)
    async with await client.connect(kubeconfig=str(cluster.kubeconfig)) as api:
        assert api.rest_client.proxy == proxy
