"""Single flight, case by case. test_any_flight.py lets everything happen in any order."""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest

from keeper.expiring_set import ExpiringSet
from keeper.single_flight import (
    BLOCKED,
    ORDER_GRACE,
    STORED_GRACE,
    Complete,
    Decision,
    Release,
    SingleFlight,
    Wait,
)
from keeper.steppods import GatedStep, Key, Phase
from memoize.entry import Entry, Hit, Miss
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.keeper.gatedsteps import START, gated_step

ENTRY = Entry("first", {}, START, None)
HIT = Hit(ENTRY)
MISS = Miss(Reason.MISS)
RUN = Release(Outcome(Reason.MISS))
LIMIT = START + timedelta(minutes=10)
SECOND = timedelta(seconds=1)


def flights(*pods: GatedStep, max_waiters: int = 1000) -> SingleFlight:
    table = SingleFlight(max_waiters=lambda namespace: max_waiters)
    for pod in pods:
        table.on_pod(pod, START)
    return table


def running(uid: str, **fields: object) -> GatedStep:
    return gated_step(uid, phase=Phase.RUNNING, **fields)  # type: ignore[arg-type]


def over(uid: str) -> GatedStep:
    return gated_step(uid, phase=Phase.OVER)


A, B, C = gated_step("a"), gated_step("b"), gated_step("c")


def waiting_for(*waiters: GatedStep, runner: str = "runner") -> SingleFlight:
    """A runner that runs, and these that were told to wait for it."""
    table = flights(running(runner), *waiters)
    for pod in waiters:
        assert isinstance(table.decide(pod, MISS, START), Wait)
    return table


def test_a_hit_is_completed_whoever_leads() -> None:
    for pod in (A, gated_step("a", share=False), gated_step("a", capture=False)):
        assert flights(pod, running("b")).decide(pod, HIT, START) == Complete(ENTRY)


