import asyncio
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kube.fair_queue import (
    ALLOWANCE,
    BACKLOGGED_AFTER,
    EVEN,
    NOT_BACKLOGGED_BELOW,
    URGENT_IN_A_ROW,
    FairQueue,
)
from tests.waiting import until

SHARE = 2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def popped(queue: FairQueue, count: int, cost: float = 1.0) -> list[str]:
    """The next names, each done before the next one."""
    names = []
    for _ in range(count):
        name = queue.pop()
        assert name is not None
        queue.done(name, cost)
        names.append(name)
    return names


def test_a_name_stands_in_the_queue_once() -> None:
    queue = FairQueue(SHARE)
    for name in "abab":
        queue.add("ns", name)
    assert popped(queue, 2) == ["a", "b"]
    assert len(queue) == 0
    assert queue.pop() is None


def test_urgent_names_come_first_and_others_come_too() -> None:
    queue = FairQueue(SHARE)
    for number in range(3):
        queue.add("ns", f"waits-{number}")
    for number in range(9):
        queue.add("ns", f"urgent-{number}", urgent=True)
    queue.add("ns", "urgent-0")
    kinds = [name.partition("-")[0] for name in popped(queue, 12)]
    assert kinds == [*["urgent"] * URGENT_IN_A_ROW, "waits"] * 2 + ["urgent", "waits"]


def test_a_name_that_becomes_urgent_stands_in_the_queue_once() -> None:
    queue = FairQueue(SHARE)
    queue.add("ns", "a")
    queue.add("ns", "b")
    queue.add("ns", "b", urgent=True)
    assert popped(queue, 2) == ["b", "a"]
    assert queue.pop() is None


def test_a_name_that_is_worked_on_comes_again_only_after() -> None:
    queue = FairQueue(SHARE)
    queue.add("ns", "a")
    assert queue.pop() == "a"
    queue.add("ns", "a")
    assert queue.pop() is None
    queue.done("a", 1)
    assert popped(queue, 1) == ["a"]
    assert len(queue) == 0


def test_one_lane_has_no_more_than_its_share_of_the_workers() -> None:
    queue = FairQueue(SHARE)
    for number in range(5):
        queue.add("ns", f"a{number}")
    assert [queue.pop(), queue.pop(), queue.pop()] == ["a0", "a1", None]
    queue.add("other", "b")
    assert [queue.pop(), queue.pop()] == ["b", None]
    queue.done("a0", 1)
    assert [queue.pop(), queue.pop()] == ["a2", None]


