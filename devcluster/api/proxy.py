"""The proxy to Services: `…/services/https:NAME:PORT/proxy/PATH`, authorized as any other request is.

Left out: plain HTTP, Pods and nodes, WebSockets, and Services themselves, which are told where they are.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp import web

from devcluster.api import errors
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Kind
from devcluster.api.requests import RequestInfo

_SERVICE = Kind("", "v1", "Service", "services", stored=False)
_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/services/([^/]+)/proxy(/.*)?")
_ID = re.compile(r"https:([^:]+):[^:]+")
_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NOT_HANDED_ON = ("Authorization", "Connection", "Content-Length", "Host", "Transfer-Encoding")
"""The API server takes the first for itself (WithAuthentication); the others are of this connection."""

Services = Mapping[tuple[str, str], tuple[str, int]]


class Proxied(NamedTuple):
    """A request for a Service."""

    info: RequestInfo
    """For the authorizer: the resource is services/proxy, its name the whole `https:NAME:PORT`."""
    path: str


def parse(method: str, path: str) -> Proxied | None:
    """What is asked of which Service; None for a path that is none of the proxy's."""
    if (found := _PATH.fullmatch(path)) is None:
        return None
    namespace, name, rest = found.groups()
    verb = _VERBS.get(method, "")
    return Proxied(RequestInfo(verb, _SERVICE, namespace, name, "proxy", dry_run=False), rest or "/")


class Proxy:
    """Hands requests on, without looking at the certificate of who answers (CreateProxyTransport)."""

    def __init__(self, session: aiohttp.ClientSession, services: Services) -> None:
        self._session, self._services = session, services

    async def answer(self, request: web.Request, asked: Proxied) -> web.Response:
        """What the Service answers; ApiError 404 or 503 where there is none, or it cannot be reached."""
        found = _ID.fullmatch(asked.info.name)
        if found is None:
            raise errors.not_implemented(f"the Service {asked.info.name} at its proxy")
        where = self._services.get((asked.info.namespace, found[1]))
        if where is None:
            raise errors.not_found(_SERVICE, found[1])
        host, port = where
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_HANDED_ON]
        try:
            async with self._session.request(
                request.method,
                f"https://{host}:{port}{asked.path}",
                params=request.query,
                data=await request.read(),
                headers=[*headers, ("X-Forwarded-For", request.remote or "")],
                ssl=False,
                allow_redirects=False,
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name not in _NOT_HANDED_ON]
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except (aiohttp.ClientError, OSError) as error:
            message = f"error trying to reach service: {error}"
            raise ApiError(503, "ServiceUnavailable", message) from error
