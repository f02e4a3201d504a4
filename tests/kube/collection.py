"""An API server that holds one kind of object and does as it is told: for troubles in lists and watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.keeper.troubled import Answer

Event = tuple[str, Mapping[str, Any]]
LABELS = {"workflows.argoproj.io/configmap-type": "Cache"}


class Collection:
    """ConfigMaps by namespace and name. `on_list` and `on_watch` answer the next requests of their kind.

    `lists`, `watches` and `gets` are the requests so far: queries of the first two, paths of the last. `told`
    are the bytes of lists, and of events of watches, that were sent.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 100
        self.on_list: list[Answer] = []
        self.on_watch: list[Answer] = []
        self.on_get: list[Answer] = []
        self.lists: list[Mapping[str, str]] = []
        self.watches: list[Mapping[str, str]] = []
        self.gets: list[str] = []
        self.told = 0
        self._history: list[tuple[int, Event]] = []
        self._open: dict[asyncio.Queue[Event | None], web.Request] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve until the block ends; the URL."""
        app = web.Application()
        app.router.add_get("/api/v1/configmaps", self._collection)
        app.router.add_get("/api/v1/namespaces/{namespace}/configmaps", self._collection)
        app.router.add_get("/api/v1/namespaces/{namespace}/configmaps/{name}", self._get)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def put(self, name: str, data: Mapping[str, str], namespace: str = "work") -> str:
        """Create or change an object; its resourceVersion."""
        self.version += 1
        type_ = "MODIFIED" if (namespace, name) in self.objects else "ADDED"
        metadata = {"namespace": namespace, "name": name, "labels": LABELS}
        obj = {"metadata": metadata | {"resourceVersion": str(self.version)}, "data": dict(data)}
        self.objects[namespace, name] = obj
        self._tell(type_, obj)
        return str(self.version)

    def delete(self, name: str, namespace: str = "work") -> None:
        self.version += 1
        obj = self.objects.pop((namespace, name))
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", obj)

    def bookmark(self) -> None:
        """Tell every watch where it is, after changes that are none of its business."""
        self.version += 10
        self._send(("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))

    def forget(self, name: str, namespace: str = "work") -> None:
        """Have an object gone without a word, as for one who was away for long."""
        del self.objects[namespace, name]
        self._history.clear()

    def end_watches(self) -> None:
        """End them as at their time-out."""
        for queue in self._open:
            queue.put_nowait(None)

    def cut_watches(self) -> None:
        """Break their connections."""
        for request in self._open.values():
            assert request.transport is not None
            request.transport.abort()

    def _tell(self, type_: str, obj: Mapping[str, Any]) -> None:
        event = type_, json.loads(json.dumps(obj))
        self._history.append((self.version, event))
        self._send(event)

    def _send(self, event: Event) -> None:
        for queue in self._open:
            queue.put_nowait(event)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.gets.append(request.path)
        found = self.objects.get((request.match_info["namespace"], request.match_info["name"]))
        if self.on_get:
            return await self.on_get.pop(0)(request)
        return web.json_response(found) if found else web.json_response({"code": 404}, status=404)

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            self.watches.append(dict(request.query))
            return await (self.on_watch.pop(0) if self.on_watch else self._watch)(request)
        self.lists.append(dict(request.query))
        return await (self.on_list.pop(0) if self.on_list else self._list)(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("namespace")
        keys = sorted(key for key in self.objects if namespace in (None, key[0]))
        first, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        metadata = {"resourceVersion": str(self.version)}
        if first + limit < len(keys):
            metadata["continue"] = str(first + limit)
        items = [_shape(request, self.objects[key]) for key in keys[first : first + limit]]
        body = json.dumps({"metadata": metadata, "items": items}).encode()
        self.told += len(body)
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        for version, event in self._history:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(event)
        self._open[queue] = request
        try:
            await response.prepare(request)
            while (event := await queue.get()) is not None:
                line = _event(event[0], _shape(request, event[1]))
                self.told += len(line)
                await response.write(line)
        finally:
            del self._open[queue]
        return response


def _shape(request: web.Request, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object as the request asks for it."""
    partial = "as=PartialObjectMetadata" in request.headers["Accept"]
    return {"metadata": obj["metadata"]} if partial else obj


def _event(type_: str, obj: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


async def gone(_: web.Request) -> web.StreamResponse:
    """410 as an answer."""
    return web.json_response({"code": 410, "reason": "Expired", "message": "too old"}, status=410)


async def gone_as_an_event(_: web.Request) -> web.StreamResponse:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    return web.Response(body=_event("ERROR", status))


async def nonsense(_: web.Request) -> web.StreamResponse:
    return web.Response(text="[]\n")


async def cut_off(request: web.Request) -> web.StreamResponse:
    """A connection that breaks in the middle of a line."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b'{"type": "MODI')
    assert request.transport is not None
    request.transport.abort()
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    """A watch that is taken and never says a word."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


async def over_at_once(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"")
