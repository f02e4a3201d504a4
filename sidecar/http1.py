"""HTTP/1.1 over TLS, as much of it as a client of the API server needs: one request, one reply, again.

`http.client` would do, but brings the whole of `email` along, and the step waits for every import.
"""

import socket
import ssl
from typing import NamedTuple

from sidecar.deadline import Deadline

_HEAD_BYTES = 64 << 10
"""Of a status line and its headers, or of a chunk's size; Go's own servers send no longer ones."""
_READ_BYTES = 64 << 10
_SHORTEST_WAIT = 0.001
"""Seconds. A timeout of zero would mean something else: do not wait, and fail in another way."""
_NO_CONTENT = (204, 304)
_HEXADECIMAL = b"0123456789abcdefABCDEF"


class BrokenReplyError(Exception):
    """The server sent something else than HTTP/1.1, or more of it than anybody has a use for."""


class Response(NamedTuple):
    """A status, headers by their names in lower case, and the content: None where it did not come whole."""

    status: int
    headers: dict[str, str]
    content: bytes | None
    last: bool
    """The connection takes no further request."""


class Connection:
    """One connection to one server; not for several threads."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, seconds: float, largest: int) -> None:
        """Connect, `seconds` for each of the two handshakes at most; OSError. `largest` bounds contents."""
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._largest = largest
        self._received = bytearray()
        plain = socket.create_connection((host, port), max(_SHORTEST_WAIT, seconds))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def request(
        self, method: str, target: str, headers: dict[str, str], content: bytes | None, until: Deadline
    ) -> Response:
        """Send a request and read the reply to it. OSError and BrokenReplyError say that there is none.

        ValueError for what cannot stand in a request: it would end a line, or it is not ASCII. A content that
        breaks off does not change the status that came before it.
        """
        fields = {"Host": self._host, "Accept-Encoding": "identity", **headers}
        if content is not None:
            fields["Content-Length"] = str(len(content))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if " " in target or not all(line.isprintable() for line in lines):
            raise ValueError("not a line of a request")
        self._wait_until(until)
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (content or b""))
        status, fields, last = self._head(until)
        while status < 200:
            status, fields, last = self._head(until)
        try:
            received = b"" if status in _NO_CONTENT else self._content(fields, until)
        except (OSError, BrokenReplyError):
            received = None
        # What came behind the end belongs to no request of ours.
        return Response(status, fields, received, last or received is None or bool(self._received))

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def _head(self, until: Deadline) -> tuple[int, dict[str, str], bool]:
        """Read a status line and headers; also say whether the server will close the connection."""
        first, *lines = self._take_to(b"\r\n\r\n", until).decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or not _is_number(code) or not 100 <= int(code) < 600:
            raise BrokenReplyError("not a status line")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BrokenReplyError("not a header")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        last = version != "HTTP/1.1" or "close" in headers.get("connection", "").lower()
        return int(code), headers, last or not headers.keys() & {"content-length", "transfer-encoding"}

    def _content(self, headers: dict[str, str], until: Deadline) -> bytes:
        """Read the content, which ends where the headers say, or else with the connection."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise BrokenReplyError("an unknown coding")
            return self._chunks(until)
        if length is not None:
            if not _is_number(length):
                raise BrokenReplyError("not a length")
            return self._take(int(length), until)
        while self._receive(until):
            self._require(len(self._received))
        return self._take(len(self._received), until)

    def _chunks(self, until: Deadline) -> bytes:
        content = bytearray()
        while size := self._chunk_size(until):
            self._require(len(content) + size)
            content += self._take(size, until)
            if self._take(2, until) != b"\r\n":
                raise BrokenReplyError("a chunk without its end")
        while self._take_to(b"\r\n", until):
            pass  # trailers
        return bytes(content)

    def _chunk_size(self, until: Deadline) -> int:
        digits = self._take_to(b"\r\n", until).partition(b";")[0].strip()
        if not digits or digits.strip(_HEXADECIMAL):
            raise BrokenReplyError("not the size of a chunk")
        return int(digits, 16)

    def _take_to(self, end: bytes, until: Deadline) -> bytes:
        """Take what comes before `end`, and drop that."""
        seen = 0
        while (at := self._received.find(end, seen)) < 0:
            seen = max(0, len(self._received) - len(end))
            if len(self._received) > _HEAD_BYTES:
                raise BrokenReplyError("a line too long")
            if not self._receive(until):
                raise BrokenReplyError("the connection was closed")
        taken = bytes(self._received[:at])
        del self._received[: at + len(end)]
        return taken

    def _take(self, count: int, until: Deadline) -> bytes:
        self._require(count)
        while len(self._received) < count:
            if not self._receive(until):
                raise BrokenReplyError("the connection was closed")
        taken = bytes(memoryview(self._received)[:count])  # a reply is large: one copy, not two
        del self._received[:count]
        return taken

    def _receive(self, until: Deadline) -> bool:
        """Wait for more; False when the server has sent all that it ever will."""
        self._wait_until(until)
        received = self._socket.recv(_READ_BYTES)
        self._received += received
        return bool(received)

    def _wait_until(self, until: Deadline) -> None:
        if until.over:
            raise TimeoutError("no time left")
        self._socket.settimeout(max(_SHORTEST_WAIT, until.remaining))

    def _require(self, size: int) -> None:
        if size > self._largest:
            raise BrokenReplyError("too long")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
