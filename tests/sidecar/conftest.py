"""A step Pod whose API server fails on demand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sidecar import faults
from tests.sidecar.steppod import Pod


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.make_credentials(tmp_path_factory.mktemp("serviceaccount"))


@pytest.fixture
def api() -> Iterator[faults.Api]:
    api = faults.Api()
    yield api
    assert api.unknown == [], "a request that tests/sidecar/faults.py does not know: add it to Call"


@pytest.fixture
def server(api: faults.Api, credentials: Path) -> Iterator[tuple[str, int]]:
    with faults.serving(api, credentials) as address:
        yield address


@pytest.fixture
def access() -> str:
    """How the cache is reached, `direct` or `service`; tests of both parametrize it."""
    return "direct"


@pytest.fixture
def pod(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    server: tuple[str, int],
    credentials: Path,
    access: str,
) -> Pod:
    pod = Pod(tmp_path, monkeypatch, capfd, server, credentials)
    if access == "service":
        pod.use_service()
    return pod
