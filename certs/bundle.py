"""Authorities and the serving certificate together: as Secrets' data, as files, and as what follows in time.

CAs overlap in time, and nobody has to agree with anybody: the next one is made known long before it signs,
and stays known until it ends. Whoever has read `ca.crt` or a caBundle within the last 30 days trusts what is
served now. `now` is an argument everywhere, and whether it can be believed the caller's business.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from certs import pki
from server.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, utc_now, validity_flaw

CA_KEY = "ca.key"
"""Key of the Secret that only the webhook reads: the CAs' private keys. Beside it, their certificates."""
NEXT_CA_BEFORE = timedelta(days=60)
"""A next CA is made, and added to `ca.crt`, so long before the last one ends …"""
SIGNS_AFTER = timedelta(days=31)
"""… and signs at this age: 30 days in which every step that read an older `ca.crt` can end, and one until
every replica has the newer one."""
RENEW_BEFORE = timedelta(days=30)
"""A serving certificate this close to its end is replaced, where a later end can be had."""
MOST_AUTHORITIES = 3
"""In `ca.crt`, and of those that a caBundle holds beside it."""
_MOST_SIGNERS = 2


class BrokenBundleError(ValueError):
    """The Secret does not hold what a bundle needs."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the two Secrets hold."""

    signers: tuple[pki.Pair, ...]
    """CAs that we have the keys of, oldest first; none for who may not read them."""
    trusted: tuple[bytes, ...]
    """`ca.crt`: certificates of CAs, oldest first. They are those that a client has to trust."""
    server: pki.Pair
    """The serving certificate, of one of `trusted`."""

    @classmethod
    def from_data(cls, data: Mapping[str, str] | None, signers: tuple[pki.Pair, ...] = ()) -> "Bundle":
        """Read a Secret's `data`; BrokenBundleError says which key is missing or not base64."""
        return cls(
            signers,
            pki.authorities(_decoded(data, AUTHORITY_FILE)),
            pki.Pair(_decoded(data, CERTIFICATE_FILE), _decoded(data, KEY_FILE)),
        )

    def to_data(self) -> dict[str, str]:
        """The `data` of the Secret that both programs read."""
        return _encoded(self._files)

    def signers_to_data(self) -> dict[str, str]:
        """The `data` of the Secret that only the webhook reads."""
        certificates = b"".join(ca.certificate for ca in self.signers)
        return _encoded({AUTHORITY_FILE: certificates, CA_KEY: b"".join(ca.key for ca in self.signers)})

    @property
    def ca_pem(self) -> bytes:
        """What a client has to trust, as one text."""
        return b"".join(self.trusted)

    @property
    def issuer(self) -> bytes | None:
        """Which of `trusted` the serving certificate is from."""
        return pki.issuer(self.server.certificate, self.trusted)

    @property
    def flaw(self) -> str:
        """Why nobody can be served with this, at whatever time and by whatever name; empty when one can."""
        if flaw := pki.server_flaw(self.server, ()):
            return flaw
        return "" if self.issuer else "no CA in ca.crt has signed the certificate"

    @property
    def _files(self) -> dict[str, bytes]:
        return {
            AUTHORITY_FILE: self.ca_pem,
            KEY_FILE: self.server.key,
            CERTIFICATE_FILE: self.server.certificate,
        }


NOTHING = Bundle((), (), pki.Pair(b"", b""))
"""What there is before the first start."""


def signers_from_data(data: Mapping[str, str] | None) -> tuple[pki.Pair, ...]:
    """The CAs in a Secret's `data` whose keys are there too, oldest first; any other is left out."""
    try:
        return pki.pairs(_decoded(data, AUTHORITY_FILE), _decoded(data, CA_KEY))
    except BrokenBundleError:
        return ()


def new(names: Sequence[str], now: datetime) -> Bundle:
    """A new authority and a certificate by it."""
    return renewed(NOTHING, names, now)[0]


def provisional() -> tuple[bytes, bytes]:
    """A certificate and its key that nobody trusts: a server answers probes with it until it has another."""
    server = new(["stepmemo"], utc_now()).server
    return server.certificate, server.key


