"""Says what became of a step: in a log line, a metric and an Event on its Workflow, all from one outcome."""

import logging
from collections.abc import Callable
from datetime import datetime

from argo.steppod import Owner
from keeper.steppods import GatedStep, InjectedPod, InvalidStep, ObservedPod
from memoize import names
from memoize.entry import Entry
from memoize.event import WITHOUT_EVENT
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.metrics import Metrics
from server.outcomes import ORDINARY

_log = logging.getLogger(__name__)


class Reporter:
    """Reports without waiting for anybody; `now` is aware."""

    def __init__(self, metrics: Metrics, events: Events, now: Callable[[], datetime]) -> None:
        self._metrics, self._events, self._now = metrics, events, now

    def hit(self, pod: GatedStep, entry: Entry) -> None:
        """The Pod has succeeded with the outputs of this entry."""
        now = self._now()
        _tell(pod, Outcome(Reason.HIT))
        self._metrics.step_outcome(pod.namespace, Reason.HIT)
        self._metrics.step_ended(pod.namespace, names.RESULT_HIT)
        self._metrics.completed_seconds((now - pod.created_at).total_seconds())
        self._metrics.seconds_saved(pod.namespace, entry.took)
        self._events.hit(pod.owner, pod.step.node_id, entry, now)

    def outcome(self, pod: ObservedPod, outcome: Outcome, result: str = "") -> None:
        """The Pod was let run, or is over; this is why, or how its memoization ended.

        `result` is the final value of its label, where it is to have one now.
        """
        self._metrics.step_outcome(pod.namespace, outcome.reason)
        if result:
            self._metrics.step_ended(pod.namespace, result)
        _tell(pod, outcome)
        match pod:
            case GatedStep():
                owner, node = pod.owner, pod.step.node_id
            case InjectedPod(owner=Owner() as owner) | InvalidStep(owner=Owner() as owner):
                node = pod.node_id or pod.name  # a Pod that names no node has its name (argo.steppod)
            case _:
                return
        if outcome.reason is Reason.STORED:
            self._events.stored(owner, node, outcome.detail)
        elif outcome.reason is Reason.HIT:
            self._events.answered(owner, node, outcome.detail)
        elif outcome.reason not in WITHOUT_EVENT:
            self._events.skipped(owner, node, outcome.reason, outcome.detail)

    def failure(self, pod: ObservedPod, outcome: Outcome, error: Exception) -> None:
        """A step of its reconciliation failed, and will be tried again."""
        self._metrics.step_failed(outcome.reason)
        _log.warning(
            "cannot reconcile a Pod now, and will try again",
            exc_info=error if outcome.reason is Reason.INTERNAL_ERROR else None,
            extra=fields(
                namespace=pod.namespace,
                pod=pod.name,
                phase=pod.phase.value,
                reason=outcome.reason,
                error=outcome.detail,
            ),
        )


def _tell(pod: ObservedPod, outcome: Outcome) -> None:
    level = logging.DEBUG if outcome.reason in ORDINARY else logging.INFO
    told = fields(reason=outcome.reason.value, namespace=pod.namespace, pod=pod.name, detail=outcome.detail)
    _log.log(level, "%s", pod.phase.value, extra=told)
