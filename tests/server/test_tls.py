import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs import bundle as bundles
from certs import pki
from certs.bundle import Bundle
from server.tls import TRUST_SECONDS, Authorities, ServingCertificate
from tests.beside import beside
from tests.waiting import until
from tests.webhook.serving import HOST, certify, files_of, mount, trusting


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


@pytest.mark.slow
async def test_changed_files_are_noticed_by_themselves(tmp_path: Path) -> None:
    certificate = ServingCertificate(tmp_path)
    async with beside(certificate.follow()), listening(certificate) as port:
        bundle = certify(tmp_path)
        await until(lambda: not certificate.unready)
        assert await served(port, trusting(bundle)) == serial(bundle)


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


@pytest.mark.slow
async def test_the_end_of_what_is_served_is_said_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certify(tmp_path)
    looked: list[datetime] = []

    def next_day() -> datetime:
        looked.append(datetime.now(UTC) + timedelta(days=363 + len(looked)))
        return looked[-1]

    certificate = ServingCertificate(tmp_path, next_day)
    async with beside(certificate.follow()):
        await until(lambda: len(looked) > 5)
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


# --- As cert-manager has it mounted -----------------------------------------------------------------


def renewed(bundle: Bundle, *, days: int = 0) -> Bundle:
    """The same authority with another certificate, made so many days from now."""
    now = datetime.now(UTC) + timedelta(days=days)
    return replace(bundle, server=pki.new_server(bundle.signers[0], [HOST], now))


async def test_no_handshake_fails_while_a_mounted_secret_changes(tmp_path: Path) -> None:
    one = certify(tmp_path / "aside")
    another = renewed(one)
    mount(tmp_path / "certs", files_of(one))
    flaws: list[str] = []
    certificate = ServingCertificate(tmp_path / "certs", on_flaw=lambda: flaws.append(certificate.problem))
    certificate.reload()

    def change() -> None:
        for n in range(100):
            mount(tmp_path / "certs", files_of(one if n % 2 else another))

    async with listening(certificate) as port:
        changing, seen = asyncio.create_task(asyncio.to_thread(change)), list[int]()
        while not changing.done():
            certificate.reload()
            seen.append(await served(port, trusting(one)))
        await changing
        certificate.reload()
        assert await served(port, trusting(one)) == serial(one)
    assert set(seen) <= {serial(one), serial(another)}
    assert flaws == [], "a certificate of one version was read with a key of another"


FLAWS: dict[str, Callable[[Bundle], dict[str, bytes]]] = {
    "another key": lambda good: {**files_of(good), "tls.key": renewed(good).server.key},
    "no key": lambda good: {"tls.crt": renewed(good).server.certificate},
    "nothing any more": lambda good: {},
    "half a certificate": lambda good: {**files_of(good), "tls.crt": good.server.certificate[:200]},
    "a key that is none": lambda good: {**files_of(good), "tls.key": b"junk"},
    "one that has ended": lambda good: files_of(renewed(good, days=-400)),
    "one that is not valid yet": lambda good: files_of(renewed(good, days=2)),
}


@pytest.mark.parametrize("flawed", FLAWS.values(), ids=FLAWS)
async def test_what_cannot_be_served_is_said_and_counted_once_and_the_good_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flawed: Callable[[Bundle], dict[str, bytes]]
) -> None:
    good, flaws = certify(tmp_path / "aside"), list[None]()
    mount(tmp_path / "certs", files_of(good))
    certificate = ServingCertificate(tmp_path / "certs", on_flaw=lambda: flaws.append(None))
    certificate.reload()
    ends = certificate.expiry
    mount(tmp_path / "certs", flawed(good))
    for _ in range(3):
        certificate.reload()
    assert len(flaws) == caplog.text.count("cannot serve") == 1
    assert certificate.notice.startswith(f"cannot serve {tmp_path / 'certs' / 'tls.crt'} with ")
    assert (certificate.unready, certificate.expiry) == ("", ends)
    async with listening(certificate) as port:
        assert await served(port, trusting(good)) == serial(good)
        mended = renewed(good)
        mount(tmp_path / "certs", files_of(mended))
        certificate.reload()
        assert certificate.notice == ""
        assert await served(port, trusting(good)) == serial(mended)


async def test_until_there_is_a_secret_probes_are_answered_and_it_says_what_it_waits_for(
    tmp_path: Path,
) -> None:
    flaws, directory = list[None](), tmp_path / "certs"
    mount(directory, {})
    certificate = ServingCertificate(
        directory, meanwhile=bundles.provisional(), on_flaw=lambda: flaws.append(None)
    )
    probe = ssl.create_default_context()
    probe.check_hostname, probe.verify_mode = False, ssl.CERT_NONE
    async with listening(certificate) as port:
        certificate.reload()
        assert await served(port, probe, None)
        assert certificate.unready == f"no certificate in {directory} yet: there is no tls.crt"
        assert (certificate.notice, certificate.expiry, flaws) == ("", 0, [])
        issued = certify(tmp_path / "aside")
        mount(directory, files_of(issued))
        certificate.reload()
        assert certificate.unready == ""
        assert await served(port, trusting(issued)) == serial(issued)


