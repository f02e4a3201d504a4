"""The capture: keep the outputs of a step that ran and succeeded.

The gate runs this when every main container, and Argo's own, ended with 0. Whatever is doubtful here means
that no entry is kept; the step itself is over.
"""

from datetime import UTC, datetime

from memoize import names
from memoize.entry import Entry
from memoize.key import data_key, is_hashed
from memoize.outcome import Outcome
from memoize.outputs import BrokenOutputsError, Declared, Outputs, Refused, missing, sound, storable
from memoize.reasons import Reason
from sidecar import files
from sidecar.cache import Cache
from sidecar.deadline import Deadline
from sidecar.kube import Answer
from sidecar.outcome import refusal
from sidecar.result import TaskResult, completed, posted_by_us
from sidecar.settings import Settings

_REPORTED = 0.5
"""Share of the time by which the result must be there and complete."""
_BETWEEN_READS = 0.05
_NOT_FOUND = 404


def capture(settings: Settings, cache: Cache, result: TaskResult, until: Deadline) -> Outcome:
    """Store the step's outputs under its key, or say why not."""
    step = settings.step
    try:
        declared = step.declared or files.offloaded_template(
            step.include_result,
            f"{settings.argo_dir}/template",
            f"{settings.argo_config_dir}/{names.ENV_TEMPLATE}",
        )
    except files.NoTemplateError as error:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, str(error))
    if failed := files.failed_mains(settings.argo_dir, declared.mains):
        return Outcome(Reason.STEP_FAILED, f"did not end with 0: {', '.join(failed)}")
    # Argo's `wait` ends a step that is late by a signal that only its emissary sees. One that ends with
    # 0 then fails all the same, and what it reports is unfinished.
    if step.deadline and not files.ended_by(
        settings.argo_dir, declared.mains, datetime.fromisoformat(step.deadline)
    ):
        return Outcome(Reason.STEP_FAILED, "ended after its deadline")
    outputs = _reported(result, declared, until.part(_REPORTED))
    if isinstance(outputs, Outcome):
        return outputs
    kept = storable(outputs, declared, step.gc)
    if isinstance(kept, Refused):
        return Outcome(kept.reason, kept.detail)
    now = datetime.now(UTC)
    entry = Entry(
        node_id=step.node_id,
        outputs=kept,
        created=now,
        last_hit=now,
        key=step.key if is_hashed(data_key(step.key)) else "",
        max_age=step.max_age,
        pod=settings.pod_name,
        workflow=step.workflow,
    )
    return cache.store(step.key, entry, now, until)


def _reported(result: TaskResult, declared: Declared, until: Deadline) -> Outputs | Outcome:
    """Wait until the step's own result is complete and return its outputs.

    Argo's `wait` has reported before it ends; a `data` or `resource` step reports while it ends.
    """
    while True:
        answer = result.read(until)
        outcome = _incomplete(answer)
        if outcome is None:
            break
        if outcome.reason is not Reason.OUTPUTS_INCOMPLETE or not until.pause(_BETWEEN_READS):
            return outcome
    if posted_by_us(answer.body):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the result is one that stepmemo posted")
    try:
        outputs = sound(answer.body.get("outputs"))
    except BrokenOutputsError as error:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, str(error))
    if lacks := missing(outputs, declared):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, f"the step did not report {', '.join(lacks)}")
    return outputs or {}


def _incomplete(answer: Answer) -> Outcome | None:
    if answer.status == _NOT_FOUND:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the step has no WorkflowTaskResult")
    if not answer.ok:
        return refusal(answer)
    if not completed(answer.body):
        return Outcome(Reason.OUTPUTS_INCOMPLETE, "the step's WorkflowTaskResult is not reported complete")
    return None
