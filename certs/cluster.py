"""Keeps the Secrets, the files and the webhook configuration's caBundle in step: the webhook's part.

The Secrets are the truth: whoever creates one first wins, and every replica serves what it holds. A replica
whose Secret is gone writes back what it serves, so that nobody's trust changes.
"""

import base64
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kubernetes_asyncio.client import ApiClient

from certs import bundle as bundles
from certs import pki
from certs.bundle import BrokenBundleError, Bundle
from certs.watched import LOOK_SECONDS, Follower
from kube import client
from kube.errors import ApiError, Forbidden, Invalid, NotFound
from kube.jsonpatch import Op, add, test
from server.tls import utc_now

_log = logging.getLogger(__name__)

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
MANAGER = "stepmemo-webhook"
"""Our field manager: `kubectl apply --server-side` of a manifest without caBundle then leaves ours alone."""
REQUEST_TIMEOUT = 10.0
"""Seconds for one request; nobody waits for these but us."""
SETTLE_SECONDS = 5.0
"""After our own watch has shown a CA in the caBundle: until then every API server has heard of it."""
_GLANCE_SECONDS = 1.0
"""So often it is looked whether that time is over."""
_REFUSALS = (Forbidden, NotFound, Invalid)
"""Answers that say our rights or the cluster's objects are not as they must be; others (a time-out, a 409,
410, 429 or 5xx) pass."""

Json = dict[str, Any]


