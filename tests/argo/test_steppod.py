from typing import Any

import pytest

from argo import names
from argo.steppod import NotAStep, Owner, StepPod

OWNER = {"apiVersion": names.API_VERSION, "kind": "Workflow", "name": "wf", "uid": "u", "controller": True}
METADATA = {"name": "wf-1", "labels": {names.WORKFLOW_LABEL: "wf"}, "ownerReferences": [OWNER]}


def parse(**metadata: Any) -> StepPod | NotAStep:
    return StepPod.parse({"metadata": {**METADATA, **metadata}}, "ns")


def test_the_node_is_the_annotations_else_the_pods_name() -> None:
    step = parse(annotations={names.NODE_ID: "wf-2"})
    assert isinstance(step, StepPod)
    assert (step.owner, step.node_id, parse().node_id) == (Owner("ns", "wf", "u"), "wf-2", "wf-1")


def test_a_pod_without_a_node_is_no_step() -> None:
    assert isinstance(parse(name=None), NotAStep)


@pytest.mark.parametrize("references", [None, [], "x", 1, {}, ["x"], [None]])
def test_owner_references_of_any_shape_are_read(references: object) -> None:
    assert parse(ownerReferences=references) == NotAStep(
        f"its controller is not the Workflow that {names.WORKFLOW_LABEL} names", "wf-1"
    )
