"""How far a Pod has come, whatever is shown of it while something is done for it."""

from dataclasses import replace

import pytest

from keeper.capture import End
from keeper.state import (
    Answering,
    Capturing,
    FinalLabel,
    Gated,
    Gone,
    Handled,
    Labelling,
    Left,
    Orphaned,
    PostedAnswer,
    Record,
    Releasing,
    Running,
    State,
    Terminated,
    after,
)
from keeper.steppods import Phase
from keeper.task_results import PostedResult
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.keeper.gatedsteps import START, gated_step

STEP, OTHER = gated_step("a"), gated_step("a", place="other")
EDITED = replace(STEP, version="2")
ANSWER = PostedAnswer(STEP, Entry("n", {}, START, None), "{}", PostedResult("uid", "1"), 0.0)
WHY, LATER = Outcome(Reason.SHARED_RUN_TIMEOUT), Outcome(Reason.SHARED_RUN_FAILED)
OVER = Capturing(STEP, End(None, 5.0))
SKIPPED = FinalLabel(names.RESULT_SKIPPED, WHY)
LEFT: tuple[Left, ...] = (Running(), OVER, Terminated(SKIPPED), Gone())


def record(state: State) -> Record:
    return Record(STEP, state, result_may_exist=False)


@pytest.mark.parametrize("shown", LEFT)
@pytest.mark.parametrize(
    "before", [Answering(STEP, ANSWER), Releasing(WHY, ANSWER), Orphaned(ANSWER, Running())]
)
def test_an_answer_is_orphaned_when_its_pod_leaves(before: State, shown: Left) -> None:
    assert after(before, shown) == Orphaned(ANSWER, shown)


@pytest.mark.parametrize("shown", LEFT)
@pytest.mark.parametrize("before", [Gated(STEP), Releasing(WHY), Handled(WHY), Handled()])
def test_a_pod_without_an_answer_just_leaves(before: State, shown: Left) -> None:
    assert after(before, shown) == shown


@pytest.mark.parametrize("shown", [Gated(STEP), Releasing(LATER)])
@pytest.mark.parametrize("before", [Releasing(WHY), Releasing(WHY, ANSWER)])
def test_a_release_is_final_and_keeps_its_first_reason(before: Releasing, shown: State) -> None:
    assert after(before, shown) == before
    known = record(before)
    known.release(LATER)
    assert known.state == before


@pytest.mark.parametrize(("before", "reason"), [(Handled(), Outcome(Reason.UNDECIDED)), (Handled(WHY), WHY)])
def test_a_pod_that_was_done_with_and_is_gated_still_is_let_run(before: State, reason: Outcome) -> None:
    for shown in (Gated(STEP), Releasing(LATER)):
        assert after(before, shown) == Releasing(reason)


def test_an_answer_stays_with_a_pod_that_is_edited_as_long_as_it_is_the_same_step() -> None:
    assert after(Answering(STEP, ANSWER), Gated(EDITED)) == Answering(EDITED, ANSWER)
    changed = after(Answering(STEP, ANSWER), Gated(OTHER))
    assert isinstance(changed, Releasing)
    assert changed.answer == ANSWER
    assert after(Answering(STEP, ANSWER), Releasing(WHY)) == Releasing(WHY, ANSWER)


@pytest.mark.parametrize("shown", [OVER, Terminated(SKIPPED)])
def test_a_pod_is_captured_once(shown: State) -> None:
    for before in (Labelling(SKIPPED), Orphaned(ANSWER, Labelling(SKIPPED))):
        assert after(before, shown) == before


@pytest.mark.parametrize("meanwhile", LEFT)
def test_a_result_that_is_posted_while_its_pod_leaves_is_orphaned(meanwhile: Left) -> None:
    known = record(Gated(STEP))
    known.on_shown(replace(STEP, phase=Phase.RUNNING, gates=()), meanwhile)
    known.on_posted(ANSWER)
    assert known.state == Orphaned(ANSWER, meanwhile)
    known.on_finished()
    assert known.state == meanwhile


@pytest.mark.parametrize(
    ("before", "finished"),
    [
        (Gated(STEP), Handled()),
        (Answering(STEP, ANSWER), Handled()),
        (Releasing(WHY, ANSWER), Handled(WHY)),
        (Running(), Running()),
        (Gone(), Gone()),
    ],
)
def test_a_gated_pod_that_was_acted_on_is_handled_and_one_that_left_stays_where_it_is(
    before: State, finished: State
) -> None:
    known = record(before)
    known.on_finished()
    assert known.state == finished


@pytest.mark.parametrize("before", [Running(), Gone(), Handled(), Orphaned(ANSWER, Gone())])
def test_nothing_lets_a_pod_run_or_be_labelled_that_has_left(before: State) -> None:
    known = record(before)
    known.release(WHY)
    assert not known.label(SKIPPED)
    assert known.state == before


def test_a_pod_gets_one_final_label() -> None:
    for before, labelled in (
        (OVER, Labelling(SKIPPED)),
        (Orphaned(ANSWER, OVER), Orphaned(ANSWER, Labelling(SKIPPED))),
    ):
        known = record(before)
        assert known.label(SKIPPED)
        assert known.state == labelled
        assert not known.label(FinalLabel(names.RESULT_STORED, LATER))


def test_a_pod_that_became_invalid_is_remembered_as_the_step_that_it_was() -> None:
    known = record(Gated(STEP))
    known.on_shown(EDITED, Gated(EDITED))
    known.on_gone()
    assert (known.last_valid, known.state) == (EDITED, Gone())
