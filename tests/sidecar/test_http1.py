"""HTTP/1.1 over TLS: what a server may answer, and what anything else may send instead."""

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deadline import Deadline
from sidecar.http1 import BrokenReplyError, Connection, Response
from tests.sidecar import faults

LARGEST = 1 << 16
OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers each connection's first request with `pieces`, then with an end; keeps what it was asked."""

    def __init__(self, credentials: Path) -> None:
        self.pieces: Iterable[bytes] = ()
        self.asked = b""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(credentials / "ca.crt", credentials / "key.pem")
        self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client.load_verify_locations(credentials / "ca.crt")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def connect(self) -> Connection:
        """Connect to it."""
        return Connection("127.0.0.1", self._listening.getsockname()[1], self._client, 10, LARGEST)

    def answers(
        self, *pieces: bytes, until: Deadline | None = None, content: bytes | None = None
    ) -> Response:
        """What the client makes of this answer."""
        self.pieces = list(pieces)
        with closing(self.connect()) as connection:
            return connection.request("GET", "/x", {}, content, until or Deadline(10))

    def close(self) -> None:
        """Let it end."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            with plain:
                try:
                    with self._tls.wrap_socket(plain, server_side=True) as connection:
                        self.asked = connection.recv(1 << 16)
                        for piece in self.pieces:
                            connection.sendall(piece)
                except OSError:
                    continue  # the client had enough


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with closing(Server(faults.make_credentials(tmp_path_factory.mktemp("tls")))) as server:
        yield server


def test_a_request_is_one_host_its_headers_and_its_content(server: Server):
    server.pieces = [OK + b"Content-Length: 0\r\n\r\n"]
    with closing(server.connect()) as connection:
        connection.request("PATCH", "/x?y=z", {"Accept": "a/b"}, b"\xff", Deadline(10))
    head, _, content = server.asked.partition(b"\r\n\r\n")
    first, host, *others = head.split(b"\r\n")
    assert (first, content) == (b"PATCH /x?y=z HTTP/1.1", b"\xff")
    assert host.startswith(b"Host: 127.0.0.1:")
    assert others == [b"Accept-Encoding: identity", b"Accept: a/b", b"Content-Length: 1"]


@pytest.mark.parametrize(
    ("target", "value"), [("/x y", "a"), ("/x\r\ny", "a"), ("/x", "a\r\nb: c"), ("/x", "a\n"), ("/ü", "a")]
)
def test_what_would_break_a_request_is_not_sent(server: Server, target: str, value: str):
    server.asked = b""
    with closing(server.connect()) as connection, pytest.raises(ValueError):
        connection.request("GET", target, {"Authorization": value}, None, Deadline(10))
    assert server.asked == b""


def test_header_names_have_no_case_and_repeated_ones_are_joined(server: Server):
    found = server.answers(OK + b"CONTENT-length: 2\r\nRetry-After:7 \r\nA: 1\r\na: 2\r\n\r\n{}")
    assert found == (200, {"content-length": "2", "retry-after": "7", "a": "1, 2"}, b"{}", False)


def test_interim_replies_are_passed_over(server: Server):
    found = server.answers(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK + b"\r\nx"
    )
    assert (found.status, found.content) == (200, b"x")


@pytest.mark.parametrize(
    ("reply", "content", "last"),
    [
        (OK + b"Content-Length: 2\r\n\r\n{}", b"{}", False),
        (OK + b"Content-Length: 2\r\nConnection: Close\r\n\r\n{}", b"{}", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}", True),
        (OK + b"\r\n{}", b"{}", True),
        (OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n", b"{}", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n", b"", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", b"{}", False),
        (
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            b"0123456789",
            False,
        ),
    ],
)
def test_contents_end_where_the_headers_say(server: Server, reply: bytes, content: bytes, last: bool):
    found = server.answers(reply)
    assert (found.content, found.last) == (content, last)


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Content-Length: 3\r\n\r\n{}",
        OK + b"Content-Length: -1\r\n\r\n{}",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        OK + b"Content-Length: 65537\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"\r\n" + b"x" * (LARGEST + 1),
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}..0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * LARGEST + b"1\r\nx\r\n",
    ],
    ids=lambda reply: repr(reply[:90]),
)
def test_a_content_that_breaks_off_or_has_no_end_leaves_the_status(server: Server, reply: bytes):
    found = server.answers(reply)
    assert (found.status, found.content, found.last) == (200, None, True)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x16\x03\x01 not HTTP\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2\r\n\r\n",
        b"HTTP/1.1 999 Far\r\n\r\n",
        b"HTTP/1.1 000 None\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"a: b\r\n folded\r\n\r\n",
        OK + b"a: " + b"x" * (1 << 17),
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=lambda reply: repr(reply[:60]),
)
def test_what_is_not_a_reply_is_none(server: Server, reply: bytes):
    with pytest.raises((BrokenReplyError, OSError)):
        server.answers(reply)


def test_a_reply_that_never_ends_is_left_when_the_time_is_over(server: Server):
    server.pieces = repeat(b"HTTP/1.1 100 Continue\r\n\r\n")
    with closing(server.connect()) as connection:
        until = Deadline(0.2)
        with pytest.raises(OSError):
            connection.request("GET", "/x", {}, None, until)
        assert until.over


def test_a_failed_handshake_leaves_no_socket_open(server: Server):
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError):
        Connection("127.0.0.1", server._listening.getsockname()[1], stranger, 10, LARGEST)


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """A status line with headers, the content as sent, and the content."""
    content = draw(st.binary(max_size=300))
    if draw(st.booleans()):
        return OK + b"Content-Length: %d\r\n\r\n" % len(content), content, content
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=4)) | {0, len(content)})
    parts = [content[a:b] for a, b in pairwise(cuts) if content[a:b]]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return OK + b"Transfer-Encoding: chunked\r\n\r\n", sent, content


@settings(max_examples=40, deadline=None)
@given(replies(), st.lists(st.integers(0, 400), max_size=5).map(sorted))
def test_a_reply_is_the_same_however_it_arrives(
    server: Server, reply: tuple[bytes, bytes, bytes], cuts: list[int]
):
    head, sent, content = reply
    whole = head + sent
    ends = [*cuts, len(whole)]
    pieces = [whole[a:b] for a, b in pairwise([0, *ends]) if whole[a:b]]
    found = server.answers(*pieces)
    assert (found.status, found.content, found.last) == (200, content, False)


@settings(max_examples=40, deadline=None)
@given(replies(), st.floats(0, 1, exclude_max=True))
def test_a_part_of_a_reply_is_never_taken_for_the_whole(
    server: Server, reply: tuple[bytes, bytes, bytes], share: float
):
    head, sent, _ = reply
    part = (head + sent)[: int(share * len(head + sent))]
    if len(part) < len(head):
        with pytest.raises((BrokenReplyError, OSError)):
            server.answers(part)
    else:
        assert server.answers(part).content is None


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([b"", b"HTTP/1.1 ", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"]),
    st.binary(max_size=200),
)
def test_garbage_is_a_broken_reply_or_a_reply(server: Server, start: bytes, rest: bytes):
    try:
        found = server.answers(start + rest)
    except (BrokenReplyError, OSError):
        return
    assert 200 <= found.status < 600
