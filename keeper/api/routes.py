"""A route of the service: who asks, what for, the body, the answer. All bytes count until the answer is sent.

Who may ask what is decided elsewhere: a route is given that, and what it answers.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web

from keeper.api.errors import ErrorAnswer, unavailable
from keeper.api.in_flight import Bytes, TooMuchError
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

BODY_SECONDS = 5.0
"""For a body to arrive …"""
SEND_SECONDS = 5.0
"""… and for an answer to be taken."""

Json = Mapping[str, Any]


class AnyCaller(Protocol):
    """Who asks."""

    @property
    def namespace(self) -> str:
        """Whose share of everything is used."""


class AnyClaim(Protocol):
    """What a caller may ask for."""

    @property
    def told(self) -> Mapping[str, str]:
        """Fields of the log line that say who it was."""


A = TypeVar("A", bound=AnyCaller)
C = TypeVar("C", bound=AnyClaim)


class Routes(Generic[A, C]):
    """Routes that serve the same callers.

    `caller` says who asks, before anything is received; `claim` what he may ask for, and lasts until he has
    the answer. `body_limit` is in bytes. `on_request` is told route and status of each request, for the
    metrics. `level`: of the log line of what is served. `send_seconds`: for the answer to be taken.
    """

    def __init__(
        self,
        caller: Callable[[web.Request], Awaitable[A | ErrorAnswer]],
        claim: Callable[[A], AbstractAsyncContextManager[C | ErrorAnswer]],
        in_flight: Bytes,
        body_limit: int,
        on_request: Callable[[str, int], None],
        *,
        level: int = logging.DEBUG,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self._caller, self._claim, self._in_flight = caller, claim, in_flight
        self._body_limit, self._on_request, self._send_seconds = body_limit, on_request, send_seconds
        self._level = level

    def route(
        self, route: str, answer: Callable[[C, bytes], Awaitable[Json | bytes | ErrorAnswer]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler that answers a claim and a body by `answer`, which may give the JSON itself.

        `route` is its name in logs and metrics.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            # 1. Who asks; nothing is received from one that may not have anything.
            try:
                caller = await self._caller(request)
            except Exception:
                caller = _bug(route)
            if isinstance(caller, ErrorAnswer):
                return self._answered(route, None, caller)
            # 2. For what: all bytes of the request count until its answer is sent.
            claim: C | None = None
            with self._in_flight.of(caller.namespace) as more:
                async with AsyncExitStack() as until_sent:
                    result: Json | bytes | ErrorAnswer
                    try:
                        claimed = await until_sent.enter_async_context(self._claim(caller))
                        if isinstance(claimed, ErrorAnswer):
                            result = claimed
                        else:
                            claim = claimed
                            content = await self._receive(request, more)
                            result = (
                                content if isinstance(content, ErrorAnswer) else await answer(claim, content)
                            )
                        response = self._answered(route, claim, result, more)
                    except TooMuchError as error:
                        response = self._answered(route, claim, _refused(error))
                    except Exception:
                        response = self._answered(route, claim, _bug(route))
                    await self._sent(request, response)
            return response

        return handle

    async def _receive(self, request: web.Request, more: Callable[[int], None]) -> bytes | ErrorAnswer:
        """The body; `more` is told of its bytes as they come."""
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    content += chunk
                    more(len(chunk))
                    if len(content) > self._body_limit:
                        said = f"the body is larger than {self._body_limit} bytes"
                        return ErrorAnswer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
        except TimeoutError:
            return ErrorAnswer(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time")
        except (web.RequestPayloadError, OSError):
            return ErrorAnswer(HTTPStatus.BAD_REQUEST, "the body broke off")
        return bytes(content)

    async def _sent(self, request: web.Request, response: web.Response) -> None:
        """Send the answer; a caller that does not take it is cut off."""
        try:
            with suppress(ConnectionError):
                async with asyncio.timeout(self._send_seconds):
                    await response.prepare(request)
                    await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()

    def _answered(
        self,
        route: str,
        claim: C | None,
        result: Json | bytes | ErrorAnswer,
        more: Callable[[int], None] = lambda size: None,
    ) -> web.Response:
        """Tell the outcome to the caller, the log and the metrics; keys and values to the caller alone."""
        if isinstance(result, ErrorAnswer):
            level, status, told = logging.WARNING, result.code, result.outcome._asdict()
            response = web.json_response(result.status, status=status, headers=result.headers)
        else:
            level, status = self._level, int(HTTPStatus.OK)
            told = {} if isinstance(result, bytes) else {"reason": result.get("reason")}
            answer = result if isinstance(result, bytes) else json.dumps(result).encode()
            more(len(answer))
            response = web.Response(body=answer, content_type="application/json")
        self._on_request(route, status)
        whose = claim.told if claim is not None else {}
        _log.log(level, "answered", extra=fields(route=route, status=int(status), **told, **whose))
        return response


def _refused(error: TooMuchError) -> ErrorAnswer:
    if error.own:
        said = "too many bytes or requests of this namespace are in hand"
        return ErrorAnswer(HTTPStatus.TOO_MANY_REQUESTS, said, (), 1)
    return unavailable("too many bytes are in hand")


def _bug(route: str) -> ErrorAnswer:
    """What a caller is told of an exception that nobody thought of; call while it is handled."""
    _log.exception("cannot answer", extra=fields(route=route, reason=Reason.INTERNAL_ERROR.value))
    return ErrorAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug of stepmemo's; see its log")
