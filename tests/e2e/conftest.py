"""End-to-end checks on the cluster that KUBECONFIG names; README.md says what it needs.

Skipped, with one line, where there is none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import record
from tests.e2e.cluster import Namespace, fresh_namespace
from tests.e2e.kube import PATIENCE, why_not
from tests.e2e.probe import Setting, probe

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(HERE)]
    reason = why_not() if here else None
    for item in here:
        item.add_marker(pytest.mark.timeout(3 * PATIENCE))
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"end to end: {reason}"))
    if here and not reason and (recorder := record.Recorder.from_environment(here)):
        config.pluginmanager.register(recorder)


@pytest.fixture(scope="session")
def setting() -> Setting:
    """Argo's version and layout, and how stepmemo delivers its gate."""
    return probe()


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with fresh_namespace() as namespace:
        yield namespace


@pytest.fixture
def restricted() -> Iterator[Namespace]:
    with fresh_namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        yield namespace
