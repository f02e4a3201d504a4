import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.rate_limit import FairLimit, Limits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    limits = Limits(2, 3, clock=clock)
    assert [limits.take("a") for _ in range(4)] == [0, 0, 0, 1]
    clock.now += 0.5
    assert [limits.take("a") for _ in range(2)] == [0, 1]


def test_nobody_pays_for_another() -> None:
    limits = Limits(1, 1, clock=Clock())
    assert [limits.take(who) for who in ("a", "b", "a")] == [0, 0, 1]


def test_the_bucket_forgotten_is_the_one_not_used_for_longest() -> None:
    limits = Limits(1, 1, most=2, clock=Clock())
    assert [limits.take(who) for who in ("a", "b", "a", "c")] == [0, 0, 1, 0]
    assert limits.take("a") == 1
    assert limits.take("b") == 0


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_more_than_burst_and_rate_are_let_through(pauses: list[float]) -> None:
    clock = Clock()
    limits, began, taken = Limits(2, 3, clock=clock), clock.now, 0
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


def test_many_who_ask_for_too_much_get_the_same_each() -> None:
    got = taken(10, **{f"flood-{number}": 1_000 + 100 * number for number in range(8)}, busy=20)
    assert got.pop("busy") == 200
    even = (10 * RATE - 200) / 8
    assert all(0.8 * even <= one <= 1.2 * even for one in got.values())


def test_who_had_none_in_the_last_second_gets_one_however_many_the_others_are() -> None:
    got = taken(10, **{f"flood-{number}": 50 for number in range(400)}, quiet=1)
    assert got["quiet"] == 10


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.5)), max_size=300))
def test_no_more_than_its_burst_and_rate_are_let_through_beside_one_a_second_of_each(
    asked: list[tuple[str, float]],
) -> None:
    clock = Clock()
    fair, began, let_through = FairLimit(2, 5, clock=clock), clock.now, 0
    for who, pause in asked:
        clock.now += pause
        let_through += fair.take(who)
        assert let_through <= 5 + 3 + (2 + 3 / math.log(2)) * (clock.now - began)


def test_after_a_flood_of_many_who_had_one_each_there_is_as_much_as_ever() -> None:
    clock = Clock()
    fair = FairLimit(RATE, BURST, clock=clock)
    for number in range(100_000):
        fair.take(str(number))
    clock.now += BURST / RATE
    assert sum(fair.take("busy") for _ in range(BURST)) >= BURST / 2


def test_what_is_remembered_of_those_who_asked_is_bounded() -> None:
    fair = FairLimit(RATE, BURST, most=10, clock=Clock())
    for number in range(1_000):
        fair.take(str(number))
    assert len(fair._had) == 10
