from typing import Any

import pytest

from argo import artifact_gc
from argo.artifact_gc import WorkflowTemplateRef

FINALIZER = "workflows.argoproj.io/artifact-gc"
PHASE = "workflows.argoproj.io/phase"


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, None),
        ({"labels": {"mine": "1"}, "finalizers": ["mine"]}, None),
        ({"labels": None, "finalizers": None}, None),
        ({"labels": {PHASE: "Pending"}}, None),
        ({"labels": {PHASE: "Running"}}, False),
        ({"labels": {PHASE: "Running"}, "finalizers": ["mine", FINALIZER]}, True),
        ({"finalizers": [FINALIZER]}, True),
    ],
)
def test_metadata_tell_it_once_the_controller_has_written_them(
    metadata: dict[str, Any], told: bool | None
) -> None:
    assert artifact_gc.told_by(metadata) is told


@pytest.mark.parametrize(
    ("holder", "strategy"),
    [
        ({}, ""),
        ({"artifactGC": None}, ""),
        ({"artifactGC": "Never"}, ""),
        ({"artifactGC": {"podMetadata": {}}}, ""),
        ({"artifactGC": {"strategy": "OnPodDeletion"}}, "OnPodDeletion"),
    ],
)
def test_the_strategy_is_read_from_whatever_an_artifact_or_a_spec_holds(
    holder: dict[str, Any], strategy: str
) -> None:
    assert artifact_gc.strategy(holder) == strategy


def test_a_strategy_that_is_not_known_deletes() -> None:
    assert [artifact_gc.deletes(s) for s in ("", "Never", "OnWorkflowDeletion", "OnNewYear")] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, None),
        ({"workflowTemplateRef": {}}, None),
        ({"workflowTemplateRef": {"name": "t"}}, WorkflowTemplateRef("t", cluster=False)),
        (
            {"workflowTemplateRef": {"name": "t", "clusterScope": True}},
            WorkflowTemplateRef("t", cluster=True),
        ),
    ],
)
def test_the_template_under_a_workflow_is_found(
    spec: dict[str, Any], found: WorkflowTemplateRef | None
) -> None:
    assert artifact_gc.reference({"spec": spec}) == found
