"""Requests to the API server, as plain JSON.

kubernetes_asyncio gives the connection, the credentials (with a token that is read anew) and the time-outs;
its models are left out, since they know neither Argo's kinds nor an object's metadata alone.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from kube import cost, errors, fastjson
from kube.errors import TooLarge, Unavailable, Unreadable

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
"""Of Kubernetes' own kinds alone: lists are merged by the names of their elements."""
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Accept header that spares us the rest of an object: a Workflow may well weigh a megabyte …"""
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""… and the one for a list, which is not acceptable as the other (asPartialObjectMetadata in
k8s.io/apiserver, endpoints/handlers/response.go)."""
MOST_BYTES = 16 << 20
"""Of one object as JSON, or one event of a watch. etcd takes 1.5 MiB of an object, a control character of
which is six bytes here: nobody's object comes to this, and what does is not read on."""
_READ_BUFFER = 2 << 20
"""Bytes of an answer that are received before somebody has asked for them, as ApiClient has it."""
_CREDENTIALS = ["BearerToken"]
"""As ApiClient names the one kind that there is."""
OPEN_SECONDS = 10.0
"""Until the API server begins to answer a watch."""
_IDENTITY = re.compile(
    rb'{"type":"([A-Z]+)","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{'
    rb'"name":"([a-z0-9.-]+)",(?:"generateName":"[a-z0-9.-]*",)?"namespace":"([a-z0-9-]+)",'
    rb'"uid":"[a-z0-9-]+","resourceVersion":"([a-z0-9]+)"[,}]'
)
"""How an event of METADATA_ONLY begins, as the API server writes it: an object's fields in the order of their
Go type (ObjectMeta in k8s.io/apimachinery)."""

Json = dict[str, Any]
OnRequest = Callable[[str, int], None]
T = TypeVar("T")


async def connect(
    user_agent: str = "stepmemo",
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    on_request: OnRequest | None = None,
) -> ApiClient:
    """A client by kubectl's rules: $KUBECONFIG or ~/.kube/config, else the Pod's service account.

    The API server takes what stands before the `/` of `user_agent` for the field manager of what is written
    (prefixFromUserAgent in k8s.io/apiserver, endpoints/handlers/create.go). `kubeconfig` is another file,
    or several as in $KUBECONFIG, and `context` another one than the current of them. `on_request` is told the
    method of each request, and the HTTP status that it is answered with, 0 where no answer comes.
    Unavailable where there is neither, or it cannot be read. The caller closes it.
    """
    configuration = Configuration()
    with _as_api_errors():
        if files := kubeconfig or kubeconfigs():
            await config.load_kube_config(
                files, context=context, client_configuration=configuration, persist_config=False
            )
        else:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    # Two watches for each Namespace that is kept would take all of the 100 connections that are the default;
    # whoever sends many requests bounds them himself.
    configuration.connection_pool_maxsize = 0
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    api = ApiClient(configuration)
    api.user_agent = user_agent
    look_up_no_environment(api)
    if on_request is not None:
        api.rest_client.request = _telling(api.rest_client.request, on_request)  # type: ignore[method-assign,assignment]
    return api


def look_up_no_environment(api: ApiClient) -> None:
    """Have the client's requests go by its configuration alone; it must not have sent any yet.

    Else aiohttp looks for a proxy and for credentials (~/.netrc) at each request, each time in a thread: that
    takes as long as all else of it.
    """
    before = api.rest_client.pool_manager
    session = aiohttp.ClientSession(connector=before.connector, read_bufsize=_READ_BUFFER)
    before.detach()
    api.rest_client.pool_manager = session


def _proxy_for(url: str | None) -> str | None:
    """The proxy that the environment names for requests to this address, as curl reads it."""
    address = urlsplit(url or "")
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


def _telling(send: Callable[..., Awaitable[Any]], on_request: OnRequest) -> Callable[..., Awaitable[Any]]:
    async def told(method: str, url: str, **rest: Any) -> Any:
        try:
            response = await send(method, url, **rest)
        except (aiohttp.ClientError, OSError, asyncio.CancelledError):  # the last at a time-out, too
            on_request(method, 0)
            raise
        on_request(method, response.status)
        return response

    return told


