"""The serving certificate: read from files, swapped without a restart when they change.

A context that is already serving must not be edited: loading a new certificate beside the old key fails and
breaks later handshakes. So the server listens on an outer context that holds no certificate, and its
`sni_callback` (OpenSSL calls it for clients without SNI as well) hands every connection the newest good one.
"""

import asyncio
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_log = logging.getLogger(__name__)

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
AUTHORITY_FILE = "ca.crt"
"""Names of the files, as in a Secret of type kubernetes.io/tls, mounted or written by us."""
POLL_SECONDS = 1.0
"""A mounted Secret changes by a swap of symbolic links, which file events miss: contents are compared."""
TRUST_SECONDS = 3600.0
"""So long a CA is trusted after it has left the file: a kubelet may show another file minutes later."""
MOST_AUTHORITY_BYTES = 16 * 1024
"""Of a file with CAs: all of it stands in variables of each injected container, of 128 KiB at most."""
_MOST_FORMER = 3
"""CAs that have left the file and are still trusted, at most."""
_UNREADABLE = (OSError, ValueError, x509.InvalidVersion)
"""What is raised of files that cannot be used; ssl.SSLError is an OSError."""
_NOEXEC_SEAL = 8
"""MFD_NOEXEC_SEAL of memfd_create(2), which `os` has not; a node may demand it (sysctl vm.memfd_noexec)."""
_VERSION = "..data"
"""The symbolic link by which the kubelet changes all files of a mounted volume at once (AtomicWriter in
k8s.io/kubernetes/pkg/volume/util): each file is a link through it."""


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


class _Files:
    """Files of a directory, of which the last good ones stay; what is wrong with newer ones is said once."""

    def __init__(self, what: str, directory: Path, on_flaw: Callable[[], object]) -> None:
        self._directory, self._on_flaw = directory, on_flaw
        self._none_yet = f"no {what} in {directory} yet"
        self.problem = self._none_yet
        """Why the files as they are now cannot be used; empty when they are."""

    def _flawed(self, doing: str, flaw: Exception, *, has_others: bool) -> None:
        """Note why it is that `doing` fails, and whether there are good ones from before."""
        if isinstance(flaw, FileNotFoundError) and not has_others:  # not there yet is no flaw
            problem, level = f"{self._none_yet}: there is no {Path(flaw.filename).name}", logging.INFO
        else:
            problem, level = f"cannot {doing}: {flaw}", logging.WARNING
        if problem != self.problem:
            _log.log(level, "%s", problem)
            if level == logging.WARNING:
                self._on_flaw()
        self.problem = problem


