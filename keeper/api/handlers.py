"""The service's HTTP side: `/v1/…`, for the containers of ours in a step's Pod.

A request names neither cache nor key: the token names the Pod, and the Pod names both. So nobody reaches
more than the one entry that his step is about.
"""

import asyncio
import json
import logging
import pickle
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from keeper.api import claim as pod
from keeper.api import request as body
from keeper.api.auth import Caller, Tokens
from keeper.api.errors import Refusal, unavailable
from keeper.api.in_flight import Bytes, TooMuchError, Turns
from keeper.api.request import Claim
from keeper.store import Store
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.child import Child, EndedError, FullError, KilledError, LateError, with_head
from server.logs import fields
from server.rate_limit import Limits

_log = logging.getLogger(__name__)

LOOKUP_PATH = "/v1/lookup"
ENTRIES_PATH = "/v1/entries"
BODY_LIMIT = 3 << 20
"""Bytes of a body: an entry of a megabyte whose JSON doubled as it was quoted, and some."""
BODY_SECONDS = 5.0
"""For a body to arrive, and for an answer to be taken."""
TURN_SECONDS = 2.0
"""For a Pod to be read, its wait for others included."""
RATE, BURST = 100.0, 500
"""Requests of one namespace: every step inside it makes two at most."""
REVIEW_RATE, REVIEW_BURST = 50.0, 500
"""Unknown tokens from one address: every Pod has an address and a token of its own."""

_LONG = 64 << 10
"""Bytes of a body from which on it is read in a child process: the event loop decides gated Pods, too."""
_BEARER = "Bearer "

Json = Mapping[str, Any]


