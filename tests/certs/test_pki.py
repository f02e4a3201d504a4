import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import pki

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = pki.service_names("stepmemo", "memo-system")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def ca() -> pki.Pair:
    return pki.new_ca(NOW)


@pytest.fixture(scope="module")
def server(ca: pki.Pair) -> pki.Pair:
    return pki.new_server(ca, NAMES, NOW)


def certificate(pair: pki.Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_the_names_are_those_that_a_service_answers_to() -> None:
    assert set(NAMES) == {
        "stepmemo.memo-system",
        "stepmemo.memo-system.svc",
        "stepmemo.memo-system.svc.cluster.local",
    }


def test_validity_begins_an_hour_ago_and_lasts_ten_years_for_the_ca_and_one_for_the_server(
    ca: pki.Pair, server: pki.Pair
) -> None:
    assert certificate(ca).not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate(ca).not_valid_after_utc == NOW + 3650 * DAY
    assert certificate(server).not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate(server).not_valid_after_utc == NOW + 365 * DAY


def test_the_server_certificate_serves_the_names_and_can_do_nothing_else(server: pki.Pair) -> None:
    extensions = certificate(server).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(x509.DNSName) == list(NAMES)
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_server_certificate_never_outlives_its_ca(ca: pki.Pair) -> None:
    late = NOW + 3600 * DAY
    server = pki.new_server(ca, NAMES, late)
    assert certificate(server).not_valid_after_utc == certificate(ca).not_valid_after_utc


def test_a_service_name_longer_than_a_common_name_may_be_still_gets_a_certificate(ca: pki.Pair) -> None:
    names = pki.service_names("s" * 63, "n" * 63)
    assert pki.server_flaw(pki.new_server(ca, names, NOW), names) == ""


def test_openssl_accepts_the_chain_under_its_strictest_rules_beside_a_ca_of_the_same_name(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    ca, other = pki.new_ca(now), pki.new_ca(now)
    server = pki.new_server(ca, NAMES, now)
    (tmp_path / "crt").write_bytes(server.certificate)
    (tmp_path / "key").write_bytes(server.key)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    theirs = ssl.create_default_context(cadata=(other.certificate + ca.certificate).decode())
    theirs.verify_flags |= ssl.VERIFY_X509_STRICT
    wire = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(wire[0], wire[1], server_hostname="stepmemo.memo-system.svc")
    peer = ours.wrap_bio(wire[1], wire[0], server_side=True)
    for side in (client, peer, client, peer):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


def test_a_ca_signs_until_its_end_and_not_before_its_beginning(ca: pki.Pair) -> None:
    assert pki.ca_flaw(ca, NOW) == ""
    assert pki.ca_flaw(ca, NOW + 3650 * DAY) == ""
    assert pki.ca_flaw(ca, NOW + 3651 * DAY) == "the CA ended at 2036-02-27T12:00:00Z"
    assert "the CA is valid from 2026-03-01T11:00:00Z on" in pki.ca_flaw(ca, NOW - DAY)
    assert pki.made_at(ca.certificate) == NOW
    assert pki.ends_at(ca.certificate) == NOW + 3650 * DAY


def test_a_certificate_for_other_names_is_replaced(server: pki.Pair) -> None:
    other = pki.service_names("stepmemo", "elsewhere")
    assert "does not name stepmemo.elsewhere, stepmemo.elsewhere.svc" in pki.server_flaw(server, other)


def test_the_ca_that_signed_a_certificate_is_found_among_others(ca: pki.Pair, server: pki.Pair) -> None:
    other = pki.new_ca(NOW)
    assert pki.issuer(server.certificate, [other.certificate, ca.certificate]) == ca.certificate
    assert pki.issuer(server.certificate, [other.certificate, b"junk"]) is None
    assert pki.issuer(b"junk", [ca.certificate]) is None


def test_keys_that_do_not_belong_to_their_certificates_are_told(ca: pki.Pair, server: pki.Pair) -> None:
    assert "does not belong" in pki.ca_flaw(pki.Pair(ca.certificate, server.key), NOW)
    assert "does not belong" in pki.server_flaw(pki.Pair(server.certificate, ca.key), NAMES)


def test_of_a_text_the_cas_are_taken_once_each_and_oldest_first(ca: pki.Pair, server: pki.Pair) -> None:
    older = pki.new_ca(NOW - DAY).certificate
    crlf = b"a remark\r\n" + ca.certificate.replace(b"\n", b"\r\n")
    broken = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
    text = b"".join([ca.certificate, broken, server.certificate, ca.key, older, crlf, b"-----BEGIN"])
    assert pki.authorities(text) == (older, ca.certificate)
    assert pki.authorities(b"") == ()


def test_keys_are_found_for_their_cas_in_any_order(ca: pki.Pair, server: pki.Pair) -> None:
    older, strange = pki.new_ca(NOW - DAY), pki.new_ca(NOW - 2 * DAY)
    keys = b"".join([server.key, ca.key, rsa_key(), b"junk", older.key])
    certificates = ca.certificate + strange.certificate + older.certificate
    assert pki.pairs(certificates, keys) == (older, ca)
    assert pki.pairs(b"", keys) == ()


def rsa_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"]
)
def test_whatever_a_secret_may_hold_is_a_flaw_and_not_a_crash(
    ca: pki.Pair, server: pki.Pair, junk: bytes
) -> None:
    assert pki.ca_flaw(pki.Pair(junk, ca.key), NOW)
    assert pki.ca_flaw(pki.Pair(ca.certificate, junk), NOW)
    assert pki.server_flaw(pki.Pair(junk, server.key), NAMES)
    assert pki.server_flaw(pki.Pair(server.certificate, junk), NAMES)


def test_keys_of_another_kind_or_encrypted_ones_are_a_flaw(ca: pki.Pair, server: pki.Pair) -> None:
    key = serialization.load_pem_private_key(server.key, password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    assert "elliptic" in pki.server_flaw(pki.Pair(server.certificate, rsa_key()), NAMES)
    assert pki.server_flaw(pki.Pair(server.certificate, encrypted), NAMES)


def test_an_address_among_the_names_is_an_address_in_the_certificate() -> None:
    server = pki.new_server(pki.new_ca(NOW), ("127.0.0.1", "localhost"), NOW)
    held = x509.load_pem_x509_certificate(server.certificate).extensions
    names = held.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
