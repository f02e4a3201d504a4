"""stepmemo's own server as manifests/base installs it, in front of the namespaces that a test names."""

import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from devcluster.api.server import write_kubeconfig
from devcluster.installation import ACCESS_DIRECT, LEASE, rendered
from tests.cluster import DEVCLUSTER, Cluster, Object, wait_for
from tests.processes import MEASURED

CHECKOUT = Path(__file__).parent.parent.parent
BASE = CHECKOUT / "manifests" / "base"
SERVICE = "stepmemo"
IMAGE = "stepmemo:golden"
"""The image that the golden Pods were made with."""


@dataclass(frozen=True)
class Stepmemo:
    """An installation whose webhooks look at the namespaces with its label alone."""

    cluster: Cluster
    label: dict[str, str]

    def namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """A fresh namespace that it looks at."""
        return self.cluster.namespace({**self.label, **(labels or {})})


@contextmanager
def installed(cluster: Cluster, directory: Path, *components: str) -> Iterator[Stepmemo]:
    """Run the server under the manifests' rights until the block ends; see manifests/components."""
    namespace = cluster.namespace()
    label = {"test.stepmemo.dev/installation": namespace}
    port = _free_port()
    token = _grant(cluster, namespace, components)
    kubeconfig = directory / "kubeconfig"
    write_kubeconfig(kubeconfig, cluster.url, cluster.ca_file, token)
    _make_reachable(cluster, namespace, port)
    _configure(cluster, namespace, label, port)
    flags = {
        "listen": f"127.0.0.1:{port}",
        "cert-dir": directory / "certs",
        "image": IMAGE,
        "namespace": namespace,
        "webhook-configuration": namespace,
        "shutdown-delay": "0s",
        "injection": "image-volume" if "image-volume" in components else "init-container",
        "access": "direct" if ACCESS_DIRECT in components else "service",
    }
    command = [sys.executable, "-m", "webhook", *(f"--{name}={value}" for name, value in flags.items())]
    environment = {"PATH": os.defpath, "KUBECONFIG": str(kubeconfig), **MEASURED}
    log = directory / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=output, stderr=output) as server,
    ):
        stepmemo = Stepmemo(cluster, label)
        try:
            probed = stepmemo.namespace()
            wait_for(lambda: server.poll() is not None or _denies(cluster, probed))
            assert server.poll() is None, log.read_text()
            if ACCESS_DIRECT not in components:
                wait_for(lambda: _keeps(cluster, namespace, port))
            yield stepmemo
        finally:
            server.terminate()
            server.wait(timeout=20)
            cluster.delete("MutatingWebhookConfiguration", "", namespace)


def documents(name: str, directory: Path = BASE) -> list[Object]:
    """The objects of one file of manifests/base, or of another folder."""
    return list(yaml.safe_load_all((directory / name).read_text(encoding="utf-8")))


def _grant(cluster: Cluster, namespace: str, components: tuple[str, ...]) -> str:
    """The rules of all Roles and ClusterRoles in the manifests for this namespace's account; its token."""
    rules: dict[str, list[Object]] = {"ClusterRole": [], "Role": []}
    for obj in rendered(components):
        if obj["kind"] in rules:
            rules[obj["kind"]] += obj["rules"]
    for rule in rules["ClusterRole"]:
        if "resourceNames" in rule:
            rule["resourceNames"] = [namespace]
    metadata = {"name": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
    subject = {"kind": "ServiceAccount", "name": SERVICE, "namespace": namespace}
    for obj in (
        {"kind": "ClusterRole", "metadata": metadata, "rules": rules["ClusterRole"]},
        {"kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]},
    ):
        status, body = cluster.create(obj)
        assert status == 201, body
    return cluster.service_account(namespace, SERVICE, rules["Role"])


def _make_reachable(cluster: Cluster, namespace: str, port: int) -> None:
    """Let the API server find the local port under the Service's name."""
    if cluster.tier == DEVCLUSTER:
        assert cluster.services is not None
        cluster.services[namespace, SERVICE] = ("127.0.0.1", port)
        return
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    status, body, _ = cluster.request("POST", f"/api/v1/namespaces/{namespace}/services", service)
    assert status == 201, body


def _configure(cluster: Cluster, namespace: str, label: dict[str, str], port: int) -> None:
    (configuration,) = documents("webhooks.yaml")
    configuration["metadata"]["name"] = namespace
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"]["service"].update(namespace=namespace, port=port)
        webhook["namespaceSelector"] = {**webhook["namespaceSelector"], "matchLabels": label}
    status, body = cluster.create(configuration)
    assert status == 201, body


def _denies(cluster: Cluster, namespace: str) -> bool:
    broken = {"name": "main", "container": {"image": "x"}, "memoize": {}}
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {"templates": [broken]},
    }
    return cluster.create(workflow, dry_run=True)[0] == 422


def _keeps(cluster: Cluster, namespace: str, port: int) -> bool:
    """Whether the server knows the caches, and its keeper leads: from then on it holds Pods."""
    status, lease = cluster.get("Lease", namespace, LEASE)
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", context=_trusting_all()) as response:
        in_sync = b"\nstepmemo_view_in_sync 1.0\n" in response.read()
    return in_sync and status == 200 and bool(lease["spec"].get("holderIdentity"))


def _trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
