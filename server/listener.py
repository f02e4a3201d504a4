"""The HTTPS side of a program: its socket, probes and metrics; what else it serves is added to `app`."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext

from aiohttp import web
from aiohttp.typedefs import Handler

from server.connections import Connections, listening
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


class Listener:
    """Serves the probes and the metrics, and whatever is added to `app`.

    What is added tells `refusals` what it does not serve. `problem` is empty once requests can arrive;
    `notice` is what an admin should know besides.
    """

    def __init__(self, metrics: Metrics, problem: Callable[[], str], notice: Callable[[], str] = str) -> None:
        self._metrics, self._problem, self._notice = metrics, problem, notice
        self._draining = False
        self.refusals = Refusals(metrics.refused)
        self._connections: Connections | None = None
        metrics.show_connections(lambda: self._connections.open if self._connections else 0)
        self.app = web.Application(middlewares=[self._noted])
        self.app.on_response_prepare.append(self._say_goodbye)
        self.app.router.add_get(HEALTH_PATH, self._healthz)
        self.app.router.add_get(READY_PATH, self._readyz)
        self.app.router.add_get(METRICS_PATH, self._show_metrics)

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
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=CLOSING_SECONDS)
        await runner.setup()
        assert runner.server is not None
        self._connections = connections = Connections(runner.server, context, self.refusals)
        try:
            sockets = await listening(host, port)
            try:
                for one in sockets:
                    address = one.getsockname()
                    _log.info("listening", extra=fields(host=address[0], port=address[1]))
                accepting = [connections.accept(one) for one in sockets]
                await until_first_ends(self._drained(stop, stop_now, delay), *accepting)
            finally:
                for one in sockets:
                    one.close()
        finally:
            connections.close()
            await runner.cleanup()

    async def _drained(self, stop: asyncio.Event, stop_now: asyncio.Event, delay: float) -> None:
        await stop.wait()
        self._draining = True
        _log.info("shutting down", extra=fields(seconds=delay))
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await stop_now.wait()

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

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