async def test_what_cert_manager_makes_by_default_is_served_and_trusted(
    tmp_path: Path,
) -> None:
    """An RSA key in PKCS #1, no subject, and so alternative names that are critical (RFC 5280, 4.2.1.6)."""
    ca = certify(tmp_path / "aside").signers[0]
    issuer, now = x509.load_pem_x509_certificate(ca.certificate), datetime.now(UTC)
    signer = serialization.load_pem_private_key(ca.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=True)
        .sign(signer, hashes.SHA256())
    )
    form, pem = serialization.PrivateFormat.TraditionalOpenSSL, serialization.Encoding.PEM
    files = {
        "tls.crt": made.public_bytes(pem),
        "tls.key": key.private_bytes(pem, form, serialization.NoEncryption()),
        "ca.crt": ca.certificate,
    }
    mount(tmp_path / "certs", files)
    certificate = ServingCertificate(tmp_path / "certs")
    certificate.reload()
    step = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as the sidecar has it
    step.load_verify_locations(cadata=Authorities(tmp_path / "certs").pem)
    async with listening(certificate) as port:
        assert await served(port, step) == made.serial_number


# --- Whom steps trust -------------------------------------------------------------------------------


@dataclass
class Trusted:
    """Authorities of a mounted file, at a time of the test's own."""

    directory: Path
    seconds: float = 1000.0
    flaws: int = 0

    def __post_init__(self) -> None:
        self.authorities = Authorities(self.directory, on_flaw=self.count, clock=lambda: self.seconds)

    def count(self) -> None:
        self.flaws += 1

    def after(self, seconds: float, *cas: bytes) -> list[bytes]:
        """Which are trusted so many seconds later, when the file holds these."""
        mount(self.directory, {"ca.crt": b"a remark\n".join(cas)})
        return self.later(seconds)

    def later(self, seconds: float) -> list[bytes]:
        self.seconds += seconds
        text = self.authorities.pem
        return [
            ca.public_bytes(serialization.Encoding.PEM)
            for ca in x509.load_pem_x509_certificates(text.encode())
        ]


@pytest.fixture(scope="module")
def cas() -> list[bytes]:
    now = datetime.now(UTC)
    return [pki.new_ca(now + timedelta(days=n)).certificate for n in range(6)]


def test_a_ca_that_has_left_the_file_is_trusted_for_an_hour_more(tmp_path: Path, cas: list[bytes]) -> None:
    trusted, (old, new, *_) = Trusted(tmp_path), cas
    assert trusted.after(0, old) == [old]
    assert trusted.after(86_400, new) == [new, old]
    assert trusted.later(TRUST_SECONDS - 2) == [new, old]
    assert trusted.later(4) == [new]
    assert trusted.after(10, old, new) == [old, new], "one that comes back is one of the file's"
    assert trusted.after(10, old) == [old, new]


def test_a_file_that_changes_all_the_time_has_three_former_cas_at_most(
    tmp_path: Path, cas: list[bytes]
) -> None:
    trusted = Trusted(tmp_path)
    for ca in cas:
        shown = trusted.after(2, ca)
    assert shown == [cas[5], *cas[2:5]]


def of_no_version() -> bytes:
    """A certificate that says it is of version 8."""
    pem = pki.new_ca(datetime.now(UTC)).certificate
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    der = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    return ssl.DER_cert_to_PEM_cert(der).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"", "Unable to load PEM file"),
        (b"junk", "Unable to load PEM file"),
        (b"-----BEGIN CERTIFICATE-----\nanVuaw==\n-----END CERTIFICATE-----\n", "error parsing asn1 value"),
        (of_no_version(), "7 is not a valid X509 version"),
        (b"x" * 20_000, "it has 20000 bytes, and may have 16384"),
    ],
    ids=["gone", "empty", "junk", "no-certificate", "no-version", "too-large"],
)
def test_a_file_that_names_no_ca_is_said_and_counted_once_and_changes_nothing(
    tmp_path: Path, cas: list[bytes], caplog: pytest.LogCaptureFixture, text: bytes | None, said: str
) -> None:
    trusted = Trusted(tmp_path)
    assert trusted.after(0, cas[0]) == [cas[0]]
    mount(tmp_path, {} if text is None else {"ca.crt": text})
    assert [trusted.later(10) for _ in range(3)] == [[cas[0]]] * 3
    assert said in trusted.authorities.notice
    assert trusted.flaws == caplog.text.count("cannot use") == 1
    assert trusted.after(10, cas[1]) == [cas[1], cas[0]]
    assert trusted.authorities.notice == ""


def test_a_file_that_is_not_there_yet_is_no_flaw(tmp_path: Path, cas: list[bytes]) -> None:
    trusted = Trusted(tmp_path)
    assert trusted.authorities.pem == ""
    assert trusted.authorities.problem == f"no ca.crt in {tmp_path} yet: there is no ca.crt"
    assert (trusted.authorities.notice, trusted.flaws) == ("", 0)
    assert trusted.after(0, cas[0]) == [cas[0]], "it is looked for at once, not a second later"


async def test_a_step_that_begins_while_the_keepers_ca_changes_trusts_either_replica(tmp_path: Path) -> None:
    old, new = certify(tmp_path / "old"), certify(tmp_path / "new")
    trusted = Trusted(tmp_path / "certs")
    trusted.after(0, old.ca_pem)
    trusted.after(60, new.ca_pem)
    step = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    step.load_verify_locations(cadata=trusted.authorities.pem)
    for replica, directory in ((old, "old"), (new, "new")):
        certificate = ServingCertificate(tmp_path / directory)
        certificate.reload()
        async with listening(certificate) as port:
            assert await served(port, step) == serial(replica)