def test_of_equal_pods_the_oldest_leads_and_the_others_wait_for_it() -> None:
    old, young = gated_step("z", created_at=START - SECOND), gated_step("a")
    table = flights(young, old)
    assert table.decide(young, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.decide(old, MISS, START) == RUN
    assert table.decide(young, MISS, START + SECOND) == Wait(LIMIT)


def test_of_equal_pods_of_one_moment_the_uid_decides() -> None:
    table = flights(B, A, C)
    assert isinstance(table.decide(C, MISS, START), Wait)
    assert isinstance(table.decide(B, MISS, START), Wait)
    assert table.decide(A, MISS, START) == RUN


def test_a_pod_does_not_depend_on_an_older_ones_being_asked() -> None:
    table = flights(A, B)
    assert table.decide(B, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.decide(B, MISS, START + ORDER_GRACE) == RUN
    assert table.decide(A, MISS, START + ORDER_GRACE) == Wait(LIMIT)


def test_the_look_up_of_the_oldest_failing_the_next_one_leads() -> None:
    table = flights(A, B)
    assert isinstance(table.decide(A, None, START), Wait)
    assert table.decide(B, MISS, START) == RUN


def test_nobody_waits_for_a_step_of_another_key_cache_or_namespace() -> None:
    for other in ({"place": "other"}, {"cache": "other"}, {"namespace": "other"}):
        table = flights(running("b", **other), A)
        assert table.decide(A, MISS, START) == RUN


def test_whoever_let_it_run_a_running_step_leads() -> None:
    table = flights(A, running("z"))
    assert table.decide(A, MISS, START) == Wait(LIMIT)


def test_a_step_that_an_earlier_keeper_announced_to_run_leads_though_it_is_gated_and_younger() -> None:
    announced = gated_step("z", release_reason=Outcome(Reason.MISS))
    for pods in ((A, announced), (announced, A)):
        table = flights(*pods)
        assert table.decide(A, MISS, START) == Wait(LIMIT)
        assert table.on_deleted("z", START) == ("a",)


def test_a_step_that_is_over_leads_until_its_end_is_told() -> None:
    table = flights(over("z"), A)
    assert table.decide(A, MISS, START) == Wait(LIMIT)


def test_what_does_not_share_neither_waits_nor_is_waited_for() -> None:
    alone = gated_step("b", share=False)
    table = flights(
        running("a"), alone, running("z", share=False, place="other"), gated_step("y", place="other")
    )
    assert table.decide(alone, Miss(Reason.EXPIRED, "older"), START) == Release(
        Outcome(Reason.EXPIRED, "older")
    )
    assert table.decide(gated_step("y", place="other"), MISS, START) == RUN


def test_a_readonly_step_follows_and_never_leads() -> None:
    reader = gated_step("a", capture=False)
    table = flights(reader, B)
    assert table.decide(reader, MISS, START) == Wait(START + ORDER_GRACE)
    assert table.decide(B, MISS, START) == RUN
    assert table.decide(reader, MISS, START) == Wait(LIMIT)
    alone = flights(reader)
    assert alone.decide(reader, MISS, START) == RUN
    alone.on_pod(B, START)
    assert alone.decide(B, MISS, START) == RUN


def test_waiters_are_asked_when_the_entry_is_stored_and_completed() -> None:
    table = waiting_for(B, A)
    assert table.on_stored("runner", START) == ("a", "b")
    assert table.decide(A, HIT, START) == Complete(ENTRY)
    assert table.decide(B, HIT, START) == Complete(ENTRY)


def test_an_entry_may_take_a_moment_to_be_seen() -> None:
    table = waiting_for(A)
    table.on_stored("runner", START)
    table.on_deleted("runner", START)
    due = START + STORED_GRACE
    assert table.decide(A, MISS, START) == Wait(due)
    table.on_pod(B, START + SECOND)
    assert table.decide(B, MISS, START + SECOND) == Wait(due)
    assert table.decide(A, HIT, due) == Complete(ENTRY)
    table.on_deleted("a", due)
    assert table.decide(B, MISS, due) == RUN


def test_an_entry_that_does_not_answer_its_waiters_ends_the_sharing() -> None:
    table = waiting_for(A, B, C)
    table.on_stored("runner", START)
    late = START + STORED_GRACE
    for pod, asked in ((B, ("a", "c")), (A, ()), (C, ())):
        released = Release(Outcome(Reason.SHARED_RUN_FAILED), asked)
        assert table.decide(pod, Miss(Reason.EXPIRED), late) == released
    assert table.decide(B, Miss(Reason.EXPIRED), late) == Release(Outcome(Reason.SHARED_RUN_FAILED)), "once"
    table.on_pod(gated_step("d"), late)
    assert table.decide(gated_step("d"), MISS, late + SECOND) == RUN


@pytest.mark.parametrize("how", ["failed", "gone", "deleting", "plan rewritten", "key rewritten"])
def test_a_runner_that_stores_nothing_lets_all_run_side_by_side(how: str) -> None:
    table = waiting_for(C, A, B)
    asked = {
        "failed": lambda: table.on_failed("runner", START),
        "gone": lambda: table.on_deleted("runner", START),
        "deleting": lambda: table.on_pod(running("runner", deleting=True), START),
        "plan rewritten": lambda: table.on_pod(running("runner", share=False), START),
        "key rewritten": lambda: table.on_pod(running("runner", place="other"), START),
    }[how]()
    assert asked == ("a", "b", "c")
    for pod in (C, A, B):
        assert table.decide(pod, MISS, START) == Release(Outcome(Reason.SHARED_RUN_FAILED))


@pytest.mark.parametrize("stored", [False, True])
def test_nobody_waits_for_an_equal_step_while_entries_cannot_be_had(stored: bool) -> None:
    table = waiting_for(A, B)
    if stored:
        table.on_stored("runner", START)
    away = Miss(Reason.STORE_UNAVAILABLE, "the database does not answer")
    for pod in (B, A):
        assert table.decide(pod, away, START) == Release(Outcome(away.reason, away.detail))
    table.on_pod(C, START)
    assert isinstance(table.decide(C, MISS, START), Wait), "later ones wait for those"


def test_a_key_whose_runner_failed_is_shared_again_after_some_minutes() -> None:
    table = waiting_for()
    table.on_failed("runner", START)
    for moment, uid in ((START, "a"), (START + BLOCKED - SECOND, "b")):
        table.on_pod(gated_step(uid), moment)
        assert table.decide(gated_step(uid), MISS, moment) == RUN
    late = START + BLOCKED
    table.on_pod(C, late)
    assert table.decide(C, MISS, late) == Wait(LIMIT), "those that run side by side lead again"


SAYS = Outcome(Reason.SHARED_RUN_FAILED)


@pytest.mark.parametrize("phase", [Phase.GATED, Phase.RUNNING])
def test_a_new_keeper_shares_no_key_of_which_a_pod_says_that_a_runner_failed(phase: Phase) -> None:
    """It was let run by a keeper that is gone: those that come must not wait for it, one after the other."""
    shown = replace(gated_step("z", phase=phase), release_reason=SAYS)
    table = waiting_for(A, runner="runner")
    assert A.uid in table.on_pod(shown, START), "who waits is asked again"
    assert table.decide(A, MISS, START) == Release(SAYS)
    assert table.on_pod(B, START) == ("b",)
    assert table.decide(B, MISS, START) == RUN
    late = START + BLOCKED
    for pod in (shown, running("b"), C):
        table.on_pod(pod, late)
    assert isinstance(table.decide(C, MISS, late), Wait), "seen again it begins nothing anew"


@pytest.mark.parametrize("other", [{"phase": Phase.OVER}, {"place": "other"}, {"namespace": "other"}])
def test_a_pod_that_is_over_or_of_another_key_says_nothing_of_a_key(other: dict[str, Any]) -> None:
    table = flights(replace(gated_step("z", **{"phase": Phase.RUNNING, **other}), release_reason=SAYS))
    for pod in (running("b"), A):
        table.on_pod(pod, START)
    assert isinstance(table.decide(A, MISS, START), Wait)


def test_a_blocked_key_answers_hits_and_blocks_no_other() -> None:
    other = gated_step("z", place="other")
    table = waiting_for(A)
    table.on_pod(running("y", place="other"), START)
    table.on_pod(other, START)
    table.on_failed("runner", START)
    assert table.decide(A, HIT, START) == Complete(ENTRY)
    assert table.decide(other, MISS, START) == Wait(LIMIT)


def test_a_runner_whose_end_is_told_does_not_lead_again_however_often_it_is_seen() -> None:
    table = waiting_for(A)
    table.on_stored("runner", START)
    table.on_pod(over("runner"), START)
    assert table.on_deleted("runner", START) == ()
    assert table.decide(A, MISS, START) == Wait(START + STORED_GRACE)


def test_the_end_of_a_pod_that_leads_nothing_changes_nothing() -> None:
    table = waiting_for(A)
    for uid in ("a", "unknown"):
        assert table.on_stored(uid, START) == ()
        assert table.on_failed(uid, START) == ()
    assert table.on_deleted("unknown", START) == ()
    assert table.decide(A, MISS, START) == Wait(LIMIT)


def test_a_look_up_that_comes_to_no_end_is_given_up() -> None:
    table = flights(A)
    due = START + timedelta(seconds=40)
    assert table.decide(A, None, START + timedelta(seconds=10)) == Wait(due)
    assert table.decide(A, None, due - SECOND) == Wait(due)
    decided = table.decide(A, None, due)
    assert isinstance(decided, Release)
    assert decided.outcome.reason is Reason.UNDECIDED


def test_the_time_for_a_look_up_begins_anew_when_one_succeeded() -> None:
    table = flights(running("runner"), A)
    table.decide(A, None, START)
    table.decide(A, MISS, START + timedelta(seconds=20))
    again = START + timedelta(minutes=2)
    assert table.decide(A, None, again) == Wait(again + timedelta(seconds=30))


def test_nobody_waits_beyond_its_limit() -> None:
    limit = START + timedelta(minutes=1)
    pod = gated_step("a", until=limit)
    table = flights(pod, running("z"))
    assert table.decide(pod, MISS, START) == Wait(limit)
    assert table.decide(pod, MISS, limit) == Release(Outcome(Reason.SHARED_RUN_TIMEOUT))


def test_nobody_waits_beyond_its_limit_for_an_entry_to_be_seen() -> None:
    limit = START + STORED_GRACE / 2
    pod = gated_step("a", until=limit)
    table = flights(pod, running("z"))
    assert table.decide(pod, MISS, START) == Wait(limit)
    table.on_stored("z", START)
    assert table.decide(pod, MISS, START) == Wait(limit)
    assert table.decide(pod, MISS, limit) == Release(Outcome(Reason.SHARED_RUN_TIMEOUT))


def test_a_plan_cannot_make_a_pod_wait_longer_than_the_server_lets_it() -> None:
    pod = gated_step("a", until=START + timedelta(days=9))
    assert flights(pod, running("z")).decide(pod, MISS, START) == Wait(LIMIT)


@pytest.mark.parametrize("patience", [timedelta(minutes=1), timedelta(days=9)])
def test_a_clock_that_is_behind_makes_nobody_wait_longer(patience: timedelta) -> None:
    behind = START - timedelta(minutes=1)
    pod, table = gated_step("a", until=START + patience), SingleFlight()
    for other in (pod, running("z")):
        table.on_pod(other, behind)
    limit = behind + min(patience, timedelta(minutes=10))
    assert table.decide(pod, MISS, behind) == Wait(limit)
    table.on_pod(pod, behind + SECOND)
    assert table.decide(pod, MISS, behind + SECOND) == Wait(limit), "seeing it again gives it no more time"
    assert table.decide(pod, MISS, limit) == Release(Outcome(Reason.SHARED_RUN_TIMEOUT))


def test_a_limit_is_kept_while_nothing_can_be_told() -> None:
    pod = gated_step("a", until=START + SECOND)
    table = flights(pod, running("z"))
    assert table.decide(pod, None, START) == Wait(START + SECOND)
    assert isinstance(table.decide(pod, None, START + SECOND), Release)


def test_only_so_many_of_a_namespace_follow() -> None:
    elsewhere = gated_step("d", namespace="other")
    table = flights(running("z"), A, B, C, running("y", namespace="other"), elsewhere, max_waiters=2)
    assert [type(table.decide(pod, MISS, START)) for pod in (A, B, A)] == [Wait, Wait, Wait]
    decided = table.decide(C, MISS, START)
    assert isinstance(decided, Release)
    assert decided.outcome.reason is Reason.MISS
    assert isinstance(table.decide(elsewhere, MISS, START), Wait)
    table.on_deleted("a", START)
    table.on_pod(gated_step("e"), START)
    assert isinstance(table.decide(gated_step("e"), MISS, START), Wait)


@pytest.mark.parametrize(("most", "waits"), [(0, [False, False]), (1, [True, False]), (2, [True, True])])
def test_so_many_of_a_namespace_follow_as_it_may_have_at_that_moment(most: int, waits: list[bool]) -> None:
    limits = {"default": 0, "other": 9}
    table = SingleFlight(max_waiters=limits.__getitem__)
    for pod in (running("z"), A, B):
        table.on_pod(pod, START)
    limits["default"] = most
    assert [isinstance(table.decide(pod, MISS, START), Wait) for pod in (A, B)] == waits
    limits["default"] = 0
    assert [isinstance(table.decide(pod, MISS, START), Wait) for pod in (A, B)] == waits, (
        "who waits may go on"
    )


def test_a_pod_that_was_told_to_run_is_not_answered_any_more() -> None:
    table = flights(A)
    for known in (MISS, HIT, None):
        assert table.decide(A, known, START) == RUN
    table.on_pod(A, START)
    assert table.decide(A, HIT, START) == RUN


def test_a_runner_is_one_from_the_moment_it_is_to_run() -> None:
    table = flights(A, B)
    table.decide(A, MISS, START)
    assert table.decide(B, MISS, START) == Wait(LIMIT)
    table.on_pod(running("a"), START)
    assert table.decide(B, MISS, START) == Wait(LIMIT)


def test_nothing_is_done_with_a_pod_that_is_not_held_or_unknown_or_on_its_way_out() -> None:
    table = flights(running("a"), gated_step("b", deleting=True))
    for pod in (running("a"), A, B, C):
        assert table.decide(pod, MISS, START) is None


def test_a_held_pod_that_is_deleted_keeps_nobody_waiting() -> None:
    table = flights(A, B)
    table.on_pod(gated_step("a", deleting=True), START)
    assert table.decide(B, MISS, START) == RUN


def test_a_new_keeper_knows_the_runner_in_whatever_order_it_sees_the_pods() -> None:
    for order in ([A, B, running("z")], [running("z"), B, A], [A, running("z"), B]):
        table = flights(*order)
        assert table.decide(A, MISS, START) == Wait(LIMIT)
        assert table.decide(B, MISS, START) == Wait(LIMIT)


def turns(table: SingleFlight, *pods: GatedStep) -> list[Decision | None]:
    return [table.decide(pod, MISS, START) for pod in pods]


def test_a_thousand_equal_pods_run_once() -> None:
    pods = [gated_step(f"{number:04}") for number in range(1000)]
    table = flights(*pods)
    decided = turns(table, *pods)
    assert decided[0] == RUN
    assert decided[1:] == [Wait(LIMIT)] * 999
    table.on_pod(running("0000"), START)
    assert len(table.on_stored("0000", START)) == 999


def test_the_oldest_is_waited_for_whenever_nobody_leads_again() -> None:
    table = flights(A, B)
    table.decide(B, MISS, START)
    table.on_pod(running("z"), START)
    table.on_stored("z", START)
    assert [table.decide(pod, HIT, START) for pod in (A, B)] == [Complete(ENTRY)] * 2
    later = START + timedelta(minutes=1)
    assert table.decide(B, MISS, later) == Wait(later + ORDER_GRACE)
    assert table.decide(A, MISS, later) == RUN


def test_one_entry_that_does_not_answer_ends_the_sharing_once() -> None:
    table = waiting_for(A, B)
    table.on_stored("runner", START)
    released = Release(Outcome(Reason.SHARED_RUN_FAILED), asked=("a",))
    assert table.decide(B, MISS, START + STORED_GRACE) == released
    assert table.decide(A, MISS, START + STORED_GRACE + BLOCKED) == Wait(LIMIT), "B leads"


def test_who_waits_for_another_runner_is_asked_when_an_entry_does_not_answer_the_first_waiter() -> None:
    """Nobody else would: the second runner fails while the key is known to be blocked."""
    table = flights(running("r1"), running("r2"), A)
    assert isinstance(table.decide(A, MISS, START), Wait)
    table.on_stored("r1", START)
    table.on_pod(B, START + SECOND)
    assert table.decide(B, MISS, START + SECOND) == Wait(LIMIT)
    decided = table.decide(A, MISS, START + STORED_GRACE)
    assert isinstance(decided, Release)
    assert decided.asked == ("b",)
    assert isinstance(table.decide(B, MISS, START + STORED_GRACE), Release)


# --- what it costs -----------------------------------------------------------------------------------------


def calls(work: Callable[[], object]) -> int:
    """How many functions it calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_marking_one_of_ten_thousand_keys_does_not_go_through_the_others() -> None:
    blocked = ExpiringSet(BLOCKED, most=10_000)
    for number in range(10_000):
        blocked.add(Key("default", "memo", f"k{number}"), START)
    assert len(blocked) == 10_000
    another = Key("default", "memo", "another")
    tracemalloc.start()
    try:
        assert calls(lambda: blocked.add(another, START + SECOND)) < 50
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000, "bytes: less than a list of them"


def test_marks_are_bounded_by_namespace_and_forgotten_when_they_are_over() -> None:
    blocked = ExpiringSet(BLOCKED, most=3)
    mine = Key("other", "memo", "k")
    blocked.add(mine, START)
    for number in range(10):
        blocked.add(Key("default", "memo", f"k{number}"), START + SECOND)
    assert blocked.until(mine, START + SECOND) == START + BLOCKED
    assert blocked.until(Key("default", "memo", "k9"), START + SECOND) is not None
    assert blocked.until(Key("default", "memo", "k6"), START + SECOND) is None, "the oldest goes"
    assert len(blocked) == 4
    assert blocked.until(mine, START + BLOCKED) is None
    blocked.add(Key("third", "memo", "k"), START + BLOCKED + SECOND)
    assert len(blocked) == 1


def test_a_mark_that_is_renewed_is_the_newest() -> None:
    blocked = ExpiringSet(BLOCKED, most=2)
    for place in "abac":
        blocked.add(Key("default", "memo", place), START)
    assert [blocked.until(Key("default", "memo", place), START) is not None for place in "abc"] == [
        True,
        False,
        True,
    ]


def test_a_key_that_is_blocked_already_wakes_nobody_again() -> None:
    table = waiting_for(A, B)
    table.on_pod(running("second"), START)
    assert table.on_failed("runner", START) == ("a", "b")
    assert table.on_failed("second", START + SECOND) == ()
    late = START + SECOND + BLOCKED - timedelta(milliseconds=1)
    table.on_pod(C, late)
    assert isinstance(table.decide(C, MISS, late), Release), "it is blocked from the last one on"


@pytest.mark.parametrize("capture", [True, False])
def test_equal_pods_are_decided_without_looking_at_each_other(capture: bool) -> None:
    def decide(count: int) -> Callable[[], None]:
        pods = [gated_step(f"r{number:04}", capture=capture) for number in range(count)]
        table = flights(*pods, max_waiters=count)

        def work() -> None:
            for pod in reversed(pods):
                table.decide(pod, None, START)
            for pod in reversed(pods):
                table.decide(pod, MISS, START)

        return work

    assert calls(decide(2000)) < 2.5 * calls(decide(1000))


def test_runners_that_fail_do_not_wake_all_who_wait_each_time() -> None:
    def fail(count: int) -> Callable[[], None]:
        runners = [running(f"r{number}") for number in range(count)]
        table = flights(*runners, *(gated_step(f"w{number}") for number in range(count)))

        def work() -> None:
            for pod in runners:
                table.on_failed(pod.uid, START)

        return work

    assert calls(fail(400)) < 2.5 * calls(fail(200))


def test_it_is_known_who_waits_for_an_equal_step() -> None:
    table = flights(running("runner"), A, gated_step("other", place="other"))
    assert not table.has_waited("a"), "it was not decided yet"
    table.decide(A, MISS, START)
    assert table.has_waited("a")
    assert not any(table.has_waited(uid) for uid in ("runner", "other", "nobody"))
    table.on_deleted("a", START)
    assert not table.has_waited("a")
