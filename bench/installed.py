"""Both programs with the rights that the manifests give, in front of the namespaces that bear their label."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.api import create, workflow
from bench.argo import step_pod
from bench.load import BadAnswerError, Connection
from bench.servers import Server, started
from certs import bundle
from devcluster.api.server import write_kubeconfig
from devcluster.installation import rendered, rules
from server.listener import READY_PATH
from tests.cluster import Cluster, wait_for
from webhook.hooks import PODS_PATH

_HOST = "localhost"
_CONFIGURATION = "MutatingWebhookConfiguration"
_RBAC = "rbac.authorization.k8s.io"
_LABEL = "bench.stepmemo.dev/installation"
_PATIENCE = 60.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Installed:
    """The programs that run, in front of the namespaces with their label alone."""

    cluster: Cluster = field(repr=False)
    webhook: Server
    keeper: Server
    name: str

    def namespace(self) -> str:
        """A fresh one that they look at."""
        return self.cluster.namespace({_LABEL: self.name})


def memory(server: Server) -> float:
    """The resident memory of a program in KiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
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
    """Both programs until the block ends, ready to hold Pods; their files lie in the directory.

    `flags` are the keeper's. `url`: where they reach the API server instead of the cluster's own. `caches`:
    the namespaces that are kept; none means all.
    """
    name = cluster.namespace()
    made = bundle.new([_HOST], datetime.now(UTC))
    certificates = directory / f"{name}-certs"
    bundle.write(made, certificates)
    shared = {
        "listen": "127.0.0.1:{port}",
        "metrics-listen": "off",
        "certs": "files",
        "cert-dir": certificates,
        "namespace": name,
    }
    keeper = {**shared, "namespaces": ",".join(caches), "state-dir": directory / f"{name}-state"}
    webhook = {**shared, "image": "bench"}

    def program(module: str, settings: Mapping[str, object], *more: str) -> AbstractContextManager[Server]:
        kubeconfig = directory / f"{name}-{module}-kubeconfig"
        token = _grant(cluster, name, f"stepmemo-{module}")
        write_kubeconfig(kubeconfig, url or cluster.url, cluster.ca_file, token)
        words = [*(f"--{flag}={value}" for flag, value in settings.items()), *more]
        return started(f"{name}-{module}", module, words, directory, {"KUBECONFIG": str(kubeconfig)})

    with program("keeper", keeper, *flags) as keeps, program("webhook", webhook) as admits:
        this = Installed(cluster, admits, keeps, name)
        _configure(cluster, this, made.ca_pem)
        try:
            _until_it_holds(this, _in_front(this, caches))
            yield this
        finally:
            cluster.delete(_CONFIGURATION, "", name)


def _grant(cluster: Cluster, namespace: str, account: str) -> str:
    """The rights that the manifests give to this account, for one of its name in the namespace; its token."""
    manifests = rendered([])
    given = {kind: rules(manifests, account, kind) for kind in ("Role", "ClusterRole")}
    name = f"{namespace}-{account}"
    reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    create(cluster, {"kind": "ClusterRole", "metadata": {"name": name}, "rules": given["ClusterRole"]})
    binding = {"kind": "ClusterRoleBinding", "metadata": {"name": name}}
    create(cluster, binding | {"roleRef": reference, "subjects": [subject]})
    return cluster.service_account(namespace, account, given["Role"])


def _configure(cluster: Cluster, this: Installed, ca: bytes) -> None:
    """The webhook for Pods as the manifests have it, at the local port."""
    (configuration,) = (obj for obj in rendered([]) if obj["kind"] == _CONFIGURATION)
    client = {
        "url": f"https://{_HOST}:{this.webhook.port}{PODS_PATH}",
        "caBundle": base64.b64encode(ca).decode(),
    }
    pods = next(one for one in configuration["webhooks"] if one["name"].startswith("pods."))
    pods |= {"clientConfig": client, "namespaceSelector": {"matchLabels": {_LABEL: this.name}}}
    create(cluster, configuration | {"metadata": {"name": this.name}, "webhooks": [pods]})


def _in_front(this: Installed, namespaces: Sequence[str]) -> str:
    """Have them look at these namespaces, or at a fresh one; one of them."""
    for namespace in namespaces:
        labels = {"metadata": {"labels": {_LABEL: this.name}}}
        status, body = this.cluster.patch("Namespace", "", namespace, labels)
        if status != 200:
            raise RuntimeError(f"cannot label {namespace}: {body}")
    return namespaces[0] if namespaces else this.namespace()


def _until_it_holds(this: Installed, namespace: str) -> None:
    """Return once the API server asks the webhook, and this has seen a keeper that is ready."""
    name = f"probe-{this.name}"
    uid = workflow(this.cluster, namespace, name)
    probe = step_pod(namespace, name, uid, 0, key="probe", cache="probe")

    def held() -> bool:
        status, body = this.cluster.create(probe, dry_run=True)
        return status == 201 and bool(body["spec"].get("schedulingGates"))

    try:
        wait_for(held, _PATIENCE)
    except AssertionError:
        said = "\n".join(f"{one.name}: {_said(one)}" for one in (this.webhook, this.keeper))
        raise RuntimeError(f"no Pod is gated\n{said}") from None


def _said(server: Server) -> str:
    try:
        connection = Connection(server.port)
        try:
            return connection.ask(f"GET {READY_PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()).decode()
        finally:
            connection.close()
    except (OSError, BadAnswerError) as error:
        return str(error)
