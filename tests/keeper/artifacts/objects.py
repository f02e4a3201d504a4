"""A server that answers HEAD and lists as S3, GCS, Azure Blob Storage and a web server do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

from aiohttp import web

MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
BUCKET = "bucket"


class Objects:
    """`stored` are the ETags of objects by key, in the one bucket, or container, that there is."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.everything = ""
        """The ETag of every key that is not stored, "" where there is no such object."""
        self.statuses: dict[str, int] = {}
        """By key, how its requests are refused."""
        self.down = 0
        """The status of every answer, 0 for none."""
        self.hangs = False
        self.lists = 200
        """The status of a list."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self.came = asyncio.Event()
        """Set by each request."""
        self.at_once = self.most_at_once = 0
        self.let_go = asyncio.Event()
        self.signed: set[str] = set()
        """How requests were authorized."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its host and port, until the block ends."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"{host}:{port}"
        finally:
            self.let_go.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.raw_path}")
        self.came.set()
        self.signed.add(request.headers.get("Authorization", "").partition(" ")[0])
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if self.hangs:
                await self.let_go.wait()
        finally:
            self.at_once -= 1
        if self.down:
            return web.Response(status=self.down)
        if request.method == "GET":
            return self._list(request)
        key = unquote(request.raw_path.partition("?")[0]).removeprefix("/account").removeprefix(f"/{BUCKET}/")
        if (status := self.statuses.get(key, 200)) != 200:
            return web.Response(status=status, headers={"Location": "/elsewhere"})
        if key not in self.stored and not self.everything:
            return web.Response(status=404)
        etag = self.stored.get(key, self.everything)
        headers = {"Last-Modified": MODIFIED, **({"ETag": etag} if etag else {})}
        return web.Response(headers=headers, body=b"content")

    def _list(self, request: web.Request) -> web.Response:
        if self.lists != 200:
            return web.Response(status=self.lists)
        keys = [key for key in self.stored if key.startswith(request.query["prefix"])]
        if "restype" in request.query:
            blob = (
                "<Blob><Name>{}</Name><Properties><Last-Modified>{}</Last-Modified>"
                "<Content-Length>7</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>"
            )
            blobs = "".join(blob.format(key, MODIFIED) for key in keys)
            text = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
        else:
            one = (
                "<Contents><Key>{}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>"
                "<Size>7</Size></Contents>"
            )
            text = f"<ListBucketResult>{''.join(map(one.format, keys))}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")
