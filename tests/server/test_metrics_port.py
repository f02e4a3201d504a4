"""The metrics have a port of their own: plain HTTP, and bounded like the other one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from server.listener import FRESH, SCRAPERS_OF_ONE, MetricsListener
from server.metrics import CONTENT_TYPE, Metrics
from tests.beside import beside
from tests.waiting import until

CONNECTIONS = 'stepmemo_refused_requests_total{reason="Connections"}'


@asynccontextmanager
async def serving(
    metrics: Metrics, clock: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[int]:
    """The port that they are served on."""
    caplog.set_level(logging.INFO)

    def said() -> list[int]:
        return [one.fields["port"] for one in caplog.records if one.getMessage() == "serving metrics"]  # type: ignore[attr-defined]

    async with beside(MetricsListener(metrics, clock=clock).run(("127.0.0.1", 0))):
        await until(said)
        yield said()[0]


async def test_a_scraper_needs_no_certificate_and_finds_nothing_else_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    metrics.breaker_deleted()
    async with serving(metrics, lambda: 0.0, caplog) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        async with session.get(f"{url}/metrics") as response:
            assert (response.status, response.headers["Content-Type"]) == (200, CONTENT_TYPE)
            assert "\nstepmemo_breaker_deleted_pods_total 1.0\n" in await response.text()
        for path in ("/", "/healthz", "/readyz", "/mutate/pods", "/v1/lookup"):
            async with session.get(url + path) as response:
                assert response.status == 404


async def test_who_asks_often_gets_what_was_made_a_moment_ago(caplog: pytest.LogCaptureFixture) -> None:
    asked, now = [0], [0.0]

    def count() -> int:
        asked[0] += 1
        return asked[0]

    metrics = Metrics()
    metrics.show_connections(count)
    async with serving(metrics, lambda: now[0], caplog) as port, aiohttp.ClientSession() as session:

        async def said() -> str:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                text = await response.text()
            (line,) = [line for line in text.splitlines() if line.startswith("stepmemo_connections ")]
            return line

        assert {await said() for _ in range(20)} == {"stepmemo_connections 1.0"}
        now[0] = FRESH
        assert await said() == "stepmemo_connections 2.0"


async def test_its_connections_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    async with serving(metrics, lambda: 0.0, caplog) as port:
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(SCRAPERS_OF_ONE + 3)]
        await until(lambda: f"{CONNECTIONS} 3.0" in metrics.render().decode())
        for writer in writers:
            writer.close()


async def test_without_an_address_nobody_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def port(*_: object) -> None:
        raise AssertionError("a port is opened")

    listener = MetricsListener(Metrics())
    monkeypatch.setattr(listener._port, "run", port)
    async with beside(listener.run(None)):
        for _ in range(10):
            await asyncio.sleep(0)
