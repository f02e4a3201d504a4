"""Installs stepmemo into the devcluster from manifests/, as `kubectl apply -k` would.

What a cluster's own controllers would make of a Deployment and a Service, the devcluster does by itself: the
server runs as a process, under the manifests' service account with the rights they give it.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

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

_CLUSTER_WIDE = {
    "Namespace": NAMESPACES,
    "ClusterRole": CLUSTER_ROLES,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
    "MutatingWebhookConfiguration": WEBHOOKS,
}
_NAMESPACED = {"ServiceAccount": SERVICE_ACCOUNTS, "Role": ROLES, "RoleBinding": ROLE_BINDINGS}


async def install(client: Client, components: Sequence[str]) -> dict[str, str]:
    """Create what manifests/base and these components hold of the kinds that the devcluster's API has.

    Returns the variables that the components add to the server's environment.
    """
    folders = [MANIFESTS / "components" / name for name in components]
    for document in itertools.chain.from_iterable(map(_documents, (MANIFESTS / "base", *folders))):
        if resource := _CLUSTER_WIDE.get(document["kind"]):
            await client.create(resource, None, document)
        elif resource := _NAMESPACED.get(document["kind"]):
            await client.create(resource, NAMESPACE, document)
    return {name: value for folder in folders for name, value in _variables(folder)}


async def allow_steps(client: Client, namespace: str) -> None:
    """Give the steps of `namespace` the rights of manifests/components/direct."""
    for document in _documents(MANIFESTS / "components" / "direct"):
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
        await client.create(_NAMESPACED[document["kind"]], namespace, document)


def _documents(directory: Path) -> Iterator[Object]:
    """The objects of a kustomization, in the order that it names its files."""
    for name in _kustomization(directory)["resources"]:
        yield from yaml.safe_load_all((directory / name).read_text(encoding="utf-8"))


def _variables(directory: Path) -> Iterator[tuple[str, str]]:
    """What a kustomization's JSON patches add to the variables of the Deployment's container."""
    for patch in _kustomization(directory).get("patches", []):
        for operation in yaml.safe_load(patch["patch"]):
            if operation["path"] == "/spec/template/spec/containers/0/env/-":
                yield operation["value"]["name"], operation["value"]["value"]


def _kustomization(directory: Path) -> Object:
    found: Object = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    return found
