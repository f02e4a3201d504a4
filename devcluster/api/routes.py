"""From an HTTP request to a verb and back: the spine of the API server."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from devcluster.api import discovery, errors, metrics, proxy, rbac, watch
from devcluster.api.errors import ApiError
from devcluster.api.handlers import Answer, Handlers, selection
from devcluster.api.kinds import Kind, Object
from devcluster.api.proxy import Proxy
from devcluster.api.requests import RequestInfo, parse
from devcluster.api.store import Store
from devcluster.api.tokens import Tokens, User

MAX_BODY_BYTES = 3 * 1024 * 1024
"""What the API server reads of a body (its MaxRequestBodyBytes)."""

_PARTIAL = re.compile(r"application/json;\s*as=PartialObjectMetadata(List)?\b")


class Routes:
    """Authenticates, parses, authorizes, answers."""

    def __init__(self, store: Store, tokens: Tokens, handlers: Handlers, services: Proxy):
        self._store = store
        self._tokens = tokens
        self._handlers = handlers
        self._services = services
        self._requests = metrics.Requests()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request whatever."""
        info: RequestInfo | None = None
        try:
            user = self._tokens.user(request.headers.get("Authorization", ""))
            if (document := discovery.document(request.path)) is not None:
                return web.json_response(document)
            if request.path == metrics.PATH:
                rbac.authorize_path(user, "get", request.path)
                return web.Response(text=self._requests.text())
            if (asked := proxy.parse(request.method, request.path)) is not None:
                rbac.authorize(self._store, user, asked.info)
                return await self._services.answer(request, asked)
            info = parse(request.method, request.path, request.query)
            rbac.authorize(self._store, user, info)
            if info.verb == "watch":
                return await self._watch(request, info)
            answer = await self._answer(request, info, user)
        except ApiError as error:
            answer = Answer(error.code, error.status, error.warnings)
        if info is not None:
            self._requests.count(info, answer.code)
        return _response(request, info, answer)

    async def _answer(self, request: web.Request, info: RequestInfo, user: User) -> Answer:
        handlers, content_type = self._handlers, request.content_type
        body = await _read_body(request)
        match info.verb:
            case "get":
                return handlers.get(info)
            case "list":
                return handlers.list_all(info, request.query)
            case "create":
                return await handlers.create(info, user, body)
            case "update":
                return await handlers.update(info, user, body)
            case "patch":
                return await handlers.patch(info, user, content_type, body)
            case "delete":
                return await handlers.delete(info, user, body)
            case _:
                return handlers.delete_collection(info, request.query)

    async def _watch(self, request: web.Request, info: RequestInfo) -> web.StreamResponse:
        query, partial = request.query, _wants_partial(request)
        watch.parse_revision(query)
        selected = selection(info.kind, query)
        seconds = float(query.get("timeoutSeconds") or 0)
        deadline = asyncio.get_running_loop().time() + seconds if seconds else None
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        source = watch.events(self._store, info.kind, info.namespace or None, selected, query)
        with suppress(ConnectionResetError):  # whoever watched has gone
            async for type_, obj in watch.until(deadline, source):
                shown = _partial(obj) if partial and type_ != "ERROR" else obj
                await response.write(watch.encode(type_, shown))
            await response.write_eof()
        return response


async def _read_body(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
    return bytes(body)


def _response(request: web.Request, info: RequestInfo | None, answer: Answer) -> web.Response:
    body = answer.body
    if info is not None:
        body = _shape(info.kind, body, _wants_partial(request))
    response = web.json_response(body, status=answer.code)
    for text in answer.warnings:
        response.headers.add("Warning", _warning(text))
    return response


def _wants_partial(request: web.Request) -> bool:
    return _PARTIAL.search(request.headers.get("Accept", "")) is not None


def _shape(kind: Kind, body: Object, partial: bool) -> Object:
    """The body as asked for: metadata alone, and the items of built-in lists without kind and apiVersion."""
    if body["kind"] == "Status" or body["kind"] not in (kind.name, f"{kind.name}List"):
        return body
    if "items" not in body:
        return _partial(body) if partial else body
    if partial:
        items = [_partial(item) for item in body["items"]]
        return {
            **body,
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "items": items,
        }
    if kind.custom:
        return body
    bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in body["items"]]
    return {**body, "items": bare}


def _partial(obj: Mapping[str, object]) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _warning(text: str) -> str:
    """A Warning header's value (RFC 7234, 5.5): 299 is a warning that stays, `-` an unnamed agent."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return f"299 - {json.dumps(printable, ensure_ascii=False)}"
