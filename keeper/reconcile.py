"""Reconciles one step Pod: takes it towards the final label, from whatever state it is in."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from keeper.actions import ActionResult, Actions
from keeper.capture import Capture, Later
from keeper.lookup import Lookup
from keeper.reporter import Reporter
from keeper.single_flight import Complete, Release, SingleFlight, Wait
from keeper.state import (
    Answering,
    Capturing,
    FinalLabel,
    Gated,
    Gone,
    Handled,
    Labelled,
    Labelling,
    Orphaned,
    PostedAnswer,
    Record,
    Releasing,
    Running,
    Terminated,
    Unlabelled,
)
from keeper.steppods import GatedStep, InjectedPod
from keeper.store import NOT_NOW, Store
from kube.errors import ApiError
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.step import Step
from server.lookups import Lookups
from server.outcomes import outcome_of

PAUSE = 1.0
"""Seconds from a result to its Pod's success, where Argo could miss the one for the other."""
_LOOK_UP_AGAIN = 1.0
"""Seconds until an entry is looked up again that could not be: no watch tells of a missing cache."""


class NotNowError(Exception):
    """It could not be done, and may be later; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Result(NamedTuple):
    """There is nothing to be done for the Pod until something happens to it."""

    requeue_after: float | None = None
    """Seconds after which it is to be reconciled all the same; None for never."""


class LookUp(Protocol):
    """Whatever knows the caches' entries."""

    async def __call__(self, namespace: str, cache: str, step: Step) -> Lookup:
        """Say whether the cache answers the step."""


