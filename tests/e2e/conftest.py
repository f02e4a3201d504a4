"""End-to-end checks on a cluster that runs Argo Workflows and stepmemo, named by KUBECONFIG.

Skipped, with one line, where there is none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import PATIENCE, Namespace, fresh_namespace, why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    reason = why_not() if here else None
    for item in here:
        item.add_marker(pytest.mark.timeout(3 * PATIENCE))
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"end to end: {reason}"))


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with fresh_namespace() as namespace:
        yield namespace


@pytest.fixture
def restricted() -> Iterator[Namespace]:
    with fresh_namespace({"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        yield namespace
