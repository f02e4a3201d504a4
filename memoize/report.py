"""What a step reported: the outputs in its WorkflowTaskResult or its node, and the entry that they make.

Nothing that was read is trusted to be of any type.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from argo.shape import mapping
from memoize.entry import LONGEST_TOOK, Entry
from memoize.outcome import Outcome
from memoize.outputs import BrokenOutputsError, Declared, NotStorable, Outputs, missing, sound, storable
from memoize.reasons import Reason
from memoize.step import Step
from memoize.taskresult import completed, posted_by_us

_SUCCEEDED = "Succeeded"
"""The phase of a node whose outputs count (NodePhase in workflow_types.go)."""


def reported(result: Mapping[str, Any], declared: Declared) -> Outputs | Outcome:
    """Return the outputs that the step itself reported, all of them, or why they are of no use."""
    if not completed(result):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the step's WorkflowTaskResult is not reported complete")
    if posted_by_us(result):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the result is one that stepmemo posted")
    return _whole(result.get("outputs"), declared)


def taken_over(workflow: Mapping[str, Any], node_id: str, declared: Declared) -> Outputs | Outcome:
    """Return the outputs of a node that succeeded, as the controller keeps them in the Workflow's status.

    It deletes the results of a workflow that is over. Compressed and offloaded nodes are not looked up.
    """
    node = mapping(mapping(mapping(workflow.get("status")).get("nodes")).get(node_id))
    if node.get("phase") != _SUCCEEDED:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the step has no WorkflowTaskResult")
    return _whole(node.get("outputs"), declared)


def _whole(found: object, declared: Declared) -> Outputs | Outcome:
    try:
        outputs = sound(found)
    except BrokenOutputsError as error:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, str(error))
    if lacks := missing(outputs, declared):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, f"the step did not report {', '.join(lacks)}")
    return outputs or {}


def new_entry(
    step: Step, declared: Declared, outputs: Outputs, now: datetime, pod: str, took: float = 0
) -> Entry | Outcome:
    """Make the entry of a step that ran in the Pod named `pod` and succeeded, or say why there must be none.

    `declared` are the step's own, from wherever its template is; `outputs` are as `reported` returns them.
    `now` is aware. `took` are the seconds that the step's main containers ran, 0 where that is not known.
    """
    kept = storable(outputs, declared, step.gc)
    if isinstance(kept, NotStorable):
        return Outcome(kept.reason, kept.detail)
    return Entry(
        node_id=step.node_id,
        outputs=kept,
        created=now,
        last_hit=now,
        key=step.entry_key,
        max_age=step.max_age,
        pod=pod,
        workflow=step.workflow,
        took=round(min(max(took, 0), LONGEST_TOOK), 3),
        template=step.template,
        parts=step.parts,
    )
