from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cli import session
from cli.__main__ import main
from tests.cluster import Cluster

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Stepmemo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stepmemo(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stepmemo:
    """Runs a command against the cluster, at NOW: exit code, standard output, standard error."""
    return runner(cluster, monkeypatch, capsys)


def runner(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stepmemo:
    """What `stepmemo` is, for a cluster of one's own."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setattr(session, "now", lambda: NOW)

    def run(*args: str) -> tuple[int, str, str]:
        code = main(list(args))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def kubeconfig_of(cluster: Cluster, tmp_path: Path) -> Callable[[str], str]:
    """Writes a kubeconfig for the bearer of a token, and returns its path."""

    return lambda token: kubeconfig(cluster, token, tmp_path)


def kubeconfig(cluster: Cluster, token: str, directory: Path) -> str:
    """Write one for the bearer of a token."""
    found = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    found["users"][0]["user"] = {"token": token}
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(found), encoding="utf-8")
    return str(path)
