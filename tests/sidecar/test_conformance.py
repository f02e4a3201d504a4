"""The programs themselves, stopped at each of their requests and struck there: what the model says, holds.

A request that is held up before it takes effect arrives when all is over, or never.
"""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from memoize import names
from sidecar.entrypoint.build import path_for_host
from tests.sidecar.faults import Call, Fault
from tests.sidecar.protocol import Delivery, Result
from tests.sidecar.steppod import ENOUGH_MS, OUTPUTS, Pod, have_entry
from tests.sidecar.stopping import REPORTED, Api, Containers, Stop
from tests.sidecar.walk import explore
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow

STEPS = {
    Call.READ_CACHE: {"claim", "claim miss"},
    Call.POST_RESULT: {"post"},
    Call.READ_RESULT: {"read", "retract"},
    Call.TAKE_BACK: {"take back", "too late"},
    Call.KEEP_OUT: {"keep out"},
    Call.TELL: {"ended"},
}
"""Where the model's Python is when it makes the request: it looks up before the claim, tells at the end."""

PATIENT, IMPATIENT = ENOUGH_MS, 1
POINTS = [("before", False), ("before", True), ("after", True)]
"""When the request is held up, and whether it still takes effect."""

Strike = Callable[[Containers, "subprocess.Popen[str]"], "subprocess.Popen[str]"]
STRIKES = [Containers.kill_python, Containers.kill_all]


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def containers(pod: Pod, api: Api) -> Iterator[Containers]:
    have_entry(api)
    api.shared = pod.shared
    containers = Containers(pod, path_for_host())
    yield containers
    for stop in api.stops:
        stop.release()
    containers.end()


@pytest.fixture(scope="module")
def modelled() -> set[tuple[str, bool, str, Result]]:
    """What there may be when a Python process takes its next step."""
    states = explore(Delivery.VOLUME, entrypoints=1).states
    return {(s.python.at, s.claim, s.word, s.result) for s in states if s.python}


@pytest.fixture
def ends(api: Api, modelled: set[tuple[str, bool, str, Result]]) -> Callable[..., str]:
    """Brings a run to its end, then lets the held requests go; the word, after everything that must hold."""

    def end(sidecar: "subprocess.Popen[str]", step: list["subprocess.Popen[str]"], *late: Stop) -> str:
        said = sidecar.communicate(timeout=PATIENCE)[1]
        assert sidecar.returncode == 0, said
        ran = [entrypoint.communicate(timeout=PATIENCE)[0] for entrypoint in step].count("ran\n")
        assert [entrypoint.returncode for entrypoint in step] == [0] * len(step)
        assert (api.word, ran) in {(names.DECISION_HIT, 0), (names.DECISION_RUN, len(step))}
        if ran:
            assert api.result is not Result.OURS
            api.report()
        else:
            assert api.result is Result.OURS
        for stop in late:
            stop.release(stop.lands)
            assert stop.over.wait(PATIENCE)
        assert api.outputs == (REPORTED if ran else OUTPUTS)
        for seen in api.seen:
            assert any((at, seen.claim, seen.word, seen.result) in modelled for at in STEPS[seen.call]), seen
        return api.word

    return end


def test_a_hit_takes_the_models_steps(containers: Containers, api: Api, ends):
    assert ends(containers.sidecar(), containers.step(PATIENT)) == names.DECISION_HIT
    assert [(seen.call, seen.claim, seen.word) for seen in api.seen] == [
        (Call.READ_CACHE, False, ""),
        (Call.POST_RESULT, True, ""),
        (Call.TELL, True, names.DECISION_HIT),
    ]


def test_a_miss_takes_the_models_steps(containers: Containers, api: Api, ends):
    api.objects.clear()
    assert ends(containers.sidecar(), containers.step(PATIENT)) == names.DECISION_RUN
    assert [(seen.call, seen.claim, seen.word) for seen in api.seen] == [(Call.READ_CACHE, False, "")]


def test_a_retraction_takes_the_models_steps(containers: Containers, api: Api, ends):
    """The first POST goes unanswered, and the conflict that the second one meets cannot be looked at."""
    api.on_next(Call.POST_RESULT, Fault("reset", applied=True))
    api.on_next(Call.READ_RESULT, Fault(403))
    assert ends(containers.sidecar(), containers.step(PATIENT)) == names.DECISION_RUN
    assert [(seen.call, seen.claim, seen.word, seen.result) for seen in api.seen] == [
        (Call.READ_CACHE, False, "", Result.NONE),
        (Call.POST_RESULT, True, "", Result.NONE),
        (Call.POST_RESULT, True, "", Result.OURS),
        (Call.READ_RESULT, True, "", Result.OURS),
        (Call.READ_RESULT, True, "", Result.OURS),
        (Call.TAKE_BACK, True, "", Result.OURS),
        (Call.TELL, True, names.DECISION_RUN, Result.EMPTY),
    ]


@pytest.mark.parametrize(("when", "lands"), POINTS)
@pytest.mark.parametrize("patience", [PATIENT, IMPATIENT])
@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike.__name__)
@pytest.mark.parametrize("call", [Call.READ_CACHE, Call.POST_RESULT, Call.TELL])
def test_struck_at_any_request_all_agree_and_no_answer_of_ours_stands_beside_the_step(
    containers: Containers, api: Api, ends, call: Call, strike: Strike, patience: int, when: str, lands: bool
):
    stop = api.stop(call, when)
    stop.lands = lands
    sidecar = containers.sidecar()
    stop.wait()
    step = containers.step(patience)
    word = ends(strike(containers, sidecar), step, stop)
    assert word == (names.DECISION_HIT if call is Call.TELL else names.DECISION_RUN)


