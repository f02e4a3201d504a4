"""An installation to keep certificates for: the manifests' rights under names of the test's own."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kubernetes_asyncio.client import ApiClient, Configuration

from certs import pki
from certs.bundle import Bundle
from certs.cluster import Certificates
from certs.reader import CertificateReader
from server.tls import utc_now
from tests.beside import beside
from tests.cluster import Cluster
from tests.manifests.rendering import objects
from tests.waiting import until

RBAC = Path(__file__).parents[2] / "manifests" / "base" / "webhook-rbac.yaml"
SECRET, CA_SECRET = "stepmemo-certs", "stepmemo-ca"
ACCOUNT = "stepmemo-webhook"

Json = dict[str, Any]


@dataclass
class Installation:
    """A Namespace with our service account, and a webhook configuration with two webhooks."""

    cluster: Cluster
    namespace: str
    directory: Path
    token: str = ""
    started: int = field(default=0)

    @property
    def configuration(self) -> str:
        return self.namespace

    @property
    def names(self) -> tuple[str, ...]:
        services = ("stepmemo-webhook", "stepmemo-keeper")
        return tuple(name for service in services for name in pki.service_names(service, self.namespace))

    def rules(self, kind: str) -> list[Json]:
        """The rules of the manifests' Roles or ClusterRoles, about our own configuration, not theirs."""
        rules: list[Json] = [rule for d in objects(RBAC) if d["kind"] == kind for rule in d["rules"]]
        for rule in rules:
            if rule["resources"] == ["mutatingwebhookconfigurations"]:
                rule["resourceNames"] = [self.configuration]
        return rules

    def grant(self) -> None:
        """Bind the ClusterRole: without it the configuration is out of our reach."""
        metadata = {"name": f"stepmemo-{self.namespace}"}
        subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **metadata}
        role = {"kind": "ClusterRole", "metadata": metadata, "rules": self.rules("ClusterRole")}
        binding = {"kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": reference}
        assert self.cluster.create(role)[0] == 201
        assert self.cluster.create({**binding, "subjects": [subject]})[0] == 201

    def configure(self) -> Json:
        """Create the configuration, or write it over, as a manifest has it: without caBundle."""
        webhook = {
            "clientConfig": {
                "service": {"name": "stepmemo-webhook", "namespace": self.namespace, "path": "/nobody/asks"}
            },
            "rules": [
                {
                    "apiGroups": ["nothing.stepmemo.dev"],
                    "apiVersions": ["v1"],
                    "resources": ["nothings"],
                    "operations": ["CREATE"],
                }
            ],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
        }
        wanted: Json = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.configuration},
            "webhooks": [{"name": f"{name}.stepmemo.dev", **webhook} for name in ("workflows", "pods")],
        }
        status, body = self.cluster.create(wanted)
        if status == 409:
            found = self.cluster.get(wanted["kind"], "", self.configuration)[1]
            wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            status, body = self.cluster.update(wanted)
        assert status in (200, 201), body
        return dict(body)

    def unconfigure(self) -> None:
        self.cluster.delete("MutatingWebhookConfiguration", "", self.configuration)

    def webhooks(self) -> list[Json]:
        _, body = self.cluster.get("MutatingWebhookConfiguration", "", self.configuration)
        return list(body.get("webhooks", ()))

    def ca_bundles(self) -> set[bytes]:
        return {base64.b64decode(w["clientConfig"].get("caBundle") or "") for w in self.webhooks()}

    def secret(self, name: str = SECRET) -> Json:
        return dict(self.cluster.get("Secret", self.namespace, name)[1])

    def delete_secret(self, name: str = SECRET) -> None:
        assert self.cluster.delete("Secret", self.namespace, name)[0] == 200

    def restore(self, bundle: Bundle) -> None:
        """Write another bundle into both Secrets, as from a backup."""
        for name, data in ((CA_SECRET, bundle.signers_to_data()), (SECRET, bundle.to_data())):
            assert self.cluster.patch("Secret", self.namespace, name, {"data": data})[0] == 200

    @asynccontextmanager
    async def _client(self, url: str, token: str) -> AsyncIterator[ApiClient]:
        configuration = Configuration()
        configuration.host = url or self.cluster.url
        configuration.ssl_ca_cert = str(self.cluster.ca_file)
        configuration.api_key["BearerToken"] = f"Bearer {token}"
        async with ApiClient(configuration) as api:
            yield api

    def _new_directory(self) -> Path:
        self.started += 1
        return self.directory / str(self.started)

    @asynccontextmanager
    async def replica(
        self,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        url: str = "",
    ) -> AsyncIterator["Replica"]:
        """One replica's certificates, kept until the block ends."""
        directory = self._new_directory()
        async with self._client(url, self.token) as api:
            certificates = Certificates(
                api,
                namespace=self.namespace,
                secret=SECRET,
                ca_secret=CA_SECRET,
                configuration=self.configuration,
                names=self.names,
                directory=directory,
                now=now,
                clock=clock,
                retry_seconds=0.02,
                request_seconds=1,
            )
            async with _running(certificates):
                yield Replica(certificates, directory)

    @asynccontextmanager
    async def keeper(self, token: str, *, url: str = "") -> AsyncIterator["Replica"]:
        """One replica of the keeper's, reading until the block ends."""
        directory = self._new_directory()
        async with self._client(url, token) as api:
            reader = CertificateReader(
                api, namespace=self.namespace, secret=SECRET, directory=directory, retry_seconds=0.02
            )
            async with _running(reader):
                yield Replica(reader, directory)


@asynccontextmanager
async def _running(certificates: Certificates | CertificateReader) -> AsyncIterator[None]:
    async with beside(certificates.run()):
        yield


@dataclass(frozen=True)
class Replica:
    certificates: Certificates | CertificateReader
    directory: Path

    @property
    def served(self) -> bytes:
        """The certificate in the files, b"" while there is none."""
        file = self.directory / "tls.crt"
        return file.read_bytes() if file.exists() else b""

    @property
    def ca(self) -> bytes:
        return (self.directory / "ca.crt").read_bytes()

    @property
    def ready(self) -> bool:
        return not self.certificates.problem

    async def becomes_ready(self) -> None:
        await until(lambda: self.ready)
