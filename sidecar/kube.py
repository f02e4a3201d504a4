"""A Kubernetes API client small enough to be there in milliseconds: one connection, JSON, and deadlines.

Importing an installed client costs more than the whole look-up may take, so this speaks HTTP with the
standard library. It knows nothing of the objects it carries.
"""

import json
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from memoize import __version__
from sidecar.deadline import Deadline
from sidecar.http1 import BrokenReplyError, Connection
from sidecar.settings import Server

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Accept this where a reply's content is of no use: a patched ConfigMap then comes back without its data."""

_CONNECT_SHARE = 1 / 3
"""Part of the time left that connecting may take: one packet may be lost, the next reach another server."""
_LARGEST_REPLY = 16 << 20
"""A ConfigMap holds 1 MiB; escaped, six times that."""
_TOO_MANY = 429
"""The server has not looked at the request yet (priority and fairness)."""
_FIRST_PAUSE = 0.02
"""Seconds before the first repetition; the next one comes after twice as long …"""
_LONGEST_PAUSE = 0.25
"""… up to this."""
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch"}


class NoCredentialsError(Exception):
    """Token or CA certificate are not there or not usable."""


class NoReplyError(Exception):
    """No status came back. `sent` says that the request may have reached the server and taken effect."""

    def __init__(self, sent: bool, cause: str) -> None:
        super().__init__(cause)
        self.sent = sent


class Reply(NamedTuple):
    """A status, and the JSON object that came with it (None: it was something else, or broke off)."""

    status: int
    body: dict[str, Any] | None
    retry_after: float | None = None

    @property
    def final(self) -> bool:
        """The server has judged the request: the same one would be answered in the same way."""
        return self.status < 500 and self.status not in (408, 429)


class RequestResult(NamedTuple):
    """What insisting on a request came to.

    `doing` is the request, for Kubernetes in the words of RBAC (`get configmaps`). `status` is the last one
    that came, 0 if none did; `cause` then says what happened instead. `uncertain` says that some attempt may
    have taken effect without our knowing.
    """

    doing: str
    status: int = 0
    body: Mapping[str, Any] = MappingProxyType({})
    uncertain: bool = False
    cause: str = "no time left"

    @property
    def ok(self) -> bool:
        """The request took effect."""
        return 200 <= self.status < 300

    @property
    def causes(self) -> set[str]:
        """The machine-readable causes of a refusal (metav1.Status, details.causes[].reason)."""
        details = self.body.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        return {str(cause.get("reason")) for cause in causes or () if isinstance(cause, dict)}

    def __str__(self) -> str:
        return f"{self.doing}: {f'status {self.status}' if self.status else self.cause}"


class Client:
    """Requests to one server in the name of one service account; not for several threads."""

    def __init__(self, server: Server) -> None:
        """Read token and CA; NoCredentialsError. Connects with the first request."""
        self._server = server
        self._connection: Connection | None = None
        # Not ssl.create_default_context: its strict checks refuse CAs that many clusters were made with.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if server.ca:
                self._tls.load_verify_locations(cadata=server.ca)
            else:
                self._tls.load_verify_locations(f"{server.credentials}/ca.crt")
            with open(f"{server.credentials}/token") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            raise NoCredentialsError(f"no service account credentials: {type(error).__name__}") from None
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": f"stepmemo/{__version__}"}

    def insist(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        until: Deadline,
        content_type: str = JSON,
        accept: str = JSON,
        needs_body: bool = False,
        doing: str = "",
        is_final: Callable[[RequestResult], bool] = lambda result: False,
    ) -> RequestResult:
        """Send a request until the server has judged it or the time is over.

        Repeats after 429 and 5xx (as Retry-After says, else with growing pauses), after a lost connection,
        and, with `needs_body`, after a success that does not carry a whole JSON object. Never raises for what
        a server or a network can do. `doing` says what is asked for, where the words of RBAC do not;
        `is_final` whether a 5xx judges the request all the same.
        """
        result = RequestResult(doing or _doing(method, path))
        pause = _FIRST_PAUSE
        while not until.over:
            wait = None
            try:
                reply = self.call(method, path, body, until=until, content_type=content_type, accept=accept)
            except NoReplyError as error:
                uncertain = result.uncertain or error.sent
                if until.over and result.status:  # cut off by us: what the server said before is the reason
                    result = result._replace(uncertain=uncertain)
                else:
                    result = RequestResult(result.doing, uncertain=uncertain, cause=str(error))
            else:
                if needs_body and reply.body is None and reply.status < 300:
                    result = RequestResult(result.doing, uncertain=True, cause="the reply broke off")
                else:
                    uncertain = result.uncertain or not (reply.final or reply.status == _TOO_MANY)
                    result = RequestResult(result.doing, reply.status, reply.body or {}, uncertain)
                    wait = reply.retry_after
                    if reply.final or is_final(result):
                        break
            if not until.pause(wait if wait is not None else _somewhat_less(pause)):
                break
            pause = min(2 * pause, _LONGEST_PAUSE)
        return result

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        until: Deadline,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Reply:
        """Send one request; any status is a Reply. Raises NoReplyError."""
        connection = self._connected(until)
        headers = {**self._headers, "Accept": accept}
        content = None
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        try:
            response = connection.request(method, path, headers, content, until)
        except (OSError, BrokenReplyError) as error:
            self.close()
            raise NoReplyError(sent=True, cause=_name(error)) from None
        if response.last:
            self.close()
        retry_after = _seconds(response.headers.get("retry-after"))
        return Reply(response.status, _object(response.content), retry_after)

    def close(self) -> None:
        """Drop the connection; the next request makes another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self, until: Deadline) -> Connection:
        if self._connection is None:
            host, port = self._server.host, self._server.port
            try:
                self._connection = Connection(
                    host, port, self._tls, until.remaining * _CONNECT_SHARE, _LARGEST_REPLY
                )
            except OSError as error:
                raise NoReplyError(sent=False, cause=_name(error)) from None
        return self._connection


def _object(content: bytes | None) -> dict[str, Any] | None:
    """Read a reply's content as a JSON object."""
    try:
        value = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _somewhat_less(pause: float) -> float:
    """Vary a pause: clients that met the same error are not to come back together."""
    import random  # who asks once has no use for it

    return pause * random.uniform(0.5, 1)


def _doing(method: str, path: str) -> str:
    """Say `patch configmaps` for a PATCH of /api/v1/namespaces/x/configmaps/y?z."""
    _, _, below = path.partition("?")[0].partition("/namespaces/")
    return f"{_VERBS[method]} {below.split('/')[1]}"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as the API server writes it, a number of seconds; None for anything else."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)


def _name(error: Exception) -> str:
    """Name a failed connection without what a peer may have put into its text."""
    if isinstance(error, BrokenReplyError):
        return str(error)
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
