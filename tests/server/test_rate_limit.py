from hypothesis import given
from hypothesis import strategies as st

from server.rate_limit import Limits


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
