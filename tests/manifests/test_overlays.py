import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import ACCESS_DIRECT, BASE, IMAGE_VOLUME, kustomized, overlay

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: nothing to compare our reader with"
)
@pytest.mark.parametrize("component", [IMAGE_VOLUME, ACCESS_DIRECT])
def test_kustomize_makes_the_same_of_it(component: Path, tmp_path: Path) -> None:
    base, folder = (os.path.relpath(path, tmp_path.resolve()) for path in (BASE, component))
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [base], "components": [folder]})
    )
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, check=True)
    theirs = {(d["kind"], d["metadata"]["name"]): d for d in kustomized(done.stdout)}
    assert theirs == {(d["kind"], d["metadata"]["name"]): d for d in overlay(component)}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here to read it")
def test_the_overlay_of_the_readme_names_the_image_of_the_server(tmp_path: Path) -> None:
    written = re.search(r"<<'END'\n(.*?)^END$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert written
    base = os.path.relpath(BASE, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(written[1].replace("../manifests/base", base))
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, check=True)
    (deployment,) = (d for d in kustomized(done.stdout) if d["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/stepmemo:1"
