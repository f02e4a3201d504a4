from typing import Any

import pytest

from bench.installation import gate_of, rolled_out


@pytest.mark.parametrize(
    ("container", "gate"),
    [
        ({}, ""),
        ({"env": [{"name": "STEPMEMO_GATE", "value": "image-volume"}]}, "image-volume"),
        ({"args": ["--gate", "init"]}, "init"),
        ({"args": ["--gate=image-volume"]}, "image-volume"),
        ({"args": ["--gate=init"], "env": [{"name": "STEPMEMO_GATE", "value": "image-volume"}]}, "init"),
        ({"env": [{"name": "STEPMEMO_IMAGE", "value": "x"}]}, ""),
    ],
)
def test_the_gate_is_read_as_the_server_reads_it(container: dict[str, Any], gate: str) -> None:
    assert gate_of(container) == gate


def deployment(**status: int) -> dict[str, Any]:
    full = {"observedGeneration": 2, "updatedReplicas": 2, "readyReplicas": 2}
    return {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {**full, **status}}


def test_a_roll_out_is_over_when_no_pod_of_before_is_left() -> None:
    assert rolled_out(deployment(), pods=2)
    assert not rolled_out(deployment(), pods=3)
    assert not rolled_out(deployment(observedGeneration=1), pods=2)
    assert not rolled_out(deployment(updatedReplicas=1), pods=2)
    assert not rolled_out(deployment(readyReplicas=1), pods=2)
    assert not rolled_out({**deployment(), "status": {}}, pods=2)
