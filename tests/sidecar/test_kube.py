"""The API client: what it makes of servers, networks and credentials."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from memoize import __version__
from sidecar.deadline import Deadline
from sidecar.kube import Client, NoCredentialsError, NoReplyError, RequestResult
from sidecar.settings import Server
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, Fault

PATH = "/api/v1/namespaces/ns/configmaps/a?fieldManager=x"


@pytest.fixture
def client(server: tuple[str, int], credentials: Path) -> Iterator[Client]:
    with closing(Client(Server(*server, credentials))) as client:
        yield client


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_ipv6_address_goes_into_brackets_in_the_host_header(api: faults.Api, credentials: Path):
    with (
        faults.serving(api, credentials, "::1") as server,
        closing(Client(Server(*server, credentials))) as client,
    ):
        client.call("GET", PATH, until=Deadline(10))
    assert api.headers[0]["Host"] == f"[::1]:{server[1]}"


def test_requests_share_one_connection_and_name_the_account(client: Client, api: faults.Api):
    for _ in range(3):
        assert client.call("GET", PATH, until=Deadline(10)).status == 404
    said = {(headers["Authorization"], headers["User-Agent"]) for headers in api.headers}
    assert said == {("Bearer token", f"stepmemo/{__version__}")}


def test_an_answer_says_the_request_in_the_words_of_rbac(client: Client, api: faults.Api):
    reply = client.insist("GET", PATH, until=Deadline(10))
    assert str(reply) == "get configmaps: status 404"
    assert not reply.ok
    assert not reply.uncertain


def test_the_causes_of_a_refusal_are_read_whatever_their_shape():
    assert RequestResult("x", 422, {"details": {"causes": [{"reason": "A"}, {}, "x"]}}).causes == {
        "A",
        "None",
    }
    for details in (None, [], "x", {"causes": None}, {}):
        assert RequestResult("x", 422, {"details": details}).causes == set()


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1", "0"])
def test_retry_after_is_kept_to(client: Client, api: faults.Api, value: str):
    api.once("GET", CONFIGMAPS, Fault(429, headers=(("Retry-After", value),)))
    start = time.monotonic()
    assert client.insist("GET", PATH, until=Deadline(10)).status == 404
    assert time.monotonic() - start >= float(value)


def test_a_retry_that_would_come_too_late_is_not_waited_for(client: Client, api: faults.Api):
    api.always("GET", CONFIGMAPS, Fault(429, headers=(("Retry-After", "3600"),)))
    until = Deadline(10)
    assert client.insist("GET", PATH, until=until).status == 429
    assert until.remaining > 5
    assert api.count("GET", CONFIGMAPS) == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_a_retry_after_of_another_form_is_passed_over(client: Client, api: faults.Api, value: str):
    api.once("GET", CONFIGMAPS, Fault(503, headers=(("Retry-After", value),)))
    assert client.insist("GET", PATH, until=Deadline(10)).status == 404


def test_a_server_with_another_certificate_gets_no_request(
    server: tuple[str, int], api: faults.Api, tmp_path: Path
):
    other = Client(Server(*server, faults.make_credentials(tmp_path)))
    with pytest.raises(NoReplyError) as caught:
        other.call("GET", PATH, until=Deadline(10))
    assert not caught.value.sent
    assert api.requests == []


def test_a_server_that_takes_the_connection_and_says_nothing_costs_a_part_of_the_time(credentials: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(Server("127.0.0.1", silent.getsockname()[1], credentials))
        until = Deadline(0.3)
        with pytest.raises(NoReplyError) as caught:
            client.call("GET", PATH, until=until)
        assert not until.over
        assert not caught.value.sent


def test_a_reply_larger_than_any_object_is_not_read_to_its_end(client: Client, api: faults.Api):
    api.put(CONFIGMAPS, "a", data={"x": "y" * (17 << 20)})
    reply = client.call("GET", PATH, until=Deadline(30))
    assert reply.status == 200
    assert reply.body is None


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_missing_credentials_are_an_error_of_their_own(credentials: Path, tmp_path: Path, missing: str):
    for name in {"token", "ca.crt"} - {missing}:
        (tmp_path / name).write_bytes((credentials / name).read_bytes())
    with pytest.raises(NoCredentialsError):
        Client(Server("127.0.0.1", 1, tmp_path))


def test_a_ca_that_is_none_is_an_error_of_its_own(tmp_path: Path):
    (tmp_path / "token").write_text("x")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(NoCredentialsError):
        Client(Server("127.0.0.1", 1, tmp_path))


def test_a_connection_that_was_closed_meanwhile_is_made_again(client: Client, api: faults.Api):
    api.once("GET", CONFIGMAPS, Fault("reset"))
    assert client.insist("GET", PATH, until=Deadline(10)).status == 404
