"""`python -m bench.load`: a client that costs less than the servers it measures.

Threads with a blocking TLS connection each, kept alive, sending one ready-made request again and again. It
knows as much of HTTP as a server that says Content-Length needs.
"""

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_PATIENCE = 60.0
_CHUNK = 1 << 18


class BadAnswerError(Exception):
    """The answer is not a 200 with a Content-Length."""


@dataclass(frozen=True, slots=True)
class Load:
    """One round: seconds that all requests took together, and each one's, sorted."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return len(self.latencies) / self.seconds


class Connection:
    """A TLS connection on which one request at a time is sent. The server's certificate is not looked at."""

    def __init__(self, port: int, source: str = "") -> None:
        """Connect; from another address of this host, where `source` names one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        here = (source, 0) if source else None
        plain = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE, source_address=here)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain)

    def ask(self, request: bytes) -> bytes:
        """Send the request; the body of the answer. BadAnswerError, OSError."""
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        start = end + 4
        length = content_length(bytes(received[:start]))
        while len(received) < start + length:
            received += self._more()
        return bytes(received[start:])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _more(self) -> bytes:
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise BadAnswerError("the server hung up")
        return chunk


def request(path: str, body: bytes) -> bytes:
    """A POST of JSON as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def content_length(head: bytes) -> int:
    """The length that a good answer's head announces."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split()[1:2] != ["200"]:
        raise BadAnswerError(status)
    fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    if "content-length" not in fields:
        raise BadAnswerError("no Content-Length")
    return int(fields["content-length"])


def drive(port: int, message: bytes, requests: int, concurrency: int) -> Load:
    """Send the message so many times over so many connections, which are made and warmed up before."""
    connections = [Connection(port) for _ in range(concurrency)]
    left, lock = iter(range(requests)), threading.Lock()
    start = threading.Barrier(concurrency + 1)
    latencies: list[float] = []
    failures: list[Exception] = []

    def ask_again_and_again(connection: Connection) -> None:
        try:
            connection.ask(message)
            start.wait()
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                began = time.perf_counter()
                connection.ask(message)
                latencies.append(time.perf_counter() - began)
        except Exception as error:
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=ask_again_and_again, args=(one,)) for one in connections]
    for thread in threads:
        thread.start()
    try:
        start.wait()
        began = time.perf_counter()
    except threading.BrokenBarrierError:
        began = 0
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    if failures:
        raise failures[0]
    return Load(seconds, sorted(latencies))


def main(argv: Sequence[str] | None = None) -> int:
    """Drive one round and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    chosen = parser.parse_args(argv)
    message = request(chosen.path, chosen.body.read_bytes())
    print(json.dumps(asdict(drive(chosen.port, message, chosen.requests, chosen.concurrency))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
