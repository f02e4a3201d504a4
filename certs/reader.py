"""The certificate as the keeper has it: read from the Secret that the webhook keeps, and never written."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

from kubernetes_asyncio.client import ApiClient

from certs import bundle as bundles
from certs.bundle import BrokenBundleError, Bundle
from kube import client
from kube.errors import ApiError

_log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds from one look at the Secret to the next."""
REQUEST_TIMEOUT = 10.0


class CertificateReader:
    """Writes what the Secret holds into files; what is good stays until there is better.

    `problem` is empty once there was a certificate; on a first install the webhook makes it.
    """

    def __init__(self, api: ApiClient, *, namespace: str, secret: str, directory: Path) -> None:
        self._api, self._directory = api, directory
        self._where = f"{namespace}/{secret}"
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
        self._good: Bundle | None = None
        self.problem = f"Secret {self._where} has not been read yet"
        # Nobody trusts this one: it is there for probes, until the API server has answered.
        bundles.write(bundles.new([secret], datetime.now(UTC)), directory)

    async def run(self) -> None:
        """Follow the Secret for ever; every error is said in the log and tried again."""
        while True:
            try:
                secret = await client.request(self._api, "GET", self._path, seconds=REQUEST_TIMEOUT)
                self._take_over(Bundle.from_data(secret.get("data")))
            except (ApiError, BrokenBundleError, OSError) as error:
                problem = f"Secret {self._where}: {error}"
                if self._good is None and problem != self.problem:
                    self.problem = problem
                    _log.warning("certificates: %s", problem)
            await asyncio.sleep(PAUSE)

    def _take_over(self, found: Bundle) -> None:
        if found != self._good:
            bundles.write(found, self._directory)
            self._good, self.problem = found, ""
            _log.info("certificates: wrote files of what Secret %s holds", self._where)
