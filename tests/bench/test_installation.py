from typing import Any

import pytest

from bench.installation import lookup_of, rolled_out


@pytest.mark.parametrize(
    ("container", "lookup"),
    [
        ({}, "service"),
        ({"env": [{"name": "STEPMEMO_IMAGE", "value": "x"}]}, "service"),
        ({"args": ["--injection=image-volume"]}, "service"),
        ({"args": ["--access=direct"]}, "init-container"),
        ({"args": ["--access", "direct", "--injection", "image-volume"]}, "image-volume"),
        (
            {"args": ["--access=direct"], "env": [{"name": "STEPMEMO_INJECTION", "value": "image-volume"}]},
            "image-volume",
        ),
        ({"args": ["--access=service"], "env": [{"name": "STEPMEMO_ACCESS", "value": "direct"}]}, "service"),
    ],
)
def test_the_way_of_the_look_up_is_read_as_the_server_reads_it(
    container: dict[str, Any], lookup: str
) -> None:
    assert lookup_of(container) == lookup


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
