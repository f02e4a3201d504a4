"""Which outcomes get an Event, and which a line; docs/reasons.md is held to the Events by tests/docs."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from keeper.reporter import Reporter
from keeper.steppods import InjectedPod, ObservedPod, Phase, without_step
from memoize import names
from memoize.entry import Entry
from memoize.event import WITHOUT_EVENT
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.metrics import Metrics
from tests.beside import beside
from tests.keeper.gatedsteps import gated_step
from tests.virtual import Server, run

STEP = gated_step("a", phase=Phase.OVER, namespace="work")
INVALID = without_step(STEP, Outcome(Reason.RECORDS_FULL))
OF_OBSERVED = {name: getattr(STEP, name) for name in ObservedPod.__dataclass_fields__}
INJECTED = InjectedPod(**OF_OBSERVED, owner=STEP.owner)


def told(pod: ObservedPod, *outcomes: Outcome) -> list[str]:
    """The first words of the Events on the Workflow that these make."""

    async def tell() -> list[str]:
        server, metrics = Server(0.01), Metrics()
        server.cluster.create({"kind": "Namespace", "metadata": {"name": "work"}})
        clock = asyncio.get_running_loop().time
        events = Events(server.api, metrics.event_dropped, "stepmemo-keeper", "test", clock=clock)
        reporter = Reporter(metrics, events, lambda: datetime.now(UTC))
        async with beside(events.run()):
            for outcome in outcomes:
                reporter.outcome(pod, outcome)
            await asyncio.sleep(60)
        found = server.cluster.list("Event", "work")[1]["items"]
        assert all(one["involvedObject"]["uid"] == "wf-uid" for one in found)
        return [one["message"].partition(":")[0] for one in found]

    return run(tell(), 0.0)


@pytest.mark.parametrize("pod", [STEP, INVALID, INJECTED], ids=["valid", "invalid", "injected"])
def test_every_outcome_of_a_step_but_those_that_need_none_is_told_once(pod: ObservedPod) -> None:
    outcomes = [Outcome(reason, "why") for reason in Reason for _ in range(2)]
    assert sorted(told(pod, *outcomes)) == sorted(
        reason.value for reason in Reason if reason not in WITHOUT_EVENT
    )


async def test_steps_that_go_as_they_should_are_not_in_the_log_and_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    events = Events(Server(0.01).api, lambda _: None, "stepmemo-keeper", "test")
    reporter = Reporter(Metrics(), events, lambda: datetime.now(UTC))
    for _ in range(50):
        reporter.hit(STEP, Entry("node", {}, None, None))
        reporter.outcome(replace(STEP, phase=Phase.GATED), Outcome(Reason.MISS))
        reporter.outcome(STEP, Outcome(Reason.STORED), names.RESULT_STORED)
    assert caplog.records == []
    reporter.outcome(STEP, Outcome(Reason.CACHE_FULL, "no room"), names.RESULT_SKIPPED)
    (line,) = caplog.records
    told = {"reason": "CacheFull", "namespace": "work", "pod": STEP.name, "detail": "no room"}
    assert line.fields == told  # type: ignore[attr-defined]


def test_a_pod_that_no_workflow_controls_has_no_event() -> None:
    outcome = Outcome(Reason.IDENTITY_MISMATCH)
    assert told(replace(INVALID, owner=None), outcome) == []
    assert told(replace(INJECTED, owner=None), outcome) == []


def test_a_step_is_counted_once_by_its_final_label_however_often_something_is_said_of_it() -> None:
    async def tell() -> str:
        metrics, server = Metrics(), Server(0.01)
        events = Events(server.api, metrics.event_dropped, "stepmemo-keeper", "test")
        reporter = Reporter(metrics, events, lambda: datetime.now(UTC))
        reporter.outcome(replace(STEP, phase=Phase.GATED), Outcome(Reason.MISS))
        reporter.outcome(STEP, Outcome(Reason.STORED), names.RESULT_STORED)
        reporter.outcome(STEP, Outcome(Reason.LABEL_REFUSED))
        reporter.hit(STEP, Entry("node", {}, None, None))
        return metrics.render().decode()

    shown = run(tell(), 0.0)
    for result, count in ("hit", 1), ("stored", 1), ("skipped", 0):
        assert f'stepmemo_step_results_total{{result="{result}"}} {count}.0' in shown
    for reason in ("Miss", "Stored", "LabelRefused", "Hit"):
        assert f'stepmemo_steps_total{{reason="{reason}"}} 1.0' in shown
