"""What kustomize makes of the manifests, as far as they use it: tests need no kustomize then."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from devcluster.installation import LOADER

ROOT = Path(__file__).parents[2] / "manifests"
BASE = ROOT / "base"
COMPONENTS = ROOT / "components"
OVERLAYS = tuple(sorted((ROOT / "overlays").iterdir()))
DIRECT = COMPONENTS / "direct"
KEPT_NAMESPACE = COMPONENTS / "kept-namespace"
IMAGE_VOLUME = COMPONENTS / "image-volume"
ACCESS_DIRECT = COMPONENTS / "access-direct"
NAMESPACES = COMPONENTS / "namespaces"
NAMESPACE_OPT_IN = COMPONENTS / "namespace-opt-in"
NETWORK_POLICY = COMPONENTS / "network-policy"
FLOW_SCHEMA = COMPONENTS / "flow-schema"
PRIORITY_CLASS = COMPONENTS / "priority-class"
POSTGRESQL = COMPONENTS / "postgresql"
PEOPLE = COMPONENTS / "people"
NO_NUDGE = COMPONENTS / "no-nudge"
MONITORING = COMPONENTS / "monitoring"
CERT_MANAGER = COMPONENTS / "cert-manager"
PORT_10250 = COMPONENTS / "port-10250"
HOST_NETWORK = COMPONENTS / "host-network"
VERIFY_ARTIFACTS = COMPONENTS / "verify-artifacts"
AUTO_KEY_REFERENCES = COMPONENTS / "auto-key-references"
KEPT_REFERENCES = COMPONENTS / "kept-references"

OF_THE_BASE = (
    IMAGE_VOLUME,
    ACCESS_DIRECT,
    NAMESPACES,
    NAMESPACE_OPT_IN,
    NETWORK_POLICY,
    FLOW_SCHEMA,
    PRIORITY_CLASS,
    POSTGRESQL,
    PEOPLE,
    NO_NUDGE,
    MONITORING,
    CERT_MANAGER,
    PORT_10250,
    HOST_NETWORK,
    VERIFY_ARTIFACTS,
    AUTO_KEY_REFERENCES,
)
"""Components of the installation itself."""
OF_A_NAMESPACE = (DIRECT, KEPT_NAMESPACE, KEPT_REFERENCES)
"""Components of one namespace of workflows."""

WEBHOOK, KEEPER = "stepmemo-webhook", "stepmemo-keeper"
NUDGE, CABUNDLE = "stepmemo-nudge", "stepmemo-cabundle"
"""Roles for Workflows and for the webhook configuration."""
OF_THE_KEEPER = (KEEPER, f"{KEEPER}-certs", NUDGE)
"""Names of what serves the keeper alone."""
PROGRAMS = (WEBHOOK, KEEPER)

Json = dict[str, Any]
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
CLUSTER_WIDE = (
    *POLICIES,
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "PriorityClass",
    "FlowSchema",
    "PriorityLevelConfiguration",
)


def render(directory: Path, namespace: str = "") -> list[Json]:
    """The objects of a kustomization with its images and its namespace applied."""
    kustomization = _kustomization(directory)
    known = {"apiVersion", "kind", "namespace", "images", "resources"}
    assert set(kustomization) <= known, "this reader does not know all of it"
    documents = list(_documents(directory, kustomization))
    namespace = namespace or kustomization.get("namespace", "")
    images = {
        image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization.get("images", ())
    }
    # Of a binding's subjects kustomize moves those that are among the objects, and `default`.
    moved = {"default", *(d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount")}
    for document in documents:
        if document["kind"] not in CLUSTER_WIDE:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", ()):
            if subject["name"] in moved:
                subject["namespace"] = namespace
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                container["image"] = images[container["image"]]
    return documents


def kustomized(text: bytes | str) -> list[Json]:
    """What `kubectl kustomize` printed.

    It does not know that policies have no Namespace, and gives them one, which the API server takes away.
    """
    documents = list(yaml.load_all(text, LOADER))
    for document in documents:
        if document["kind"] in POLICIES:
            document["metadata"].pop("namespace", None)
    return documents


def rules_of(account: str) -> list[Json]:
    """All that the base lets this account do, wherever."""
    documents = render(BASE)
    roles = {(d["kind"], d["metadata"]["name"]): d["rules"] for d in documents if "rules" in d}
    bound = [
        (d["roleRef"]["kind"], d["roleRef"]["name"])
        for d in documents
        if any(subject["name"] == account for subject in d.get("subjects", ()))
    ]
    assert bound, f"nothing is bound to {account}"
    return [rule for role in bound for rule in roles[role]]


def overlay(*components: Path) -> list[Json]:
    """The objects of a kustomization that consists of the base and of these components."""
    documents = render(BASE)
    for component in components:
        kustomization = _kustomization(component)
        assert set(kustomization) <= {"apiVersion", "kind", "patches", "resources", "configMapGenerator"}
        documents += _documents(component, kustomization)
        documents += _generated(component, kustomization)
        _patch(documents, kustomization)
    return documents


def installation(directory: Path) -> list[Json]:
    """The objects of one of OVERLAYS: the base with components and patches, and namespaces of workflows."""
    kustomization = _kustomization(directory)
    assert set(kustomization) <= {"apiVersion", "kind", "patches", "resources", "components"}
    base, *namespaces = [(directory / name).resolve() for name in kustomization["resources"]]
    assert base == BASE.resolve()
    documents = overlay(*((directory / name).resolve() for name in kustomization["components"]))
    for one in namespaces:
        of_it = _kustomization(one)
        for component in of_it["components"]:
            documents += render((one / component).resolve(), of_it["namespace"])
    _patch(documents, kustomization)
    return documents


def find(documents: list[Json], kind: str, name: str = "stepmemo") -> Json:
    """The one object of this kind and name."""
    (found,) = (d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def container(documents: list[Json], name: str) -> Json:
    """The one container of the Deployment of this name."""
    (found,) = find(documents, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(documents: list[Json], name: str) -> dict[str, str]:
    """Its variables; those that the kubelet fills in have some text."""
    return {one["name"]: one.get("value", "stepmemo") for one in container(documents, name)["env"]}


def permissions(documents: list[Json], kind: str, name: str) -> dict[str, list[str]]:
    """The verbs of a Role by `group/resource/…/name/…`."""
    return {
        "/".join([*rule["apiGroups"], *rule["resources"], *rule.get("resourceNames", ())]): rule["verbs"]
        for rule in find(documents, kind, name)["rules"]
    }


def _kustomization(directory: Path) -> Json:
    found: Json = yaml.load((directory / "kustomization.yaml").read_text(encoding="utf-8"), LOADER)
    return found


def _patch(documents: list[Json], kustomization: Json) -> None:
    for patch in kustomization.get("patches", ()):
        change = yaml.load(patch["patch"], LOADER)
        deletes = isinstance(change, dict)
        assert not deletes or change["$patch"] == "delete", "this reader does not know all of it"
        target = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}
        for document in _named(documents, **target):
            if deletes:
                documents.remove(document)
            else:
                jsonpatch.apply_patch(document, change, in_place=True)


def _documents(directory: Path, kustomization: Json) -> Iterator[Json]:
    for name in kustomization.get("resources", ()):
        yield from objects(directory / name)


def _generated(directory: Path, kustomization: Json) -> Iterator[Json]:
    for one in kustomization.get("configMapGenerator", ()):
        options = one["options"]
        assert set(one) == {"name", "namespace", "files", "options"}, "this reader does not know all of it"
        assert options == {"disableNameSuffixHash": True, "labels": options["labels"]}
        metadata = {"name": one["name"], "namespace": one["namespace"], "labels": options["labels"]}
        data = {name: (directory / name).read_text(encoding="utf-8") for name in one["files"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def objects(path: Path) -> list[Json]:
    """Those of a file, each time others: a caller may change them."""
    found: list[Json] = json.loads(_read(path))
    return found


@cache
def _read(path: Path) -> str:
    """The file's objects as JSON: read once, and without YAML's anchors, which give one object two places."""
    return json.dumps(list(yaml.load_all(path.read_text(encoding="utf-8"), LOADER)))


def _named(documents: list[Json], name: str, kind: str = ".*") -> list[Json]:
    """Those that a patch is for: both are regular expressions to kustomize."""
    found = [
        d for d in documents if re.fullmatch(kind, d["kind"]) and re.fullmatch(name, d["metadata"]["name"])
    ]
    assert found, f"nothing to patch for {kind} {name}"
    return found
