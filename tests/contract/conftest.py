"""Fixtures of the contract tests."""

from collections.abc import Iterator

import pytest

from tests.contract.webhook import Webhook, serving


@pytest.fixture
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """A webhook that runs and is not yet installed anywhere."""
    with serving(tmp_path_factory.mktemp("webhook")) as running:
        yield running
