"""How the end-to-end suite tells what became of a step, for either access."""

import json
from typing import Any

import pytest

from memoize import names
from tests.e2e.outcome import Memoization, is_unscheduled_hit, memoization

CHECK, CAPTURE = names.CONTAINERS


def pod(label: str = "", reason: str = "", **told: str) -> dict[str, Any]:
    """A Pod with containers of ours by the reason of their termination message; "" while there is none."""
    metadata = {
        "labels": {names.RESULT: label} if label else {},
        "annotations": {names.REASON: reason} if reason else {},
    }
    containers = {name.replace("_", "-"): word for name, word in told.items()}
    statuses = [
        {
            "name": name,
            "state": {"terminated": {"message": json.dumps({"reason": word, "detail": "d", "ms": 1})}},
        }
        for name, word in containers.items()
        if word
    ]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": name} for name in ("main", *containers)]},
        "status": {"phase": "Succeeded", "containerStatuses": statuses},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod("hit", "Hit: from wf-1"), ("hit", "Hit", "from wf-1")),
        (pod("stored", "Stored"), ("stored", "Stored", "")),
        (pod("skipped", "StepFailed: a: b"), ("skipped", "StepFailed", "a: b")),
        (pod("miss"), ("miss", "", "")),
        (pod("in-pod", stepmemo_check="Miss", stepmemo="Stored"), ("stored", "Stored", "d")),
        (pod(stepmemo_check="Hit", stepmemo="Stopped"), ("hit", "Hit", "d")),
        (pod(stepmemo_check="Miss", stepmemo="StepFailed"), ("skipped", "StepFailed", "d")),
        (pod(stepmemo_check="Miss"), ("skipped", "Miss", "d")),
        (pod(stepmemo_check="Miss", stepmemo=""), ("", "", "")),
        (pod(), ("", "", "")),
    ],
)
def test_it_is_told_by_the_metadata_or_else_by_the_containers(
    given: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert memoization(given) == Memoization(*expected)


def test_a_hit_counts_as_unscheduled_only_if_all_of_it_is_there() -> None:
    hit = pod("hit", "Hit")
    hit["status"]["reason"] = "Memoized"
    assert is_unscheduled_hit(hit)
    assert not is_unscheduled_hit(hit | {"spec": {**hit["spec"], "nodeName": "lab"}})
    assert not is_unscheduled_hit(hit | {"status": {"phase": "Succeeded"}})
    assert not is_unscheduled_hit(pod("stored", "Stored"))
