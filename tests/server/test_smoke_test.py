"""Whether an installation works: what is told of one that does not."""

import asyncio
import copy
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.client import ApiClient, Configuration

from memoize import names
from server import smoke_test as trying
from server.smoke_test import SmokeTestError, smoke_test
from server.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from tests.cancelled import cancelled_as_it_runs_out_of_time
from tests.keeper.troubled import hang
from tests.webhook.serving import certify

Json = dict[str, Any]
Answer = Callable[[Json], web.Response]
Ready = Callable[[web.Request], Awaitable[web.StreamResponse]]
pytestmark = pytest.mark.slow

SOON = 1.5
"""Seconds after which it gives up, and in which it is to have looked once, also on a busy machine."""


def converted(sent: Json) -> web.Response:
    made = copy.deepcopy(sent)
    (template,) = made["spec"]["templates"]
    del template["memoize"]
    template["metadata"]["annotations"][names.KEY] = "key"
    return web.json_response(made, status=201)


def untouched(sent: Json) -> web.Response:
    return web.json_response(sent, status=201)


def refused(status: int) -> Answer:
    return lambda sent: web.json_response({"message": "as it says"}, status=status)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "_PAUSE", 0.01)


@asynccontextmanager
async def api_server(answer: Answer) -> AsyncIterator[ApiClient]:
    """One that knows dry runs of ClusterWorkflowTemplates alone."""

    async def dry_run(request: web.Request) -> web.Response:
        assert request.query["dryRun"] == "All", "nothing may be stored"
        return answer(await request.json())

    app = web.Application()
    app.router.add_post("/apis/argoproj.io/v1alpha1/clusterworkflowtemplates", dry_run)
    async with serving(app) as port:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{port}"
        async with ApiClient(configuration) as api:
            yield api


@asynccontextmanager
async def program(directory: Path, *answers: tuple[int, str]) -> AsyncIterator[str]:
    """One that gives these answers of whether it is ready, the last of them for ever; its URL."""
    left = list(answers)

    async def ready(_: web.Request) -> web.StreamResponse:
        status, text = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, text=text)

    async with ready_or_not(directory, ready) as url:
        yield url


@asynccontextmanager
async def ready_or_not(directory: Path, ready: Ready) -> AsyncIterator[str]:
    """A program that is asked whether it is ready; its URL."""
    app = web.Application()
    app.router.add_get("/readyz", ready)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE)
    async with serving(app, context) as port:
        yield f"https://localhost:{port}"


@asynccontextmanager
async def serving(app: web.Application, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_one_that_works(tmp_path: Path) -> None:
    certify(tmp_path, host="localhost")
    async with program(tmp_path, (200, "ok\n")) as url, api_server(converted) as api:
        await smoke_test(api, [url, url], tmp_path / AUTHORITY_FILE, 60)


async def test_what_is_not_ready_yet_is_waited_for(tmp_path: Path) -> None:
    certify(tmp_path, host="localhost")
    starting = (503, "the keeper's Lease was not seen renewed yet\n")
    async with program(tmp_path, starting, starting, (200, "ok\n")) as url, api_server(converted) as api:
        await smoke_test(api, [url], tmp_path / AUTHORITY_FILE, 60)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (untouched, "the API server does not call the webhook, or cannot reach it"),
        (refused(404), "Argo Workflows is not installed"),
        (refused(403), "a dry run of a ClusterWorkflowTemplate: 403 Forbidden: as it says"),
        (refused(500), "a dry run of a ClusterWorkflowTemplate: 500"),
    ],
    ids=["not called", "no Argo", "not allowed", "in trouble"],
)
async def test_an_api_server_that_does_not_ask_the_webhook_is_told(
    answer: Answer, said: str, tmp_path: Path
) -> None:
    async with api_server(answer) as api:
        with pytest.raises(SmokeTestError) as raised:
            await smoke_test(api, [], tmp_path / AUTHORITY_FILE, SOON)
    assert said in str(raised.value)


@pytest.mark.parametrize("case", ["unready", "another CA", "no CA", "nobody"])
async def test_a_program_that_cannot_be_asked_or_trusted_is_told(case: str, tmp_path: Path) -> None:
    certify(tmp_path, host="localhost")
    authority = tmp_path / AUTHORITY_FILE
    if case == "another CA":
        (tmp_path / "other").mkdir()
        certify(tmp_path / "other", host="localhost")
        authority = tmp_path / "other" / AUTHORITY_FILE
    if case == "no CA":
        authority = tmp_path / "none"
    async with program(tmp_path, (503, "not in sync yet\n")) as url, api_server(converted) as api:
        asked = "https://localhost:1" if case == "nobody" else url
        with pytest.raises(SmokeTestError) as raised:
            await smoke_test(api, [asked], authority, SOON)
    said = {
        "unready": "not in sync yet",
        "another CA": "certificate verify failed",
        "no CA": "No such file",
        "nobody": "Cannot connect",
    }[case]
    assert said in str(raised.value)
    assert str(raised.value).startswith(asked)


async def test_a_cancellation_that_comes_with_a_requests_time_out_is_none_the_less(tmp_path: Path) -> None:
    certify(tmp_path, host="localhost")
    asked = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await hang(request)

    async with ready_or_not(tmp_path, late) as url, api_server(converted) as api:
        trial = smoke_test(api, [url], tmp_path / AUTHORITY_FILE, 60)
        await cancelled_as_it_runs_out_of_time(trial, asked, trying._REQUEST_SECONDS)


def test_wrong_settings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert trying.main(["--timeout=1y"], {}) == 2
    assert "--timeout (STEPMEMO_TIMEOUT)" in capsys.readouterr().err
