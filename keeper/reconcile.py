"""What is done for one Pod when it is its turn: look up and answer, let run, or store what it left.

Whatever cannot be done now is raised: one of kube.FAILURES, or a TroubleError.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from argo.steppod import Owner
from keeper.actions import ActionResult, Actions
from keeper.cache.last_hit import Hits
from keeper.cache.view import View
from keeper.capture import Capture
from keeper.single_flight import Complete, Release, SingleFlight, Wait
from keeper.state import Answer, FinalLabel, Record
from keeper.steppods import GatedStep, InjectedPod, InvalidStep, Phase
from kube import client
from memoize import names
from memoize.entry import Entry, Hit, Miss, look_up
from memoize.event import UNTOLD
from memoize.keeper_status import Known
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.lookups import Lookups
from server.metrics import Metrics

_log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds from a result to its Pod's success, where Argo could miss the one for the other."""
_ASK_AGAIN = 1.0
"""Seconds until the view is asked again that did not know: of a cache that is not there it tells nobody."""
_NOT_NOW = frozenset({Reason.API_UNAVAILABLE, Reason.CONFLICT, Reason.FORBIDDEN})
"""Why a cache cannot be written or read, and may be later."""


class TroubleError(Exception):
    """It could not be done, and may be later; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Tools(NamedTuple):
    """What a turn needs. `again` is told of Pods whose turn may have changed; `clock` counts seconds."""

    actions: Actions
    capture: Capture
    flights: SingleFlight
    view: View
    lookups: Lookups
    events: Events
    hits: Hits
    metrics: Metrics
    again: Callable[[Iterable[str]], None]
    clock: Callable[[], float]
    now: Callable[[], datetime]


async def tend(record: Record, tools: Tools) -> float | None:
    """Do what the Pod needs now; returns after how many seconds it is to be looked at again, if at all."""
    pod = record.pod
    if record.unfinished and record.answer is not None and record.known is not None:
        await tools.actions.withdraw(record.known, record.answer.posted)
        record.settled = True
    if record.gone:
        return None
    if pod.phase is Phase.OVER:
        await _over(record, tools)
    elif pod.phase is Phase.GATED and not pod.deleting and not record.settled:
        if isinstance(pod, GatedStep):
            return await _held(record, pod, tools)
        inside = Outcome(Reason.IDENTITY_MISMATCH, "it is held, and its look-up is inside of it")
        await _release(record, pod.outcome if isinstance(pod, InvalidStep) else inside, tools)
    return None


def give_up(record: Record, outcome: Outcome, tools: Tools) -> None:
    """What was tried for long enough is not tried any more: the Pod is to run, or its outputs are lost."""
    if record.pod.phase is Phase.GATED:
        record.released = record.released or outcome
    elif record.pod.phase is Phase.OVER and record.word is None:
        _say_last_word(record, names.RESULT_SKIPPED, outcome, tools)


def refusal(error: Exception) -> Outcome:
    """An error as an outcome."""
    if isinstance(error, TroubleError):
        return error.outcome
    if isinstance(error, client.FAILURES):
        return client.refusal(error)
    return Outcome(Reason.INTERNAL_ERROR, type(error).__name__)


async def _held(record: Record, pod: GatedStep, tools: Tools) -> float | None:
    if (outcome := record.released or pod.told) is not None:
        await _release(record, outcome, tools)
        return None
    if record.answer is not None:
        return await _finish(record, pod, record.answer, tools)
    known, text = await _look_up(pod, tools)
    record.undecided = known is None
    now = tools.now()
    match tools.flights.turn(pod, known, now):
        case Complete(entry):
            return await _answer(record, pod, entry, text, tools)
        case Release(outcome):
            await _release(record, outcome, tools)
        case Wait(until):
            wait = (until - now).total_seconds()
            return min(wait, _ASK_AGAIN) if record.undecided else wait
    return None


async def _look_up(pod: GatedStep, tools: Tools) -> tuple[Hit | Miss | None, str]:
    """What the cache says of the Pod's step, and the entry's text; None where that cannot be told now."""
    namespace, cache, place = pod.key
    known, _ = tools.view.ask(namespace, cache, pod.step, tools.now())
    if known is Known.UNKNOWN:
        return None, ""
    if known is Known.ABSENT:
        return Miss(Reason.MISS), ""
    data = await tools.view.read(namespace, cache)
    if isinstance(data, Outcome):
        return (None if data.reason in _NOT_NOW else Miss(data.reason, data.detail)), ""
    return look_up(data, pod.step, pod.declared, tools.now()), data.get(place, "")


async def _answer(record: Record, pod: GatedStep, entry: Entry, text: str, tools: Tools) -> float | None:
    if await tools.lookups.workflow_metadata(pod.owner) is None:
        raise TroubleError(Outcome(Reason.UNDECIDED, "its Workflow could not be read"))
    record.doubtful = True
    posted = await tools.actions.post(pod, entry)
    if isinstance(posted, Outcome):
        await _release(record, posted, tools)
        return None
    if isinstance(posted, ActionResult):
        record.settled = True
        return None
    due = tools.clock() + (PAUSE if pod.needs_pause else 0.0)
    record.answer = Answer(entry, text, posted, due)
    return await _finish(record, pod, record.answer, tools)


async def _finish(record: Record, pod: GatedStep, answer: Answer, tools: Tools) -> float | None:
    left = answer.due - tools.clock()
    if left > 0:
        return left
    ended = await tools.actions.finish(pod, answer.entry, answer.posted)
    if ended is ActionResult.CHANGED:
        await _release(record, Outcome(Reason.UNDECIDED, "it was changed while it was answered"), tools)
        return None
    record.settled = True
    if ended is ActionResult.DONE:
        now = tools.now()
        tools.metrics.kept(Reason.HIT)
        tools.metrics.completed_seconds((now - pod.created_at).total_seconds())
        tools.metrics.seconds_saved(answer.entry.took)
        tools.hits.hit(*pod.key, answer.text)
        tools.events.hit(pod.owner, pod.step.node_id, answer.entry, now)
    return None


async def _release(record: Record, outcome: Outcome, tools: Tools) -> None:
    pod = record.pod
    record.released = outcome
    label = pod.released_as if isinstance(pod, GatedStep) else names.RESULT_SKIPPED
    if record.doubtful and record.known is not None and not isinstance(pod, InjectedPod):
        label = names.RESULT_MISS  # look at its end: a result that keeps answers out may be left
    ended = await tools.actions.release(pod, label, outcome, doubtful=record.doubtful, known=record.known)
    record.settled = True
    if ended is ActionResult.DONE:
        _tell(record, outcome, tools)


async def _over(record: Record, tools: Tools) -> None:
    pod = record.pod
    if record.word is None:
        if record.said is not None:
            _say_last_word(record, *record.said, tools)
        elif isinstance(pod, InvalidStep):
            _say_last_word(record, names.RESULT_SKIPPED, pod.outcome, tools)
        elif isinstance(pod, GatedStep) and not pod.note.capture:
            _say_last_word(
                record, names.RESULT_SKIPPED, Outcome(Reason.MISS, "it was not to be stored"), tools
            )
        elif isinstance(pod, GatedStep) and record.end is not None:
            outcome = await tools.capture.run(pod, record.end)
            if outcome.reason in _NOT_NOW:
                raise TroubleError(outcome)
            stored = outcome.reason is Reason.STORED
            label = names.RESULT_STORED if stored else names.RESULT_SKIPPED
            _say_last_word(record, label, outcome, tools)
    if record.word is not None:
        if record.doubtful and record.word.label == names.RESULT_SKIPPED:
            await tools.actions.close(pod)
        await tools.actions.mark(pod, *record.word)


def _say_last_word(record: Record, label: str, outcome: Outcome, tools: Tools) -> None:
    """Remember it until the Pod shows it, and let those that wait for it know."""
    pod, now = record.pod, tools.now()
    record.word = FinalLabel(label, outcome)
    if label == names.RESULT_STORED:
        tools.again(tools.flights.stored(pod.uid, now))
    else:
        tools.again(tools.flights.failed(pod.uid, now))
    _tell(record, outcome, tools)


def _tell(record: Record, outcome: Outcome, tools: Tools) -> None:
    pod = record.pod
    tools.metrics.kept(outcome.reason)
    _log.info(
        "%s",
        pod.phase.value,
        extra=fields(
            reason=outcome.reason.value, namespace=pod.namespace, pod=pod.name, detail=outcome.detail
        ),
    )
    match pod:
        case GatedStep():
            owner, node = pod.owner, pod.step.node_id
        case InjectedPod(owner=Owner() as owner, node=node):
            pass
        case _:
            return
    if outcome.reason is Reason.STORED:
        tools.events.stored(owner, node, outcome.detail)
    elif outcome.reason is Reason.HIT:
        tools.events.answered(owner, node, outcome.detail)
    elif outcome.reason not in UNTOLD:
        tools.events.skipped(owner, node, outcome.reason, outcome.detail)
