"""One authority and one serving certificate together: as a Secret's data, and as files to serve from."""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from certs import pki

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
CA_FILE = "ca.crt"
"""Keys of the Secret (type kubernetes.io/tls, with the `ca.crt` that goes beside it by custom) and names of
the files. The authority's own key stays in the Secret."""
CA_KEY = "ca.key"


class BrokenBundleError(ValueError):
    """The Secret does not hold what a bundle needs."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The authority, and the serving certificate that it signed."""

    ca: pki.Pair
    server: pki.Pair

    @classmethod
    def from_data(cls, data: Mapping[str, str] | None) -> "Bundle":
        """Read a Secret's `data`; BrokenBundleError says which key is missing or not base64."""
        return cls(
            ca=pki.Pair(_decoded(data, CA_FILE), _decoded(data, CA_KEY)),
            server=pki.Pair(_decoded(data, CERTIFICATE_FILE), _decoded(data, KEY_FILE)),
        )

    def to_data(self) -> dict[str, str]:
        """The Secret's `data`."""
        parts = {
            CA_FILE: self.ca.certificate,
            CA_KEY: self.ca.key,
            CERTIFICATE_FILE: self.server.certificate,
            KEY_FILE: self.server.key,
        }
        return {name: base64.b64encode(content).decode() for name, content in parts.items()}

    @property
    def ca_bundle(self) -> str:
        """The value of `clientConfig.caBundle`."""
        return base64.b64encode(self.ca.certificate).decode()


def new(names: Sequence[str], now: datetime) -> Bundle:
    """A new authority and a certificate by it."""
    ca = pki.new_ca(now)
    return Bundle(ca, pki.new_server(ca, names, now))


def renewed(bundle: Bundle, names: Sequence[str], now: datetime) -> tuple[Bundle, str]:
    """The bundle to use from now on, and why it is another one; the same bundle and "" when it is sound.

    A sound authority is kept, so that replicas still on the old certificate stay trusted.
    """
    if flaw := pki.ca_flaw(bundle.ca, now):
        return new(names, now), flaw
    if flaw := pki.server_flaw(bundle.server, bundle.ca, names, now):
        return Bundle(bundle.ca, pki.new_server(bundle.ca, names, now)), flaw
    return bundle, ""


def write(bundle: Bundle, directory: Path) -> None:
    """Write the files to serve from, each whole and readable by its owner alone; OSError where that fails."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in (
        (CA_FILE, bundle.ca.certificate),
        (KEY_FILE, bundle.server.key),
        (CERTIFICATE_FILE, bundle.server.certificate),
    ):
        aside = directory / f".{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        aside.touch(mode=0o600, exist_ok=False)
        aside.write_bytes(content)
        aside.replace(directory / name)


def _decoded(data: Mapping[str, str] | None, name: str) -> bytes:
    try:
        return base64.b64decode((data or {})[name], validate=True)
    except KeyError:
        raise BrokenBundleError(f"{name} is missing") from None
    except (binascii.Error, TypeError) as error:
        raise BrokenBundleError(f"{name} is not base64: {error}") from None
