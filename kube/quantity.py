"""Kubernetes' quantities (`250m`, `64Mi`, `1e3`) as numbers (apimachinery, pkg/api/resource)."""

import re
from fractions import Fraction
from functools import lru_cache

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)([numkMGTPE]|[KMGTPE]i|)")
_FACTORS = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
_LONGEST_REMEMBERED = 32
"""Characters of a quantity that is kept in memory: a tenant may write endless ones."""


def quantity(value: object) -> Fraction:
    """The number that a quantity (`250m`, `64Mi`, `1e3`) stands for; ValueError for anything else."""
    text = str(value)
    return _read(text) if len(text) > _LONGEST_REMEMBERED else _remembered(text)


def _read(value: str) -> Fraction:
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f"not a Kubernetes quantity: {value!r}")
    number, suffix = match.groups()
    return Fraction(number) * _FACTORS[suffix]


_remembered = lru_cache(maxsize=1024)(_read)
"""A fan-out's Pods all say the same few."""
