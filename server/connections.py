"""The connections of a program's sockets, within bounds.

aiohttp bounds neither their number nor the time until the first request. A caller that proves nothing may
open as many as it likes, so when they are too many an idle one makes room: of the address with the most, one
that never asked anything before one that did, the oldest first. Whoever opens a flood pushes out his own.

A connection has one request at a time. aiohttp would keep 32 more behind it, each with the beginning of its
body, and nothing would count these bytes. No client of ours sends a request before it has the answer to the
last one (neither Go's net/http nor Python's http.client does), so who does is cut off.
"""

import asyncio
import logging
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from http import HTTPStatus
from ssl import SSLContext
from typing import Any

from aiohttp import web

from server.refusals import Refusal, Refusals

_log = logging.getLogger(__name__)

MOST = 512
"""Connections at once. Each costs some 100 KiB for TLS and up to as much for headers; and many container
runtimes let a process have 1,024 files."""
MOST_OF_ONE = 384
"""… of one address. It may well be that of all API servers, behind a tunnel or an agent (konnectivity), each
with a connection for every review under way and 25 idle ones (client-go, transport/cache.go); what is left
is for the kubelet's probes, whatever happens."""
HANDSHAKE_SECONDS = 5.0
"""For TLS' handshake: the webhooks' time-out, after which nobody waits for the answer."""
FIRST_REQUEST_SECONDS = 10.0
"""From there until the headers of the first request are complete; the client may have opened it for later."""
IDLE_SECONDS = 120.0
"""Between two requests: longer than an API server keeps an idle connection (90 s, Go's DefaultTransport), or
a review could be sent into a connection that is being closed, and is not sent again."""
GOODBYE_SECONDS = 1.0
"""For the other side to end TLS, or to hear an answer that comes before its body is there."""
FULL_SECONDS = 1.0
"""Pause where the system has no socket left to give."""
HEADERS, HEADER_BYTES = 24, 4 << 10
"""Fields of a request, and the bytes of one: an API server sends some seven, a container of ours its token of
a kilobyte or two."""
READ_BYTES = 64 << 10
"""Read from a connection at once; of a body twice this is kept before the transport pauses."""

# asyncio fills a buffer of this size with zeros for each connection, 256 KiB of memory if it is left alone,
# and has no argument for it.
SSLProtocol.max_size = READ_BYTES


class _Handler(web.RequestHandler):
    """aiohttp's side of a connection."""

    def __init__(
        self,
        server: web.Server,
        on_made: Callable[[asyncio.BaseTransport], None],
        on_lost: Callable[[], None],
        on_malformed: Callable[[BaseException | None], None],
        on_pipelined: Callable[[], None],
    ) -> None:
        # No logger of accesses, no compressed bodies (an API server sends none, and a few of their bytes may
        # be megabytes).
        limits: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": IDLE_SECONDS,
            "lingering_time": GOODBYE_SECONDS,
            "max_headers": HEADERS,
            "max_field_size": HEADER_BYTES,
            "read_bufsize": READ_BYTES,
        }
        super().__init__(server, loop=asyncio.get_running_loop(), **limits)
        self._on_made, self._on_lost = on_made, on_lost
        self._on_malformed, self._on_pipelined = on_malformed, on_pipelined

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is there."""
        super().connection_made(transport)
        self._on_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        """Take in what arrived."""
        super().data_received(data)
        # `_current_request` ends before its answer can have reached anybody, so nobody is wronged; it begins
        # a turn of the loop after its headers, so one request may stand here until more bytes come.
        if self._messages and (self._current_request is not None or len(self._messages) > 1):
            self._on_pipelined()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request; aiohttp would log a traceback for each."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        self._on_malformed(exc)
        if exc:
            exc.__traceback__ = None  # its frames hold what was read, and the collector is seldom about
        response = web.Response(status=status, text="not a request\n")
        response.force_close()
        return response


class _Connection:
    """One connection, from its socket's accept on."""

    def __init__(self, peer: str, since: float) -> None:
        self.peer = peer
        self.since = since
        """When it was opened, or answered last."""
        self.asked = False
        """Whether it has ever made a request."""
        self.busy = False
        """Whether one is under way."""
        self.opening: asyncio.Task[None] | None = None
        self.handler: _Handler | None = None
        self.transport: asyncio.BaseTransport | None = None
        """aiohttp's own is gone as soon as it has begun to close it."""
        self.timer: asyncio.TimerHandle | None = None


