"""Installs stepmemo into the devcluster from manifests/, as `kubectl apply -k` would.

What a cluster's own controllers would make of a Deployment and a Service, the devcluster does by itself: the
server runs as a process, under the manifests' service account with the rights they give it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from devcluster.api.patches import apply_operations
from devcluster.client import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    WEBHOOKS,
    Client,
    Object,
)

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"
NAMESPACE = "stepmemo"
SERVICE = "stepmemo"
SERVICE_ACCOUNT = "stepmemo"
LEASE = "stepmemo-keeper"
ACCESS_DIRECT = "access-direct"
"""The component without which the server keeps the caches."""

_CLUSTER_WIDE = {
    "Namespace": NAMESPACES,
    "ClusterRole": CLUSTER_ROLES,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
    "MutatingWebhookConfiguration": WEBHOOKS,
}
_NAMESPACED = {"ServiceAccount": SERVICE_ACCOUNTS, "Role": ROLES, "RoleBinding": ROLE_BINDINGS}
_EXECUTOR = "executor"
_EXECUTOR_RULES = [
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
]
"""What Argo asks the account of every step to have (docs/workflow-rbac.md), and stepmemo of none."""


async def install(client: Client, components: Sequence[str]) -> dict[str, str]:
    """Create what manifests/base and these components hold of the kinds that the devcluster's API has.

    Returns the variables that the manifests give to the server, as far as they are plain values.
    """
    documents = rendered(components)
    for document in documents:
        if resource := _CLUSTER_WIDE.get(document["kind"]):
            await client.create(resource, None, document)
        elif resource := _NAMESPACED.get(document["kind"]):
            await client.create(resource, NAMESPACE, document)
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in server["env"] if "value" in each}


async def allow_steps(client: Client, namespace: str, *, direct: bool) -> None:
    """Give the steps of `namespace` their rights: Argo's own or, `direct`, manifests/components/direct."""
    for document in _documents(MANIFESTS / "components" / "direct") if direct else _executor():
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
        await client.create(_NAMESPACED[document["kind"]], namespace, document)


def rendered(components: Sequence[str]) -> list[Object]:
    """The objects of manifests/base with these folders of manifests/components, as kustomize makes them.

    Of what kustomize can, that is: `resources`, and `patches` that are JSON Patches with a target or delete
    an object. The names of images are not filled in.
    """
    documents = list(_documents(MANIFESTS / "base"))
    for folder in (MANIFESTS / "components" / name for name in components):
        documents += _documents(folder)
        for patch in _kustomization(folder).get("patches", []):
            documents = _patched(documents, patch)
    return documents


def _patched(documents: list[Object], patch: Object) -> list[Object]:
    """The documents with one entry of `patches` applied; ValueError if it fits none of them."""
    change = yaml.safe_load(patch["patch"])
    target = patch["target"] if isinstance(change, list) else {**change, **change["metadata"]}
    found = [each for each in documents if _is_target(each, target)]
    if not found:
        raise ValueError(f"nothing to patch for {target}")
    if isinstance(change, list):
        return [apply_operations(change, each) if each in found else each for each in documents]
    if change.get("$patch") != "delete":
        raise ValueError("the devcluster knows JSON Patches and `$patch: delete` alone")
    return [each for each in documents if each not in found]


def _is_target(document: Object, target: Object) -> bool:
    return (document["kind"], document["metadata"]["name"]) == (target["kind"], target["name"])


def _documents(directory: Path) -> Iterator[Object]:
    """The objects of a kustomization, in the order that it names its files."""
    for name in _kustomization(directory).get("resources", []):
        yield from yaml.safe_load_all((directory / name).read_text(encoding="utf-8"))


def _kustomization(directory: Path) -> Object:
    found: Object = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    return found


def _executor() -> list[dict[str, Any]]:
    """A Role with what Argo's executor needs, for the account `default`."""
    metadata = {"name": _EXECUTOR}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": _EXECUTOR}
    subject = {"kind": "ServiceAccount", "name": "default"}
    return [
        {"kind": "Role", "metadata": {**metadata}, "rules": _EXECUTOR_RULES},
        {"kind": "RoleBinding", "metadata": {**metadata}, "roleRef": reference, "subjects": [subject]},
    ]
