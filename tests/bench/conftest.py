"""Where the benchmarks of this room find their API server."""

from pathlib import Path

import pytest


@pytest.fixture
def no_kube_apiserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devcluster serves, though a real control plane is built: that starts in seconds, this at once."""
    monkeypatch.setenv("STEPMEMO_CACHE", str(tmp_path / "nothing-is-built"))
    for name in ("STEPMEMO_ETCD", "STEPMEMO_KUBE_APISERVER"):
        monkeypatch.delenv(name, raising=False)
