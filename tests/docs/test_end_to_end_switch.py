"""The end-to-end suite writes to a cluster only where it is asked for, and says first to which one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUITE = "tests/e2e/test_entries.py"

KUBECTL = """\
#!/bin/sh
# Notes how it is called, and what the suite had said by then; knows a cluster that refuses every write.
echo "$*" >> "$NOTES/calls"
case "$*" in
  "config view"*)
    echo '{"current-context": "prod", "clusters": [{"cluster": {"server": "https://prod:6443"}}]}' ;;
  get\\ *) ;;
  *) cp -n "$NOTES/said" "$NOTES/said-before-the-first-write"; exit 1 ;;
esac
"""


def suite(notes: Path, **environment: str) -> tuple[int, str]:
    """Exit code and output of pytest on one file of the suite, with a kubectl that only takes notes."""
    kubectl = notes / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPMEMO_")}
    kept |= {"PATH": f"{notes}:{os.defpath}", "NOTES": str(notes), "KUBECONFIG": "of somebody's cluster"}
    command = [sys.executable, "-m", "pytest", "-x", "-rs", "-p", "no:cacheprovider", SUITE]
    with (notes / "said").open("w") as said:
        done = subprocess.run(
            command, cwd=ROOT, env=kept | environment, stdout=said, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode, (notes / "said").read_text()


@pytest.mark.parametrize("switch", [{}, {"STEPMEMO_E2E": ""}, {"STEPMEMO_E2E": "0"}])
def test_a_kubeconfig_alone_lets_the_suite_skip_without_asking_the_cluster_anything(
    tmp_path: Path, switch: dict[str, str]
) -> None:
    code, said = suite(tmp_path, **switch)
    assert code == 0, said
    assert "STEPMEMO_E2E=1 is not set" in said
    assert not (tmp_path / "calls").exists(), said


def test_the_cluster_is_named_before_the_first_write(tmp_path: Path) -> None:
    code, said = suite(tmp_path, STEPMEMO_E2E="1")
    assert code == 1, said
    before = (tmp_path / "said-before-the-first-write").read_text()
    assert "writing to context prod, server https://prod:6443" in before


def test_a_suite_that_is_asked_for_and_cannot_run_fails(tmp_path: Path) -> None:
    code, said = suite(tmp_path, STEPMEMO_E2E="1", KUBECONFIG="")
    assert code == pytest.ExitCode.USAGE_ERROR, said
    assert "KUBECONFIG is not set" in said
    assert not (tmp_path / "calls").exists(), said
