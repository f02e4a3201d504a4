"""End-to-end checks on the cluster that KUBECONFIG names; README.md says what it needs.

Skipped, with one line, unless STEPMEMO_E2E=1 asks for them: they write to that cluster.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import record
from tests.e2e.cluster import Namespace, fresh_namespace
from tests.e2e.kube import PATIENCE, SWITCH, is_asked_for, where, why_not
from tests.e2e.probe import Setting, probe

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(HERE)]
    if here and is_asked_for():
        _prepare(config, here)
    for item in here:
        item.add_marker(pytest.mark.timeout(3 * PATIENCE))
        if not is_asked_for():
            item.add_marker(pytest.mark.skip(reason=f"end to end: {SWITCH}=1 is not set"))


def _prepare(config: pytest.Config, here: list[pytest.Item]) -> None:
    """Ends the session where the suite cannot run, else says which cluster it is about to write to."""
    if reason := why_not():
        raise pytest.UsageError(f"{SWITCH}=1 asks for the end-to-end suite, and it cannot run: {reason}")
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    terminal.write_line(f"end to end, writing to {where()}", flush=True)
    if recorder := record.Recorder.from_environment(here):
        config.pluginmanager.register(recorder)


@pytest.fixture(scope="session")
def setting() -> Setting:
    """Argo's version and layout, and how stepmemo delivers its entrypoint."""
    return probe()


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with fresh_namespace() as namespace:
        yield namespace


@pytest.fixture
def restricted() -> Iterator[Namespace]:
    with fresh_namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        yield namespace
