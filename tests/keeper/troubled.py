"""An API server that gives one answer to everything, for the troubles that a real one is seldom in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer, method: str = "GET", path: str = "/{rest:.*}") -> AsyncIterator[str]:
    """A server of one answer to requests of this method to this path; its URL."""
    app = web.Application()
    app.router.add_route(method, path, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def overloaded(_: web.Request) -> web.StreamResponse:
    return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "1"})


async def broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="etcdserver: request timed out")


async def gibberish(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")
