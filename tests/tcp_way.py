"""A way to a server over TCP that can be closed, cut, silent or slow."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from devcluster.ports import free_port

_CHUNK = 1 << 16
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
"""A PostgreSQL client's first message where it wants TLS, to which "S" says yes (its Message Formats)."""


class Way:
    """Passes bytes on between `port` and the server's, as long as nothing else is said.

    Where `passing` is not set, connections are taken and nothing passes, as where a firewall drops packets.
    `delay`: seconds that each chunk takes, in either direction. `cut_at`: as soon as these bytes are sent
    everybody is cut off before the server has them. `cut_behind`: likewise, once the server has them, before
    it can answer. `tls`: what clients of PostgreSQL are served with that ask for TLS, in the server's place.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target, self._tls = target, tls
        self.port = free_port()
        self.passing = asyncio.Event()
        self.passing.set()
        self.delay = 0.0
        self.cut_at = self.cut_behind = b""
        self.connections = 0
        """So many were made so far …"""
        self.encrypted = self.plain = 0
        """… and where there is `tls`, so many of these agreed on it, and so many did not ask for it."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Take no new connections: they are refused. Those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset the connections that are there."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """End everything."""
        self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._own(writer)
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._own(to_server[1])
        if self._tls is not None:
            try:
                if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
                    self.plain += 1
                    raise ConnectionAbortedError
                writer.write(b"S")
                await writer.start_tls(self._tls)
            except (OSError, asyncio.IncompleteReadError):
                for end in (writer, to_server[1]):
                    end.transport.abort()
                return
            self.encrypted += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(reader, to_server[1], from_client=True))
            group.create_task(self._pass(to_server[0], writer, from_client=False))

    def _own(self, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(lambda task: (self._tasks.discard(task), self._writers.discard(writer)))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self.passing.wait()
                await asyncio.sleep(self.delay)
                if from_client and self.cut_at and self.cut_at in chunk:
                    self.cut()
                writer.write(chunk)
                await writer.drain()
                if from_client and self.cut_behind and self.cut_behind in chunk:
                    self.cut()
        writer.close()


@asynccontextmanager
async def way_to(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Way]:
    """A way to this port of this host until the block ends."""
    way = Way(port, tls)
    await way.open()
    try:
        yield way
    finally:
        await way.close()
