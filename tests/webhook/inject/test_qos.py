from typing import Any

import pytest

from webhook.inject.qos import QoS, qos_class

FULL = {"cpu": "1", "memory": "1Gi"}


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
