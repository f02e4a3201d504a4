"""A certificate authority and a serving certificate for one run of an API server on this host, in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from certs import pki

_NAMES = ("127.0.0.1", "localhost", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Pair:
    """Files in PEM: the authority, and the certificate that it signed with its key."""

    ca: Path
    certificate: Path
    key: Path


def create(directory: Path, more_names: Sequence[str] = ()) -> Pair:
    """Write a fresh authority and a certificate for this host's loopback names and more into a directory."""
    now = datetime.now(UTC)
    ca = pki.new_ca(now)
    server = pki.new_server(ca, (*_NAMES, *more_names), now)
    pair = Pair(directory / "ca.crt", directory / "tls.crt", directory / "tls.key")
    _write(pair.ca, ca.certificate)
    _write(pair.certificate, server.certificate)
    _write(pair.key, _sec1(server.key))
    return pair


def _sec1(pkcs8: bytes) -> bytes:
    """The same key in the older form: a kube-apiserver signs tokens with it too, and reads no other there."""
    key = serialization.load_pem_private_key(pkcs8, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