class Reconciler:
    """What the keeper does for one Pod.

    `wake` is called with the UIDs of other Pods that may be decided otherwise now, `on_hit` with each Pod
    that was answered. `clock` counts seconds, `now` is aware.
    """

    def __init__(
        self,
        look_up: LookUp,
        single_flight: SingleFlight,
        actions: Actions,
        capture: Capture,
        lookups: Lookups,
        store: Store,
        reporter: Reporter,
        wake: Callable[[Iterable[str]], None],
        on_hit: Callable[[GatedStep], None],
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._look_up, self._single_flight, self._actions = look_up, single_flight, actions
        self._capture, self._lookups, self._store = capture, lookups, store
        self._reporter, self._wake, self._on_hit = reporter, wake, on_hit
        self._clock, self._now = clock, now

    async def reconcile(self, record: Record) -> Result:
        """Take the Pod as far as it goes now.

        Raises whatever kept a step from being done (a kube.ApiError, or a NotNowError): the Pod is in
        the state then from which that step is to be tried again.
        """
        while (result := await self._step(record)) is None:
            pass
        return result

    async def _step(self, record: Record) -> Result | None:
        """Do what the Pod's state asks for; None: it has another state by now."""
        pod, state = record.pod, record.state
        match state:
            case Running() | Handled() | Labelled() | Unlabelled() | Gone():
                return Result()
            case Gated() | Answering() | Releasing() if pod.deleting:
                return Result()
            case Gated(step):
                return await self._decide(record, step)
            case Answering(step, answer):
                return await self._complete(record, step, answer)
            case Releasing(reason):
                await self._release(record, reason)
            case Orphaned(answer):
                await self._actions.withdraw(answer.step, answer.result)
                record.on_finished()
            case Capturing(step, end):
                outcome = await self._capture.run(step, end, record.phase_since)
                if isinstance(outcome, Later):
                    return Result(outcome.seconds)
                if outcome.reason in NOT_NOW:
                    if outcome.reason is Reason.STORE_UNAVAILABLE:
                        # That may last, and is tried for long: those who wait for it are to run.
                        self._wake(self._single_flight.on_failed(step.uid, self._now()))
                    raise NotNowError(outcome)
                stored = outcome.reason is Reason.STORED
                self._label(record, names.RESULT_STORED if stored else names.RESULT_SKIPPED, outcome)
            case Terminated(final):
                self._label(record, *final)
            case Labelling(final):
                if record.result_may_exist and final.label == names.RESULT_SKIPPED:
                    await self._actions.close(pod)
                await self._actions.label(pod, *final)
                record.on_labelled()
        return None

    def give_up(self, record: Record, outcome: Outcome) -> None:
        """What failed for long enough is not tried any more.

        The Pod is to run, its outputs are lost, its label stays what it is, or an answer stays beside it.
        """
        match record.state:
            case Labelling():
                record.leave_unlabelled()
                self._reporter.outcome(record.pod, Outcome(Reason.LABEL_REFUSED, outcome.detail))
                return
            case Orphaned(answer):
                record.on_finished()
                self._reporter.outcome(answer.step, Outcome(Reason.RESULT_NOT_DELETED, outcome.detail))
                return
        record.release(outcome)
        self._label(record, names.RESULT_SKIPPED, outcome)

    async def _decide(self, record: Record, step: GatedStep) -> Result | None:
        """The Pod is gated: it is answered, runs, or waits for an equal one."""
        namespace, cache, _ = step.key
        found, text = await self._look_up(namespace, cache, step.step)
        record.undecided = found is None
        now = self._now()
        match self._single_flight.decide(step, found, now):
            case Complete(entry):
                await self._post(record, step, entry, text)
            case Release(reason, asked):
                record.release(reason)
                self._wake(asked)
            case Wait(until):
                wait = (until - now).total_seconds()
                return Result(min(wait, _LOOK_UP_AGAIN) if record.undecided else wait)
            case None:
                return Result()
        return None

    async def _post(self, record: Record, step: GatedStep, entry: Entry, text: str) -> None:
        """An entry answers the Pod: its outputs become the node's result."""
        if await self._lookups.workflow_metadata(step.owner) is None:
            raise NotNowError(Outcome(Reason.UNDECIDED, "its Workflow could not be read"))
        record.result_may_exist = True
        match await self._actions.post(step, entry):
            case Outcome() as refused:
                record.release(refused)
            case ActionResult():
                record.on_finished()
            case result:
                due = self._clock() + (PAUSE if step.needs_pause else 0.0)
                # The outputs, up to a megabyte, are where they were to get to.
                record.on_posted(PostedAnswer(step, entry._replace(outputs=None), text, result, due))

    async def _complete(self, record: Record, step: GatedStep, answer: PostedAnswer) -> Result | None:
        """The result is posted: the Pod succeeds."""
        if (left := answer.due - self._clock()) > 0:
            return Result(left)
        ended = await self._actions.finish(step, answer.entry, answer.result)
        if ended is ActionResult.CHANGED:
            record.release(Outcome(Reason.UNDECIDED, "it was changed while it was answered"))
            return None
        record.on_finished()
        if ended is ActionResult.DONE:
            self._store.hit(*step.key, answer.text)
            self._reporter.hit(step, answer.entry)
            self._on_hit(step)
        return None

    async def _release(self, record: Record, reason: Outcome) -> None:
        pod, valid = record.pod, record.last_valid
        label = pod.label_when_released if isinstance(pod, GatedStep) else names.RESULT_SKIPPED
        if record.result_may_exist and valid is not None and not isinstance(pod, InjectedPod):
            label = names.RESULT_MISS  # look at its end: a result that keeps answers out may be left
        ended = await self._actions.release(
            pod, label, reason, result_may_exist=record.result_may_exist, valid=valid
        )
        record.on_finished()
        if ended is ActionResult.DONE:
            self._reporter.outcome(pod, reason, label if label == names.RESULT_SKIPPED else "")

    def _label(self, record: Record, label: str, outcome: Outcome) -> None:
        """The Pod is over and handled: remember its label until it shows it, and say so."""
        if not record.label(FinalLabel(label, outcome)):
            return
        uid, table = record.pod.uid, self._single_flight
        on_end = table.on_stored if label == names.RESULT_STORED else table.on_failed
        self._wake(on_end(uid, self._now()))
        self._reporter.outcome(record.pod, outcome, label)


def as_outcome(error: Exception) -> Outcome:
    """What `reconcile` raised, as an outcome."""
    if isinstance(error, NotNowError):
        return error.outcome
    if isinstance(error, ApiError):
        return outcome_of(error)
    return Outcome(Reason.INTERNAL_ERROR, type(error).__name__)
