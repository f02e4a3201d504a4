"""The certificate as the keeper has it: read from the Secret that the webhook keeps, and never written."""

import logging
from pathlib import Path

from kubernetes_asyncio.client import ApiClient

from certs import bundle as bundles
from certs.bundle import BrokenBundleError, Bundle
from certs.watched import LOOK_SECONDS, Follower

_log = logging.getLogger(__name__)


class CertificateReader(Follower):
    """Writes what the Secret holds into files, at each change; what is good stays until there is better.

    `problem` is empty once there was a certificate; on a first install the webhook makes it.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        namespace: str,
        secret: str,
        directory: Path,
        retry_seconds: float = 1.0,
    ) -> None:
        super().__init__(api, retry_seconds)
        self._where, self._directory = f"{namespace}/{secret}", directory
        self._secret = self._watch(f"/api/v1/namespaces/{namespace}/secrets", secret)
        self._good: Bundle | None = None
        self._lacking = f"Secret {self._where} has not been read yet"

    async def _sync(self) -> float:
        if self._secret.known and (flaw := self._take_over()):
            _log.warning("certificates: Secret %s: %s", self._where, flaw)
        if self._good:
            if bundles.write(self._good, self._directory):
                _log.info("certificates: wrote files of what Secret %s holds", self._where)
            self._lacking = ""
        return LOOK_SECONDS

    def _take_over(self) -> str:
        """Why what the Secret holds now cannot be served; empty when it is."""
        if self._secret.object is None:
            self._lacking = f"there is no Secret {self._where} yet, which the webhook makes"
            return "it is not there"
        try:
            found = Bundle.from_data(self._secret.object.get("data"))
        except BrokenBundleError as error:
            flaw = str(error)
        else:
            flaw = found.flaw
        if flaw:
            self._lacking = f"Secret {self._where}: {flaw}"
        else:
            self._good = found
        return flaw
