"""An installation to keep certificates for: the manifests' rights under names of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio.client import ApiClient, Configuration

from certs import pki
from certs.cluster import Certificates
from tests.cluster import Cluster
from tests.waiting import until

RBAC = Path(__file__).parents[2] / "manifests" / "base" / "webhook-rbac.yaml"
SECRET = "stepmemo-certs"
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
        return pki.service_names("stepmemo", self.namespace)

    def rules(self, kind: str) -> list[Json]:
        """The rules of the manifests' Role or ClusterRole, about our own configuration instead of theirs."""
        documents = yaml.safe_load_all(RBAC.read_text(encoding="utf-8"))
        rules: list[Json] = next(d for d in documents if d["kind"] == kind)["rules"]
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
                "service": {"name": "stepmemo", "namespace": self.namespace, "path": "/nobody/asks"}
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

    def ca_bundles(self) -> set[str | None]:
        return {webhook["clientConfig"].get("caBundle") for webhook in self.webhooks()}

    def secret(self) -> Json:
        return dict(self.cluster.get("Secret", self.namespace, SECRET)[1])

    def delete_secret(self) -> None:
        assert self.cluster.delete("Secret", self.namespace, SECRET)[0] == 200

    @asynccontextmanager
    async def replica(
        self, *, now: Callable[[], datetime] | None = None, url: str = ""
    ) -> AsyncIterator["Replica"]:
        """One replica's certificates, kept until the block ends."""
        self.started += 1
        directory = self.directory / str(self.started)
        configuration = Configuration()
        configuration.host = url or self.cluster.url
        configuration.ssl_ca_cert = str(self.cluster.ca_file)
        configuration.api_key["BearerToken"] = f"Bearer {self.token}"
        async with ApiClient(configuration) as api:
            certificates = Certificates(
                api,
                namespace=self.namespace,
                secret=SECRET,
                configuration=self.configuration,
                names=self.names,
                directory=directory,
                retry_seconds=0.02,
                **({"now": now} if now else {}),
            )
            task = asyncio.create_task(certificates.run())
            try:
                yield Replica(certificates, directory, task)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@dataclass(frozen=True)
class Replica:
    certificates: Certificates
    directory: Path
    task: "asyncio.Task[None]"

    @property
    def served(self) -> bytes:
        return (self.directory / "tls.crt").read_bytes()

    @property
    def ca(self) -> bytes:
        return (self.directory / "ca.crt").read_bytes()

    @property
    def ready(self) -> bool:
        return not self.certificates.problem

    async def becomes_ready(self) -> None:
        await until(lambda: self.ready)