class Service:
    """Answers sidecars of these Namespaces, of all where none is named.

    `on_request` is told route and status of each request, for the metrics.
    """

    def __init__(
        self,
        api: ApiClient,
        store: Store,
        on_request: Callable[[str, int], None] = lambda route, status: None,
        *,
        namespaces: Collection[str] = (),
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        in_flight: Bytes | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._store, self._on_request, self._now = api, store, on_request, now
        self._tokens = tokens or Tokens(api)
        self._limits = limits or Limits(RATE, BURST)
        self._reviews = Limits(REVIEW_RATE, REVIEW_BURST)
        self._namespaces = frozenset(namespaces)
        self._in_flight = in_flight or Bytes()
        self._reads = Turns()
        self._child = Child(body.__name__)

    async def close(self) -> None:
        """End the process that reads large entries."""
        await self._child.close()

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post(LOOKUP_PATH, self._route("lookup", self._lookup))
        app.router.add_post(ENTRIES_PATH, self._route("entries", self._put))

    async def _lookup(self, claim: Claim, content: bytes) -> Json | Refusal:
        if not claim.looks_up:
            return Refusal(HTTPStatus.FORBIDDEN, "the Pod was not to be answered")
        if refusal := body.lookup(content, claim):
            return refusal
        text = await self._store.read(claim.namespace, claim.memo.cache, claim.data_key)
        if isinstance(text, Outcome):
            if text.reason is Reason.API_UNAVAILABLE:
                return unavailable(text.detail)
            return {"entry": None, "reason": text.reason.value, "detail": text.detail}
        if text:
            self._store.hit(claim.namespace, claim.memo.cache, claim.data_key, text)
        return {"entry": text or None}

    async def _put(self, claim: Claim, content: bytes) -> Json | Refusal:
        if not claim.stores:
            return Refusal(HTTPStatus.FORBIDDEN, "the Pod was not to be stored")
        now = self._now()
        if len(content) > _LONG:
            text = await self._read_entry(claim, content, now)
        else:
            text = body.entry(content, claim, now)
        if isinstance(text, Refusal):
            return text
        reason, detail = await self._store.put(claim.namespace, claim.memo.cache, claim.data_key, text, now)
        if reason is Reason.RATE_LIMITED:
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, detail, retry_after=1)
        return {"reason": reason.value, "detail": detail}

    async def _read_entry(self, claim: Claim, content: bytes, now: datetime) -> str | Refusal:
        """The entry in a long body, read where nobody waits for it."""
        head = with_head((claim, now))
        try:
            answer = await self._child.call(body.IN_CHILD_FUNCTION, head, content, share=claim.namespace)
        except FullError:
            return unavailable("too many large entries are being read")
        except (EndedError, LateError):
            return unavailable("large entries cannot be read now")
        except KilledError as error:
            return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the entry {error}")
        found: str | Refusal = pickle.loads(answer)
        return found

    def _route(
        self, route: str, answer: Callable[[Claim, bytes], Awaitable[Json | Refusal]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            # 1. Who asks; nothing is received from one that may not have anything.
            try:
                caller = await self._caller(request)
            except Exception:
                caller = _bug(route)
            if isinstance(caller, Refusal):
                return self._answered(route, None, caller)
            # 2. For what: all bytes of the request count until its answer is sent.
            claim: Claim | None = None
            with self._in_flight.of(caller.namespace) as more:
                result: Json | Refusal
                try:
                    claimed = await self._claim(caller)
                    if isinstance(claimed, Refusal):
                        result = claimed
                    else:
                        claim = claimed
                        content = await self._receive(request, more)
                        result = content if isinstance(content, Refusal) else await answer(claim, content)
                    response = self._answered(route, claim, result, more)
                except TooMuchError as error:
                    response = self._answered(route, claim, _refused(error))
                except Exception:
                    response = self._answered(route, claim, _bug(route))
                await _sent(request, response)
            return response

        return handle

    async def _claim(self, caller: Caller) -> Claim | Refusal:
        """What the caller may have."""
        if self._namespaces and caller.namespace not in self._namespaces:
            return Refusal(HTTPStatus.FORBIDDEN, "the caches of this Namespace are not kept")
        if wait := self._limits.take(caller.namespace):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this namespace", (), wait)
        try:
            async with asyncio.timeout(TURN_SECONDS), self._reads.of(caller.namespace):
                return await pod.read(self._api, caller)
        except TimeoutError:
            return unavailable("too many Pods are being read")

    async def _caller(self, request: web.Request) -> Caller | Refusal:
        authorization = request.headers.get("Authorization", "")
        if not authorization.startswith(_BEARER):
            return Refusal(HTTPStatus.UNAUTHORIZED, "no bearer token")
        token = authorization.removeprefix(_BEARER)
        known = self._tokens.known(token)
        if known is None and (wait := self._reviews.take(request.remote or "")):
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many tokens from this address", (), wait)
        return known or await self._tokens.caller(token)

    async def _receive(self, request: web.Request, more: Callable[[int], None]) -> bytes | Refusal:
        """The body; `more` is told of its bytes as they come."""
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    content += chunk
                    more(len(chunk))
                    if len(content) > BODY_LIMIT:
                        said = f"the body is larger than {BODY_LIMIT} bytes"
                        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
        except TimeoutError:
            return Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time")
        except (web.RequestPayloadError, OSError):
            return Refusal(HTTPStatus.BAD_REQUEST, "the body broke off")
        return bytes(content)

    def _answered(
        self,
        route: str,
        claim: Claim | None,
        result: Json | Refusal,
        more: Callable[[int], None] = lambda size: None,
    ) -> web.Response:
        """Tell the outcome to the caller, the log and the metrics; keys and values to the caller alone."""
        if isinstance(result, Refusal):
            level, status, told = logging.WARNING, result.code, result.outcome._asdict()
            response = web.json_response(result.status, status=status, headers=result.headers)
        else:
            level, status, told = logging.INFO, int(HTTPStatus.OK), {"reason": result.get("reason")}
            answer = json.dumps(result).encode()
            more(len(answer))
            response = web.Response(body=answer, content_type="application/json")
        self._on_request(route, status)
        whose = {"namespace": claim.namespace, "pod": claim.pod} if claim else {}
        _log.log(level, "answered", extra=fields(route=route, status=int(status), **told, **whose))
        return response


def _refused(error: TooMuchError) -> Refusal:
    if error.own:
        said = "too many bytes or requests of this namespace are in hand"
        return Refusal(HTTPStatus.TOO_MANY_REQUESTS, said, (), 1)
    return unavailable("too many bytes are in hand")


def _bug(route: str) -> Refusal:
    """What a caller is told of an exception that nobody thought of; call while it is handled."""
    _log.exception("cannot answer", extra=fields(route=route, reason=Reason.INTERNAL_ERROR.value))
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug of stepmemo's; see its log")


async def _sent(request: web.Request, response: web.Response) -> None:
    """Send the answer; a caller that does not take it is cut off."""
    try:
        with suppress(ConnectionError):
            async with asyncio.timeout(BODY_SECONDS):
                await response.prepare(request)
                await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
