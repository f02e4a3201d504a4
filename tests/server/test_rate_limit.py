from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rate_limit import FairLimit, RateLimits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    limits = RateLimits(2, 3, clock=clock)
    assert [limits.take("a") for _ in range(4)] == [0, 0, 0, 1]
    clock.now += 0.5
    assert [limits.take("a") for _ in range(2)] == [0, 1]


def test_nobody_pays_for_another() -> None:
    limits = RateLimits(1, 1, clock=Clock())
    assert [limits.take(who) for who in ("a", "b", "a")] == [0, 0, 1]


def test_the_bucket_forgotten_is_the_one_not_used_for_longest() -> None:
    limits = RateLimits(1, 1, most=2, clock=Clock())
    assert [limits.take(who) for who in ("a", "b", "a", "c")] == [0, 0, 1, 0]
    assert limits.take("a") == 1
    assert limits.take("b") == 0


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_more_than_burst_and_rate_are_let_through(pauses: list[float]) -> None:
    clock = Clock()
    limits, began, taken = RateLimits(2, 3, clock=clock), clock.now, 0
    for pause in pauses:
        clock.now += pause
        wait = limits.take("a")
        taken += not wait
        assert taken <= 3 + 2 * (clock.now - began) + 1e-6


# --- one bucket for all ------------------------------------------------------------------------------

RATE, BURST = 200.0, 200


def taken(seconds: int, **wanted: int) -> Counter[str]:
    """How many requests each gets that asks for so many a second, evenly, after all have had their burst."""
    clock = Clock()
    fair, steps, got = FairLimit(RATE, BURST, clock=clock), 1_000, Counter[str]()
    for step in range(-5 * steps, seconds * steps):
        clock.now += 1 / steps
        for who, rate in wanted.items():
            for _ in range((step + 1) * rate // steps - step * rate // steps):
                got[who] += fair.take(who) and step >= 0
    return got


def test_who_asks_for_less_than_the_others_gets_all_of_it_and_they_get_the_rest() -> None:
    got = taken(10, flood=3_000, busy=50, quiet=2)
    assert got["busy"] == 500
    assert got["quiet"] == 20
    assert sum(got.values()) >= 0.95 * 10 * RATE


@pytest.mark.slow
def test_many_who_ask_for_too_much_get_the_same_each() -> None:
    got = taken(10, **{f"flood-{number}": 1_000 + 100 * number for number in range(8)}, busy=20)
    assert got.pop("busy") == 200
    even = (10 * RATE - 200) / 8
    assert all(0.8 * even <= one <= 1.2 * even for one in got.values())


@pytest.mark.slow
def test_who_asks_now_and_then_gets_all_of_it_however_many_the_others_are() -> None:
    clock = Clock()
    fair, got, quiet = FairLimit(RATE, BURST, clock=clock), 0, []
    for step in range(20_000):
        clock.now += 0.001
        if step % 4_000 == 3_999:
            quiet.append(fair.take("quiet"))
        for number in range(20):
            got += fair.take(f"flood-{(20 * step + number) % 400}")
    assert quiet == [True] * 5
    assert got >= 0.95 * 20 * RATE


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "burst"), [(RATE, BURST), (20.0, 40)])
def test_a_thousand_of_whom_each_asks_for_little_get_no_more_than_there_is_and_the_same_each(
    rate: float, burst: int
) -> None:
    clock = Clock()
    fair, began, got = FairLimit(rate, burst, clock=clock), clock.now, Counter[str]()
    seconds = int(2_000 / rate)
    for number in range(1_000 * 4 * seconds):
        clock.now += 1 / 4_000
        got[str(number % 1_000)] += fair.take(str(number % 1_000))
    assert got.total() <= 2 * burst + rate * (clock.now - began)
    assert got.total() >= rate * seconds
    assert min(got.values()) >= 1
    assert max(got.values()) <= 4


def test_who_had_none_for_a_second_gets_one_where_nothing_is_left_and_not_two() -> None:
    clock = Clock()
    fair = FairLimit(RATE, BURST, clock=clock)
    for number in range(BURST):
        fair.take(f"flood-{number}")
    assert [fair.take("quiet") for _ in range(3)] == [True, False, False]
    clock.now += 1.2
    for number in range(BURST):
        fair.take(f"other-{number}")
    assert [fair.take("quiet") for _ in range(3)] == [True, False, False]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 0.5)), max_size=300))
def test_no_more_than_two_bursts_and_the_rate_are_let_through(asked: list[tuple[str, float]]) -> None:
    clock = Clock()
    fair, began, let_through = FairLimit(2, 5, clock=clock), clock.now, 0
    for who, pause in asked:
        clock.now += pause
        let_through += fair.take(who)
        assert let_through <= 2 * 5 + 2 * (clock.now - began) + 1e-6


def test_a_flood_of_many_who_had_one_each_is_over_after_two_bursts() -> None:
    clock = Clock()
    fair = FairLimit(RATE, BURST, clock=clock)
    assert sum(fair.take(str(number)) for number in range(100_000)) == 2 * BURST
    clock.now += 2 * BURST / RATE
    assert sum(fair.take("busy") for _ in range(BURST)) >= BURST / 2


def test_what_is_remembered_of_those_who_asked_is_bounded() -> None:
    fair = FairLimit(RATE, BURST, most=10, clock=Clock())
    for number in range(1_000):
        fair.take(str(number))
    assert len(fair._had) == 10
