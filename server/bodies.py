"""The bodies of requests, within bounds: of one, of all that are held at once, and in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from server.refusals import Refusal, RefusedError

BODY_LIMIT = 7 << 20
"""Bytes of a review: on an UPDATE it holds the object twice, and the API server takes one of 3 MiB."""
MOST = 64 << 20
"""Bytes of all bodies, from the arrival of each until its request is answered."""
SECONDS = 4.0
"""For a body to arrive: the webhooks' time-out is 5 s."""


class _Body:
    """A body that is arriving, or is there. `most` is how many bytes may be held in all while it arrives."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.chunks: list[bytes] = []
        self.size = 0
        self.timeout: asyncio.Timeout | None = None
        self.shed = False
        """Given up, since others were to get through."""


class Bodies:
    """Receives bodies. When too much is held, the largest that is still arriving is given up.

    So a flood of large bodies that never end pushes out itself, and a small one gets through beside it.
    """

    def __init__(self, *, most: int = MOST, limit: int = BODY_LIMIT, seconds: float = SECONDS) -> None:
        self._most, self._limit, self._seconds = most, limit, seconds
        self._arriving: set[_Body] = set()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that are held right now."""
        return self._held

    @asynccontextmanager
    async def received(self, request: web.Request, share: float = 1.0) -> AsyncIterator[bytes]:
        """The body of a request that is answered within the context.

        It may arrive while less than `share` of all bytes is held. RefusedError where it is not taken.
        """
        body, transport = _Body(int(self._most * share)), request.transport
        try:
            await self._receive(request, body)
            content = b"".join(body.chunks)
            body.chunks.clear()
            if transport:
                transport.pause_reading()  # what comes after this request is not kept while it is answered
            yield content
        finally:
            self._drop(body)
            # Not by the transport: aiohttp may have reasons of its own to wait.
            request.protocol.resume_reading()

    async def _receive(self, request: web.Request, body: _Body) -> None:
        if (request.content_length or 0) > self._limit:
            raise self._too_large()
        self._arriving.add(body)
        try:
            async with asyncio.timeout(self._seconds) as body.timeout:
                async for chunk in request.content.iter_any():
                    self._add(body, chunk)
        except TimeoutError:
            slow = RefusedError(Refusal.BODY_TOO_SLOW, 408, "the body did not arrive in time")
            raise (_too_much() if body.shed else slow) from None
        except (web.RequestPayloadError, OSError):
            raise RefusedError(Refusal.BODY_BROKEN_OFF, 400, "the body broke off") from None
        finally:
            self._arriving.remove(body)
        if body.shed:
            raise _too_much()

    def _add(self, body: _Body, chunk: bytes) -> None:
        if body.shed:
            raise _too_much()
        body.chunks.append(chunk)
        body.size += len(chunk)
        self._held += len(chunk)
        if body.size > self._limit:
            raise self._too_large()
        while self._held > body.most:
            # Those that may arrive while more is held are left in peace.
            largest = max((one for one in self._arriving if one.most <= body.most), key=lambda one: one.size)
            self._drop(largest)
            largest.shed = True
            if largest is body:
                raise _too_much()
            if largest.timeout and not largest.timeout.expired():
                largest.timeout.reschedule(0)

    def _drop(self, body: _Body) -> None:
        self._held -= body.size
        body.chunks.clear()
        body.size = 0

    def _too_large(self) -> RefusedError:
        return RefusedError(Refusal.BODY_TOO_LARGE, 413, f"the body is larger than {self._limit} bytes")


def _too_much() -> RefusedError:
    return RefusedError(Refusal.BODIES, 503, "too much is being received")
