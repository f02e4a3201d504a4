import math

import pytest

from bench.measure import interleave, percentile, ratio, summary


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (25, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == expected


def test_a_summary_of_fewer_than_a_hundred_shows_the_largest_as_p99() -> None:
    found = summary([5, 1, 2, 3, 100])
    assert (found.n, found.median, found.low, found.high, found.p99) == (5, 3, 2, 5, 100)


def test_p99_leaves_out_one_in_a_hundred() -> None:
    assert summary([*range(1, 100), 10_000]).p99 == 99


def test_a_ratio_is_that_of_the_medians_and_spreads_as_the_rounds_do() -> None:
    found = ratio([10, 20, 60], [10, 10, 20])
    assert found.median == 2
    assert (found.low, found.high) == (1, 3)


def test_a_machine_that_slows_down_does_not_spread_the_ratio() -> None:
    drift = [1.0, 1.5, 2.0, 4.0]
    found = ratio([3 * factor for factor in drift], drift)
    assert found.low == found.median == found.high == 3


def test_events_that_never_came_are_no_division() -> None:
    assert ratio([0, 0], [0, 0]).median == 1
    assert ratio([1, 1], [0, 0]).median == math.inf


def test_rounds_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_measurements_take_turns_and_the_first_time_does_not_count() -> None:
    taken: list[str] = []

    def measurement(name: str, *values: str) -> dict[str, float]:
        taken.append(name)
        return dict.fromkeys(values, len(taken))

    series = interleave(3, [lambda: measurement("a", "x", "y"), lambda: measurement("b", "z")])
    assert "".join(taken) == "ab" + "ab" + "ba" + "ab"
    assert series == {"x": [3, 6, 7], "y": [3, 6, 7], "z": [4, 5, 8]}


def test_a_single_round_is_taken_once() -> None:
    taken: list[str] = []

    def measurement(name: str) -> dict[str, float]:
        taken.append(name)
        return {name: len(taken)}

    assert interleave(1, [lambda: measurement("a"), lambda: measurement("b")]) == {"a": [1], "b": [2]}
