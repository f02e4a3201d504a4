"""What kustomize makes of the manifests, as far as they use it: tests need no kustomize then."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

ROOT = Path(__file__).parents[2] / "manifests"
BASE = ROOT / "base"
DIRECT = ROOT / "components" / "direct"
IMAGE_VOLUME = ROOT / "components" / "image-volume"
ACCESS_DIRECT = ROOT / "components" / "access-direct"

Json = dict[str, Any]
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", *POLICIES)


def render(directory: Path, namespace: str = "") -> list[Json]:
    """The objects of a kustomization with its images and its namespace applied."""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    known = {"apiVersion", "kind", "namespace", "images", "resources"}
    assert set(kustomization) <= known, "this reader does not know all of it"
    documents = [
        deepcopy(document)  # YAML's anchors give one object to two places
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((directory / name).read_text(encoding="utf-8"))
    ]
    namespace = namespace or kustomization.get("namespace", "")
    images = {
        image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization.get("images", ())
    }
    for document in documents:
        if document["kind"] not in CLUSTER_WIDE:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", ()):
            subject["namespace"] = namespace
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                container["image"] = images[container["image"]]
    return documents


def kustomized(text: bytes | str) -> list[Json]:
    """What `kubectl kustomize` printed.

    It does not know that policies have no Namespace, and gives them one, which the API server takes away.
    """
    documents = list(yaml.safe_load_all(text))
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


def overlay(component: Path) -> list[Json]:
    """The objects of a kustomization that consists of the base and of this component."""
    documents = render(BASE)
    kustomization = yaml.safe_load((component / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(kustomization) <= {"apiVersion", "kind", "patches", "resources"}
    for name in kustomization.get("resources", ()):
        documents += yaml.safe_load_all((component / name).read_text(encoding="utf-8"))
    for patch in kustomization["patches"]:
        change = yaml.safe_load(patch["patch"])
        if "target" in patch:
            jsonpatch.apply_patch(_named(documents, patch["target"]), change, in_place=True)
        else:
            assert change["$patch"] == "delete", "this reader does not know all of it"
            documents.remove(_named(documents, {"kind": change["kind"], "name": change["metadata"]["name"]}))
    return documents


def _named(documents: list[Json], wanted: Json) -> Json:
    (found,) = (
        d for d in documents if (d["kind"], d["metadata"]["name"]) == (wanted["kind"], wanted["name"])
    )
    return found
