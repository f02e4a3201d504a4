"""Our programs and the API server away for a while. Nobody else can use the cluster meanwhile."""

import os
import signal
import time
from pathlib import Path

import pytest

from memoize import names
from tests.e2e import server
from tests.e2e.cluster import Namespace
from tests.e2e.kube import PATIENCE, kubectl, wait_for
from tests.e2e.outcome import is_held, is_unscheduled_hit
from tests.e2e.run import Run, twice
from tests.e2e.steps import RANDOM, container, in_a_row, memo, opted_in

APISERVER = "STEPMEMO_E2E_APISERVER_PID"
"""A file with the process id of the API server, which runs on this machine and may be stopped for a while."""
SLOW = f"sleep 15; {RANDOM} > /tmp/out"
AWAY_SECONDS = 60
STOPPED_SECONDS = 30

pytestmark = [server.outages]


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


def crowd(ns: Namespace, script: str = SLOW) -> str:
    """A workflow of ten equal steps, one of which runs and nine of which are held."""
    fan = {"template": "step", "withSequence": {"count": "10"}}
    name = ns.submit(in_a_row(fan), container(script), entrypoint="main")

    def settled() -> bool | None:
        pods = ns.workflow(name).memoized_pods()
        return (len(pods) == 10 and sum(is_held(pod) for pod in pods) == 9) or None

    wait_for("nine held Pods", settled)
    return name


def ended_right(ns: Namespace, name: str) -> Run:
    """Asserts that one of the crowd ran and the others have its outputs."""
    run = ns.finished(name, 2 * PATIENCE).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()
    assert len({answer["out"] for answer in run.answers()}) == 1, run.said()
    assert sum(is_unscheduled_hit(pod) for pod in run.memoized_pods()) == 9, run.said()
    return run


def test_without_our_programs_new_steps_run_and_held_ones_are_decided_when_it_is_back(ns: Namespace) -> None:
    held = crowd(ns)
    # By annotations alone: a block that nobody took over is Argo's, which would memoize the second run.
    annotations = {names.KEY: "new", names.CACHE: ns.cache}
    step = container(metadata=opted_in(**annotations))
    del step["memoize"]
    with server.away(*server.PROGRAMS):
        until = time.monotonic() + AWAY_SECONDS
        meanwhile = [ns.run(step) for _ in range(2)]
        said = "".join(run.said() for run in meanwhile)
        assert [(run.phase, run.executions()) for run in meanwhile] == [("Succeeded", 1)] * 2, said
        pods = ns.workflow(held).memoized_pods()
        assert sum(is_held(pod) for pod in pods) == 9
        time.sleep(max(0.0, until - time.monotonic()))
    ended_right(ns, held)
    twice(*(ns.run(step).settled() for _ in range(2)))


@pytest.mark.parametrize("program", server.PROGRAMS)
@pytest.mark.parametrize("moment", ["the leader runs", "the leader has ended"])
def test_replicas_that_are_killed_at_once_leave_no_pod_behind(
    ns: Namespace, program: str, moment: str
) -> None:
    held = crowd(ns, SLOW if moment == "the leader runs" else f"sleep 3; {RANDOM} > /tmp/out")
    server.kill(program)
    ended_right(ns, held)


def test_an_api_server_that_stands_still_for_a_while(ns: Namespace) -> None:
    """The API server stands still for half a minute while Pods are held, and all of them end right."""
    if APISERVER not in os.environ:
        pytest.skip(f"{APISERVER} is not set")
    process = int(Path(os.environ[APISERVER]).read_text())
    held = crowd(ns)
    os.kill(process, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
    finally:
        os.kill(process, signal.SIGCONT)
    wait_for("API server", lambda: kubectl("get", "--raw", "/readyz", check=False).stdout == "ok" or None)
    ended_right(ns, held)
    twice(*(ns.run(container(memoize=memo("later"))).settled() for _ in range(2)))
