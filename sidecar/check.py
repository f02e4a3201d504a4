"""The check: look the key up before the step starts, and answer the step if the cache does.

The order is the protocol. Only who holds the claim may post a result; only when the API server is known to
hold it does the decision say `hit`; and it says `run` only when nothing of ours is there or on its way.
Without a decision the entrypoint retracts once more and then lets the step run.
"""

from datetime import UTC, datetime

from argo import names as argo
from memoize import names
from memoize.entry import Entry, Hit, look_up
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.taskresult import posted_by_us
from sidecar import files
from sidecar.cache import Cache
from sidecar.deadline import Deadline
from sidecar.kube import RequestResult
from sidecar.report import failure
from sidecar.result import PostState, TaskResult
from sidecar.settings import Settings

_LOOKED_UP = 0.4
_POSTED = 0.65
"""Shares of the time by which each part ends; what is left is for a retraction."""
_BETWEEN_CONFLICTS = 0.02
"""Seconds; who wrote in between has finished."""
_REFUSED_OUTPUTS = (400, 413, 422)
_CREATED = 201
_NOT_FOUND = 404
_CONFLICT = 409
_LONGEST_NAME = 253
"""Of a node id that Argo made; an entry may hold anything."""


def check(settings: Settings, cache: Cache, result: TaskResult, until: Deadline) -> Outcome:
    """Decide whether the cache answers the step; write the decision unless the entrypoint must."""
    if files.decided(settings.shared_dir):
        return Outcome(Reason.UNDECIDED, "decided before")
    found = _find(settings, cache, until.part(_LOOKED_UP))
    if not files.claim(settings.shared_dir):
        return Outcome(Reason.UNDECIDED, "somebody else holds the claim")
    if isinstance(found, Outcome):
        files.decide(settings.shared_dir, names.DECISION_RUN)
        return found
    entry, declared = found
    posted, reply = result.post(declared, entry.outputs, until.part(_POSTED))
    if posted is PostState.THERE:
        if files.decide(settings.shared_dir, names.DECISION_HIT):
            return Outcome(Reason.HIT, f"from {entry.node_id[:_LONGEST_NAME]}")
        return _too_late(result, reply, until)
    outcome = _not_posted(reply)
    if posted is PostState.UNKNOWN:
        retracted = _retract(settings, result, until)
        if not retracted.ok:
            return Outcome(Reason.UNDECIDED, f"{outcome.detail}; could not {retracted}")
    files.decide(settings.shared_dir, names.DECISION_RUN)
    return outcome


def retract(settings: Settings, result: TaskResult, until: Deadline) -> Outcome:
    """Take back what a checker that left no decision may have posted. The entrypoint writes the decision."""
    if files.decided(settings.shared_dir):
        return Outcome(Reason.UNDECIDED, "decided before")
    reply = _retract(settings, result, until)
    if reply.ok:
        return Outcome(Reason.UNDECIDED, "retracted what may have been posted")
    return failure(reply)


def _retract(settings: Settings, result: TaskResult, until: Deadline) -> RequestResult:
    """Take back what was posted, or keep it from getting there; a success says that it is done.

    A result of ours becomes one that was not reported yet. Where none is, an empty one takes its place: a
    POST of ours that is still on its way then meets a conflict. If it arrives between the two requests, the
    empty one meets the conflict, and the next round finds it.

    Once the decision is there (an entrypoint does not wait for ever) the step itself may report, and what it
    reports must never be taken back: a version that was seen before the decision is ours alone, and the
    request to change it fails on any other.
    """
    while True:
        seen = result.read(until)
        if seen.status == _NOT_FOUND:
            reply = result.reserve(until)
        elif not seen.ok or not posted_by_us(seen.body) or files.decided(settings.shared_dir):
            return seen
        else:
            reply = result.take_back(seen, until)
        if reply.status != _CONFLICT or not until.pause(_BETWEEN_CONFLICTS):
            return reply


def _too_late(result: TaskResult, posted: RequestResult, until: Deadline) -> Outcome:
    """An entrypoint stopped waiting for us: the step runs. The version that our POST made is still ours."""
    if posted.status == _CREATED:
        result.take_back(posted, until)
    return Outcome(Reason.UNDECIDED, "the step runs already")


def _find(settings: Settings, cache: Cache, until: Deadline) -> tuple[Entry, Declared] | Outcome:
    """The entry that answers the step, and what the step declares."""
    step = settings.step
    try:
        declared = step.declared or files.offloaded_template(
            step.include_result, step.workflow_uid, f"{settings.argo_config_dir}/{argo.ENV_TEMPLATE}"
        )
    except files.NoTemplateError as error:
        return Outcome(Reason.UNDECIDED, str(error))
    if isinstance(declared, Outcome):
        return declared
    data = cache.load(until)
    if isinstance(data, Outcome):
        return data
    found = look_up(data, step, declared, datetime.now(UTC))
    return (found.entry, declared) if isinstance(found, Hit) else Outcome(found.reason, found.detail)


def _not_posted(reply: RequestResult) -> Outcome:
    if reply.status in _REFUSED_OUTPUTS:
        return Outcome(Reason.BROKEN_ENTRY, f"its outputs are refused: {reply}")
    if reply.status == _CONFLICT:
        return Outcome(Reason.UNDECIDED, "the node has a result already")
    return failure(reply)
