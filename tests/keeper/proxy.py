"""A way to an API server on which requests can be answered by somebody else, held up, or cut off."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from memoize import names
from tests.cluster import Cluster


class Call(NamedTuple):
    """A request that passed: its method, its path below the namespace, and the status of the answer.

    What creates an object is shown with the object's name, and an empty result as one.
    """

    method: str
    path: str
    status: int

    @property
    def says(self) -> str:
        return f"{self.method} {self.path}"


Fault = Callable[[str, str], web.Response | None]
"""An answer in the API server's place to this method and path, or None."""


class Proxy:
    """Passes requests on, and remembers those that are neither of a watch or list, nor of the Lease.

    `fault` answers those in the API server's place, `fault_all` lists and watches too. `stop_at` cuts
    everything off at one of them: as if this process, and no other, were killed there.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.calls: list[Call] = []
        self.fault: Fault = lambda method, path: None
        self.fault_all: Fault = lambda method, path: None
        self.cut = False
        self.turned_away = 0
        """Requests that met the cut."""
        self.stopped = asyncio.Event()
        self._stop: tuple[int, str] = (-1, "")
        self._count = 0
        self._under_way: set[asyncio.Task[tuple[aiohttp.ClientResponse, bytes]]] = set()

    def stop_at(self, index: int, when: str) -> None:
        """Cut off at this request: `before` it takes effect, or `after` that and before its answer."""
        self._stop = index, when

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{rest:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        connector = aiohttp.TCPConnector(ssl=self._cluster.context(), limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()
                await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._reset_if_cut(request)
        path = request.path.partition("/namespaces/")[2].partition("/")[2]
        counted = "/leases" not in request.path and "limit" not in request.query and not _watches(request)
        index, when = self._stop
        here = counted and self._count == index
        self._count += counted
        if here and when == "before":
            self._kill(request)
        if counted and (answer := self.fault(request.method, path)) is not None:
            self.calls.append(Call(request.method, path, answer.status))
            return answer
        if (answer := self.fault_all(request.method, path)) is not None:
            return answer
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        url = self._cluster.url + request.raw_path
        if _watches(request):
            async with self._session.get(url, headers=headers) as found:
                return await self._stream(request, found)
        # It may have taken effect when its caller is gone, and counts then.
        asked = asyncio.ensure_future(
            self._ask(request.method, url, path if counted else None, body, headers)
        )
        self._under_way.add(asked)
        asked.add_done_callback(self._under_way.discard)
        found, text = await asyncio.shield(asked)
        if here:
            self._kill(request)
        self._reset_if_cut(request)
        return web.Response(status=found.status, body=text, headers=_kept(found))

    async def _ask(
        self, method: str, url: str, path: str | None, body: bytes, headers: dict[str, str]
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Pass the request on, to its end; remember it if it has a path."""
        async with self._session.request(method, url, data=body, headers=headers) as found:
            text = await found.read()
        if path is not None:
            self.calls.append(Call(method, _shown(method, path, body), found.status))
        return found, text

    async def _stream(self, request: web.Request, found: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=found.status, headers=_kept(found))
        await response.prepare(request)
        async for chunk in found.content.iter_any():
            self._reset_if_cut(request)
            await response.write(chunk)
        return response

    def _kill(self, request: web.Request) -> None:
        self.cut = True
        self.stopped.set()
        self._reset_if_cut(request)

    def _reset_if_cut(self, request: web.Request) -> None:
        if self.cut:
            self.turned_away += 1
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPServiceUnavailable  # nobody hears it


def refusing(status: int, *parts: str, times: int = 1_000_000, **headers: str) -> Fault:
    """Answers requests whose `METHOD path` holds one of `parts` with this status, some times."""
    left = [times]

    def fault(method: str, path: str) -> web.Response | None:
        if not left[0] or not any(part in f"{method} {path}" for part in parts):
            return None
        left[0] -= 1
        told: dict[str, Any] = {"kind": "Status", "code": status, "message": "a fault"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(told, status=status, headers=named)

    return fault


def _shown(method: str, path: str, body: bytes) -> str:
    if method != "POST":
        return path
    made = json.loads(body)
    empty = made["kind"] == "WorkflowTaskResult" and names.POSTED_FOR not in made["metadata"].get(
        "annotations", {}
    )
    return f"{path}/{made['metadata']['name']}" + (" empty" if empty else "")


def _watches(request: web.Request) -> bool:
    return "watch" in request.query


def _kept(found: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name: found.headers[name] for name in ("Content-Type", "Content-Encoding") if name in found.headers
    }
