"""A clock that is wrong by an hour: on the node that stores, on the node that looks up, or between them.

An entry's age is the one clock's present less the other's. One that comes out negative, an entry from the
future, is no age: the entry is fresh. So a wrong clock makes an entry live shorter or longer by as much as it
is wrong, and does nothing else. Time that runs out is another clock, which nobody sets (sidecar/deadline.py).
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memoize import names
from memoize.reasons import Reason
from tests.sidecar import faults
from tests.sidecar.faults import CONFIGMAPS, EVENTS, LIMIT, RESULTS
from tests.sidecar.steppod import CACHE_LABELS, Pod, cached, entry, have_entry, have_result

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HOUR = timedelta(hours=1)

# The clock of the standard library, wrong by as many hours as the first argument says, before ours reads it.
WRONG_CLOCK = """
import datetime, runpy, sys

wrong = datetime.timedelta(hours=int(sys.argv.pop(1)))

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + wrong

datetime.datetime = Clock
runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
"""


def run(pod: Pod, verb: str, hours: int) -> Reason:
    """Run a verb where the clock is wrong by `hours`."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-B", "-c", WRONG_CLOCK, str(hours), verb],
        cwd=ROOT,
        env=pod.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    return Reason(done.stderr.partition("reason=")[2].partition(" ")[0])


@pytest.mark.parametrize("max_age", ["30m", "90m", ""])
@pytest.mark.parametrize("storing", [-1, 0, 1])
def test_an_entry_lives_shorter_or_longer_by_what_the_clocks_differ(
    pod: Pod, api: faults.Api, storing: int, max_age: str
):
    pod.change(max_age=max_age)
    pod.main_ended()
    have_result(api)
    assert run(pod, "capture", storing) is Reason.STORED
    made = datetime.fromisoformat(cached(api)["hello-1"]["creationTimestamp"])
    assert abs(made - datetime.now(UTC) - storing * HOUR) < timedelta(minutes=1)

    minutes = {"30m": 30, "90m": 90, "": 10_000}[max_age]
    for looking_up in (-1, 0, 1):
        for path in pod.shared.iterdir():
            path.unlink()
        api.objects[RESULTS].clear()
        fresh = 60 * (looking_up - storing) <= minutes
        assert run(pod, "check", looking_up) is (Reason.HIT if fresh else Reason.EXPIRED)
        assert (pod.shared / names.DECISION_FILE).read_text() == (
            names.DECISION_HIT if fresh else names.DECISION_RUN
        )


@pytest.mark.parametrize("hours", [-1, 1])
def test_what_takes_time_takes_no_longer(pod: Pod, api: faults.Api, hours: int):
    pod.timeout_ms = 600
    have_entry(api)
    api.always("GET", CONFIGMAPS, faults.Fault("hang"))
    assert run(pod, "check", hours) is Reason.API_UNAVAILABLE
    assert pod.decision == names.DECISION_RUN


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_entry_of_a_step_that_ran_takes_the_place_of_one_from_the_future(
    pod: Pod, api: faults.Api, hours: int
):
    pod.main_ended()
    have_result(api)
    have_entry(api, text=entry(creationTimestamp=f"{datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M:%SZ}"))
    assert run(pod, "capture", hours) is Reason.STORED
    assert cached(api)["hello-1"]["nodeID"] == "wf-123"


def test_room_is_made_by_this_nodes_clock_and_never_at_the_cost_of_an_entry_from_the_future(
    pod: Pod, api: faults.Api
):
    """A clock that is an hour fast drops what has less than an hour to live: some step runs once more."""
    pod.main_ended()
    have_result(api)
    now = datetime.now(UTC)

    def made(age: timedelta) -> str:
        return entry(creationTimestamp=f"{now - age:%Y-%m-%dT%H:%M:%SZ}", stepmemo={"maxAge": "2h"})

    data = {"old": made(3 * HOUR), "aging": made(1.5 * HOUR), "young": made(0 * HOUR), "future": made(-HOUR)}
    data["fill"] = "y" * (LIMIT - sum(map(len, data.values())))
    api.put(CONFIGMAPS, "my-cache", metadata=CACHE_LABELS, data=dict(data))
    assert run(pod, "capture", 1) is Reason.STORED
    assert cached(api).keys() == {"hello-1", "young", "future"}


@pytest.mark.parametrize(("verb", "decision"), [("check", names.DECISION_RUN), ("capture", "")])
def test_a_certificate_that_is_not_valid_yet_by_this_clock_is_an_api_server_that_does_not_answer(
    pod: Pod, api: faults.Api, tmp_path: Path, verb: str, decision: str
):
    pod.timeout_ms = 600
    pod.main_ended()
    (credentials := tmp_path / "tomorrow").mkdir()
    faults.make_credentials(credentials, valid_in=HOUR)
    have_entry(api)
    with faults.serving(api, credentials) as server:
        pod.environment |= {
            names.ENV_SERVICEACCOUNT_DIR: str(credentials),
            "KUBERNETES_SERVICE_PORT": str(server[1]),
        }
        assert pod.run(verb).reason is Reason.API_UNAVAILABLE
    assert pod.decision == decision
    assert api.requests == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_event_is_posted_whatever_the_clock(pod: Pod, api: faults.Api, hours: int):
    have_entry(api)
    assert run(pod, "check", hours) is Reason.HIT
    assert api.count("POST", EVENTS) == 1
