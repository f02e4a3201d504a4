"""The cluster that KUBECONFIG names, as the end-to-end suite sees it.

Executions are counted by what a step's own container printed
(a step answered from the cache prints nothing), hits are proved by equal random outputs.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).parents[2]
RAN = "this step ran"
"""What every step's container prints first."""
PATIENCE = float(os.environ.get("STEPMEMO_E2E_PATIENCE", "120"))
"""Seconds that a workflow may take."""

T = TypeVar("T")


def why_not() -> str | None:
    """Why the suite cannot run here, or None."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set"
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    for what in ("crd/workflows.argoproj.io", "mutatingwebhookconfiguration/stepmemo"):
        probe = subprocess.run(
            ["kubectl", "get", what, "--request-timeout=5s"], capture_output=True, text=True
        )
        if probe.returncode:
            return f"{what} is not on the cluster"
    return None


def kubectl(*args: str, stdin: object = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """kubectl with `stdin` as JSON; raises with its own words where it fails."""
    body = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(["kubectl", *args], input=body, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first value of `probe` that is not None, asked for until `seconds` are over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found is not None:
            return found
        time.sleep(0.2)  # between two looks at a remote condition
    raise AssertionError(f"no {what} within {seconds:.0f} s")


@dataclass
class Run:
    """A workflow that has come to its end."""

    namespace: str
    workflow: dict[str, Any]

    @property
    def name(self) -> str:
        return self.workflow["metadata"]["name"]

    @property
    def phase(self) -> str:
        return self.workflow["status"]["phase"]

    @property
    def seconds(self) -> float:
        """From the first step's start to the workflow's end, as Argo tells it (whole seconds)."""
        status = self.workflow["status"]
        stamps = [time.strptime(status[name], "%Y-%m-%dT%H:%M:%SZ") for name in ("startedAt", "finishedAt")]
        return time.mktime(stamps[1]) - time.mktime(stamps[0])

    def nodes(self, template: str = "step") -> list[dict[str, Any]]:
        """The Pod nodes made from a template, oldest first."""
        found = self.workflow["status"].get("nodes", {}).values()
        pods = [node for node in found if node["type"] == "Pod" and node["templateName"] == template]
        return sorted(pods, key=lambda node: node["startedAt"])

    def output(self, name: str = "out", template: str = "step") -> str:
        (parameter,) = (p for p in self.nodes(template)[-1]["outputs"]["parameters"] if p["name"] == name)
        return parameter["value"]

    def result(self, template: str = "step") -> str:
        return self.nodes(template)[-1]["outputs"]["result"]

    def pods(self) -> list[dict[str, Any]]:
        selector = f"workflows.argoproj.io/workflow={self.name}"
        return json.loads(kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "json").stdout)[
            "items"
        ]

    def pods_are_over(self) -> bool:
        return all(pod["status"]["phase"] in ("Failed", "Succeeded") for pod in self.pods())

    def executions(self) -> int:
        """How many of the workflow's Pods really ran their user's command."""
        return sum(RAN in self.logs(pod["metadata"]["name"], "main") for pod in self.pods())

    def logs(self, pod: str, container: str) -> str:
        return kubectl("-n", self.namespace, "logs", pod, "-c", container, check=False).stdout

    def said(self) -> str:
        """What our own containers logged, over all Pods: the text of a failed assertion."""
        return "".join(
            self.logs(pod["metadata"]["name"], container)
            for pod in self.pods()
            for container in ("stepmemo-check", "stepmemo")
        )


@dataclass
class Namespace:
    """A namespace whose step account may do what Argo asks for and what direct access asks for."""

    name: str
    cache: str = "memo"

    def submit(self, *templates: dict[str, Any], entrypoint: str = "step", **spec: Any) -> str:
        """Creates a workflow of these templates; its name. `labels` and `annotations` go to its metadata."""
        metadata = {"generateName": "e2e-"} | {
            field: spec.pop(field) for field in ("labels", "annotations") if field in spec
        }
        spec = {"entrypoint": entrypoint, "templates": list(templates)} | spec
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": metadata,
            "spec": spec,
        }
        created = kubectl("-n", self.name, "create", "-f", "-", "-o", "json", stdin=manifest)
        return json.loads(created.stdout)["metadata"]["name"]

    def finished(self, workflow: str, seconds: float = PATIENCE) -> Run:
        """Waits until the workflow has a final phase."""

        def probe() -> Run | None:
            found = json.loads(kubectl("-n", self.name, "get", "workflow", workflow, "-o", "json").stdout)
            over = found.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error")
            return Run(self.name, found) if over else None

        return wait_for(f"end of {workflow}", probe, seconds)

    def run(self, *templates: dict[str, Any], **spec: Any) -> Run:
        return self.finished(self.submit(*templates, **spec))

    def entries(self, cache: str | None = None) -> dict[str, dict[str, Any]]:
        """The cache's entries, parsed; empty where there is no such ConfigMap."""
        got = kubectl("-n", self.name, "get", "configmap", cache or self.cache, "-o", "json", check=False)
        data = json.loads(got.stdout).get("data", {}) if got.returncode == 0 else {}
        return {key: json.loads(text) for key, text in data.items()}

    def put(self, key: str, text: str, label: str | None = "Cache", cache: str | None = None) -> None:
        """Makes the cache ConfigMap by hand, with this one entry."""
        labels = {"workflows.argoproj.io/configmap-type": label} if label else {}
        kubectl(
            "-n", self.name, "apply", "-f", "-",
            stdin={
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": cache or self.cache, "labels": labels},
                "data": {key: text},
            },
        )  # fmt: skip


def direct_role() -> list[dict[str, Any]]:
    """The rules of manifests/components/direct, as it is shipped."""
    found = [
        document
        for path in sorted((ROOT / "manifests/components/direct").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "Role"
    ]
    return [rule for role in found for rule in role["rules"]]


ARGO_RULES = [
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
]


def grant(namespace: str, name: str, rules: list[dict[str, Any]]) -> None:
    """Role and RoleBinding `name` with these rules, for the namespace's default account."""
    api = "rbac.authorization.k8s.io"
    items = [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    ]
    kubectl("-n", namespace, "apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})


def prepare(namespace: str) -> None:
    """What steps need in a namespace: rights for the account `default`, and access to the artifact store."""
    grant(namespace, "executor", ARGO_RULES)
    grant(namespace, "stepmemo", direct_role())
    store = {"accesskey": "admin", "secretkey": "password"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "my-minio-cred"},
        "stringData": store,
    }
    kubectl("-n", namespace, "apply", "-f", "-", stdin=secret)


@contextlib.contextmanager
def fresh_namespace(labels: dict[str, str] | None = None) -> Iterator[Namespace]:
    name = f"stepmemo-e2e-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": labels or {}}
    kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        prepare(name)
        wait_for(
            "default account", lambda: kubectl("-n", name, "get", "sa", "default", check=False).stdout or None
        )
        yield Namespace(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
