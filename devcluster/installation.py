"""Installs stepmemo into the devcluster from manifests/, as `kubectl apply -k` would.

What a cluster's own controllers would make of a Deployment and a Service, the devcluster does by itself: each
program runs as a process, under the manifests' service account with the rights they give it (program.py).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
_COMPONENTS = MANIFESTS / "components"
NAMESPACE = "stepmemo"
WEBHOOK = "stepmemo-webhook"
"""A Deployment and its Service."""
KEEPER = "stepmemo-keeper"
"""The same, and the Lease."""
ACCESS_DIRECT = "access-direct"
"""The component that takes the keeper away."""
NAMESPACES_ONLY = "namespaces"
"""The component that takes the cluster-wide rights away."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it: eight times as fast."""
_CLUSTER_WIDE = {
    "Namespace": NAMESPACES,
    "ClusterRole": CLUSTER_ROLES,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
    "MutatingWebhookConfiguration": WEBHOOKS,
}
_NAMESPACED = {"ServiceAccount": SERVICE_ACCOUNTS, "Role": ROLES, "RoleBinding": ROLE_BINDINGS}
_LEFT_OUT = {
    "Deployment": "a process here: program.py",
    "Service": "a name for that process",
    "PodDisruptionBudget": "nobody drains this node",
    "PriorityClass": "no scheduler",
    "NetworkPolicy": "no network of its own",
    "FlowSchema": "an API that answers in turn",
    "PriorityLevelConfiguration": "the same",
    "PodMonitor": "no Prometheus",
    "PrometheusRule": "the same",
    "Issuer": "no cert-manager",
    "Certificate": "the same",
    "ValidatingAdmissionPolicy": "no CEL: what a policy forbids goes through here",
    "ValidatingAdmissionPolicyBinding": "the same",
}
"""Kinds that the devcluster's API does not have, and what stands for them."""
KINDS = frozenset((*_CLUSTER_WIDE, *_NAMESPACED, *_LEFT_OUT))
"""Those that something is known of; any other is an error."""
_EXECUTOR = "executor"
_EXECUTOR_RULES = [
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
]
"""What Argo asks the account of every step to have (docs/workflow-rbac.md), and stepmemo of none."""


class Workload(NamedTuple):
    """What a Deployment runs: the command of its one container, and its variables that are plain values."""

    name: str
    account: str
    command: tuple[str, ...]
    variables: Mapping[str, str]


async def install(client: Client, components: Sequence[str]) -> dict[str, Workload]:
    """Create what manifests/base and these components hold; the Deployments by name.

    Left out are objects of kinds that the devcluster's API does not have (`_LEFT_OUT`); ValueError for a kind
    that nothing is known of.
    """
    documents = rendered(components)
    for document in documents:
        if resource := _CLUSTER_WIDE.get(document["kind"]):
            await client.create(resource, None, document)
        elif resource := _NAMESPACED.get(document["kind"]):
            await client.create(resource, NAMESPACE, document)
        elif document["kind"] not in _LEFT_OUT:
            raise ValueError(f"the devcluster does not know the kind {document['kind']}")
    return workloads(documents)


def workloads(documents: Sequence[Object]) -> dict[str, Workload]:
    """The Deployments among these objects, by name."""
    return {
        each["metadata"]["name"]: _workload(each["metadata"]["name"], each["spec"]["template"]["spec"])
        for each in documents
        if each["kind"] == "Deployment"
    }


def _workload(name: str, pod: Object) -> Workload:
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    return Workload(name, pod["serviceAccountName"], tuple(container["command"]), variables)


async def allow_steps(client: Client, namespace: str, components: Sequence[str]) -> None:
    """Make a namespace one where steps may run, and where what these components leave to it is installed.

    Steps get Argo's own rights or, with ACCESS_DIRECT, those of manifests/components/direct.
    """
    documents = list(_documents(_COMPONENTS / "direct") if ACCESS_DIRECT in components else _executor())
    for document in documents:
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
    if NAMESPACES_ONLY in components:
        documents += _documents(_COMPONENTS / "kept-namespace")
    for document in documents:
        await client.create(_NAMESPACED[document["kind"]], namespace, document)


def rendered(components: Sequence[str]) -> list[Object]:
    """The objects of manifests/base with these folders of manifests/components, as kustomize makes them.

    Of what kustomize can, that is: `resources`, and `patches` that are JSON Patches with a target or delete
    an object. The names of images are not filled in.
    """
    documents = list(_documents(MANIFESTS / "base"))
    for folder in (_COMPONENTS / name for name in components):
        documents += _documents(folder)
        for patch in _kustomization(folder).get("patches", []):
            documents = _patched(documents, patch)
    return documents


def rules(documents: Sequence[Object], account: str, kind: str) -> list[Any]:
    """What the bindings among these objects allow this service account by a `Role` or a `ClusterRole`."""
    bindings = [each for each in documents if each["kind"] == f"{kind}Binding"]
    names = [
        binding["roleRef"]["name"]
        for binding in bindings
        for subject in binding["subjects"]
        if (binding["roleRef"]["kind"], subject["name"]) == (kind, account)
    ]
    return [
        rule
        for each in documents
        if each["kind"] == kind and each["metadata"]["name"] in names
        for rule in each["rules"]
    ]


def _patched(documents: list[Object], patch: Object) -> list[Object]:
    """The documents with one entry of `patches` applied; ValueError if it fits none of them."""
    change = yaml.load(patch["patch"], LOADER)
    target = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}
    found = [each for each in documents if _is_target(each, target)]
    if not found:
        raise ValueError(f"nothing to patch for {target}")
    if isinstance(change, list):
        return [apply_operations(change, each) if each in found else each for each in documents]
    if change.get("$patch") != "delete":
        raise ValueError("the devcluster knows JSON Patches and `$patch: delete` alone")
    return [each for each in documents if each not in found]


def _is_target(document: Object, target: Object) -> bool:
    """Whether the document is of the target's kind and name, which are regular expressions to kustomize."""
    named = re.fullmatch(target["name"], document["metadata"]["name"])
    return bool(named and re.fullmatch(target.get("kind", ".*"), document["kind"]))


def _documents(directory: Path) -> Iterator[Object]:
    """The objects of a kustomization, in the order that it names its files."""
    for name in _kustomization(directory).get("resources", []):
        for document in yaml.load_all((directory / name).read_text(encoding="utf-8"), LOADER):
            # An anchor makes one object of two places, and a patch of one would change the other.
            yield json.loads(json.dumps(document))


def _kustomization(directory: Path) -> Object:
    text = (directory / "kustomization.yaml").read_text(encoding="utf-8")
    found: Object = yaml.load(text, LOADER)
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
