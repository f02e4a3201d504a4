import pytest

from bench.load import BadAnswerError, Load, content_length, request


def test_a_request_says_how_long_its_body_is() -> None:
    head, _, body = request("/mutate/pods", b'{"a":1}').partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /mutate/pods HTTP/1.1"
    assert b"Content-Length: 7" in head.splitlines()
    assert body == b'{"a":1}'


@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
def test_the_length_of_an_answer_is_read(name: str) -> None:
    assert content_length(f"HTTP/1.1 200 OK\r\nDate: x\r\n{name}: 12\r\n\r\n".encode()) == 12


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n\r\n"]
)
def test_any_other_answer_is_no_figure(head: bytes) -> None:
    with pytest.raises(BadAnswerError):
        content_length(head)


def test_a_rate_is_requests_in_a_second() -> None:
    assert Load(2.0, [0.1] * 10).rate == 5