class Connections:
    """Accepts connections for the server, within bounds; `refusals` counts each that ends by one.

    Without a `context` they are not encrypted.
    """

    def __init__(
        self,
        server: web.Server,
        context: SSLContext | None,
        refusals: Refusals,
        *,
        most: int = MOST,
        most_of_one: int = MOST_OF_ONE,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        first_request_seconds: float = FIRST_REQUEST_SECONDS,
    ) -> None:
        self._server, self._context, self._refusals = server, context, refusals
        self._most, self._most_of_one = most, most_of_one
        self._handshake_seconds, self._first_request_seconds = handshake_seconds, first_request_seconds
        self._by_peer: dict[str, set[_Connection]] = {}
        self._by_handler: dict[object, _Connection] = {}

    @property
    def open(self) -> int:
        """How many there are."""
        return sum(map(len, self._by_peer.values()))

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # it is gone before it was accepted
            except OSError as error:
                _log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(FULL_SECONDS)
                continue
            self._admit(sock, str(address[0]))
            await asyncio.sleep(0)  # `sock_accept` returns at once while others wait in the socket's queue

    def begin(self, handler: object) -> None:
        """The headers of a request are complete; `handler` is aiohttp's protocol of the connection."""
        if connection := self._by_handler.get(handler):
            connection.asked = connection.busy = True
            _stop_timer(connection)

    def end(self, handler: object) -> None:
        """That request is answered."""
        if connection := self._by_handler.get(handler):
            connection.busy, connection.since = False, asyncio.get_running_loop().time()

    def close(self) -> None:
        """Give up those that have no request under way."""
        for connection in self._all():
            if not connection.busy:
                self._cut(connection)

    def _all(self) -> list[_Connection]:
        return [one for theirs in self._by_peer.values() for one in theirs]

    def _admit(self, sock: socket.socket, peer: str) -> None:
        theirs = self._by_peer.get(peer, set())
        if len(theirs) >= self._most_of_one:
            has_room = self._make_room(theirs)
        else:
            has_room = self.open < self._most or self._make_room(self._all())
        if not has_room:
            self._refusals.tell(Refusal.CONNECTIONS, peer)
            sock.close()
            return
        connection = _Connection(peer, asyncio.get_running_loop().time())
        self._by_peer.setdefault(peer, set()).add(connection)
        connection.opening = asyncio.create_task(self._open(connection, sock))

    def _make_room(self, among: "set[_Connection] | list[_Connection]") -> bool:
        idle = (one for one in among if not one.busy)
        first = min(idle, key=lambda one: (-len(self._by_peer[one.peer]), one.asked, one.since), default=None)
        if first is None:
            return False
        self._refusals.tell(Refusal.CONNECTIONS, first.peer)
        self._cut(first)
        return True

    async def _open(self, connection: _Connection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        handler = _Handler(
            self._server,
            lambda transport: self._made(connection, handler, transport),
            lambda: self._forget(connection),
            lambda error: self._end_malformed(connection, error),
            lambda: self._end_pipelined(connection),
        )
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {
                "ssl": self._context,
                "ssl_handshake_timeout": self._handshake_seconds,
                "ssl_shutdown_timeout": GOODBYE_SECONDS,
            }
        try:
            await loop.connect_accepted_socket(lambda: handler, sock, **tls)
        except OSError as error:  # ssl.SSLError and the time-out, a ConnectionAbortedError, are some
            self._refusals.tell(Refusal.HANDSHAKE, connection.peer, error)
        finally:
            if connection.handler is None:
                self._forget(connection)

    def _made(self, connection: _Connection, handler: _Handler, transport: asyncio.BaseTransport) -> None:
        connection.handler, connection.transport = handler, transport
        self._by_handler[handler] = connection
        loop = asyncio.get_running_loop()
        connection.timer = loop.call_later(self._first_request_seconds, self._give_up, connection)

    def _end_malformed(self, connection: _Connection, error: BaseException | None) -> None:
        # Without a goodbye: until the other side answered it, TLS would keep what still arrives.
        self._refusals.tell(Refusal.MALFORMED, connection.peer, type(error).__name__)
        self._cut(connection)

    def _end_pipelined(self, connection: _Connection) -> None:
        self._refusals.tell(Refusal.PIPELINED, connection.peer)
        self._cut(connection)

    def _give_up(self, connection: _Connection) -> None:
        self._refusals.tell(Refusal.NO_REQUEST, connection.peer)
        self._cut(connection)

    def _cut(self, connection: _Connection) -> None:
        """End it at once: who has been waited for does not get to delay its end."""
        self._forget(connection)
        if isinstance(connection.transport, asyncio.WriteTransport):
            connection.transport.abort()
        elif connection.opening:
            connection.opening.cancel()

    def _forget(self, connection: _Connection) -> None:
        _stop_timer(connection)
        self._by_handler.pop(connection.handler, None)
        theirs = self._by_peer.get(connection.peer, set())
        theirs.discard(connection)
        if not theirs:
            self._by_peer.pop(connection.peer, None)


def _stop_timer(connection: _Connection) -> None:
    if connection.timer:
        connection.timer.cancel()
        connection.timer = None


async def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen there, one for each address of the host ("" for every one); OSError: cannot be."""
    loop = asyncio.get_running_loop()
    bound = await loop.create_server(asyncio.Protocol, host or None, port, start_serving=False)
    try:
        sockets = [one.dup() for one in bound.sockets]
    finally:
        bound.close()
    for one in sockets:
        one.setblocking(False)
        one.listen(MOST)
    return sockets
