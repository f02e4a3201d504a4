"""Keeps the Secret, the files and the webhook configuration's caBundle in step.

The Secret is the truth: whoever creates it first wins, and every replica serves what it holds. A replica
starts on a bundle of its own, so that it can listen (and answer probes) before the API server has answered;
nobody trusts that one until it has become the Secret.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes_asyncio.client import ApiClient

from certs import bundle as bundles
from certs.bundle import BrokenBundleError, Bundle
from kube import client
from kube.backoff import Backoff
from kube.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from kube.jsonpatch import Op, add, test

_log = logging.getLogger(__name__)

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
MANAGER = "stepmemo-webhook"
"""Our field manager: `kubectl apply --server-side` of a manifest without caBundle then leaves ours alone."""
REQUEST_TIMEOUT = 10.0
"""Seconds for one request; nobody waits for these but us."""
WATCH_SECONDS = 300
"""Length of one watch. At its end everything is compared anew, so this is also how late a certificate that
another replica renewed, or a Secret that somebody deleted, is noticed."""
_LONGEST_PAUSE = 32
"""The most that the pause between attempts grows to, in multiples of the first."""
_REFUSALS = (Forbidden, NotFound, Invalid)
"""Answers that say our rights or the cluster's objects are not as they must be; others (a time-out, a 409,
410 or 5xx) pass, and leave what is in place as good as it was."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Certificates:
    """The serving certificate of one replica, and what keeps it trusted.

    `problem` is empty once the files come from the Secret and every webhook of the configuration names
    their authority; else it says what is in the way, for /readyz.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        namespace: str,
        secret: str,
        configuration: str,
        names: Sequence[str],
        directory: Path,
        now: Callable[[], datetime] = _utc_now,
        retry_seconds: float = 1.0,
    ) -> None:
        self._api = api
        self._secret = f"{namespace}/{secret}"
        self._secrets_path = f"/api/v1/namespaces/{namespace}/secrets"
        self._secret_path = f"{self._secrets_path}/{secret}"
        self._secret_metadata = {
            "name": secret,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "stepmemo", "app.kubernetes.io/component": "webhook"},
        }
        self._configuration = configuration
        self._names, self._directory = names, directory
        self._now = now
        self._backoff = Backoff(retry_seconds, retry_seconds * _LONGEST_PAUSE)
        self._held = bundles.new(names, now())
        bundles.write(self._held, directory)
        self.problem = f"Secret {self._secret} has not been read yet"

    async def run(self) -> None:
        """Follow the configuration for ever; every error is said in the log and tried again."""
        while True:
            try:
                await self._follow()
                self._backoff.reset()
                continue
            except ApiError as error:
                self._failed(_explained(error), refused=isinstance(error, _REFUSALS))
            except Exception as error:
                _log.exception("certificates: an answer that makes no sense, or a bug of ours")
                self._failed(f"{type(error).__name__}: {error}".rstrip(": "))
            await asyncio.sleep(self._backoff.next())

    def _failed(self, text: str, *, refused: bool = False) -> None:
        _log.warning("certificates: %s", text)
        if self.problem or refused:
            self.problem = text

    async def _follow(self) -> None:
        """Bring everything in step, then again at every change, for the length of one watch."""
        only = ("fieldSelector", f"metadata.name={self._configuration}")
        listed = await self._request("GET", CONFIGURATIONS, query=[only])
        await self._sync(next(iter(listed["items"]), None))
        version = listed["metadata"]["resourceVersion"]
        query = [only, ("resourceVersion", version), ("timeoutSeconds", str(WATCH_SECONDS))]
        # A connection that died without a word is given up a little after the watch should have ended.
        silence = WATCH_SECONDS + REQUEST_TIMEOUT
        async with client.watch(self._api, CONFIGURATIONS, query, silence=silence) as events:
            async for type_, configuration in events:
                await self._sync(None if type_ == "DELETED" else configuration)

    async def _sync(self, configuration: dict[str, Any] | None) -> None:
        stored = await self._stored()
        if stored != self._held or self._held.server.certificate != self._served():
            bundles.write(stored, self._directory)
            self._held = stored
            _log.info("certificates: serving what Secret %s holds", self._secret)
        if configuration is None:
            self.problem = f"there is no MutatingWebhookConfiguration {self._configuration}"
            _log.warning("certificates: %s", self.problem)
            return
        if ops := _trusting(configuration, stored.ca_bundle):
            await self._request(
                "PATCH",
                f"{CONFIGURATIONS}/{self._configuration}",
                query=[("fieldManager", MANAGER)],
                body=ops,
                content_type=client.JSON_PATCH,
            )
            _log.info("certificates: wrote caBundle into %s", self._configuration)
        self.problem = ""

    def _served(self) -> bytes:
        try:
            return (self._directory / bundles.CERTIFICATE_FILE).read_bytes()
        except OSError:
            return b""

    async def _stored(self) -> Bundle:
        """What the Secret holds, after putting a sound bundle there where none is."""
        try:
            return await self._settled()
        except Conflict:
            return await self._settled()  # another replica was quicker: what it wrote is read

    async def _settled(self) -> Bundle:
        found = await self._read_secret()
        bundle, flaw = self._sound(found)
        if flaw:
            await self._write_secret(bundle, found)
            _log.info("certificates: wrote Secret %s: %s", self._secret, flaw)
        return bundle

    async def _read_secret(self) -> dict[str, Any] | None:
        try:
            return await self._request("GET", self._secret_path)
        except NotFound:
            return None

    def _sound(self, secret: dict[str, Any] | None) -> tuple[Bundle, str]:
        """The bundle that the Secret should hold, and why that is not what it holds now.

        Where there is none, it is the one in use: deleting the Secret then changes nobody's trust.
        """
        held, _ = bundles.renewed(self._held, self._names, self._now())
        if secret is None:
            return held, "there was none"
        try:
            stored = Bundle.from_data(secret.get("data"))
        except BrokenBundleError as error:
            return held, str(error)
        return bundles.renewed(stored, self._names, self._now())

    async def _write_secret(self, bundle: Bundle, found: dict[str, Any] | None) -> None:
        if found is None:
            secret = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": self._secret_metadata,
                "type": "kubernetes.io/tls",
                "data": bundle.to_data(),
            }
            await self._request("POST", self._secrets_path, body=secret)
            return
        # The whole object goes back with its resourceVersion: a write in between is a 409, not lost.
        data = {**(found.get("data") or {}), **bundle.to_data()}
        await self._request("PUT", self._secret_path, body={**found, "data": data})

    async def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return await client.request(self._api, method, path, seconds=REQUEST_TIMEOUT, **options)


def _trusting(configuration: dict[str, Any], ca_bundle: str) -> list[Op]:
    """JSON Patch operations that make every webhook trust `ca_bundle`; none where all do.

    Each is preceded by a test of the webhook's name, so that a list changed in between is left alone.
    """
    ops: list[Op] = []
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        if webhook["clientConfig"].get("caBundle") != ca_bundle:
            ops.append(test(("webhooks", index, "name"), webhook["name"]))
            ops.append(add(("webhooks", index, "clientConfig", "caBundle"), ca_bundle))
    return ops


def _explained(error: ApiError) -> str:
    """One line for the log and /readyz: the API server's own sentence where there is one."""
    if not error.status:
        return str(error)
    return f"the API server answered {error}" + (f": {error.message}" if error.message else "")
