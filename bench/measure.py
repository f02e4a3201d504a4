"""Numbers out of repeated measurements: robust summaries, and ratios between things measured side by side."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Series = dict[str, list[float]]
"""Measured values by the name of what was measured, in the order of the rounds."""


@dataclass(frozen=True, slots=True)
class Summary:
    """`n` values in short. `low` and `high` are the quartiles; `p99` is the largest of fewer than 100."""

    n: int
    median: float
    low: float
    high: float
    p99: float


def summary(values: Sequence[float]) -> Summary:
    """Summarise at least one value."""
    return Summary(
        n=len(values),
        median=statistics.median(values),
        low=percentile(values, 25),
        high=percentile(values, 75),
        p99=percentile(values, 99),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def ratio(values: Sequence[float], references: Sequence[float]) -> Summary:
    """How many times the references the values are.

    The quartiles come from the rounds, each with its own reference, so that a drift of the machine cancels;
    the middle is the ratio of the two medians, which is what a reader gets who divides.
    """
    rounds = [_times(value, reference) for value, reference in zip(values, references, strict=True)]
    middle = _times(statistics.median(values), statistics.median(references))
    return Summary(
        len(rounds), middle, percentile(rounds, 25), percentile(rounds, 75), percentile(rounds, 99)
    )


def _times(value: float, reference: float) -> float:
    """Nothing is once nothing (of events that were too rare for the time watched), anything else endless."""
    if reference:
        return value / reference
    return math.inf if value else 1.0


def interleave(rounds: int, measurements: Sequence[Callable[[], Mapping[str, float]]]) -> Series:
    """Take all measurements in turn, `rounds` times, after a first time that does not count.

    A single round has none before it: it shows that everything is measured, not how long it takes. Each
    measurement returns the values it took, by name. Every round begins with another measurement, so that none
    always comes after the same one.
    """
    series: Series = {}
    for number in range(-1 if rounds > 1 else 0, rounds):
        first = max(number, 0) % len(measurements)
        for measure in (*measurements[first:], *measurements[:first]):
            values = measure()
            if number >= 0:
                _append(series, values.items())
    return series


def _append(series: Series, values: Iterable[tuple[str, float]]) -> None:
    for name, value in values:
        series.setdefault(name, []).append(value)
