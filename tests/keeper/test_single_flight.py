"""Single flight, case by case. test_any_flight.py lets everything happen in any order."""

from datetime import timedelta

import pytest

from keeper.single_flight import (
    BLOCKED,
    ORDER_GRACE,
    STORED_GRACE,
    Complete,
    Release,
    SingleFlight,
    Turn,
    Wait,
)
from keeper.steppods import GatedStep, Phase
from memoize.entry import Entry, Hit, Miss
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.keeper.tendedpods import START, tended

ENTRY = Entry("first", {}, START, None)
HIT = Hit(ENTRY)
MISS = Miss(Reason.MISS)
RUN = Release(Outcome(Reason.MISS))
LIMIT = START + timedelta(minutes=10)
SECOND = timedelta(seconds=1)


def flights(*pods: GatedStep, most_followers: int = 1000) -> SingleFlight:
    table = SingleFlight(most_followers=most_followers)
    for pod in pods:
        table.see(pod, START)
    return table


def running(uid: str, **fields: object) -> GatedStep:
    return tended(uid, phase=Phase.RUNNING, **fields)  # type: ignore[arg-type]


def over(uid: str) -> GatedStep:
    return tended(uid, phase=Phase.OVER)


A, B, C = tended("a"), tended("b"), tended("c")


def following(*followers: GatedStep, leader: str = "leader") -> SingleFlight:
    """A leader that runs, and these that were told to wait for it."""
    table = flights(running(leader), *followers)
    for pod in followers:
        assert isinstance(table.turn(pod, MISS, START), Wait)
    return table


def test_a_hit_is_completed_whoever_leads() -> None:
    for pod in (A, tended("a", share=False), tended("a", capture=False)):
        assert flights(pod, running("b")).turn(pod, HIT, START) == Complete(ENTRY)


