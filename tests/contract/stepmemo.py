"""stepmemo as manifests/base installs it, in front of the namespaces that a test names."""

import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.api.server import write_kubeconfig
from devcluster.installation import KEEPER, WEBHOOK, Workload, rendered, rules, workloads
from devcluster.ports import free_port
from devcluster.program import READY
from tests.cluster import DEVCLUSTER, Cluster, Object, wait_for
from tests.processes import MEASURED
from tests.waiting import PATIENCE

CHECKOUT = Path(__file__).parent.parent.parent
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
    """Run both programs under the manifests' rights until the block ends; see manifests/components."""
    namespace = cluster.namespace()
    label = {"test.stepmemo.dev/installation": namespace}
    everything = rendered(components)
    programs = workloads(everything)
    ports = {name: free_port() for name in programs}
    flags = {
        WEBHOOK: {"image": IMAGE, "webhook-configuration": namespace},
        KEEPER: {"state-dir": directory / "state"},
    }
    _configure(cluster, everything, namespace, label, ports[WEBHOOK])
    with ExitStack() as stack:
        stack.callback(cluster.delete, "MutatingWebhookConfiguration", "", namespace)
        running = []
        for name, program in programs.items():
            _make_reachable(cluster, namespace, name, ports[name])
            token = _grant(cluster, namespace, everything, program.account)
            settings = {"listen": f"127.0.0.1:{ports[name]}", "namespace": namespace, **flags[name]}
            running.append(stack.enter_context(_running(cluster, directory / name, program, token, settings)))
        stepmemo = Stepmemo(cluster, label)
        probed = stepmemo.namespace()
        wait_for(lambda: all(runs() for runs in running) and _denies(cluster, probed))
        wait_for(
            lambda: all(runs() for runs in running) and all(_says(port) in READY for port in ports.values())
        )
        yield stepmemo


@contextmanager
def _running(
    cluster: Cluster, directory: Path, program: Workload, token: str, settings: Mapping[str, object]
) -> Iterator[Callable[[], object]]:
    """The program until the block ends; what it gives fails with the program's log once that has ended."""
    directory.mkdir()
    kubeconfig, log = directory / "kubeconfig", directory / "log"
    write_kubeconfig(kubeconfig, cluster.url, cluster.ca_file, token)
    flags = {"cert-dir": directory / "certs", "shutdown-delay": "0s", "metrics-listen": "off", **settings}
    _, *module = program.command
    command = [sys.executable, *module, *(f"--{name}={value}" for name, value in flags.items())]
    environment = {"PATH": os.defpath, "KUBECONFIG": str(kubeconfig), **program.variables, **MEASURED}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=output, stderr=output) as process,
    ):

        def runs() -> bool:
            assert process.poll() is None, log.read_text()
            return True

        try:
            yield runs
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _grant(cluster: Cluster, namespace: str, everything: list[Object], account: str) -> str:
    """The manifests' rules for this account, for one of its name in the namespace; its token."""
    cluster_wide = rules(everything, account, "ClusterRole")
    for rule in cluster_wide:
        if "resourceNames" in rule:
            rule["resourceNames"] = [namespace]
    metadata = {"name": f"{namespace}-{account}"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **metadata}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    for obj in (
        {"kind": "ClusterRole", "metadata": metadata, "rules": cluster_wide},
        {"kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]},
    ):
        status, body = cluster.create(obj)
        assert status == 201, body
    return cluster.service_account(namespace, account, rules(everything, account, "Role"))


def _make_reachable(cluster: Cluster, namespace: str, name: str, port: int) -> None:
    """Let the API server find the local port under the Service's name."""
    if cluster.tier == DEVCLUSTER:
        assert cluster.services is not None
        cluster.services[namespace, name] = ("127.0.0.1", port)
        return
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    status, body, _ = cluster.request("POST", f"/api/v1/namespaces/{namespace}/services", service)
    assert status == 201, body


def _configure(
    cluster: Cluster, everything: list[Object], namespace: str, label: dict[str, str], port: int
) -> None:
    (configuration,) = [obj for obj in everything if obj["kind"] == "MutatingWebhookConfiguration"]
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


def _says(port: int) -> str:
    """What a program says of itself."""
    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", context=_trusting_all()) as response:
            text: str = response.read().decode()
    except OSError as error:
        return str(error)
    return text


def _trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
