"""Connections as a caller makes them that proves nothing: many, slow, silent."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.connections import HEADERS, Connections, listening
from server.refusals import Refusal, Refusals
from server.tls import ServingCertificate
from tests.waiting import until
from tests.webhook.serving import HOST, certify, trusting

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HERE, THERE = "127.0.0.1", "127.0.0.2"


class Site:
    """A server whose requests wait for `go_on`, and what it refused."""

    def __init__(self, connections: Connections, port: int, trust: ssl.SSLContext) -> None:
        self.connections, self.port, self.trust = connections, port, trust
        self.refused: Counter[Refusal] = Counter()
        self.asked = 0
        self.go_on = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def plain(self, peer: str = HERE) -> asyncio.StreamReader:
        """A connection that never begins TLS."""
        reader, writer = await asyncio.open_connection(HERE, self.port, local_addr=(peer, 0))
        self._writers.append(writer)
        return reader

    async def secure(
        self, peer: str = HERE, said: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            HERE, self.port, local_addr=(peer, 0), ssl=self.trust, server_hostname=HOST
        )
        self._writers.append(writer)
        writer.write(said)
        return reader, writer

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def site(directory: Path, **bounds: Any) -> AsyncIterator[Site]:
    authority = certify(directory)
    certificate = ServingCertificate(directory)
    certificate.reload()
    found: Site

    @web.middleware
    async def noted(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        found.connections.begin(request.protocol)
        try:
            return await handler(request)
        finally:
            found.connections.end(request.protocol)

    async def answer(_: web.Request) -> web.Response:
        found.asked += 1
        await found.go_on.wait()
        return web.Response(text="ok")

    app = web.Application(middlewares=[noted])
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    (socket,) = await listening(HERE, 0)
    refusals = Refusals(lambda refusal: found.refused.update([refusal]))
    connections = Connections(runner.server, certificate.context, refusals, **bounds)
    found = Site(connections, socket.getsockname()[1], trusting(authority))
    accepting = asyncio.create_task(connections.accept(socket))
    try:
        yield found
    finally:
        found.close()
        found.go_on.set()
        accepting.cancel()
        with suppress(asyncio.CancelledError):
            await accepting
        socket.close()
        connections.close()
        await runner.cleanup()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection, by a reset too, within the test's time."""
    async with asyncio.timeout(30):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def answered(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.readuntil(b"ok")


async def test_a_request_is_answered_and_its_connection_is_counted_until_it_is_closed(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        served.go_on.set()
        reader, writer = await served.secure(said=REQUEST)
        assert (await answered(reader)).startswith(b"HTTP/1.1 200")
        assert served.connections.open == 1
        writer.write(REQUEST)
        await answered(reader)
        writer.close()
        await until(lambda: served.connections.open == 0)
    assert served.refused == {}


async def test_a_handshake_that_does_not_begin_is_given_up(tmp_path: Path) -> None:
    async with site(tmp_path, handshake_seconds=0.05) as served:
        assert await ended(await served.plain())
        await until(lambda: served.connections.open == 0)
    assert served.refused == {Refusal.HANDSHAKE: 1}


async def test_what_is_no_handshake_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        reader = await served.plain()
        served._writers[-1].write(REQUEST)
        await reader.read()
        await until(lambda: served.connections.open == 0)
    assert served.refused == {Refusal.HANDSHAKE: 1}


@pytest.mark.parametrize("said", [b"", REQUEST[:-2]], ids=["nothing", "half of its headers"])
async def test_a_connection_that_does_not_ask_is_ended(tmp_path: Path, said: bytes) -> None:
    async with site(tmp_path, first_request_seconds=0.05) as served:
        reader, _ = await served.secure(said=said)
        assert await ended(reader)
        await until(lambda: served.connections.open == 0)
    assert served.refused == {Refusal.NO_REQUEST: 1}


async def test_a_connection_that_asked_is_not_ended_while_it_waits_for_its_answer(tmp_path: Path) -> None:
    async with site(tmp_path, first_request_seconds=0.5) as served:
        reader, _ = await served.secure(said=REQUEST)
        await until(lambda: served.asked)
        other, _ = await served.secure()  # of the same age at least: when it is ended, the time was over
        assert await ended(other)
        served.go_on.set()
        assert (await answered(reader)).startswith(b"HTTP/1.1 200")
    assert served.refused == {Refusal.NO_REQUEST: 1}


async def test_a_flood_pushes_out_its_own_idle_connections_and_not_those_of_others(tmp_path: Path) -> None:
    async with site(tmp_path, most=6, most_of_one=5) as served:
        api_server, writer = await served.secure(THERE)
        probe, _ = await served.secure(THERE)
        flood = [(await served.secure())[0] for _ in range(20)]
        assert all([await ended(reader) for reader in flood[:16]])
        assert served.connections.open == 6
        served.go_on.set()
        writer.write(REQUEST)
        assert await answered(api_server)
        assert not probe.at_eof()
        assert not any(reader.at_eof() for reader in flood[16:])
    assert served.refused == {Refusal.CONNECTIONS: 16}


async def test_handshakes_that_hang_are_pushed_out_too(tmp_path: Path) -> None:
    async with site(tmp_path, most=4, most_of_one=3) as served:
        hanging = [await served.plain() for _ in range(10)]
        await until(lambda: served.refused[Refusal.CONNECTIONS] == 7)
        served.go_on.set()
        reader, _ = await served.secure(THERE, REQUEST)
        assert await answered(reader)
        assert all([await ended(one) for one in hanging[:7]])
        assert served.connections.open == 4
    assert set(served.refused) == {Refusal.CONNECTIONS}


async def test_one_that_asked_before_is_kept_before_one_that_never_did(tmp_path: Path) -> None:
    async with site(tmp_path, most=2) as served:
        served.go_on.set()
        known, writer = await served.secure(said=REQUEST)
        await answered(known)
        silent, _ = await served.secure()
        await served.secure()
        assert await ended(silent)
        writer.write(REQUEST)
        assert await answered(known)


async def test_where_all_are_busy_the_next_one_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path, most=3, most_of_one=2) as served:
        busy = [(await served.secure(said=REQUEST))[0] for _ in range(2)]
        await until(lambda: served.asked == 2)
        with pytest.raises(OSError):
            await served.secure()
        other, _ = await served.secure(THERE, REQUEST)
        await until(lambda: served.asked == 3)
        with pytest.raises(OSError):
            await served.secure(THERE)
        served.go_on.set()
        assert all([await answered(reader) for reader in [*busy, other]])
    assert served.refused == {Refusal.CONNECTIONS: 2}


async def test_headers_without_end_end_the_connection_without_a_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as served:
        many = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(HEADERS))
        reader, _ = await served.secure(said=REQUEST[:-2] + many + b"\r\n")
        assert await ended(reader)
        await until(lambda: served.connections.open == 0)
    assert served.refused == {Refusal.MALFORMED: 1}
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("at_once", [2, 40], ids=["two at once", "more than aiohttp keeps"])
async def test_requests_that_are_sent_before_the_first_is_answered_end_the_connection(
    tmp_path: Path, at_once: int
) -> None:
    async with site(tmp_path) as served:
        reader, _ = await served.secure(said=REQUEST * at_once)
        assert await ended(reader)
        await until(lambda: served.connections.open == 0)
    assert served.refused == {Refusal.PIPELINED: 1}


@pytest.mark.parametrize("behind", [REQUEST, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx"])
async def test_a_request_behind_one_that_is_being_answered_ends_the_connection(
    tmp_path: Path, behind: bytes
) -> None:
    async with site(tmp_path) as served:
        reader, writer = await served.secure(said=REQUEST)
        await until(lambda: served.asked)
        writer.write(behind)
        assert await ended(reader)
        await until(lambda: served.connections.open == 0)
        assert served.asked == 1
    assert served.refused == {Refusal.PIPELINED: 1}


async def test_requests_that_wait_for_each_answer_are_all_served_on_one_connection(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        served.go_on.set()
        reader, writer = await served.secure()
        for _ in range(100):
            writer.write(REQUEST)
            await answered(reader)
    assert served.refused == {}
