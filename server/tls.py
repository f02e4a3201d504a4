"""The serving certificate: read from files, swapped without a restart when they change.

A context that is already serving must not be edited: loading a new certificate beside the old key fails and
breaks later handshakes. So the server listens on an outer context that holds no certificate, and its
`sni_callback` (OpenSSL calls it for clients without SNI as well) hands every connection the newest good one.
"""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

_log = logging.getLogger(__name__)

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
AUTHORITY_FILE = "ca.crt"
"""Names of the files, as in a Secret of type kubernetes.io/tls, mounted or written by us."""
POLL_SECONDS = 1.0
"""A mounted Secret changes by a swap of symbolic links, which file events miss: contents are compared."""


def utc_now() -> datetime:
    """What a certificate's times are compared with."""
    return datetime.now(UTC)


def validity_flaw(what: str, certificate: x509.Certificate, now: datetime) -> str:
    """Why the certificate, which the sentence calls `what`, is not valid at this moment; empty when it is."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"{what} is valid from {begin:%Y-%m-%dT%H:%M:%SZ} on, and it is {now:%Y-%m-%dT%H:%M:%SZ}"
    if end < now:
        return f"{what} ended at {end:%Y-%m-%dT%H:%M:%SZ}"
    return ""


class ServingCertificate:
    """What the server listens with: `context` for the socket, `reload` when the files may have changed."""

    def __init__(self, directory: Path, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._certificate, self._key = directory / CERTIFICATE_FILE, directory / KEY_FILE
        self._authority = directory / AUTHORITY_FILE
        self._newest: ssl.SSLContext | None = None
        self._served: x509.Certificate | None = None
        self._seen = b""
        self.problem = f"no certificate in {directory} yet"
        """Why the files as they are now cannot be served; empty when they are."""
        self.context = _context()
        self.context.sni_callback = self._hand_over

    @property
    def authority(self) -> str:
        """PEM of who signed the certificate, "" where the files do not say: what a client has to trust."""
        try:
            return self._authority.read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""

    @property
    def unready(self) -> str:
        """Why no client would take what is served: it is not valid now, or nothing is; empty if one would."""
        if not self._served:
            return self.problem
        return validity_flaw(f"what was read from {self._certificate}", self._served, self._now())

    @property
    def expiry(self) -> float:
        """When what is served ends, in seconds since 1970; 0 where nothing is."""
        return self._served.not_valid_after_utc.timestamp() if self._served else 0.0

    def reload(self) -> None:
        """Take over what the files hold now; on any flaw the last good certificate stays.

        The two files are not replaced in one step: a pair that does not match is read again at the next call.
        """
        try:
            text = self._certificate.read_bytes()
            seen = hashlib.sha256(text + b"\0" + self._key.read_bytes()).digest()
            if seen == self._seen:
                return
            context = _context()
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            served = x509.load_pem_x509_certificate(text)  # the first of a chain is the server's own
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._flawed(f"cannot serve {self._certificate} with {self._key}: {error}")
            return
        self._newest, self._served, self._seen, self.problem = context, served, seen, ""
        _log.info("serving the certificate in %s", self._certificate)

    async def follow(self) -> None:
        """Reload for ever, whenever the files have changed; and say in the log when what is served ends."""
        was_valid = True
        while True:
            self.reload()
            is_valid = not self._served or not self.unready
            if was_valid and not is_valid:
                _log.warning("not ready: %s", self.unready)
            was_valid = is_valid
            await asyncio.sleep(POLL_SECONDS)

    def _flawed(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> int | None:
        if self._newest is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._newest
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, when somebody puts an encrypted key there."""
    raise ValueError("the private key is encrypted")
