"""A small Kubernetes API over TLS that fails on demand: for what a real one does once a month.

It keeps ConfigMaps and WorkflowTaskResults well enough for the sidecar's own requests. What a request does to
them and what the client gets to see of it are two things: each Fault says both.
"""

import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonpatch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from argo import names as argo

CONFIGMAPS = "configmaps"
RESULTS = "workflowtaskresults"
EVENTS = "events"
LOOKUP = "lookup"
ENTRIES = "entries"
LIMIT = 1 << 20
TOO_MUCH = 17 << 20
"""Bytes: more than the sidecar reads of any reply."""


class Call(StrEnum):
    """Every request that the sidecar makes, by what it is for. One that is none of these fails the test."""

    READ_CACHE = "read-cache"
    ADD_ENTRY = "add-entry"
    MERGE_ENTRY = "merge-entry"
    CREATE_CACHE = "create-cache"
    POST_RESULT = "post-result"
    READ_RESULT = "read-result"
    TAKE_BACK = "take-back"
    KEEP_OUT = "keep-out"
    TELL = "tell"
    ASK_SERVICE = "ask-service"
    TELL_SERVICE = "tell-service"


def call_of(method: str, resource: str, content_type: str, body: Any) -> Call:
    """Tell what a request is for; ValueError for one that the matrix of faults does not know."""
    match method, resource, content_type:
        case "GET", "configmaps", "":
            return Call.READ_CACHE
        case "PATCH", "configmaps", "application/json-patch+json":
            return Call.ADD_ENTRY
        case "PATCH", "configmaps", "application/merge-patch+json":
            return Call.MERGE_ENTRY
        case "POST", "configmaps", "application/json":
            return Call.CREATE_CACHE
        case "POST", "workflowtaskresults", "application/json":
            complete = body["metadata"]["labels"][argo.OUTPUTS_COMPLETED] == "true"
            return Call.POST_RESULT if complete else Call.KEEP_OUT
        case "PATCH", "workflowtaskresults", "application/merge-patch+json":
            return Call.TAKE_BACK if body else Call.READ_RESULT
        case "POST", "events", "application/json":
            return Call.TELL
        case "POST", "lookup", "application/json" if body == {}:
            return Call.ASK_SERVICE
        case "POST", "entries", "application/json" if body.keys() == {"entry"}:
            return Call.TELL_SERVICE
    raise ValueError(f"{method} {resource} {content_type}")


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    `applied` says whether it takes effect; `late` lets it do so only when that many further ones were served.
    `seen` is what comes back: a status (0: the reply that it has earned); or "reset" before any byte,
    "refused" which also takes no further connection, "hang" until the client is gone, "garbage" instead of
    HTTP, "slow" headers that never end; or, after the status that it has earned, a body that is "cut" in the
    middle, is "text", a "list", of "other" fields, nested too "deep" or "huge".
    """

    seen: int | str = 0
    applied: bool = False
    late: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] = field(default_factory=dict)


OK = Fault(applied=True)
_BODIES = {
    "text": lambda _: b"<html>",
    "list": lambda _: b"[]",
    "other": lambda _: (
        b'{"metadata": {"labels": 7, "annotations": []}, "data": [1], "details": "x", "outputs": 1}'
    ),
    "deep": lambda _: b'{"metadata":' * 100_000,
    "huge": lambda answer: answer + b" " * TOO_MUCH,
}
"""Bodies instead of the one that belongs to the reply."""


class Api:
    """The state, the script of faults, and what was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.requests: list[tuple[str, str]] = []
        self.calls: list[Call] = []
        self.unknown: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.late_statuses: list[int] = []
        self._faults: dict[tuple[str, str], deque[Fault]] = defaultdict(deque)
        self._always: dict[tuple[str, str], Fault] = {}
        self._calls_once: dict[Call, deque[Fault]] = defaultdict(deque)
        self._calls_always: dict[Call, Fault] = {}
        self._late: list[tuple[int, tuple[str, str, str, str, Any]]] = []
        self._others: dict[tuple[str, str], deque[Callable[[], object]]] = defaultdict(deque)
        self._lock = threading.RLock()
        self._version = 0
        self.place = "hello-1"
        """The data key that the service reads from the Pod."""
        self.closing = threading.Event()
        self.before: Callable[[int], object] = lambda number: None
        self.after: Callable[[int], object] = lambda number: None
        """Called with a request's number, from 1, when it has come and when it has taken effect."""

    def on(self, call: Call, fault: Fault) -> None:
        """Every request for this meets this fault …"""
        self._calls_always[call] = fault

    def on_next(self, call: Call, *faults: Fault) -> None:
        """… and the next ones meet these, one each."""
        self._calls_once[call].extend(faults)

    def once(self, method: str, resource: str, *faults: Fault) -> None:
        """The next requests of this kind meet these faults, one each."""
        self._faults[method, resource].extend(faults)

    def always(self, method: str, resource: str, fault: Fault) -> None:
        """Every request of this kind meets this fault, once those of `once` are used up."""
        self._always[method, resource] = fault

    def meanwhile(self, method: str, resource: str, act: Callable[[], object]) -> None:
        """Somebody else acts once, right after the next request of this kind."""
        self._others[method, resource].append(act)

    def count(self, method: str, resource: str) -> int:
        return self.requests.count((method, resource))

    def put(self, resource: str, name: str, **fields: Any) -> dict[str, Any]:
        """Have an object there, new or instead of the one that was."""
        metadata = {"name": name, "resourceVersion": self._next(), **fields.pop("metadata", {})}
        self.objects[resource][name] = {"metadata": metadata, **fields}
        return self.objects[resource][name]

    def serve(
        self, method: str, path: str, content_type: str, body: Any
    ) -> tuple[Fault, int, dict[str, Any]]:
        resource, name = self._where(path)
        with self._lock:
            self.requests.append((method, resource))
            number = len(self.requests)
            self.before(number)
            fault = self._fault(method, resource, content_type, body)
            request = (method, resource, name, content_type, body)
            status, reply = self._apply(*request) if fault.applied else (500, {})
            self.after(number)
            if others := self._others[method, resource]:
                others.popleft()()
            due = [waiting for left, waiting in self._late if left == 1]
            self._late = [(left - 1, waiting) for left, waiting in self._late if left > 1]
            self.late_statuses += [self._apply(*waiting)[0] for waiting in due]
            if fault.late:
                self._late.append((fault.late, request))
        if isinstance(fault.seen, int) and fault.seen:
            return fault, fault.seen, fault.body
        return fault, status, reply

    def _fault(self, method: str, resource: str, content_type: str, body: Any) -> Fault:
        try:
            call = call_of(method, resource, content_type, body)
        except ValueError as error:
            self.unknown.append(str(error))
        else:
            self.calls.append(call)
            if queue := self._calls_once[call]:
                return queue.popleft()
            if call in self._calls_always:
                return self._calls_always[call]
        if others := self._faults[method, resource]:
            return others.popleft()
        return self._always.get((method, resource), OK)

    def _where(self, path: str) -> tuple[str, str]:
        if path in (f"/v1/{LOOKUP}", f"/v1/{ENTRIES}"):
            return path.removeprefix("/v1/"), ""
        parts = path.partition("?")[0].partition("/namespaces/")[2].split("/")
        return parts[1], parts[2] if len(parts) > 2 else ""

    def _apply(
        self, method: str, resource: str, name: str, content_type: str, body: Any
    ) -> tuple[int, dict[str, Any]]:
        if resource in (LOOKUP, ENTRIES):
            return 200, self._serve_entry(resource, body)
        there = self.objects[resource]
        if method == "POST":
            name = body["metadata"]["name"]
            if name in there:
                return 409, status(409, "AlreadyExists")
            if too_long(body):
                return 422, status(422, "Invalid", "FieldValueTooLong")
            body["metadata"]["resourceVersion"] = self._next()
            there[name] = body
            return 201, deepcopy(body)
        if name not in there:
            return 404, status(404, "NotFound")
        if method == "GET":
            return 200, deepcopy(there[name])
        changed = deepcopy(there[name])
        if content_type == "application/json-patch+json":
            try:
                changed = jsonpatch.apply_patch(changed, body)
            except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
                return 422, status(422, "Invalid")
        else:
            version = body.get("metadata", {}).get("resourceVersion")
            if version is not None and version != changed["metadata"]["resourceVersion"]:
                return 409, status(409, "Conflict")
            merge(changed, body)
        if changed.get("immutable") and changed != there[name]:
            return 422, status(422, "Invalid", "FieldValueForbidden")
        if too_long(changed):
            return 422, status(422, "Invalid", "FieldValueTooLong")
        if changed != there[name]:
            changed["metadata"]["resourceVersion"] = self._next()
        there[name] = changed
        return 200, deepcopy(changed)

    def _serve_entry(self, resource: str, body: Any) -> dict[str, Any]:
        """Do as the cache service does for the one Pod that there is."""
        cache = self.objects[CONFIGMAPS].get("my-cache") or {}
        if resource == LOOKUP:
            return {"entry": cache.get("data", {}).get(self.place)}
        if too_long({"data": {**cache.get("data", {}), **body}}):
            return {"reason": "CacheFull", "detail": "no room"}
        if not cache:
            cache = self.put(CONFIGMAPS, "my-cache")
        cache.setdefault("data", {})[self.place] = body["entry"]
        return {"reason": "Stored", "detail": f"{len(body['entry'])} bytes"}

    def _next(self) -> str:
        self._version += 1
        return str(self._version)


