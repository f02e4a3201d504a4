"""Recorded Pods for the tests of this room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from webhook.containers import InjectSettings

PODS = Path(__file__).parents[1] / "data" / "pods"

Json = dict[str, Any]


@pytest.fixture
def load() -> Callable[[str], Json]:
    """Reads a recorded Pod by its path below tests/data/pods, without `.json`."""
    return lambda case: json.loads((PODS / f"{case}.json").read_text(encoding="utf-8"))


@pytest.fixture
def pod(load: Callable[[str], Json]) -> Json:
    """An ordinary step Pod of 4.1: `init`, `wait` and `main`, one output parameter."""
    return load("v4.1.2-legacy/container")


@pytest.fixture
def settings() -> InjectSettings:
    """The settings that the golden twins were made with."""
    return InjectSettings(image="stepmemo:golden")