def test_of_equal_pods_the_oldest_leads_and_the_others_wait_for_it() -> None:
    old, young = tended("z", created_at=START - SECOND), tended("a")
    table = flights(young, old)
    assert table.turn(young, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.turn(old, MISS, START) == RUN
    assert table.turn(young, MISS, START + SECOND) == Wait(LIMIT)


def test_of_equal_pods_of_one_moment_the_uid_decides() -> None:
    table = flights(B, A, C)
    assert isinstance(table.turn(C, MISS, START), Wait)
    assert isinstance(table.turn(B, MISS, START), Wait)
    assert table.turn(A, MISS, START) == RUN


def test_a_pod_does_not_depend_on_an_older_ones_being_asked() -> None:
    table = flights(A, B)
    assert table.turn(B, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.turn(B, MISS, START + ORDER_GRACE) == RUN
    assert table.turn(A, MISS, START + ORDER_GRACE) == Wait(LIMIT)


def test_the_look_up_of_the_oldest_failing_the_next_one_leads() -> None:
    table = flights(A, B)
    assert isinstance(table.turn(A, None, START), Wait)
    assert table.turn(B, MISS, START) == RUN


def test_nobody_waits_for_a_step_of_another_key_cache_or_namespace() -> None:
    for other in ({"place": "other"}, {"cache": "other"}, {"namespace": "other"}):
        table = flights(running("b", **other), A)
        assert table.turn(A, MISS, START) == RUN


def test_whoever_let_it_run_a_running_step_leads() -> None:
    table = flights(A, running("z"))
    assert table.turn(A, MISS, START) == Wait(LIMIT)


def test_a_step_that_is_over_leads_until_its_end_is_told() -> None:
    table = flights(over("z"), A)
    assert table.turn(A, MISS, START) == Wait(LIMIT)


def test_what_does_not_share_neither_waits_nor_is_waited_for() -> None:
    alone = tended("b", share=False)
    table = flights(running("a"), alone, running("z", share=False, place="other"), tended("y", place="other"))
    assert table.turn(alone, Miss(Reason.EXPIRED, "older"), START) == Release(
        Outcome(Reason.EXPIRED, "older")
    )
    assert table.turn(tended("y", place="other"), MISS, START) == RUN


def test_a_readonly_step_follows_and_never_leads() -> None:
    reader = tended("a", capture=False)
    table = flights(reader, B)
    assert table.turn(reader, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.turn(B, MISS, START) == RUN
    assert table.turn(reader, MISS, START) == Wait(LIMIT)
    alone = flights(reader)
    assert alone.turn(reader, MISS, START) == RUN
    alone.see(B, START)
    assert alone.turn(B, MISS, START) == RUN


def test_followers_are_asked_when_the_entry_is_stored_and_completed() -> None:
    table = following(B, A)
    assert table.stored("leader", START) == ("a", "b")
    assert table.turn(A, HIT, START) == Complete(ENTRY)
    assert table.turn(B, HIT, START) == Complete(ENTRY)


def test_an_entry_may_take_a_moment_to_be_seen() -> None:
    table = following(A)
    table.stored("leader", START)
    table.gone("leader", START)
    due = START + STORED_GRACE
    assert table.turn(A, MISS, START) == Wait(due)
    table.see(B, START + SECOND)
    assert table.turn(B, MISS, START + SECOND) == Wait(due)
    assert table.turn(A, HIT, due) == Complete(ENTRY)
    table.gone("a", due)
    assert table.turn(B, MISS, due) == RUN


def test_an_entry_that_does_not_answer_its_followers_ends_the_sharing() -> None:
    table = following(A, B, C)
    table.stored("leader", START)
    late = START + STORED_GRACE
    for pod in (B, A, C):
        assert table.turn(pod, Miss(Reason.EXPIRED), late) == Release(Outcome(Reason.SHARED_RUN_FAILED))
    table.see(tended("d"), late)
    assert table.turn(tended("d"), MISS, late + SECOND) == RUN


@pytest.mark.parametrize("how", ["failed", "gone", "deleting", "plan rewritten", "key rewritten"])
def test_a_leader_that_stores_nothing_lets_all_run_side_by_side(how: str) -> None:
    table = following(C, A, B)
    asked = {
        "failed": lambda: table.failed("leader", START),
        "gone": lambda: table.gone("leader", START),
        "deleting": lambda: table.see(running("leader", deleting=True), START),
        "plan rewritten": lambda: table.see(running("leader", share=False), START),
        "key rewritten": lambda: table.see(running("leader", place="other"), START),
    }[how]()
    assert asked == ("a", "b", "c")
    for pod in (C, A, B):
        assert table.turn(pod, MISS, START) == Release(Outcome(Reason.SHARED_RUN_FAILED))


def test_a_key_whose_leader_failed_is_shared_again_after_some_minutes() -> None:
    table = following()
    table.failed("leader", START)
    for moment, uid in ((START, "a"), (START + BLOCKED - SECOND, "b")):
        table.see(tended(uid), moment)
        assert table.turn(tended(uid), MISS, moment) == RUN
    late = START + BLOCKED
    table.see(C, late)
    assert table.turn(C, MISS, late) == Wait(LIMIT), "those that run side by side lead again"


def test_a_blocked_key_answers_hits_and_blocks_no_other() -> None:
    other = tended("z", place="other")
    table = following(A)
    table.see(running("y", place="other"), START)
    table.see(other, START)
    table.failed("leader", START)
    assert table.turn(A, HIT, START) == Complete(ENTRY)
    assert table.turn(other, MISS, START) == Wait(LIMIT)


def test_a_leader_whose_end_is_told_does_not_lead_again_however_often_it_is_seen() -> None:
    table = following(A)
    table.stored("leader", START)
    table.see(over("leader"), START)
    assert table.gone("leader", START) == ()
    assert table.turn(A, MISS, START) == Wait(START + STORED_GRACE)


def test_the_end_of_a_pod_that_leads_nothing_changes_nothing() -> None:
    table = following(A)
    for uid in ("a", "unknown"):
        assert table.stored(uid, START) == ()
        assert table.failed(uid, START) == ()
    assert table.gone("unknown", START) == ()
    assert table.turn(A, MISS, START) == Wait(LIMIT)


def test_a_look_up_that_comes_to_no_end_is_given_up() -> None:
    table = flights(A)
    due = START + timedelta(seconds=40)
    assert table.turn(A, None, START + timedelta(seconds=10)) == Wait(due)
    assert table.turn(A, None, due - SECOND) == Wait(due)
    decided = table.turn(A, None, due)
    assert isinstance(decided, Release)
    assert decided.outcome.reason is Reason.UNDECIDED


def test_the_time_for_a_look_up_begins_anew_when_one_succeeded() -> None:
    table = flights(running("leader"), A)
    table.turn(A, None, START)
    table.turn(A, MISS, START + timedelta(seconds=20))
    again = START + timedelta(minutes=2)
    assert table.turn(A, None, again) == Wait(again + timedelta(seconds=30))


@pytest.mark.parametrize("until", [START + timedelta(minutes=1), None])
def test_nobody_waits_beyond_its_limit(until: object) -> None:
    pod = tended("a", until=until)  # type: ignore[arg-type]
    limit = until or START + timedelta(minutes=10)
    table = flights(pod, running("z"))
    assert table.turn(pod, MISS, START) == Wait(limit)  # type: ignore[arg-type]
    assert table.turn(pod, MISS, limit) == Release(Outcome(Reason.SHARED_RUN_TIMEOUT))  # type: ignore[arg-type]


def test_a_plan_cannot_make_a_pod_wait_longer_than_the_server_lets_it() -> None:
    pod = tended("a", until=START + timedelta(days=9))
    assert flights(pod, running("z")).turn(pod, MISS, START) == Wait(LIMIT)


def test_a_limit_is_kept_while_nothing_can_be_told() -> None:
    pod = tended("a", until=START + SECOND)
    table = flights(pod, running("z"))
    assert table.turn(pod, None, START) == Wait(START + SECOND)
    assert isinstance(table.turn(pod, None, START + SECOND), Release)


def test_only_so_many_of_a_namespace_follow() -> None:
    elsewhere = tended("d", namespace="other")
    table = flights(running("z"), A, B, C, running("y", namespace="other"), elsewhere, most_followers=2)
    assert [type(table.turn(pod, MISS, START)) for pod in (A, B, A)] == [Wait, Wait, Wait]
    decided = table.turn(C, MISS, START)
    assert isinstance(decided, Release)
    assert decided.outcome.reason is Reason.MISS
    assert isinstance(table.turn(elsewhere, MISS, START), Wait)
    table.gone("a", START)
    table.see(tended("e"), START)
    assert isinstance(table.turn(tended("e"), MISS, START), Wait)


def test_a_pod_that_was_told_to_run_is_not_answered_any_more() -> None:
    table = flights(A)
    for known in (MISS, HIT, None):
        assert table.turn(A, known, START) == RUN
    table.see(A, START)
    assert table.turn(A, HIT, START) == RUN


def test_a_leader_leads_from_the_moment_it_is_told_to() -> None:
    table = flights(A, B)
    table.turn(A, MISS, START)
    assert table.turn(B, MISS, START) == Wait(LIMIT)
    table.see(running("a"), START)
    assert table.turn(B, MISS, START) == Wait(LIMIT)


def test_nothing_is_done_with_a_pod_that_is_not_held_or_unknown_or_on_its_way_out() -> None:
    table = flights(running("a"), tended("b", deleting=True))
    for pod in (running("a"), A, B, C):
        assert table.turn(pod, MISS, START) is None


def test_a_held_pod_that_is_deleted_keeps_nobody_waiting() -> None:
    table = flights(A, B)
    table.see(tended("a", deleting=True), START)
    assert table.turn(B, MISS, START) == RUN


def test_a_new_keeper_knows_the_leader_in_whatever_order_it_sees_the_pods() -> None:
    for order in ([A, B, running("z")], [running("z"), B, A], [A, running("z"), B]):
        table = flights(*order)
        assert table.turn(A, MISS, START) == Wait(LIMIT)
        assert table.turn(B, MISS, START) == Wait(LIMIT)


def turns(table: SingleFlight, *pods: GatedStep) -> list[Turn | None]:
    return [table.turn(pod, MISS, START) for pod in pods]


def test_a_thousand_equal_pods_run_once() -> None:
    pods = [tended(f"{number:04}") for number in range(1000)]
    table = flights(*pods)
    decided = turns(table, *pods)
    assert decided[0] == RUN
    assert decided[1:] == [Wait(LIMIT)] * 999
    table.see(running("0000"), START)
    assert len(table.stored("0000", START)) == 999


def test_the_oldest_is_waited_for_whenever_nobody_leads_again() -> None:
    table = flights(A, B)
    table.turn(B, MISS, START)
    table.see(running("z"), START)
    table.stored("z", START)
    assert [table.turn(pod, HIT, START) for pod in (A, B)] == [Complete(ENTRY)] * 2
    later = START + timedelta(minutes=1)
    assert table.turn(B, MISS, later) == Wait(later + ORDER_GRACE)
    assert table.turn(A, MISS, later) == RUN


def test_one_entry_that_does_not_answer_ends_the_sharing_once() -> None:
    table = following(A, B)
    table.stored("leader", START)
    assert table.turn(B, MISS, START + STORED_GRACE) == Release(Outcome(Reason.SHARED_RUN_FAILED))
    assert table.turn(A, MISS, START + STORED_GRACE + BLOCKED) == Wait(LIMIT), "B leads"
