"""Go's durations (`90s`, `1h30m`, `-1.5h`), as Go's time package parses them.

Argo hands `maxAge` to time.ParseDuration (workflow/controller/operator.go), so what that function takes
is what a template may say: the grammar, the rounding of fractions and the int64 limits are its own.
"""

import re
from functools import lru_cache

_LIMIT = 1 << 63
"""Go parses into an unsigned magnitude; `-` makes 2**63 legal, `+` or nothing does not."""

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^.0-9]*)")
_EXAMPLE = 'write a number with a unit, such as "90s", "30m" or "24h"'


class DurationError(ValueError):
    """Text that is not a Go duration; the message says what is wrong and what to write."""


def parse(text: str) -> int:
    """Nanoseconds of a Go duration; DurationError for what time.ParseDuration refuses."""
    return _parsed_before(text) if len(text) <= _SHORT else _parsed(text)


_SHORT = 32
"""Characters of a text that is remembered: hundreds of templates say the same one."""


@lru_cache(maxsize=256)
def _parsed_before(text: str) -> int:
    return _parsed(text)


def _parsed(text: str) -> int:
    magnitude = text[1:] if text[:1] in ("-", "+") else text
    negative = text[:1] == "-"
    if magnitude == "0":
        return 0
    if not magnitude:
        raise DurationError(f"is empty: {_EXAMPLE}")
    total = 0
    position = 0
    while position < len(magnitude):
        term = _TERM.match(magnitude, position)
        if term is None or not (term["whole"] or term["fraction"]):
            raise DurationError(f"is not a Go duration: {_EXAMPLE}")
        position = term.end()
        total += _nanoseconds(term["whole"], term["fraction"] or "", term["unit"])
        if total > _LIMIT:
            raise DurationError(_too_long())
    if negative:
        return -total
    if total == _LIMIT:
        raise DurationError(_too_long())
    return total


def _nanoseconds(whole: str, fraction: str, unit: str) -> int:
    if not unit:
        raise DurationError(f"lacks a unit after {_shown(whole or '.' + fraction)}: {_EXAMPLE}")
    if unit not in _UNITS:
        raise DurationError(f"has the unknown unit {_shown(unit)!r}: use h, m, s, ms, us or ns{_hint(unit)}")
    scale = _UNITS[unit]
    digits = whole.lstrip("0")
    if len(digits) > len(str(_LIMIT)) or (nanoseconds := int(digits or "0") * scale) > _LIMIT:
        raise DurationError(_too_long())
    numerator, denominator = _fraction(fraction)
    # Go rounds the fraction through a float64; the same expression gives the same last digit.
    return nanoseconds + (int(float(numerator) * (float(scale) / denominator)) if numerator else 0)


def _fraction(digits: str) -> tuple[int, float]:
    """Numerator and denominator of a decimal fraction; digits beyond int64 are dropped, as in Go."""
    numerator, denominator = 0, 1.0
    for digit in digits:
        grown = numerator * 10 + int(digit)
        if grown > _LIMIT:
            break
        numerator, denominator = grown, denominator * 10
    return numerator, denominator


def _shown(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:19]}…"


def _hint(unit: str) -> str:
    days = {"d": 24, "D": 24, "day": 24, "days": 24, "w": 168, "week": 168, "weeks": 168}
    return f" (a {'week' if unit.startswith('w') else 'day'} is {days[unit]}h)" if unit in days else ""


def _too_long() -> str:
    return "is longer than a Go duration can be, about 292 years (2562047h47m16.854775807s)"
