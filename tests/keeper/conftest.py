"""What rooms of the keeper's tests share."""

import pytest

from tests.conftest import PATIENT


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute between an answer and its Pod's success, where the Pod is PAUSED: a second may be missed."""
    monkeypatch.setattr("keeper.reconcile.PAUSE", PATIENT)