class ServingCertificate(_Files):
    """What the server listens with: `context` for the socket, `reload` when the files may have changed.

    `meanwhile` is served until there is something in the files: a certificate and its key, PEM, that nobody
    trusts, so that probes are answered. `on_flaw` hears of each time that files are found which cannot be
    served.
    """

    def __init__(
        self,
        directory: Path,
        now: Callable[[], datetime] = utc_now,
        *,
        meanwhile: tuple[bytes, bytes] | None = None,
        on_flaw: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__("certificate", directory, on_flaw)
        self._now = now
        self._certificate, self._key = directory / CERTIFICATE_FILE, directory / KEY_FILE
        self._newest = _context(*meanwhile) if meanwhile else None
        self._served: x509.Certificate | None = None
        self._seen = b""
        self.context = _bare_context()
        self.context.sni_callback = self._hand_over

    @property
    def unready(self) -> str:
        """Why no client would take what is served: it is not valid now, or nothing is; empty if one would."""
        if not self._served:
            return self.problem
        return validity_flaw(f"what was read from {self._certificate}", self._served, self._now())

    @property
    def notice(self) -> str:
        """Why what is served is not what the files hold; empty when it is, or when nothing is served."""
        return self.problem if self._served else ""

    @property
    def expiry(self) -> float:
        """When what is served ends, in seconds since 1970; 0 where nothing is."""
        return self._served.not_valid_after_utc.timestamp() if self._served else 0.0

    def reload(self) -> None:
        """Take over what the files hold now; on any flaw the last good certificate stays.

        Files that are replaced one after the other may not match: they are read again at the next call.
        """
        try:
            certificate, key = _read(self._directory, CERTIFICATE_FILE, KEY_FILE)
            seen = hashlib.sha256(certificate + b"\0" + key).digest()
            if seen == self._seen:
                self.problem = ""
                return
            context, served = _context(certificate, key), self._better(certificate)
        except _UNREADABLE as error:
            doing = f"serve {self._certificate} with {self._key}"
            self._flawed(doing, error, has_others=self._served is not None)
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

    def _better(self, pem: bytes) -> x509.Certificate:
        """A chain's first, the server's own; ValueError where it is not valid now, and what is served is."""
        found = x509.load_pem_x509_certificate(pem)
        if self._served and not self.unready and validity_flaw("", found, self._now()):
            raise ValueError("it is not valid now, and what is served is")
        return found

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> int | None:
        if self._newest is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._newest
        return None


class Authorities(_Files):
    """The CAs in a directory's `ca.crt`, and those that have left it within TRUST_SECONDS.

    Whoever serves by certificates of theirs sees other files later than we do, on another node. On any flaw
    the last good ones stay, and `on_flaw` hears of it. `clock` counts seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_flaw: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(AUTHORITY_FILE, directory, on_flaw)
        self._clock = clock
        self._seen: bytes | None = None
        self._look_again = 0.0
        self._current: tuple[str, ...] = ()
        self._former: dict[str, float] = {}
        """Until when each is trusted; the one that left last stands last."""

    @property
    def pem(self) -> str:
        """All of them, "" until there was one; of the file as it was within POLL_SECONDS."""
        now = self._clock()
        if not self._current or now >= self._look_again:
            self._look(now)
            self._look_again = now + POLL_SECONDS
        return "".join([*self._current, *(ca for ca, until in self._former.items() if until > now)])

    @property
    def notice(self) -> str:
        """Why what is trusted is not what the file holds; empty when it is, or when there is nothing."""
        return self.problem if self._current else ""

    def _look(self, now: float) -> None:
        try:
            (text,) = _read(self._directory, AUTHORITY_FILE)
            if text == self._seen:
                self.problem = ""
                return
            found = _certificates(text)
        except _UNREADABLE as error:
            self._flawed(f"use {self._directory / AUTHORITY_FILE}", error, has_others=bool(self._current))
            return
        left = dict.fromkeys(self._current, now + TRUST_SECONDS)
        former = {ca: until for ca, until in {**self._former, **left}.items() if ca not in found}
        self._former = dict(list(former.items())[-_MOST_FORMER:])
        self._seen, self._current, self.problem = text, found, ""


def _certificates(text: bytes) -> tuple[str, ...]:
    """Each certificate in a PEM text; ValueError: there is none, or too much."""
    if len(text) > MOST_AUTHORITY_BYTES:
        raise ValueError(f"it has {len(text)} bytes, and may have {MOST_AUTHORITY_BYTES}")
    found = x509.load_pem_x509_certificates(text)
    return tuple(each.public_bytes(Encoding.PEM).decode() for each in found)


def _read(directory: Path, *files: str) -> list[bytes]:
    """What these files hold, all of one version where the directory is a volume that the kubelet mounted."""
    while True:
        version = _version(directory)
        try:
            return [(version / file).read_bytes() for file in files]
        except FileNotFoundError:
            if version == _version(directory):  # else it was another one's turn, and this one is gone
                raise


def _version(directory: Path) -> Path:
    link = directory / _VERSION
    return link.resolve() if link.is_symlink() else directory


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """One that serves with these; OSError, ValueError: it cannot."""
    context = _bare_context()
    with _in_memory(certificate) as one, _in_memory(key) as other:
        context.load_cert_chain(one, other, password=_no_password)
    return context


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that holds this: `ssl` takes nothing else, and reading anew may find other files."""
    try:
        memory = os.memfd_create("stepmemo", os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:  # a kernel before 6.3, which does not know the flag
        memory = os.memfd_create("stepmemo")
    with os.fdopen(memory, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, when somebody puts an encrypted key there."""
    raise ValueError("the private key is encrypted")
