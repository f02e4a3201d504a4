import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from server.bodies import Bodies
from server.refusals import Refusal, RefusedError
from tests.waiting import until

KIB = 1 << 10


class Site:
    """A server that receives bodies, and answers when told so."""

    def __init__(self, bodies: Bodies) -> None:
        self.bodies = bodies
        self.go_on = asyncio.Event()
        self.received: list[int] = []
        self.refused: list[Refusal] = []
        self.reading: list[bool] = []
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def answer(self, request: web.Request) -> web.Response:
        try:
            async with self.bodies.received(request, float(request.query.get("share", 1))) as body:
                self.received.append(len(body))
                self.reading.append(bool(request.transport and request.transport.is_reading()))
                await self.go_on.wait()
                return web.Response(text="ok")
        except RefusedError as refused:
            self.refused.append(refused.refusal)
            return web.Response(status=refused.status)

    async def send(
        self, content: bytes, length: int | None = None, share: float = 1.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin a request whose body has this length, and send these bytes of it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        length = len(content) if length is None else length
        writer.write(b"POST /?share=%.2f HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (share, length))
        writer.write(content)
        return reader, writer

    def close(self) -> None:
        self.go_on.set()
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def site(**bounds: Any) -> AsyncIterator[Site]:
    found = Site(Bodies(**bounds))
    app = web.Application()
    app.router.add_post("/", found.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.port = runner.addresses[0][1]
        yield found
    finally:
        found.close()
        await runner.cleanup()


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(30):
        return int((await reader.readline()).split()[1])


async def test_a_body_is_held_until_its_request_is_answered() -> None:
    async with site() as served:
        reader, _ = await served.send(b"x" * 10 * KIB)
        await until(lambda: served.received)
        assert served.bodies.held == 10 * KIB
        served.go_on.set()
        assert await status(reader) == 200
        assert served.bodies.held == 0


@pytest.mark.parametrize("length", [7 * KIB, 100 * KIB], ids=["read to its end", "known from its header"])
async def test_one_byte_more_than_the_limit_is_too_large(length: int) -> None:
    async with site(limit=7 * KIB) as served:
        served.go_on.set()
        reader, _ = await served.send(b"x" * 7 * KIB)
        assert await status(reader) == 200
        reader, _ = await served.send(b"", length + 1)
        assert await status(reader) == 413
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"1c01\r\n" + b"x" * (7 * KIB + 1) + b"\r\n")
        assert await status(reader) == 413
        writer.transport.abort()
        assert served.bodies.held == 0
    assert served.refused == [Refusal.BODY_TOO_LARGE] * 2


async def test_a_body_that_does_not_end_in_time_is_given_up() -> None:
    async with site(seconds=0.1) as served:
        reader, _ = await served.send(b"x" * KIB, 2 * KIB)
        assert await status(reader) == 408
        assert served.bodies.held == 0
    assert served.refused == [Refusal.BODY_TOO_SLOW]


async def test_a_body_that_breaks_off_is_forgotten() -> None:
    async with site() as served:
        _, writer = await served.send(b"x" * KIB, 2 * KIB)
        await until(lambda: served.bodies.held == KIB)
        writer.transport.abort()
        await until(lambda: served.refused)
        assert served.bodies.held == 0
    assert served.refused == [Refusal.BODY_BROKEN_OFF]


async def test_sixty_bodies_that_never_end_are_held_to_the_bound_and_small_ones_get_through() -> None:
    most, large = 2_000 * KIB, 200 * KIB
    async with site(most=most, limit=large) as served:
        seen: list[int] = []
        for _ in range(60):
            await served.send(b"x" * (large - 1), large)
            seen.append(served.bodies.held)
        await until(lambda: len(served.refused) >= 50)
        served.go_on.set()
        for _ in range(20):
            reader, _ = await served.send(b"x" * KIB)
            assert await status(reader) == 200
            seen.append(served.bodies.held)
        assert max(seen) <= most
    assert set(served.refused[:50]) == {Refusal.BODIES}
    assert served.received == [KIB] * 20


async def test_bodies_that_are_there_are_not_given_up_for_a_new_one() -> None:
    async with site(most=10 * KIB) as served:
        first, _ = await served.send(b"x" * 9 * KIB)
        await until(lambda: served.received)
        second, _ = await served.send(b"x" * 2 * KIB)
        assert await status(second) == 503
        served.go_on.set()
        assert await status(first) == 200
    assert served.refused == [Refusal.BODIES]


async def test_of_a_share_no_more_is_held_and_what_has_more_is_left_in_peace() -> None:
    async with site(most=16 * KIB) as served:
        whole, writer = await served.send(b"x" * 11 * KIB, 12 * KIB)
        await until(lambda: served.bodies.held == 11 * KIB)
        part, _ = await served.send(b"x" * 2 * KIB, share=0.75)
        assert await status(part) == 503
        writer.write(b"x" * KIB)
        await until(lambda: served.received)
        served.go_on.set()
        assert await status(whole) == 200
    assert served.refused == [Refusal.BODIES]


@pytest.mark.slow
async def test_what_follows_a_request_is_not_read_while_it_is_answered() -> None:
    async with site() as served:
        reader, writer = await served.send(b"x")
        await until(lambda: served.received)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n")
        assert await sent_until_nobody_reads(writer) < 80_000_000
        assert served.bodies.held == 1
        assert served.reading == [False]
        served.go_on.set()
        assert await status(reader) == 200


@pytest.mark.parametrize("size", [1, 100 * KIB])
async def test_requests_that_await_no_answer_are_not_read_far_ahead(size: int) -> None:
    one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    batch = one * (1 + 64 * KIB // len(one))
    most = 16_000 * KIB  # the system's own buffers are some megabytes
    sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(batch)
            await writer.drain()
            sent += len(batch)

    def ahead() -> int:
        return sent - len(served.received) * len(one)

    async with site() as served:
        served.go_on.set()
        reader, writer = await served.send(b"x")
        sending = asyncio.create_task(send(writer))
        while len(served.received) <= 500 and ahead() < most:
            assert await reader.read(64 * KIB)
        sending.cancel()
        await asyncio.wait([sending])
        assert ahead() < most


async def sent_until_nobody_reads(writer: asyncio.StreamWriter) -> int:
    """The bytes that go into the system's own buffers, some megabytes, before nothing moves for a second."""
    sent = 0
    with suppress(TimeoutError):
        while sent < 80_000_000:
            async with asyncio.timeout(1):
                writer.write(b"x" * 64 * KIB)
                await writer.drain()
            sent += 64 * KIB
    return sent