@pytest.mark.parametrize(("posted", "call"), [("before", Call.KEEP_OUT), ("after", Call.TAKE_BACK)])
@pytest.mark.parametrize("request_", ["read", "write"])
@pytest.mark.parametrize(("when", "lands"), POINTS)
def test_killed_whole_while_it_retracts_it_retracts_again(
    containers: Containers, api: Api, ends, posted: str, call: Call, request_: str, when: str, lands: bool
):
    post, retraction = api.stop(Call.POST_RESULT, posted), None
    sidecar = containers.sidecar()
    post.wait()
    retraction = api.stop(Call.READ_RESULT if request_ == "read" else call, when)
    retraction.lands = lands
    step = containers.step(PATIENT)
    containers.kill_python(sidecar)
    retraction.wait()
    assert ends(containers.kill_all(sidecar), step, retraction, post) == names.DECISION_RUN


@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike.__name__)
def test_a_post_that_arrives_while_it_is_kept_out_is_taken_back(
    containers: Containers, api: Api, ends, strike: Strike
):
    post, kept = api.stop(Call.POST_RESULT, "before"), api.stop(Call.KEEP_OUT, "before")
    sidecar = containers.sidecar()
    post.wait()
    step = containers.step(PATIENT)
    sidecar = strike(containers, sidecar)
    kept.wait()
    post.release()
    assert post.over.wait(PATIENCE)
    kept.release()
    assert ends(sidecar, step) == names.DECISION_RUN
    assert [seen.call for seen in api.seen][-3:] == [Call.KEEP_OUT, Call.READ_RESULT, Call.TAKE_BACK]


def test_a_late_retraction_leaves_what_the_step_has_reported(containers: Containers, api: Api, ends):
    """The first attempt is held up until the step is over; the second one, after a kill, succeeds."""
    post, retraction = api.stop(Call.POST_RESULT, "after"), api.stop(Call.TAKE_BACK, "before")
    sidecar = containers.sidecar()
    post.wait()
    step = containers.step(PATIENT)
    containers.kill_python(sidecar)
    retraction.wait()
    assert ends(containers.kill_all(sidecar), step, retraction, post) == names.DECISION_RUN


def test_an_impatient_entrypoint_runs_and_python_that_comes_to_the_claim_later_posts_nothing(
    containers: Containers, api: Api, ends
):
    look_up = api.stop(Call.READ_CACHE, "after")
    sidecar = containers.sidecar()
    look_up.wait()
    step = containers.step(IMPATIENT)
    for entrypoint in step:
        entrypoint.wait(PATIENCE)
    look_up.release()
    assert ends(sidecar, step) == names.DECISION_RUN
    assert [seen.call for seen in api.seen] == [Call.READ_CACHE]


def test_an_impatient_entrypoint_that_finds_the_claim_taken_gets_the_answer(
    containers: Containers, api: Api, ends
):
    post = api.stop(Call.POST_RESULT, "before")
    sidecar = containers.sidecar()
    post.wait()
    step = containers.step(IMPATIENT)
    post.release()
    assert ends(sidecar, step) == names.DECISION_HIT


def test_a_check_that_comes_too_late_with_its_answer_takes_it_back(containers: Containers, api: Api, ends):
    """An entrypoint has given up on it: the word is there before the POST was answered."""
    post = api.stop(Call.POST_RESULT, "after")
    sidecar = containers.sidecar()
    post.wait()
    (containers.pod.shared / names.DECISION_FILE).write_text(names.DECISION_RUN)
    step = containers.step(PATIENT)
    post.release()
    assert ends(sidecar, step) == names.DECISION_RUN
    assert api.seen[-1].call is Call.TAKE_BACK


def test_a_retraction_that_comes_too_late_leaves_what_the_step_has_reported_into_our_answer(
    containers: Containers, api: Api, ends
):
    """An entrypoint has given up on it, and the step is over before the retraction reads."""
    post, read = api.stop(Call.POST_RESULT, "after"), api.stop(Call.READ_RESULT, "before")
    sidecar = containers.sidecar()
    post.wait()
    containers.kill_python(sidecar)
    read.wait()
    (containers.pod.shared / names.DECISION_FILE).write_text(names.DECISION_RUN)
    api.report()
    read.release()
    assert ends(sidecar, containers.step(PATIENT), post) == names.DECISION_RUN
    assert api.seen[-1].call is Call.READ_RESULT
    assert Call.TAKE_BACK not in [seen.call for seen in api.seen]


@pytest.mark.parametrize("strike", [None, Containers.kill_python], ids=["hangs", "killed"])
def test_time_that_runs_out_at_the_post_ends_like_any_other_death(
    containers: Containers, api: Api, ends, strike: Strike | None
):
    post = api.stop(Call.POST_RESULT, "before")
    sidecar = containers.sidecar(check_ms=20_000)
    post.wait()
    step = containers.step(PATIENT)
    if strike:
        sidecar = strike(containers, sidecar)
    ends(sidecar, step, post)