def kubeconfigs() -> str | None:
    """The files that kubectl would read, joined as in $KUBECONFIG; None where none of them is there."""
    paths = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return paths if any(path and Path(path).exists() for path in paths.split(os.pathsep)) else None


async def request(
    api: ApiClient,
    method: str,
    path: str,
    *,
    seconds: float,
    body: object = None,
    accept: str = JSON,
    content_type: str = JSON,
    query: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Json:
    """The JSON object that the API server answers with; an ApiError for anything but that within `seconds`.

    `path` is taken as it is: whoever puts a name into it that somebody else wrote has quoted it. The request
    and the bytes of its answer are charged to whoever works here (kube.cost). `headers` are those beside the
    usual ones.
    """
    cost.charge(requests=1)
    with _as_api_errors():
        async with asyncio.timeout(seconds):
            response = await _begin(api, method, path, query, body, accept, content_type, headers)
            text = await _received(response, MOST_BYTES)
    cost.charge(bytes=len(text))
    return parsed(text)


async def read(
    api: ApiClient,
    path: str,
    *,
    seconds: float,
    query: Sequence[tuple[str, str]] = (),
    accept: str = JSON,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """The text that a GET is answered with; an ApiError for anything but a 2xx within `seconds`.

    TooLarge for more than `most_bytes`, of which no more are received. Charged as `request` is.
    """
    cost.charge(requests=1)
    with _as_api_errors():
        async with asyncio.timeout(seconds):
            response = await _begin(api, "GET", path, query, accept=accept)
            text = await _received(response, most_bytes)
    cost.charge(bytes=len(text))
    return text


async def date(api: ApiClient, *, seconds: float) -> datetime:
    """The API server's clock: the Date of its answer, whatever that is; an ApiError for none in `seconds`."""
    with _as_api_errors():
        async with asyncio.timeout(seconds):
            response = await _send(api, "GET", "/version")
            await response.read()
    try:
        found = parsedate_to_datetime(response.headers["Date"])
        return found.replace(tzinfo=UTC)  # always GMT (RFC 9110, section 5.6.7)
    except (KeyError, ValueError):
        raise Unreadable("the answer has no Date") from None


def parsed(text: bytes) -> Json:
    """The JSON object that stands there; Unreadable for anything else."""
    try:
        found = fastjson.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("the answer is not a JSON object")
    return found


def part(text: bytes, type_: type[T]) -> T:
    """Of the JSON object that stands there the fields that a msgspec.Struct names; Unreadable for others."""
    try:
        return fastjson.part(text, type_)
    except (ValueError, RecursionError):
        raise Unreadable("the answer is not JSON, or another object") from None


def identified(text: bytes) -> Json:
    """An event of METADATA_ONLY, as `parsed` has it; of its metadata maybe no more than what object it is of.

    That is its name, namespace and resourceVersion. The managed fields of a ConfigMap of many entries weigh
    more than the entries, and whoever may patch one byte of it makes all of them be sent.
    """
    found = _IDENTITY.match(text)
    if found is None:
        return parsed(text)
    type_, name, namespace, version = (part.decode() for part in found.groups())
    return {
        "type": type_,
        "object": {"metadata": {"name": name, "namespace": namespace, "resourceVersion": version}},
    }


@asynccontextmanager
async def watch(
    api: ApiClient,
    path: str,
    query: Sequence[tuple[str, str]],
    *,
    idle_timeout: float,
    accept: str = JSON,
    parse: Callable[[bytes], Json] = parsed,
) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
    """Open a watch: its events, each as its type and its object, until the API server ends it.

    `parse` reads an event, as `parsed` does. An ApiError where the watch is refused, tells an error, breaks,
    or says nothing for `idle_timeout` seconds; TooLarge for an event of more than MOST_BYTES.
    """
    with _as_api_errors():
        async with asyncio.timeout(OPEN_SECONDS):
            query = [("watch", "true"), *query]
            response = await _begin(api, "GET", path, query, accept=accept, idle_timeout=idle_timeout)
    try:
        async with aclosing(_events(response, parse)) as events:
            yield events
    finally:
        _cut_off(response)


async def _received(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The rest of an answer; TooLarge as soon as it is more than that."""
    chunks, size = list[bytes](), 0
    with ExitStack() as unread:
        # At a time-out or a cancellation: else the connection stays until it is collected.
        unread.callback(response.close)
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > most_bytes:
                _cut_off(response)
                raise TooLarge(f"an answer of more than {most_bytes} bytes")
        unread.pop_all()
    return b"".join(chunks)


def _cut_off(response: aiohttp.ClientResponse) -> None:
    """End an answer that is not wanted on: TLS's goodbye would wait for a server that goes on sending."""
    if response.connection and response.connection.transport:
        response.connection.transport.abort()
    response.close()


async def _events(
    response: aiohttp.ClientResponse, parse: Callable[[bytes], Json]
) -> AsyncGenerator[tuple[str, Json], None]:
    lines = Lines()
    with _as_api_errors():
        async for chunk in response.content.iter_any():
            for line in lines.fed(chunk):
                event = parse(line)
                obj = event.get("object")
                if not isinstance(obj, dict):
                    raise Unreadable("an event of the watch holds no object")
                if event.get("type") == "ERROR":  # obj is a metav1.Status
                    code = obj.get("code")
                    raise errors.refused(code if isinstance(code, int) else 0, str(obj.get("reason")), obj)
                yield str(event.get("type")), obj


class Lines:
    """Lines of up to `most_bytes` out of chunks of any length; aiohttp's own reader has a lower limit."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._begun: list[bytes] = []
        self._size = 0

    def fed(self, chunk: bytes) -> list[bytes]:
        """The lines that the chunk completes, without their ends; empty ones are left out.

        TooLarge where a line is longer.
        """
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        self._size += len(first)
        if self._size > self._most_bytes:
            raise TooLarge(f"an event of more than {self._most_bytes} bytes")
        if not others:
            return []
        lines = [b"".join(self._begun), *others[:-1]]
        self._begun, self._size = [others[-1]], len(others[-1])
        return [line for line in lines if line]


async def _begin(
    api: ApiClient,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: object = None,
    accept: str = JSON,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    idle_timeout: float | None = None,
) -> aiohttp.ClientResponse:
    """An answer of 2xx whose body is still to be read; an ApiError for any other."""
    response = await _send(api, method, path, query, body, accept, content_type, headers, idle_timeout)
    if 200 <= response.status < 300:
        return response
    text = await _received(response, MOST_BYTES)
    try:
        answer = parsed(text)
    except Unreadable:
        answer = {"message": text.decode(errors="replace")}
    raise errors.refused(
        response.status, response.reason or "", answer, response.headers.get("Retry-After", "")
    )


async def _send(
    api: ApiClient,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]] = (),
    body: object = None,
    accept: str = JSON,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
    idle_timeout: float | None = None,
) -> aiohttp.ClientResponse:
    """Any answer, whose body is still to be read.

    `ApiClient.call_api` does the same, and copies body, headers and query first, for models that might be in
    them.
    """
    sent = {
        **api.default_headers,  # who we are
        "Accept": accept,
        # Not compressed: a bound counts bytes as they are in memory, and on the way between a cluster's own
        # nodes they cost less than gzip does at both ends (client-go's DisableCompression).
        "Accept-Encoding": "identity",
        "Content-Type": content_type,
        **(headers or {}),
    }
    await api.update_params_for_auth(sent, [], _CREDENTIALS)
    response: aiohttp.ClientResponse = await api.rest_client.request(
        method,
        f"{api.configuration.host}{path}",
        query_params=list(query),  # type: ignore[arg-type]  # ApiClient hands on a list, too
        headers=sent,
        body=body,
        _preload_content=False,
        # None for the whole: aiohttp would lose a cancellation that comes with it. (TimerContext, in its
        # helpers, undoes one at the end of each block that it stands around: of a request there are two.)
        _request_timeout=aiohttp.ClientTimeout(sock_read=idle_timeout),
    )
    return response


@contextmanager
def _as_api_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, config.ConfigException) as error:
        # ConfigException: the token file is empty.
        raise Unavailable(f"{type(error).__name__} {error}".rstrip()) from error
