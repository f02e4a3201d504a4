import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import ACCESS_DIRECT, BASE, IMAGE_VOLUME, overlay


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
    theirs = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout)}
    assert theirs == {(d["kind"], d["metadata"]["name"]): d for d in overlay(component)}