class Certificates(Follower):
    """The serving certificate of one replica, and what keeps it trusted.

    `problem` is empty once the files come from the Secret and every webhook of the configuration names their
    authority; else it says what is in the way. `now` tells the time of day, `clock` seconds that pass.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        namespace: str,
        secret: str,
        ca_secret: str,
        configuration: str,
        names: Sequence[str],
        directory: Path,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        retry_seconds: float = 1.0,
        request_seconds: float = REQUEST_TIMEOUT,
    ) -> None:
        super().__init__(api, retry_seconds)
        self._namespace, self._secrets_path = namespace, f"/api/v1/namespaces/{namespace}/secrets"
        self._names, self._directory = names, directory
        self._now, self._clock, self._request_seconds = now, clock, request_seconds
        self._secret, self._ca_secret, self._configuration = secret, ca_secret, configuration
        self._stored = self._watch(self._secrets_path, secret)
        self._stored_ca = self._watch(self._secrets_path, ca_secret)
        self._configured = self._watch(CONFIGURATIONS, configuration)
        self._signers: tuple[pki.Pair, ...] = ()
        self._served: Bundle | None = None
        """What the files hold, once it has been in the Secret."""
        self._trust = Trust()

    async def _sync(self) -> float:
        for what, watched in (
            (f"Secret {self._namespace}/{self._secret}", self._stored),
            (f"Secret {self._namespace}/{self._ca_secret}", self._stored_ca),
            (f"MutatingWebhookConfiguration {self._configuration}", self._configured),
        ):
            if not watched.known:
                self._lacking = f"{what} has not been read yet"
                return LOOK_SECONDS
        secret, ca_secret = self._stored.object, self._stored_ca.object
        found: Bundle | None = None
        with suppress(BrokenBundleError):
            found = Bundle.from_data((secret or {}).get("data"))
        try:
            stored = await self._settled(found, secret, ca_secret)
        except ApiError:
            # What cannot be made better serves until its end.
            if sound := found if found and not found.flaw else self._served:
                await self._made_known(sound, self._configured.object)
            raise
        if stored is None:
            return LOOK_SECONDS  # the watch shows it
        return await self._made_known(stored, self._configured.object)

    async def _settled(
        self, found: Bundle | None, secret: Json | None, ca_secret: Json | None
    ) -> Bundle | None:
        """What the Secrets hold (`found` is the first one's); None after writing something sound there.

        Each write holds for the version that was looked at: another replica may have been quicker.
        """
        in_ca_secret = bundles.signers_from_data((ca_secret or {}).get("data"))
        signers = in_ca_secret or self._signers
        stored, why = await self._renewed(replace(found or self._served or bundles.NOTHING, signers=signers))
        has_other_keys = stored.signers != in_ca_secret
        has_other_certificates = found is None or stored.to_data() != found.to_data()
        # The keys first: a CA that nobody can sign with must not be made known.
        if has_other_keys:
            await self._write(ca_secret, self._ca_secret, "Opaque", stored.signers_to_data(), why)
        if has_other_certificates:
            await self._write(secret, self._secret, "kubernetes.io/tls", stored.to_data(), why)
        if has_other_keys or has_other_certificates:
            return None
        self._signers = stored.signers
        return stored

    async def _renewed(self, bundle: Bundle) -> tuple[Bundle, str]:
        """The bundle that should be stored, and why it is another one.

        Time alone is a cause only where the API server's clock, by which it will be verified, says so too.
        """
        _, why = bundles.renewed(bundle, self._names, self._now())
        if not why:
            return bundle, ""
        date = await client.date(self._api, seconds=self._request_seconds)
        wanted, why_there = bundles.renewed(bundle, self._names, date)
        if not why_there:
            _log.warning("certificates: %s; not so by the API server's clock, nothing is changed", why)
        return wanted, why_there

    async def _write(
        self, found: Json | None, name: str, type_: str, data: Mapping[str, str], why: str
    ) -> None:
        if self._lacking:
            self._lacking = f"Secret {self._namespace}/{name} has not been written yet"
        method, path = "POST", self._secrets_path
        secret: Json = {"apiVersion": "v1", "kind": "Secret", "type": type_, "data": data}
        if found:  # with its resourceVersion: a write in between is a 409, not lost
            method, path = "PUT", f"{self._secrets_path}/{name}"
            secret |= found | {"data": {**(found.get("data") or {}), **data}}
        else:
            labels = {"app.kubernetes.io/name": "stepmemo", "app.kubernetes.io/component": "webhook"}
            secret["metadata"] = {"name": name, "namespace": self._namespace, "labels": labels}
        await self._request(method, path, body=secret)
        why = why or "it did not hold what we serve"
        _log.info("certificates: wrote Secret %s/%s: %s", self._namespace, name, why)

    async def _made_known(self, stored: Bundle, configuration: Json | None) -> float:
        """Have everybody trust what is stored, and then serve it; seconds until it is time to look again."""
        # 1. A certificate of the CA that is served already is trusted as that one is.
        if self._served is None or self._served.issuer == stored.issuer or configuration is None:
            self._served = stored
        # 2. Steps trust what is served and what will be: they get all of the file.
        found = _ca_bundles(configuration)
        needed = (*stored.trusted, *self._served.trusted)
        trusted = bundles.to_trust(needed, b"".join(found), self._now())
        self._write_files(self._served, trusted)
        if configuration is None:
            self._lacking = f"there is no MutatingWebhookConfiguration {self._configuration}"
            return LOOK_SECONDS
        # 3. So does every webhook.
        known = set(trusted).intersection(*map(pki.authorities, found or [b""]))
        self._trust.see(known, self._clock())
        if ops := _trusting(configuration, b"".join(trusted)):
            await self._patch(ops, is_trusted=self._served.issuer in known)
            return LOOK_SECONDS  # the watch shows it
        # 4. And every API server, which hears of it by a watch of its own.
        wait = self._trust.since(stored.issuer) + SETTLE_SECONDS - self._clock()
        if wait > 0:
            if self._lacking:
                self._lacking = "API servers may not have heard of our CA yet"
            return min(wait, _GLANCE_SECONDS)
        self._served = stored
        self._write_files(stored, trusted)
        self._lacking = ""
        return LOOK_SECONDS

    def _write_files(self, bundle: Bundle, trusted: tuple[bytes, ...]) -> None:
        if bundles.write(replace(bundle, trusted=trusted), self._directory):
            _log.info("certificates: wrote files of what Secret %s/%s holds", self._namespace, self._secret)

    async def _patch(self, ops: list[Op], *, is_trusted: bool) -> None:
        try:
            await self._request(
                "PATCH",
                f"{CONFIGURATIONS}/{self._configuration}",
                query=[("fieldManager", MANAGER)],
                body=ops,
                content_type=client.JSON_PATCH,
            )
        except _REFUSALS:
            if not is_trusted:
                self._lacking = f"MutatingWebhookConfiguration {self._configuration} does not trust our CA"
            raise
        _log.info("certificates: wrote caBundle into %s", self._configuration)

    async def _request(self, method: str, path: str, **options: Any) -> Json:
        return await client.request(self._api, method, path, seconds=self._request_seconds, **options)


class Trust:
    """Since when each CA has been in every caBundle, by a clock that is given.

    One that was there at the first look, or came where there was none, counts as one that was always there:
    with it nobody loses a certificate that is trusted.
    """

    def __init__(self) -> None:
        self._since: dict[bytes, float] = {}

    def see(self, known: Iterable[bytes], at: float) -> None:
        """Learn what is there."""
        begin = at if self._since else -math.inf
        self._since = {ca: self._since.get(ca, begin) for ca in known}

    def since(self, ca: bytes | None) -> float:
        """Infinity for one that is not there."""
        return self._since.get(ca, math.inf) if ca else math.inf


def _ca_bundles(configuration: Json | None) -> list[bytes]:
    """The caBundle of each webhook; empty where there is none."""
    webhooks = (configuration or {}).get("webhooks") or []
    return [base64.b64decode(webhook["clientConfig"].get("caBundle") or "") for webhook in webhooks]


def _trusting(configuration: Json, ca_bundle: bytes) -> list[Op]:
    """JSON Patch operations that give every webhook this caBundle; none where all have it.

    Each is preceded by a test of the webhook's name, so that a list changed in between is left alone.
    """
    text = base64.b64encode(ca_bundle).decode()
    ops: list[Op] = []
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        if webhook["clientConfig"].get("caBundle") != text:
            ops.append(test(("webhooks", index, "name"), webhook["name"]))
            ops.append(add(("webhooks", index, "clientConfig", "caBundle"), text))
    return ops
