"""`python -m webhook` with the rights that the manifests give, in front of the namespaces that it names."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.api import ROOT, create, workflow
from bench.argo import step_pod
from bench.load import BadAnswerError, Connection
from bench.servers import Server, started
from certs import bundle
from devcluster.api.server import write_kubeconfig
from server.listener import METRICS_PATH
from tests.cluster import Cluster, wait_for
from webhook.hooks import PODS_PATH

_BASE = ROOT / "manifests/base"
_HOST = "localhost"
_ACCOUNT = "stepmemo"
_RBAC = "rbac.authorization.k8s.io"
_LABEL = "bench.stepmemo.dev/installation"
_PATIENCE = 60.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Installed:
    """A server that runs, in front of the namespaces with its label alone."""

    cluster: Cluster = field(repr=False)
    server: Server
    name: str

    def namespace(self) -> str:
        """A fresh one that it looks at."""
        return self.cluster.namespace({_LABEL: self.name})

    def metrics(self) -> Mapping[str, float]:
        """Its metrics by name, the labels as they are written."""
        connection = Connection(self.server.port)
        try:
            text = connection.ask(f"GET {METRICS_PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()).decode()
        finally:
            connection.close()
        return parse_metrics(text)

    def memory(self) -> float:
        """Its resident memory in KiB."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return float(status.partition("VmRSS:")[2].split()[0])


def parse_metrics(text: str) -> dict[str, float]:
    """The samples of Prometheus' text format by everything before the value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@contextmanager
def installed(
    cluster: Cluster,
    directory: Path,
    *flags: str,
    url: str = "",
    caches: Sequence[str] = (),
) -> Iterator[Installed]:
    """The server until the block ends, ready to hold Pods; its files lie in the directory.

    `url`: where it reaches the API server instead of the cluster's own. `caches`: the namespaces that it
    keeps; none means all.
    """
    name = cluster.namespace()
    made = bundle.new([_HOST], datetime.now(UTC))
    certificates = directory / f"{name}-certs"
    bundle.write(made, certificates)
    kubeconfig = directory / f"{name}-kubeconfig"
    write_kubeconfig(kubeconfig, url or cluster.url, cluster.ca_file, _grant(cluster, name))
    settings = {
        "listen": "127.0.0.1:{port}",
        "certs": "files",
        "cert-dir": certificates,
        "image": "bench",
        "namespace": name,
        "namespaces": ",".join(caches),
    }
    words = [f"--{setting}={value}" for setting, value in settings.items()]
    environment = {"KUBECONFIG": str(kubeconfig)}
    with started(f"{name}-server", "webhook", [*words, *flags], directory, environment) as server:
        this = Installed(cluster, server, name)
        _configure(cluster, this, made.ca_pem)
        try:
            _until_it_holds(this, _in_front(this, caches))
            yield this
        finally:
            cluster.delete("MutatingWebhookConfiguration", "", name)


def _grant(cluster: Cluster, name: str) -> str:
    """The manifests' rights for an account in the namespace of this name; its token."""
    rules: dict[str, list[Object]] = {"Role": [], "ClusterRole": []}
    for file in sorted(_BASE.glob("*rbac.yaml")):
        for obj in _documents(file.name):
            if obj["kind"] in rules:
                rules[obj["kind"]] += obj["rules"]
    reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": name}
    create(cluster, {"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules["ClusterRole"]})
    binding = {"kind": "ClusterRoleBinding", "metadata": {"name": name}}
    create(cluster, binding | {"roleRef": reference, "subjects": [subject]})
    return cluster.service_account(name, _ACCOUNT, rules["Role"])


def _configure(cluster: Cluster, this: Installed, ca: bytes) -> None:
    """The webhook for Pods as the manifests have it, at the local port."""
    (configuration,) = _documents("webhooks.yaml")
    client = {
        "url": f"https://{_HOST}:{this.server.port}{PODS_PATH}",
        "caBundle": base64.b64encode(ca).decode(),
    }
    pods = next(one for one in configuration["webhooks"] if one["name"].startswith("pods."))
    pods |= {"clientConfig": client, "namespaceSelector": {"matchLabels": {_LABEL: this.name}}}
    create(cluster, configuration | {"metadata": {"name": this.name}, "webhooks": [pods]})


def _in_front(this: Installed, namespaces: Sequence[str]) -> str:
    """Have it look at these namespaces, or at a fresh one; one of them."""
    for namespace in namespaces:
        labels = {"metadata": {"labels": {_LABEL: this.name}}}
        status, body = this.cluster.patch("Namespace", "", namespace, labels)
        if status != 200:
            raise RuntimeError(f"cannot label {namespace}: {body}")
    return namespaces[0] if namespaces else this.namespace()


def _until_it_holds(this: Installed, namespace: str) -> None:
    """Return once the API server asks it, and it knows its caches and who keeps them."""
    name = f"probe-{this.name}"
    uid = workflow(this.cluster, namespace, name)
    probe = step_pod(namespace, name, uid, 0, key="probe", cache="probe")

    def held() -> bool:
        status, body = this.cluster.create(probe, dry_run=True)
        return status == 201 and bool(body["spec"].get("schedulingGates"))

    try:
        wait_for(held, _PATIENCE)
    except AssertionError:
        raise RuntimeError(f"the server holds no Pod: {_said(this)}") from None


def _said(this: Installed) -> str:
    try:
        return str({name: value for name, value in this.metrics().items() if name.startswith("stepmemo")})
    except (OSError, BadAnswerError) as error:
        return str(error)


def _documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((_BASE / name).read_text(encoding="utf-8")))
