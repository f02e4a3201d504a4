"""The service's HTTP side: `/v1/…`, for the containers of ours in a step's Pod.

A request names neither cache nor key: the token names the Pod, and the Pod names both. So nobody reaches
more than the one entry that his step is about.
"""

import asyncio
import json
import logging
import pickle
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from keeper.api import claim as pod
from keeper.api import request as body
from keeper.api.auth import Caller, Tokens
from keeper.api.errors import Refusal, unavailable
from keeper.api.rate_limit import Limits
from keeper.api.request import Claim
from keeper.cache.writer import Writer
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.child import Child, FullError, KilledError, with_head
from server.logs import fields

_log = logging.getLogger(__name__)

LOOKUP_PATH = "/v1/lookup"
ENTRIES_PATH = "/v1/entries"
BODY_LIMIT = 3 << 20
"""Bytes of a body: an entry of a megabyte whose JSON doubled as it was quoted, and some …"""
BODIES_LIMIT = 64 << 20
"""… and of all that are being received."""
BODY_SECONDS = 5.0
"""For a body to arrive."""
RATE, BURST = 100.0, 500
"""Requests of one namespace: every step inside it makes two at most."""
REVIEW_RATE, REVIEW_BURST = 50.0, 500
"""Unknown tokens from one address: every Pod has an address and a token of its own."""

WAITING, OF_ONE = 16, 8
"""Large entries that wait to be read, and those of one Namespace; a megabyte takes some 50 ms."""

_LONG = 64 << 10
"""Bytes of a body that is not looked at in the loop that answers admission reviews."""
_BEARER = "Bearer "

Read = Callable[[str, str], Awaitable[Mapping[str, str] | Outcome]]
"""A cache's data by namespace and name, or why it cannot be read (keeper.cache.view.View.read)."""
Json = Mapping[str, Any]


class Service:
    """Answers sidecars. `on_request` is told route and status of each request, for the metrics."""

    def __init__(
        self,
        api: ApiClient,
        read: Read,
        writer: Writer,
        on_request: Callable[[str, int], None] = lambda route, status: None,
        *,
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._read, self._writer, self._on_request, self._now = api, read, writer, on_request, now
        self._tokens = tokens or Tokens(api)
        self._limits = limits or Limits(RATE, BURST)
        self._reviews = Limits(REVIEW_RATE, REVIEW_BURST)
        self._receiving = 0
        self._child = Child(body.__name__, of_one=OF_ONE)

    async def close(self) -> None:
        """End the process that reads large entries."""
        await self._child.close()

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post(LOOKUP_PATH, self._route("lookup", self._lookup))
        app.router.add_post(ENTRIES_PATH, self._route("entries", self._store))

    async def _lookup(self, claim: Claim, content: bytes) -> Json | Refusal:
        if refusal := body.lookup(content, claim):
            return refusal
        data = await self._read(claim.namespace, claim.memo.cache)
        if isinstance(data, Outcome):
            if data.reason is Reason.API_UNAVAILABLE:
                return unavailable(data.detail)
            return {"entry": None, "reason": data.reason.value, "detail": data.detail}
        return {"entry": data.get(claim.data_key)}

    async def _store(self, claim: Claim, content: bytes) -> Json | Refusal:
        now = self._now()
        if len(content) > _LONG:
            text = await self._read_entry(claim, content, now)
        else:
            text = body.entry(content, claim, now)
        if isinstance(text, Refusal):
            return text
        reason, detail = await self._writer.put(claim.namespace, claim.memo.cache, claim.data_key, text, now)
        if reason is Reason.RATE_LIMITED:
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=1)
        return {"reason": reason.value, "detail": detail}

    async def _read_entry(self, claim: Claim, content: bytes, now: datetime) -> str | Refusal:
        """The entry in a long body, read where nobody waits for it."""
        head = with_head((claim, now))
        try:
            answer = await self._child.call(
                body.IN_CHILD_FUNCTION, head, content, share=claim.namespace, places=WAITING
            )
        except FullError:
            return unavailable("too many large entries are being read")
        except KilledError as error:
            return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the entry {error}")
        found: str | Refusal = pickle.loads(answer)
        return found

    def _route(
        self, route: str, answer: Callable[[Claim, bytes], Awaitable[Json | Refusal]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            claim: Claim | None = None
            try:
                result: Json | Refusal
                claimed = await self._claim(request)
                if isinstance(claimed, Refusal):
                    result = claimed
                else:
                    claim = claimed
                    content = await self._receive(request)
                    result = content if isinstance(content, Refusal) else await answer(claim, content)
            except Exception:
                _log.exception("cannot answer", extra=fields(route=route, reason=Reason.INTERNAL_ERROR.value))
                result = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug of stepmemo's; see its log")
            return self._answered(route, claim, result)

        return handle

    async def _claim(self, request: web.Request) -> Claim | Refusal:
        """What the caller may have; nothing is received from one that may not have anything."""
        caller = await self._caller(request)
        if isinstance(caller, Refusal):
            return caller
        if wait := self._limits.take(caller.namespace):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this namespace", (), wait)
        return await pod.read(self._api, caller)

    async def _caller(self, request: web.Request) -> Caller | Refusal:
        authorization = request.headers.get("Authorization", "")
        if not authorization.startswith(_BEARER):
            return Refusal(HTTPStatus.UNAUTHORIZED, "no bearer token")
        token = authorization.removeprefix(_BEARER)
        known = self._tokens.known(token)
        if known is None and (wait := self._reviews.take(request.remote or "")):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many tokens from this address", (), wait)
        return known or await self._tokens.caller(token)

    async def _receive(self, request: web.Request) -> bytes | Refusal:
        """The body, within the limits of one and of all."""
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    content += chunk
                    self._receiving += len(chunk)
                    if len(content) > BODY_LIMIT:
                        said = f"the body is larger than {BODY_LIMIT} bytes"
                        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
                    if self._receiving > BODIES_LIMIT:
                        return unavailable("too much is being received")
        except TimeoutError:
            return Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time")
        except (web.RequestPayloadError, OSError):
            return Refusal(HTTPStatus.BAD_REQUEST, "the body broke off")
        finally:
            self._receiving -= len(content)
        return bytes(content)

    def _answered(self, route: str, claim: Claim | None, result: Json | Refusal) -> web.Response:
        """Tell the outcome to the caller, the log and the metrics; keys and values to the caller alone."""
        if isinstance(result, Refusal):
            level, status, told = logging.WARNING, result.code, result.outcome._asdict()
            response = web.json_response(result.status, status=status, headers=result.headers)
        else:
            level, status, told = logging.INFO, int(HTTPStatus.OK), {"reason": result.get("reason")}
            response = web.Response(body=json.dumps(result).encode(), content_type="application/json")
        self._on_request(route, status)
        whose = {"namespace": claim.namespace, "pod": claim.pod} if claim else {}
        _log.log(level, "answered", extra=fields(route=route, status=int(status), **told, **whose))
        return response
