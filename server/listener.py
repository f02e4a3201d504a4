"""The ports of a program: HTTPS for probes and what is added to `app`, plain HTTP for its metrics alone."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from ssl import SSLContext
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from server.connections import MOST, MOST_OF_ONE, Connections, listening
from server.logs import fields
from server.metrics import CONTENT_TYPE, Metrics
from server.program import until_first_ends
from server.refusals import Refusals

_log = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"
CLOSING_SECONDS = 10.0
"""How long requests in flight may take after the socket is closed; twice the webhooks' time-out."""
SCRAPERS, SCRAPERS_OF_ONE = 32, 24
"""Connections to the port of the metrics, in all and of one address."""
FRESH = 1.0
"""Seconds that one text of the metrics serves: each costs the loop some milliseconds, and anybody may ask."""


class Listener:
    """Serves the probes, and whatever is added to `app`.

    What is added tells `refusals` what it does not serve. `problem` is empty once requests can arrive;
    `notice` is what an admin should know besides.
    """

    def __init__(self, metrics: Metrics, problem: Callable[[], str], notice: Callable[[], str] = str) -> None:
        self._problem, self._notice = problem, notice
        self._draining = False
        self.refusals = Refusals(metrics.refused)
        self._port = _Port(self.refusals)
        metrics.show_connections(lambda: self._port.connections)
        self.app = self._port.app
        self.app.on_response_prepare.append(self._say_goodbye)
        self.app.router.add_get(HEALTH_PATH, self._healthz)
        self.app.router.add_get(READY_PATH, self._readyz)

    async def run(
        self,
        host: str,
        port: int,
        context: SSLContext,
        stop: asyncio.Event,
        stop_now: asyncio.Event,
        delay: float,
    ) -> None:
        """Serve until `stop`, then unready for `delay` seconds more or until `stop_now`; OSError: no socket.

        The delay is for the clients that still think we are an endpoint of the Service; each answer in it is
        the last on its connection. Requests in flight are finished after it.
        """

        async def drained() -> None:
            await stop.wait()
            self._draining = True
            _log.info("shutting down", extra=fields(seconds=delay))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stop_now.wait()

        await self._port.run("listening", host, port, context, drained)

    async def _say_goodbye(self, _: web.Request, response: web.StreamResponse) -> None:
        """While draining: the client is to send its next request elsewhere, before we end the connection."""
        if self._draining:
            response.headers["Connection"] = "close"  # the header of a kept one is chosen by now
            response.force_close()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problem = "shutting down" if self._draining else self._problem()
        lines = [problem or "ok", self._notice()]
        text = "".join(f"{line}\n" for line in lines if line)
        return web.Response(status=503 if problem else 200, text=text)


class MetricsListener:
    """Serves the metrics over plain HTTP: a scraper would have to be told to trust our certificate.

    `clock` counts seconds.
    """

    def __init__(self, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._text, self._fresh_until = b"", clock()
        self._port = _Port(Refusals(metrics.refused), most=SCRAPERS, most_of_one=SCRAPERS_OF_ONE)
        self._port.app.router.add_get(METRICS_PATH, self._show)

    async def run(self, address: tuple[str, int] | None) -> None:
        """Serve for ever, nobody where there is no address; OSError: no socket."""
        forever = asyncio.Event().wait
        if address is None:
            await forever()
        else:
            await self._port.run("serving metrics", *address, None, forever)

    async def _show(self, _: web.Request) -> web.Response:
        if (now := self._clock()) >= self._fresh_until:
            self._text, self._fresh_until = self._metrics.render(), now + FRESH
        return web.Response(body=self._text, headers={"Content-Type": CONTENT_TYPE})


class _Port:
    """An app behind connections that are bounded, in all and of one address."""

    def __init__(self, refusals: Refusals, *, most: int = MOST, most_of_one: int = MOST_OF_ONE) -> None:
        self._refusals, self._most, self._most_of_one = refusals, most, most_of_one
        self._connections: Connections | None = None
        self.app = web.Application(middlewares=[self._noted])

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._connections.open if self._connections else 0

    async def run(
        self,
        says: str,
        host: str,
        port: int,
        context: SSLContext | None,
        until: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        """Serve until `until` returns; the log `says` so of each address. OSError: no socket."""
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=CLOSING_SECONDS)
        await runner.setup()
        assert runner.server is not None
        self._connections = connections = Connections(
            runner.server, context, self._refusals, most=self._most, most_of_one=self._most_of_one
        )
        try:
            sockets = await listening(host, port)
            try:
                for one in sockets:
                    address = one.getsockname()
                    _log.info(says, extra=fields(host=address[0], port=address[1]))
                accepting = [connections.accept(one) for one in sockets]
                await until_first_ends(until(), *accepting)
            finally:
                for one in sockets:
                    one.close()
        finally:
            connections.close()
            await runner.cleanup()

    @web.middleware
    async def _noted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell the connections that a request is under way."""
        if self._connections is None:
            return await handler(request)
        self._connections.begin(request.protocol)
        try:
            return await handler(request)
        finally:
            self._connections.end(request.protocol)
