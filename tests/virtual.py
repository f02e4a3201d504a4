"""An API server and its clients in one event loop, whose clock counts work: callbacks, and requests.

So how long a step waits is told by what is done before its turn, and not by the machine that runs the test.
"""

import asyncio
import json
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar, cast

from kubernetes_asyncio.client import ApiClient, Configuration

from devcluster.api import watch
from devcluster.api.admission import Admitted, Webhooks
from devcluster.api.errors import ApiError
from devcluster.api.handlers import Handlers, selection
from devcluster.api.kinds import Object
from devcluster.api.requests import parse
from devcluster.api.store import Store
from devcluster.api.tokens import ADMIN, Tokens
from tests.cluster import DEVCLUSTER, Answer, Cluster

T = TypeVar("T")


class Loop(asyncio.SelectorEventLoop):
    """Its clock goes on by `per_callback` seconds with each callback; where it is idle, to the next timer."""

    def __init__(self, per_callback: float) -> None:
        self.now, self._per_callback = 1000.0, per_callback
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        self.now += self._per_callback
        return super().call_soon(callback, *args, context=context)


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self._loop.now += max(0.0, timeout)
        return super().select(0)


def run(work: Coroutine[Any, Any, T], per_callback: float) -> T:
    """What the work comes to, by such a clock."""
    with asyncio.Runner(loop_factory=lambda: Loop(per_callback)) as runner:
        return runner.run(work)


def client_of(server: object) -> ApiClient:
    """A client without connections: `server.request` answers, with a Response."""
    api = ApiClient.__new__(ApiClient)  # which would make connections
    api.configuration, api.default_headers = Configuration(host=""), {}
    api.rest_client = cast("Any", server)
    return api


class Server:
    """The devcluster's API, without connections. `api` is a client's, answered after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._store, self._seconds = Store(history=1_000_000), seconds
        webhooks = cast("Webhooks", _NoWebhooks())
        self._handlers = Handlers(self._store, Tokens(self._store), webhooks, "")
        self.cluster = InProcess(DEVCLUSTER, "", Path(), Path(), "", server=self)
        self.api = client_of(self)
        self.calls: list[tuple[str, str]] = []
        """Method and path of the client's requests, but for watches."""

    async def answer(
        self, method: str, path: str, query: Mapping[str, str], content_type: str, body: bytes
    ) -> tuple[int, Object]:
        """Do what is asked for."""
        try:
            info, handlers = parse(method, path, query), self._handlers
            match info.verb:
                case "get":
                    answer = handlers.get(info)
                case "list":
                    answer = handlers.list_all(info, query)
                case "create":
                    answer = await handlers.create(info, ADMIN, body)
                case "update":
                    answer = await handlers.update(info, ADMIN, body)
                case "patch":
                    answer = await handlers.patch(info, ADMIN, content_type, body)
                case _:
                    answer = await handlers.delete(info, ADMIN, body)
        except ApiError as error:
            return error.code, error.status
        return answer.code, answer.body

    async def request(
        self,
        method: str,
        url: str,
        *,
        query_params: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str],
        body: object = None,
        **_: object,
    ) -> "Response":
        """As the RESTClientObject's of an ApiClient."""
        query = dict(query_params)
        if "watch" in query:
            return Response(200, self._watch(url, query))
        self.calls.append((method, url))
        await asyncio.sleep(self._seconds)
        content = b"" if body is None else json.dumps(body).encode()
        status, answer = await self.answer(method, url, query, headers["Content-Type"], content)
        if "as=PartialObjectMetadata;" in headers["Accept"] and status < 300:
            answer = {"metadata": answer["metadata"]}
        return Response.of(status, answer)

    async def _watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        info = parse("GET", path, query)
        deadline = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])
        source = watch.events(
            self._store, info.kind, info.namespace or None, selection(info.kind, query), query
        )
        told, news = bytearray(), asyncio.Event()

        async def tell() -> None:
            async for type_, obj in watch.until(deadline, source):
                told.extend(watch.encode(type_, obj))
                news.set()
            news.set()

        telling = asyncio.create_task(tell())
        try:
            while not telling.done() or told:
                await news.wait()
                news.clear()
                chunk = bytes(told)  # all that there is, as a socket has it
                told.clear()
                if chunk:
                    yield chunk
        finally:
            telling.cancel()


@dataclass(frozen=True)
class InProcess(Cluster):
    """The same for a test, answered at once."""

    server: Server = field(kw_only=True)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        try:
            self.server.answer(method, path, query or {}, content_type, content).send(None)
        except StopIteration as ended:
            return Answer(*ended.value, [])
        raise AssertionError("it waits")


class _NoWebhooks:
    async def admit(self, attributes: object, new: Object | None, *_: object) -> Admitted:
        return Admitted(new, [])


class Response:
    """As much of aiohttp's ClientResponse as a client looks at."""

    connection, headers = None, dict[str, str]()

    def __init__(self, status: int, chunks: AsyncIterator[bytes]) -> None:
        self.status, self.reason, self.content, self._chunks = status, HTTPStatus(status).phrase, self, chunks

    @classmethod
    def of(cls, status: int, body: object) -> "Response":
        """With this body as JSON."""
        return cls(status, _once(json.dumps(body).encode()))

    def iter_any(self) -> AsyncIterator[bytes]:
        return self._chunks

    def close(self) -> None:
        pass


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text
