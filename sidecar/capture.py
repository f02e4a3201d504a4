"""The capture: keep the outputs of a step that ran and succeeded.

The entrypoint runs this when every main container, and Argo's own, ended with 0. Whatever is doubtful here
means that no entry is kept; the step itself is over.
"""

from datetime import UTC, datetime

from argo import names as argo
from memoize.outcome import Outcome
from memoize.outputs import Declared, Outputs
from memoize.reasons import Reason
from memoize.report import new_entry, reported
from memoize.taskresult import completed
from sidecar import files
from sidecar.cache import Cache
from sidecar.deadline import Deadline
from sidecar.report import failure
from sidecar.result import TaskResult
from sidecar.settings import Settings

_REPORTED = 0.5
"""Share of the time by which the result must be there and complete."""
_BETWEEN_READS = 0.05
_NOT_FOUND = 404
_NO_RESULT = Outcome(Reason.OUTPUTS_INCOMPLETE, "the step has no WorkflowTaskResult")


def capture(settings: Settings, cache: Cache, result: TaskResult, until: Deadline) -> Outcome:
    """Store the step's outputs under its key, or say why not."""
    step = settings.step
    try:
        declared = step.declared or files.offloaded_template(
            step.include_result,
            step.workflow_uid,
            f"{settings.argo_dir}/template",
            f"{settings.argo_config_dir}/{argo.ENV_TEMPLATE}",
        )
    except files.NoTemplateError as error:
        return Outcome(Reason.OUTPUTS_INCOMPLETE, str(error))
    if isinstance(declared, Outcome):
        return declared
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
    now = datetime.now(UTC)
    took = files.took(settings.shared_dir, settings.argo_dir, declared.mains)
    entry = new_entry(step, declared, outputs, now, settings.pod_name, took)
    return entry if isinstance(entry, Outcome) else cache.store(step.data_key, entry, now, until)


def _reported(result: TaskResult, declared: Declared, until: Deadline) -> Outputs | Outcome:
    """Wait until the step's own result is complete and return its outputs.

    Argo's `wait` has reported before it ends; a `data` or `resource` step reports while it ends.
    """
    seen = None
    while True:
        reply = result.read(until)
        if reply.ok or reply.status == _NOT_FOUND:
            seen = reply
        elif seen is None or not until.over:
            return failure(reply)
        # else the time ran out in the middle of a read: what was seen before it counts
        there = seen.ok and completed(seen.body)
        if there or not until.pause(_BETWEEN_READS):
            return reported(seen.body, declared) if seen.ok else _NO_RESULT
