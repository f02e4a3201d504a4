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
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration")


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