@pytest.mark.parametrize("workers", [1, 16])
def test_lanes_that_always_have_names_get_the_same_whatever_a_turn_costs(workers: int) -> None:
    costs = {"cheap": ALLOWANCE, "dear": 10 * ALLOWANCE, "dearer": 40 * ALLOWANCE}
    queue, spent, left = FairQueue(max(1, workers // 2)), Counter[str](), dict[str, float]()
    for lane in costs:
        for number in range(4000):
            queue.add(lane, f"{lane}-{number}")
    for _ in range(24_000 // workers):  # in which each worker sends one request
        while len(left) < workers and (name := queue.pop()) is not None:
            left[name] = costs[name.partition("-")[0]]
        for name in list(left):
            lane = name.partition("-")[0]
            spent[lane] += 1
            left[name] -= 1
            if not left[name]:
                del left[name]
                queue.done(name, costs[lane])
    assert spent.total() == 24_000
    assert min(spent.values()) > 7000


@pytest.mark.parametrize(
    ("workers", "cost", "about"),
    # Many workers can only be divided into whole ones.
    [(1, 1.0, 0.02), (1, 1.5 * ALLOWANCE, 0.02), (1, 10 * ALLOWANCE, 0.02), (32, ALLOWANCE, 0.35)],
)
@pytest.mark.parametrize(
    "weights",
    [
        {"half": EVEN // 2, "even": EVEN, "twice": 2 * EVEN},
        {"even": EVEN, "more": 5 * EVEN // 4},
        {"even": EVEN, "least": EVEN // 10, "also": EVEN},
        {"even": EVEN, "most": 10 * EVEN},
    ],
)
def test_lanes_that_always_have_names_get_what_their_weights_say(
    workers: int, cost: float, about: float, weights: dict[str, int]
) -> None:
    queue = FairQueue(max(1, workers // 2), weight=weights.__getitem__)
    turns, working = Counter[str](), list[str]()
    for lane in weights:
        for number in range(3000):
            queue.add(lane, f"{lane}-{number}")
    while turns.total() < 2500:
        while len(working) < workers and (name := queue.pop()) is not None:
            working.append(name)
        assert working
        queue.done(name := working.pop(0), cost)
        turns[name.partition("-")[0]] += 1
    for lane, weight in weights.items():
        part = weight / sum(weights.values())
        assert turns[lane] / turns.total() == pytest.approx(part, rel=about)


def test_a_weight_counts_beside_others_alone_and_as_it_is_at_that_moment() -> None:
    weights = {"ns": EVEN // 10, "other": EVEN}
    queue = FairQueue(SHARE, weight=weights.__getitem__)
    for number in range(30):
        queue.add("ns", f"a{number}")
    assert popped(queue, 12) == [f"a{number}" for number in range(12)], "nobody else waits"
    for number in range(40):
        queue.add("other", f"b{number}")
    assert Counter(name[0] for name in popped(queue, 22)) == {"a": 2, "b": 20}
    weights["ns"] = 2 * EVEN
    assert Counter(name[0] for name in popped(queue, 9)) == {"a": 6, "b": 3}


@pytest.mark.parametrize(("weight", "at_once"), [(10, 2), (50, 10), (EVEN, 16), (200, 21), (1000, 29)])
def test_a_lane_has_as_many_workers_as_its_weight_gives_it_beside_an_even_one(
    weight: int, at_once: int
) -> None:
    queue = FairQueue(16, weight=lambda lane: weight)
    for number in range(40):
        queue.add("ns", f"a{number}")
    begun = [name for _ in range(40) if (name := queue.pop()) is not None]
    assert len(begun) == at_once
    queue.add("other", "b")
    assert queue.pop() == "b"


def test_a_debt_is_kept_while_the_lane_has_names_or_somebody_works_on_one() -> None:
    queue = FairQueue(SHARE)
    for name in ("a0", "a1", "a2"):
        queue.add("ns", name)
    assert [queue.pop(), queue.pop()] == ["a0", "a1"]
    queue.done("a0", 5 * ALLOWANCE)
    for number in range(6):
        queue.add("other", f"b{number}")
    assert popped(queue, 5) == ["b0", "b1", "b2", "b3", "a2"]
    queue.done("a1", 1000)
    queue.add("ns", "a3")
    assert popped(queue, 2) == ["b4", "a3"], "with the last name the debt is forgiven"


def test_a_lane_that_is_alone_need_not_wait_for_its_debt() -> None:
    queue = FairQueue(SHARE)
    queue.add("ns", "a0")
    queue.add("ns", "a1")
    assert popped(queue, 2, cost=1000) == ["a0", "a1"]


def remembering(clock: Clock) -> FairQueue:
    return FairQueue(1, clock, remembered=10.0, quiet=0.1)


def test_a_debt_that_is_remembered_outlives_the_names_of_its_lane() -> None:
    clock = Clock()
    queue = remembering(clock)
    queue.add("ns", "a0")
    assert popped(queue, 1, cost=4 * ALLOWANCE) == ["a0"]
    assert queue.owed("ns") == 3 * ALLOWANCE
    clock.now += 9.9
    queue.add("ns", "a1")
    for number in range(5):
        queue.add("other", f"b{number}")
    assert popped(queue, 6) == ["b0", "b1", "b2", "a1", "b3", "b4"]


def test_a_debt_is_forgotten_in_time_and_so_is_its_lane() -> None:
    clock = Clock()
    queue = remembering(clock)
    queue.add("ns", "a0")
    popped(queue, 1, cost=100 * ALLOWANCE)
    clock.now += 10.0
    queue.add("other", "b0")
    queue.add("ns", "a1")
    assert popped(queue, 2) == ["b0", "a1"]
    clock.now += 10.0
    assert queue.pop() is None
    assert not queue._lanes


def test_who_owes_waits_until_nobody_who_owes_less_may_be_back() -> None:
    clock = Clock()
    queue = remembering(clock)
    for lane, cost in (("dear", 5 * ALLOWANCE), ("dearer", 9 * ALLOWANCE), ("cheap", 1.0)):
        queue.add(lane, f"{lane}-0")
        popped(queue, 1, cost)
    queue.add("dearer", "dearer-1")
    queue.add("dear", "dear-1")
    assert queue.pop() is None, "cheap was there just now"
    clock.now += 0.05
    queue.add("cheap", "cheap-1")
    assert popped(queue, 1) == ["cheap-1"]
    clock.now += 0.09
    assert queue.pop() is None
    clock.now += 0.02
    assert popped(queue, 1) == ["dear-1"]
    assert queue.pop() is None
    clock.now += 0.1
    assert popped(queue, 1) == ["dearer-1"]
    assert queue.owed("dearer") > 0, "it goes on owing"


def test_a_lane_owes_what_was_done_because_of_it() -> None:
    clock = Clock()
    queue = remembering(clock)
    queue.charge("ns", ALLOWANCE)
    queue.add("ns", "a")
    queue.add("other", "b")
    assert popped(queue, 2) == ["b", "a"]
    assert (queue.owed("ns"), queue.owed("nobody")) == (0.0, 0.0)


def test_a_name_that_is_discarded_does_not_come() -> None:
    queue = FairQueue(SHARE)
    for name in ("a", "b", "c"):
        queue.add("ns", name, untried=True)
    assert queue.pop() == "a"
    queue.add("ns", "a")
    for name in ("a", "b", "c", "unknown"):
        queue.discard("ns", name)
    queue.discard("nobody", "a")
    assert queue.pop() is None
    queue.done("a", 1)
    assert queue.pop() is None
    assert len(queue) == 0
    assert queue.oldest() == 0


async def test_all_but_what_is_worked_on_is_forgotten_at_once() -> None:
    queue = FairQueue(SHARE)
    for name in ("a", "b"):
        queue.add("ns", name, untried=True)
    queue.add("other", "c", urgent=True)
    queue.add_later("ns", "d", 0.0)
    assert queue.pop() == "a"
    queue.add("ns", "a")
    queue.clear()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    queue.done("a", 1)
    assert queue.pop() is None
    assert queue.oldest() == 0


def test_a_lane_is_backlogged_from_two_seconds_on_until_less_than_half_a_second() -> None:
    clock = Clock()
    queue = FairQueue(SHARE, clock)
    queue.add("tried", "t")
    queue.add("ns", "a", untried=True)
    clock.now += BACKLOGGED_AFTER - 0.01
    queue.add("ns", "a", untried=True)
    queue.add("ns", "b", untried=True)
    queue.add("late", "l", untried=True)
    assert queue.backlogged() == frozenset()
    clock.now += 0.01
    assert queue.oldest() == pytest.approx(BACKLOGGED_AFTER)
    assert queue.backlogged() == {"ns"}, "neither what was tried before nor what just came"
    while queue.oldest() > 1:
        assert queue.pop() is not None
    assert queue.backlogged() == frozenset(), "the oldest is a hundredth of a second old"
    clock.now += NOT_BACKLOGGED_BELOW
    assert queue.backlogged() == frozenset()


def test_a_lane_that_is_backlogged_stays_so_until_its_oldest_is_young() -> None:
    clock = Clock()
    queue = FairQueue(SHARE, clock)
    queue.add("ns", "a", untried=True)
    clock.now += BACKLOGGED_AFTER
    queue.add("ns", "b", untried=True)
    assert queue.backlogged() == {"ns"}
    clock.now += NOT_BACKLOGGED_BELOW
    assert queue.pop() == "a"
    assert queue.backlogged() == {"ns"}
    queue.add("ns", "c", untried=True)
    assert queue.pop() == "b"
    assert queue.backlogged() == frozenset()


async def test_of_several_times_for_a_name_the_last_counts() -> None:
    queue = FairQueue(SHARE)
    queue.add_later("ns", "a", 0.0)
    queue.add_later("ns", "a", 60.0)
    queue.add_later("ns", "b", 0.001)
    assert await queue.take() == "b"
    assert len(queue) == 0
    queue.discard("ns", "a")


async def test_who_waits_gets_what_comes_and_what_may_come_again() -> None:
    queue = FairQueue(1)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("ns", "a")
    await until(waiting.done)
    assert waiting.result() == "a"
    queue.add("ns", "b")
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("a", 1)
    await until(waiting.done)
    assert waiting.result() == "b"


class Fairness(RuleBasedStateMachine):
    """Names come, are worked on and end in any order, at any cost: who is alone waits for one round."""

    @initialize()
    def begin(self) -> None:
        self.queue = FairQueue(SHARE)
        self.count = 0
        self.names: dict[str, set[str]] = {}
        self.working: list[tuple[str, str]] = []
        self.turns: dict[str, Counter[str]] = {}
        """Of each lane that was idle, the turns of others since a name came into it."""

    @rule(lane=st.sampled_from("abcd"), count=st.integers(1, 5), urgent=st.booleans())
    def add(self, lane: str, count: int, urgent: bool) -> None:
        if not self.names.get(lane) and not self.at_work(lane):
            self.turns[lane] = Counter()
        for _ in range(count):
            self.count += 1
            self.names.setdefault(lane, set()).add(f"{lane}{self.count}")
            self.queue.add(lane, f"{lane}{self.count}", urgent=urgent)

    @rule()
    def pop(self) -> None:
        name = self.queue.pop()
        if name is None:
            assert all(self.at_work(lane) >= SHARE for lane, names in self.names.items() if names)
            return
        lane = name[0]
        self.names[lane].remove(name)
        self.working.append((lane, name))
        assert self.at_work(lane) <= SHARE
        self.turns.pop(lane, None)
        for turns in self.turns.values():
            turns[lane] += 1
            assert turns[lane] == 1, "another lane had two turns before one that was idle had its first"

    @precondition(lambda self: self.working)
    @rule(data=st.data(), cost=st.sampled_from([0, 1, ALLOWANCE, 50]))
    def done(self, data: st.DataObject, cost: float) -> None:
        working = data.draw(st.sampled_from(self.working))
        self.working.remove(working)
        self.queue.done(working[1], cost)

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        names = sorted(name for names in self.names.values() for name in names)
        if names:
            name = data.draw(st.sampled_from(names))
            self.names[name[0]].remove(name)
            self.queue.discard(name[0], name)
            if not self.names[name[0]]:
                self.turns.pop(name[0], None)

    def at_work(self, lane: str) -> int:
        return sum(one == lane for one, _ in self.working)

    def teardown(self) -> None:
        assert len(self.queue) == sum(map(len, getattr(self, "names", {}).values()))


TestFairness = Fairness.TestCase
TestFairness.settings = settings(stateful_step_count=40)


def test_who_owes_has_a_turn_after_some_time_however_often_the_others_come() -> None:
    clock = Clock()
    queue = FairQueue(1, clock, remembered=100.0, quiet=0.1, overdue=1.0)
    for lane in ("dear", "dearer"):
        queue.add(lane, f"{lane}-0")
        popped(queue, 1, cost=1000 * ALLOWANCE)
    for lane in ("dear", "dearer"):
        queue.add(lane, f"{lane}-1", untried=True)
    had = dict[str, int]()
    for number in range(60):
        queue.add("cheap", f"cheap-{number}", untried=True)
        (name,) = popped(queue, 1)
        had.setdefault(name.partition("-")[0], number)
        clock.now += 0.05
    assert had == {"cheap": 0, "dear": 21, "dearer": 42}, "one at a time, and time for others between them"


def test_who_went_on_owing_more_has_not_waited_yet() -> None:
    clock = Clock()
    queue = FairQueue(1, clock, remembered=100.0, quiet=0.1, overdue=1.0)
    queue.add("dear", "dear-0", untried=True)
    clock.now += 5.0
    queue.charge("dear", 1000 * ALLOWANCE)
    queue.add("cheap", "cheap-0", untried=True)
    assert popped(queue, 1) == ["cheap-0"]


def test_names_of_anybody_are_not_taken_to_owe_less_than_a_lane_that_owes() -> None:
    clock = Clock()
    queue = FairQueue(1, clock, remembered=100.0, quiet=0.1, anybody="?")
    queue.add("dear", "dear-0")
    popped(queue, 1, cost=1000 * ALLOWANCE)
    had = list[str]()
    queue.add("dear", "dear-1")
    for number in range(3):
        queue.add("?", f"?-{number}")
        had += popped(queue, 1)
        clock.now += 0.05
    assert "dear-1" in had[:2]
    assert queue.owed("?") == queue.owed("dear")
