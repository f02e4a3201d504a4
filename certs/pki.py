"""Certificate authorities and the serving certificate; pure, time comes in as `now`.

The API server trusts what `clientConfig.caBundle` of a webhook configuration holds and nothing else, so an
authority is ours alone and signs one thing: a certificate for the names of our Services.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.tls import validity_flaw

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
BACKDATED = timedelta(hours=1)
"""How far before `now` validity begins: clocks of nodes differ."""
_CURVE = ec.SECP256R1()
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----\s.*?-----END \1-----", re.DOTALL)
"""What stands between the blocks of a PEM text (RFC 7468) means nothing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key (PKCS #8, not encrypted), both PEM."""

    certificate: bytes
    key: bytes


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """The DNS names of a Service; the API server calls a webhook as `<service>.<namespace>.svc`."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
    )


def new_ca(now: datetime) -> Pair:
    """A self-signed authority that may sign serving certificates and no further authorities."""
    key = ec.generate_private_key(_CURVE)
    name = _name("stepmemo CA")
    builder = (
        _unsigned(name, name, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def new_server(ca: Pair, names: Sequence[str], now: datetime) -> Pair:
    """A certificate for DNS names or IP addresses (at least one), signed by `ca` and never outliving it.

    ValueError where `ca` is not a certificate and a private key that can sign.
    """
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    issuer_key = _private_key(ca.key)
    key = ec.generate_private_key(_CURVE)
    end = min(now + SERVER_LIFE, issuer.not_valid_after_utc)
    builder = (
        _unsigned(_name(names[0]), issuer.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    return Pair(_pem(builder.sign(issuer_key, hashes.SHA256())), _key_pem(key))


def authorities(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of CAs among these PEM blocks, each once and in our own writing, oldest first.

    What cannot be read, or is no CA, is left out.
    """
    found = {}
    for block in _BLOCK.finditer(pem):
        try:
            certificate = x509.load_pem_x509_certificate(block.group())
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, x509.ExtensionNotFound):
            continue
        if basic.ca:
            found[_pem(certificate)] = certificate.not_valid_before_utc
    return tuple(sorted(found, key=lambda one: (found[one], one)))


def pairs(certificates: bytes, keys: bytes) -> tuple[Pair, ...]:
    """The CAs among the one text's PEM blocks whose keys are among the other's, oldest first."""
    by_public_key = {}
    for block in _BLOCK.finditer(keys):
        try:
            key = _private_key(block.group())
        except ValueError:
            continue
        by_public_key[key.public_key().public_numbers()] = _key_pem(key)
    found = []
    for authority in authorities(certificates):
        public_key = x509.load_pem_x509_certificate(authority).public_key()
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            key_pem = by_public_key.get(public_key.public_numbers())
            found += [Pair(authority, key_pem)] if key_pem else []
    return tuple(found)


def made_at(certificate: bytes) -> datetime:
    """When we made a certificate, by the clock that we made it with."""
    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc + BACKDATED


def ends_at(certificate: bytes) -> datetime:
    """The last moment of its validity."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def ca_flaw(ca: Pair, now: datetime) -> str:
    """Why this authority can sign nothing at this moment; empty when it can."""
    try:
        certificate = x509.load_pem_x509_certificate(ca.certificate)
        belongs = _private_key(ca.key).public_key() == certificate.public_key()
    except ValueError as error:
        return f"the CA cannot be read: {error}"
    if not belongs:
        return "the CA's key does not belong to its certificate"
    return validity_flaw("the CA", certificate, now)


def issuer(certificate: bytes, among: Iterable[bytes]) -> bytes | None:
    """Which of these CAs signed the certificate."""
    try:
        signed = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return None
    for authority in among:
        try:
            signed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        except Exception:
            continue
        return authority
    return None


def server_flaw(server: Pair, names: Sequence[str]) -> str:
    """Why nobody can be served with this certificate and key, whatever the time; empty when `names` can."""
    try:
        certificate = x509.load_pem_x509_certificate(server.certificate)
        belongs = _private_key(server.key).public_key() == certificate.public_key()
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "the certificate names no host"
    except ValueError as error:
        return f"the certificate cannot be used: {error}"
    if not belongs:
        return "the key does not belong to the certificate"
    if missing := sorted(set(names) - set(held.get_values_for_type(x509.DNSName))):
        return f"the certificate does not name {', '.join(missing)}"
    return ""


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    # A common name holds 64 characters (RFC 5280, ub-common-name); clients read the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:  # an encrypted key
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the private key is not an elliptic-curve key")  # noqa: TRY004 — what it holds is wrong
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
