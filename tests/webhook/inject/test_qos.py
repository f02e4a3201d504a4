import contextlib
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.inject.qos import QoS, qos_class, quantity

FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("+1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2.", 2),
        ("250m", Fraction(1, 4)),
        ("3n", Fraction(3, 10**9)),
        ("1k", 1000),
        ("64Mi", 64 * 1024**2),
        ("1E", 10**18),
        ("1Ei", 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", Fraction(6, 5)),
        (2, 2),
        (0.5, Fraction(1, 2)),
        ("0" * 40 + "1", 1),
    ],
)
def test_a_quantity_is_read_exactly(text: object, number: Fraction) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "1 Gi", "1gi", "Mi", "1KI", "one", "1e", None, "1Mib", "0x10", "1e999999999"]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        quantity(text)


@given(st.text(alphabet="0123456789.eE+-numkMGTPi", max_size=8))
def test_a_quantity_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(quantity(text), Fraction)


def spec(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "containers": [{"name": f"c{i}", "resources": r} for i, r in enumerate(containers)],
        "initContainers": [{"name": f"i{i}", "resources": r} for i, r in enumerate(init)],
        **more,
    }


@pytest.mark.parametrize(
    ("pod_spec", "expected"),
    [
        (spec({}), QoS.BEST_EFFORT),
        (spec({"limits": {"nvidia.com/gpu": "1"}}), QoS.BEST_EFFORT),
        (spec({"requests": {"cpu": "0", "memory": "0"}}), QoS.BEST_EFFORT),
        (spec({"requests": {"cpu": "10m"}}), QoS.BURSTABLE),
        (spec({"limits": FULL}), QoS.GUARANTEED),
        (spec({"limits": FULL, "requests": FULL}), QoS.GUARANTEED),
        (spec({"limits": FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), QoS.GUARANTEED),
        (spec({"limits": FULL, "requests": {"cpu": "999m"}}), QoS.BURSTABLE),
        (spec({"limits": {"cpu": "1"}}), QoS.BURSTABLE),
        (spec({"limits": FULL}, {}), QoS.BURSTABLE),
        (spec({"limits": FULL}, init=({},)), QoS.BURSTABLE),
        (spec({"limits": FULL}, init=({"limits": FULL},)), QoS.GUARANTEED),
        (spec({}, resources={"limits": FULL}), QoS.GUARANTEED),
        (spec({"limits": FULL}, resources={"requests": {"cpu": "1"}}), QoS.BURSTABLE),
    ],
)
def test_the_class_is_the_one_that_kubernetes_computes(pod_spec: dict[str, Any], expected: QoS) -> None:
    assert qos_class(pod_spec) == expected