def status(code: int, reason: str, *causes: str) -> dict[str, Any]:
    """A metav1.Status as the API server writes it."""
    details = {"causes": [{"reason": cause, "field": "[]"} for cause in causes]} if causes else {}
    return {"kind": "Status", "status": "Failure", "reason": reason, "code": code, "details": details}


def too_long(body: dict[str, Any]) -> bool:
    return sum(len(value.encode()) for value in (body.get("data") or {}).values()) > LIMIT


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7386."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            merge(target[name], value)
        else:
            target[name] = value


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: Api

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else None
        self.api.headers.append(dict(self.headers))
        fault, code, reply = self.api.serve(
            self.command, self.path, self.headers.get("Content-Type", ""), body
        )
        if fault.seen in ("reset", "refused"):
            if fault.seen == "refused":
                self.server.shutdown()
                self.server.server_close()
            self._break_off()
            return
        if fault.seen == "hang":
            self.api.closing.wait(10)
            self.close_connection = True
            return
        if fault.seen == "garbage":
            self.wfile.write(b"\x00\x01 not HTTP\r\n\r\n")
            self.close_connection = True
            return
        if fault.seen == "slow":
            self._never_end()
            return
        answer = json.dumps(reply).encode()
        if fault.seen in _BODIES:
            answer = _BODIES[str(fault.seen)](answer)
        self.send_response(code)
        self.send_header("Content-Type", "text/html" if fault.seen == "text" else "application/json")
        self.send_header("Content-Length", str(len(answer)))
        for name, value in fault.headers:
            self.send_header(name, value)
        self.end_headers()
        if fault.seen == "cut":
            self.wfile.write(answer[: len(answer) // 2])
            self._break_off()
            return
        self.wfile.write(answer)

    def _break_off(self) -> None:
        """Have the client see a reset instead of an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _never_end(self) -> None:
        """Send headers, a few bytes at a time: no single wait of the client is long."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.api.closing.wait(0.02):
            self.wfile.write(b"x")

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        return


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def serving(api: Api, credentials: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Serve the API on a free port with the certificate in `credentials` (see `make_credentials`)."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(credentials / "ca.crt", credentials / "key.pem")
    kind = _Server6 if ":" in host else _Server
    server = kind((host, 0), type("Handler", (_Handler,), {"api": api}))
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield host, server.server_address[1]
    finally:
        api.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def make_credentials(directory: Path, valid_in: datetime.timedelta = -datetime.timedelta(days=1)) -> Path:
    """Write a service account's directory: a token, a CA that is also the server's certificate, its key.

    `valid_in` is the time from now on from which the certificate is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "faults")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [ipaddress.ip_address(address) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid_in)
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address) for address in addresses]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (directory / "token").write_text("token\n")
    return directory
