"""How far a Pod has come, whatever is shown of it while something is done for it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from keeper.capture import End
from keeper.state import (
    Answering,
    Capturing,
    FinalLabel,
    Gated,
    Gone,
    Handled,
    Labelled,
    Labelling,
    Left,
    Orphaned,
    Orphans,
    PostedAnswer,
    Record,
    Records,
    Releasing,
    Running,
    State,
    Terminated,
    Unlabelled,
    after,
    as_shown,
)
from keeper.steppods import GatedStep, InvalidStep, Phase, without_step
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
FULL = Outcome(Reason.RECORDS_FULL)
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
    known = (Labelling(SKIPPED), Labelled(), Unlabelled())
    for before in (*known, Orphaned(ANSWER, Labelling(SKIPPED)), Orphaned(ANSWER, Labelled())):
        assert after(before, shown) == before


@pytest.mark.parametrize("meanwhile", LEFT)
def test_a_result_that_is_posted_while_its_pod_leaves_is_orphaned(meanwhile: Left) -> None:
    known = record(Gated(STEP))
    known.on_shown(replace(STEP, phase=Phase.RUNNING, gates=()), meanwhile, 0.0)
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
    known.on_shown(EDITED, Gated(EDITED), 0.0)
    known.on_gone()
    assert (known.last_valid, known.state) == (EDITED, Gone())


def test_a_label_is_written_once() -> None:
    known = record(Labelling(SKIPPED))
    known.on_labelled()
    assert known.state == Labelled()
    for other in (OVER, Gone(), Unlabelled(), Orphaned(ANSWER, Labelling(SKIPPED))):
        known = record(other)
        known.on_labelled()
        assert known.state == other


def test_a_label_is_given_up_only_where_one_is_to_be_written() -> None:
    known = record(Labelling(SKIPPED))
    known.leave_unlabelled()
    assert known.state == Unlabelled()
    for other in (OVER, Gated(STEP), Orphaned(ANSWER, Labelling(SKIPPED))):
        known = record(other)
        known.leave_unlabelled()
        assert known.state == other


def test_a_pod_is_tried_once_in_each_phase() -> None:
    known = record(Gated(STEP))
    known.tried = True
    known.on_shown(EDITED, Gated(EDITED), 1.0)
    assert (known.tried, known.phase_since) == (True, 0.0)
    known.on_shown(replace(STEP, phase=Phase.OVER, gates=()), OVER, 2.0)
    assert (known.tried, known.phase_since) == (False, 2.0)


# --- how many are remembered ---------------------------------------------------------------------------


def put(records: Records, pod: GatedStep | InvalidStep) -> Record:
    state = Gated(pod) if isinstance(pod, GatedStep) else Releasing(pod.outcome)
    return records.put(pod, state, 0.0, result_may_exist=False)


def test_a_namespace_has_so_many_records_and_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.state.MOST_RECORDS", 3)
    records = Records()
    for uid in "abc":
        assert records.has_room(gated_step(uid))
        put(records, gated_step(uid))
    assert not records.has_room(gated_step("d"))
    assert records.has_room(gated_step("a")), "it is among them"
    assert records.has_room(gated_step("d", namespace="other"))
    put(records, without_step(gated_step("d"), FULL))
    records.drop("b")
    assert records.has_room(gated_step("d")), "what is not remembered whole does not count"
    put(records, gated_step("d"))
    assert not records.has_room(gated_step("e"))
    assert len(records.gated) == 3


def test_it_is_known_which_entries_gated_pods_look_for() -> None:
    records = Records()
    pod = gated_step("a")
    put(records, pod)
    where = pod.namespace, pod.key.cache
    assert records.data_keys(*where) == {pod.key.data_key}
    assert records.data_keys("other", pod.key.cache) == records.data_keys(pod.namespace, "other") == set()
    records.drop("a")
    assert records.data_keys(*where) == set()


def test_what_is_waited_for_is_shown_as_it_is_and_not_copied() -> None:
    """Thousands of entries are looked at each second: whoever asks for one must not go through all."""
    records = Records()
    put(records, gated_step("a"))
    keys, caches, of = records.data_keys("default", "memo"), records.caches, records.caches_of
    for uid, pod in (("b", gated_step("b", place="other")), ("c", gated_step("c", cache="more"))):
        put(records, pod)
        assert uid in [uid for group in records.groups(*pod.key) for uid in group.uids]
    put(records, gated_step("d", namespace="work"))
    assert keys == {"k", "other"}
    assert sorted(caches) == [("default", "memo"), ("default", "more"), ("work", "memo")]
    assert ("work", "memo") in caches
    assert ("work", "more") not in caches
    assert len(caches) == 3
    assert {name: set(of[name]) for name in of} == {"default": {"memo", "more"}, "work": {"memo"}}
    for uid in "abcd":
        records.drop(uid)
    assert (list(caches), dict(of), len(caches)) == ([], {}, 0)
    assert not records.groups("default", "memo", "k")


def test_the_records_of_a_namespace_are_bounded_by_the_bytes_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keeper.state.MOST_BYTES", 1000)
    records = Records()
    put(records, gated_step("a", size=600))
    assert not records.has_room(gated_step("b", size=401))
    put(records, gated_step("b", size=400))
    assert records.has_room(gated_step("a", size=600))
    assert not records.has_room(gated_step("a", size=601)), "somebody wrote into it"
    put(records, without_step(gated_step("a", size=601), FULL))
    assert not records.has_room(gated_step("c", size=1)), "what it was is remembered for its release"
    records.drop("a")
    assert records.has_room(gated_step("c", size=600))
    for uid in "bc":
        records.drop(uid)
    assert records.has_room(gated_step("c", size=1000))


def test_what_is_left_of_a_pod_beyond_the_bounds_is_small_and_lets_it_run() -> None:
    pod = replace(STEP, gates=("x" * 100_000, names.SCHEDULING_GATE), size=200_000)
    left = without_step(pod, FULL)
    assert (left.size, left.gates) == (0, (names.SCHEDULING_GATE,))
    assert (left.uid, left.namespace, left.name, left.phase) == (pod.uid, pod.namespace, pod.name, pod.phase)
    assert as_shown(left, {}) == Releasing(FULL)
    assert as_shown(replace(left, phase=Phase.RUNNING, gates=()), {}) == Running()
    over = as_shown(replace(left, phase=Phase.OVER, gates=()), {})
    assert over == Terminated(FinalLabel(names.RESULT_SKIPPED, FULL))


def test_whoever_begins_looks_at_gated_pods_before_those_that_are_over_and_at_old_ones_first() -> None:
    records = Records()
    for uid, phase, age in (("a", Phase.OVER, 9), ("b", Phase.GATED, 1), ("c", Phase.GATED, 5)):
        pod = gated_step(uid, phase=phase, created_at=START - timedelta(seconds=age))
        records.put(pod, as_shown(pod, {}), 0.0, result_may_exist=True)
    put(records, without_step(gated_step("d"), FULL))
    assert [record.pod.uid for record in records.in_order()] == ["d", "c", "b", "a"]


def test_a_namespace_has_so_many_orphans_and_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.state.MOST_ORPHANS", 2)
    orphans = Orphans()
    first, second, third, other = (
        Record(gated_step(uid, namespace=namespace), Gone(), result_may_exist=True)
        for uid, namespace in (("a", "ns"), ("b", "ns"), ("c", "ns"), ("d", "other"))
    )
    assert [orphans.put(one) for one in (first, first, second, third, other)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert orphans.pop("a") is first
    assert orphans.pop("a") is None
    assert orphans.put(third)
    assert list(orphans) == [second, other, third], "there is room again"
