import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.rendering import (
    ACCESS_DIRECT,
    BASE,
    CERT_MANAGER,
    NAMESPACES,
    NETWORK_POLICY,
    OF_A_NAMESPACE,
    OF_THE_BASE,
    OVERLAYS,
    PROGRAMS,
    container,
    installation,
    kustomized,
    overlay,
    render,
)

Json = dict[str, Any]

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"


needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: nothing to compare our reader with"
)


@needs_kubectl
@pytest.mark.parametrize("component", OF_THE_BASE, ids=lambda path: path.name)
def test_kustomize_makes_the_same_of_it(component: Path, tmp_path: Path) -> None:
    base, folder = (os.path.relpath(path, tmp_path.resolve()) for path in (BASE, component))
    theirs = made(tmp_path, {"resources": [base], "components": [folder]})
    assert by_name(theirs) == by_name(overlay(component))


@needs_kubectl
@pytest.mark.parametrize("component", OF_A_NAMESPACE, ids=lambda path: path.name)
def test_kustomize_makes_the_same_of_it_for_a_namespace(component: Path, tmp_path: Path) -> None:
    folder = os.path.relpath(component, tmp_path.resolve())
    theirs = made(tmp_path, {"namespace": "work", "components": [folder]})
    assert by_name(theirs) == by_name(render(component, "work"))


def made(directory: Path, kustomization: Json) -> list[Json]:
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, check=True)
    return kustomized(done.stdout)


def by_name(documents: list[Json]) -> dict[tuple[str, str], Json]:
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


@needs_kubectl
def test_the_overlay_of_the_readme_names_the_image_of_both_programs(tmp_path: Path) -> None:
    written = re.search(r"<<'END'\n(.*?)^END$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert written
    base = os.path.relpath(BASE, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(written[1].replace("../manifests/base", base))
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, check=True)
    documents = kustomized(done.stdout)
    for program in PROGRAMS:
        assert container(documents, program)["image"] == "registry.example/stepmemo:1"


@needs_kubectl
@pytest.mark.parametrize("directory", OVERLAYS, ids=lambda path: path.name)
def test_kustomize_makes_the_same_of_an_overlay(directory: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, check=True)
    assert identified(kustomized(done.stdout)) == identified(installation(directory))


@needs_kubectl
@pytest.mark.parametrize("second", [ACCESS_DIRECT, NAMESPACES, NETWORK_POLICY], ids=lambda path: path.name)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_cert_manager_goes_with_others_whichever_comes_first(
    tmp_path: Path, second: Path, is_first: bool
) -> None:
    components = [CERT_MANAGER, second] if is_first else [second, CERT_MANAGER]
    base, *folders = (os.path.relpath(path, tmp_path.resolve()) for path in (BASE, *components))
    documents = made(tmp_path, {"resources": [base], "components": folders})
    rules = [rule for one in documents for rule in one.get("rules", ())]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert resources & {"secrets", "mutatingwebhookconfigurations"} == set()


def identified(documents: list[Json]) -> dict[tuple[str, str, str], Json]:
    return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}