def renewed(bundle: Bundle, names: Sequence[str], now: datetime) -> tuple[Bundle, str]:
    """The bundle to use from now on, and why it is another one; the same bundle and "" when it is sound."""
    why = []
    # 1. CAs that can sign: there is always one that will for some time yet.
    signers = tuple(ca for ca in bundle.signers if not pki.ca_flaw(ca, now))
    if all(pki.ends_at(ca.certificate) <= now + NEXT_CA_BEFORE for ca in signers):
        why.append("a next CA is due" if signers else "there was no CA to sign with")
        signers += (pki.new_ca(now),)
    signers = signers[-_MOST_SIGNERS:]
    known = [ca.certificate for ca in signers]
    # 2. The serving certificate. A new one is by the newest CA that everybody knows by now.
    issuer = pki.issuer(bundle.server.certificate, [*bundle.trusted, *known])
    signer = next((ca for ca in reversed(signers) if _is_long_known(ca, bundle, now)), signers[0])
    server = bundle.server
    if flaw := _server_flaw(server, issuer, signer, names, now):
        server, issuer = pki.new_server(signer, names, now), signer.certificate
        why.append(flaw)
    # 3. What has to be trusted.
    trusted = _valid(dict.fromkeys([*known, *filter(None, [issuer])]), bundle.trusted, MOST_AUTHORITIES, now)
    if trusted != bundle.trusted:
        why.append("other CAs are to be trusted")
    if not why and signers != bundle.signers:
        why.append("a CA's key is of no use any more")
    return Bundle(signers, trusted, server), "; ".join(why)


def to_trust(needed: Iterable[bytes], found: bytes, now: datetime) -> tuple[bytes, ...]:
    """What a caBundle that holds `found` (PEM) has to hold: `needed`, and the CAs of `found` that are valid.

    Another replica may still serve by one of these, and other API servers may not know ours yet. Of them the
    newest MOST_AUTHORITIES stay.
    """
    ours = dict.fromkeys(needed)
    return _valid(ours, pki.authorities(found), len(ours) + MOST_AUTHORITIES, now)


def write(bundle: Bundle, directory: Path) -> bool:
    """Bring the files to serve from up to date, each whole and for its owner alone; whether any was not.

    OSError where that fails.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    parts = bundle._files.items()
    stale = {name: content for name, content in parts if _content(directory / name) != content}
    for name, content in stale.items():
        aside = directory / f".{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        aside.touch(mode=0o600, exist_ok=False)
        aside.write_bytes(content)
        aside.replace(directory / name)
    return bool(stale)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _is_long_known(ca: pki.Pair, bundle: Bundle, now: datetime) -> bool:
    return ca.certificate in bundle.trusted and pki.made_at(ca.certificate) + SIGNS_AFTER <= now


def _server_flaw(
    server: pki.Pair, issuer: bytes | None, signer: pki.Pair, names: Sequence[str], now: datetime
) -> str:
    """Why the certificate has to be replaced; empty when it serves for a while yet."""
    if not server.certificate:
        return "there was no certificate"
    if flaw := pki.server_flaw(server, names):
        return flaw
    if issuer is None:
        return "no CA that is trusted has signed the certificate"
    for what, certificate in (("the certificate", server.certificate), ("its CA", issuer)):
        if flaw := validity_flaw(what, x509.load_pem_x509_certificate(certificate), now):
            return flaw
    end = pki.ends_at(server.certificate)
    if end <= now + RENEW_BEFORE and end < pki.ends_at(signer.certificate):
        return f"the certificate ends at {end:%Y-%m-%dT%H:%M:%SZ}"
    return ""


def _valid(
    needed: Mapping[bytes, None], others: Sequence[bytes], most: int, now: datetime
) -> tuple[bytes, ...]:
    """`needed` and, of `others`, the newest that have not ended, up to `most` in all; all oldest first."""
    newest_first = [ca for ca in reversed(others) if ca not in needed and pki.ends_at(ca) > now]
    return pki.authorities(b"".join([*needed, *newest_first[: max(0, most - len(needed))]]))


def _decoded(data: Mapping[str, str] | None, name: str) -> bytes:
    try:
        return base64.b64decode((data or {})[name], validate=True)
    except KeyError:
        raise BrokenBundleError(f"{name} is missing") from None
    except (binascii.Error, TypeError, ValueError) as error:
        raise BrokenBundleError(f"{name} is not base64: {error}") from None


def _encoded(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in parts.items()}
