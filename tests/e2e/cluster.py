"""Namespaces of the suite: rights, caches, workflows."""

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from argo import names as argo_names
from tests.e2e import server
from tests.e2e.kube import PATIENCE, apply, argo, create, create_all, get, kubectl, wait_for
from tests.e2e.run import Run

ROOT = Path(__file__).parents[2]
CONTROLLER = os.environ.get("STEPMEMO_E2E_CONTROLLER_NAMESPACE", "argo")
"""Where Argo's controller keeps the caches of its own memoization."""
INSTANCE = os.environ.get("STEPMEMO_E2E_INSTANCE_ID")
"""The instanceID of the controller under test, where it has one."""
DSN = os.environ.get("STEPMEMO_E2E_DSN")
"""The keeper's database, where it has one."""

Rules = list[dict[str, Any]]

ARGO_RULES = [
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
]
"""What Argo's own executor needs."""


@dataclass
class Namespace:
    """A namespace whose step account may do what Argo asks for and what direct access does."""

    name: str
    cache: str = "memo"
    submitted: list[str] = field(default_factory=list)

    def submit(self, *templates: dict[str, Any], entrypoint: str = "step", **spec: Any) -> str:
        """Creates a workflow of these templates; its name. `labels` and `annotations` go to its metadata."""
        return self.create_workflow(workflow(*templates, entrypoint=entrypoint, **spec))

    def create_workflow(self, manifest: dict[str, Any]) -> str:
        name = self.create(manifest)["metadata"]["name"]
        self.submitted.append(name)
        return name

    def create_workflows(self, manifests: Sequence[dict[str, Any]]) -> list[str]:
        """All of them at once; their names, in the same order."""
        made = create_all(self.name, [_labelled(one) for one in manifests])
        found = [one["metadata"]["name"] for one in made]
        self.submitted += found
        return found

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The object as the API server made it: one of Argo's, for the controller under test."""
        return create(self.name, _labelled(manifest))

    def warnings(self, manifest: dict[str, Any]) -> list[str]:
        """What people are told when they create one of Argo's objects; nothing is created."""
        words = ("-n", self.name, "create", "--dry-run=server", "-f", "-")
        said = kubectl(*words, stdin=_labelled(manifest)).stderr.splitlines()
        return [line.removeprefix("Warning: ") for line in said if line.startswith("Warning: ")]

    def workflow(self, name: str) -> Run:
        """The workflow as it is now."""
        return Run(self.name, get(self.name, "workflow", name))

    def finished(self, workflow: str, seconds: float = PATIENCE) -> Run:
        """Waits until the workflow has a final phase."""

        def probe() -> Run | None:
            run = self.workflow(workflow)
            over = run.workflow.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error")
            return run if over else None

        return wait_for(f"end of {workflow}", probe, seconds)

    def run(self, *templates: dict[str, Any], **spec: Any) -> Run:
        return self.finished(self.submit(*templates, **spec))

    def runs(self, *templates: dict[str, Any], **spec: Any) -> list[Run]:
        """The same workflow, one after the other."""
        return [self.run(*templates, **spec) for _ in range(2)]

    def entries(self, cache: str | None = None) -> dict[str, dict[str, Any]]:
        """The cache's entries, parsed; empty where there is no such cache."""
        if DSN:
            return asyncio.run(self._rows(cache or self.cache))
        got = kubectl("-n", self.name, "get", "configmap", cache or self.cache, "-o", "json", check=False)
        data = json.loads(got.stdout).get("data", {}) if got.returncode == 0 else {}
        return {key: json.loads(text) for key, text in data.items()}

    async def _rows(self, cache: str) -> dict[str, dict[str, Any]]:
        connection = await asyncpg.connect(DSN)
        try:
            found = await connection.fetch(
                "SELECT data_key, text FROM stepmemo.entries"
                " WHERE namespace = $1 AND cache = $2 AND text IS NOT NULL",
                self.name,
                cache,
            )
        finally:
            await connection.close()
        return {row["data_key"]: json.loads(row["text"]) for row in found}

    def put(self, key: str, text: str, label: str | None = "Cache", cache: str | None = None) -> None:
        """Makes the cache ConfigMap by hand, with this one entry."""
        labels = {argo_names.CONFIGMAP_TYPE: label} if label else {}
        self.config_map(cache or self.cache, {key: text}, labels)

    def config_map(self, name: str, data: dict[str, str], labels: dict[str, str] | None = None) -> None:
        metadata = {"name": name, "labels": labels or {}}
        apply(self.name, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def workflow(*templates: dict[str, Any], entrypoint: str = "step", **spec: Any) -> dict[str, Any]:
    """A Workflow of these templates. `labels` and `annotations` go to its metadata."""
    metadata = {"generateName": "e2e-"} | {
        part: spec.pop(part) for part in ("labels", "annotations") if part in spec
    }
    return argo("Workflow", metadata, {"entrypoint": entrypoint, "templates": list(templates)} | spec)


def _labelled(manifest: dict[str, Any]) -> dict[str, Any]:
    """An object for the controller under test."""
    labels = manifest["metadata"].get("labels", {}) | ({argo_names.INSTANCE_ID: INSTANCE} if INSTANCE else {})
    return manifest | {"metadata": manifest["metadata"] | {"labels": labels}}


def step_rules() -> Rules:
    """What a step's account must be allowed, as the server is installed."""
    return [*ARGO_RULES, *(direct_role() if server.access() == server.DIRECT else ())]


def direct_role() -> Rules:
    """The rules of manifests/components/direct, as it is shipped."""
    found = [
        document
        for path in sorted((ROOT / "manifests/components/direct").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "Role"
    ]
    return [rule for role in found for rule in role["rules"]]


def grant(namespace: str, name: str, rules: Rules, account: str = "default") -> None:
    """Role and RoleBinding `name` with exactly these rules, for an account of the namespace."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": name}
    reference = {"apiGroup": api, "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role = {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}
    apply(namespace, role, {"apiVersion": f"{api}/v1", "metadata": metadata} | binding)


def prepare(namespace: str) -> None:
    """What steps need in a namespace: rights for the account `default`, and access to the artifact store."""
    grant(namespace, "executor", ARGO_RULES)
    if server.access() == server.DIRECT:
        grant(namespace, "stepmemo", direct_role())
    store = {"accesskey": "admin", "secretkey": "password"}  # of Argo's own quick start
    metadata = {"name": "my-minio-cred"}
    apply(namespace, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": store})
    if own := os.environ.get("STEPMEMO_E2E_MANIFEST"):
        kubectl("-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", own)


@contextlib.contextmanager
def fresh_namespace(labels: dict[str, str] | None = None) -> Iterator[Namespace]:
    name = f"stepmemo-e2e-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": labels or {}}
    kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        prepare(name)
        account = ("-n", name, "get", "sa", "default")
        wait_for("default account", lambda: kubectl(*account, check=False).stdout or None)
        yield Namespace(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
