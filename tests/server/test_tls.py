import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.bundle import Bundle
from server.tls import ServingCertificate
from tests.waiting import until
from tests.webhook.serving import HOST, certify, trusting


@asynccontextmanager
async def listening(certificate: ServingCertificate) -> AsyncIterator[int]:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def served(port: int, context: ssl.SSLContext, name: str | None = HOST) -> int:
    """The serial number of the certificate that the server shows."""
    context.check_hostname = name is not None
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or "")
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(shown).serial_number


def serial(bundle: Bundle) -> int:
    return x509.load_pem_x509_certificate(bundle.server.certificate).serial_number


async def test_it_serves_what_the_directory_holds_with_and_without_sni(tmp_path: Path) -> None:
    bundle = certify(tmp_path)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    assert certificate.unready == ""
    assert certificate.problem == ""
    async with listening(certificate) as port:
        assert await served(port, trusting(bundle)) == serial(bundle)
        assert await served(port, trusting(bundle), None) == serial(bundle)


async def test_a_new_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    old = certify(tmp_path)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    async with listening(certificate) as port:
        assert await served(port, trusting(old)) == serial(old)
        new = certify(tmp_path)
        certificate.reload()
        assert await served(port, trusting(new)) == serial(new)
        with pytest.raises(ssl.SSLCertVerificationError):
            await served(port, trusting(old))


async def test_changed_files_are_noticed_by_themselves(tmp_path: Path) -> None:
    certificate = ServingCertificate(tmp_path)
    follow = asyncio.create_task(certificate.follow())
    async with listening(certificate) as port:
        bundle = certify(tmp_path)
        await until(lambda: not certificate.unready)
        assert await served(port, trusting(bundle)) == serial(bundle)
    follow.cancel()


async def test_a_half_written_pair_leaves_the_last_good_one_and_is_read_again(tmp_path: Path) -> None:
    old = certify(tmp_path)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    async with listening(certificate) as port:
        new = certify(tmp_path / "aside", authority=old)
        (tmp_path / "tls.crt").write_bytes(new.server.certificate)
        certificate.reload()
        assert "cannot serve" in certificate.problem
        assert await served(port, trusting(old)) == serial(old)
        (tmp_path / "tls.key").write_bytes(new.server.key)
        certificate.reload()
        assert certificate.problem == ""
        assert await served(port, trusting(old)) == serial(new)


@pytest.mark.parametrize("junk", ["", "junk"])
def test_files_that_are_none_are_a_problem_in_words(tmp_path: Path, junk: str) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text(junk)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    assert str(tmp_path / "tls.crt") in certificate.problem
    assert certificate.unready == certificate.problem


def test_an_encrypted_key_is_a_problem_and_not_a_question_on_the_terminal(tmp_path: Path) -> None:
    bundle = certify(tmp_path)
    key = serialization.load_pem_private_key(bundle.server.key, password=None)
    (tmp_path / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    assert "the private key is encrypted" in certificate.problem


async def test_without_a_certificate_a_handshake_fails_and_the_next_one_may_not(tmp_path: Path) -> None:
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    assert "no certificate" in certificate.problem or "cannot serve" in certificate.problem
    async with listening(certificate) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served(port, trusting(certify(tmp_path / "elsewhere")))
        bundle = certify(tmp_path)
        certificate.reload()
        assert await served(port, trusting(bundle)) == serial(bundle)


async def test_tls_before_1_2_is_refused(tmp_path: Path) -> None:
    bundle = certify(tmp_path)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    old = trusting(bundle)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with listening(certificate) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served(port, old)
        new = trusting(bundle)
        new.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await served(port, new) == serial(bundle)


@pytest.mark.parametrize(
    ("days", "said"), [(-1, "is valid from"), (0, ""), (364, ""), (366, "ended at"), (4000, "ended at")]
)
def test_what_is_not_valid_now_is_told_whatever_served_before(tmp_path: Path, days: int, said: str) -> None:
    bundle = certify(tmp_path)
    now = datetime.now(UTC) + timedelta(days=days)
    certificate = ServingCertificate(tmp_path, lambda: now)
    certificate.reload()
    assert certificate.problem == ""
    assert said in certificate.unready
    assert bool(said) == bool(certificate.unready)
    end = x509.load_pem_x509_certificate(bundle.server.certificate).not_valid_after_utc
    assert certificate.expiry == end.timestamp()


async def test_the_end_of_what_is_served_is_said_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certify(tmp_path)
    looked: list[datetime] = []

    def next_day() -> datetime:
        looked.append(datetime.now(UTC) + timedelta(days=363 + len(looked)))
        return looked[-1]

    certificate = ServingCertificate(tmp_path, next_day)
    follow = asyncio.create_task(certificate.follow())
    await until(lambda: len(looked) > 5)
    follow.cancel()
    assert caplog.text.count("not ready: what was read from") == 1


def test_without_a_certificate_nothing_ends(tmp_path: Path) -> None:
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    assert certificate.expiry == 0


def test_a_flaw_of_newer_files_does_not_count_while_an_older_certificate_is_good(tmp_path: Path) -> None:
    certify(tmp_path)
    certificate = ServingCertificate(tmp_path)
    certificate.reload()
    (tmp_path / "tls.crt").write_text("junk")
    certificate.reload()
    assert certificate.problem
    assert certificate.unready == ""
