import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memoize import duration

INT64_MAX = 2**63 - 1

# What Go 1.2x itself answers, printed by a program around time.ParseDuration and Duration.String.
KNOWN = [
    ("0", 0, "0s"),
    ("-0", 0, "0s"),
    ("+0", 0, "0s"),
    ("0h", 0, "0s"),
    ("+1s", 1_000_000_000, "1s"),
    (".5s", 500_000_000, "500ms"),
    ("1.s", 1_000_000_000, "1s"),
    ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
    ("1µs", 1_000, "1µs"),
    ("1μs", 1_000, "1µs"),
    ("1us", 1_000, "1µs"),
    ("1500ns", 1_500, "1.5µs"),
    ("1h1m1s1ms1us1ns", 3_661_001_001_001, "1h1m1.001001001s"),
    ("1m1h", 3_660_000_000_000, "1h1m0s"),
    ("90s", 90_000_000_000, "1m30s"),
    ("24h", 86_400_000_000_000, "24h0m0s"),
    ("0.3333333333333333333h", 1_200_000_000_000, "20m0s"),
    ("0.100000000000000000000h", 360_000_000_000, "6m0s"),
    (".59304696664750h", 2_134_969_079_930, "35m34.96907993s"),
    ("0.9223372036854775807h", 3_320_413_933_267, "55m20.413933267s"),
    ("0.830103483285477580700h", 2_988_372_539_827, "49m48.372539827s"),
    ("9007199254.740993s", 9_007_199_254_740_993_000, "2501999h47m34.740993s"),
    ("9223372036854775807ns", INT64_MAX, "2562047h47m16.854775807s"),
    ("2562047h47m16.854775807s", INT64_MAX, "2562047h47m16.854775807s"),
    ("-9223372036854775808ns", -INT64_MAX - 1, "-2562047h47m16.854775808s"),
    ("-2562047h47m16.854775808s", -INT64_MAX - 1, "-2562047h47m16.854775808s"),
    ("0" * 5_000 + "1s", 1_000_000_000, "1s"),
]
REFUSED = [
    *(
        "",
        "+",
        "-",
        ".",
        "s",
        ".s",
        "+.s",
        "1",
        "1.5",
        "1h2",
        "1..5s",
        "1,5s",
        "1S",
        "1H",
        "1 s",
        " 1s",
        "1s ",
    ),
    *("1h-2m", "--1s", "1d", "1w", "3m5", "٣s", "\uff12s", "1e3s", "infs"),
    *("3000000h", "9223372036854775808ns", "-9223372036854775809ns", "2562047h47m16.854775808s"),
    *("9223372036854775807ns2ns", "2000000h2000000h"),
    "9" * 5_000 + "s",
]


def printed_by_go(nanoseconds: int) -> str:
    """The text Go's Duration.String gives: `1h30m0s`, `1.5s`, `2ms`, `0s`."""
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest < duration._UNITS["s"]:
        unit = "ns" if rest < duration._UNITS["us"] else "µs" if rest < duration._UNITS["ms"] else "ms"
        return f"{sign}{_decimal(rest, duration._UNITS[unit])}{unit}" if rest else "0s"
    hours, rest = divmod(rest, duration._UNITS["h"])
    minutes, rest = divmod(rest, duration._UNITS["m"])
    seconds = f"{_decimal(rest, duration._UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    digits = str(rest).zfill(len(str(scale)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


@pytest.mark.parametrize(("text", "nanoseconds", "printed"), KNOWN)
def test_reads_and_prints_what_go_reads_and_prints(text, nanoseconds, printed):
    assert duration.parse(text) == nanoseconds
    assert printed_by_go(nanoseconds) == printed


def test_generated_texts_are_read_and_printed_as_go_did_it():
    """Each row: a text, and what time.ParseDuration and Duration.String of Go 1.26 made of it."""
    recorded = json.loads((Path(__file__).parents[1] / "data" / "durations.json").read_text())
    assert [[text, *outcome(text)] for text, *_ in recorded] == recorded


def outcome(text):
    try:
        nanoseconds = duration.parse(text)
    except duration.DurationError:
        return None, None
    return nanoseconds, printed_by_go(nanoseconds)


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_what_go_refuses(text):
    with pytest.raises(duration.DurationError):
        duration.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10", 'lacks a unit after 10: write a number with a unit, such as "90s", "30m" or "24h"'),
        ("7d", "has the unknown unit 'd': use h, m, s, ms, us or ns (a day is 24h)"),
        ("2weeks", "has the unknown unit 'weeks': use h, m, s, ms, us or ns (a week is 168h)"),
        ("1" + "x" * 99, "has the unknown unit 'xxxxxxxxxxxxxxxxxxx…': use h, m, s, ms, us or ns"),
        ("soon", 'is not a Go duration: write a number with a unit, such as "90s", "30m" or "24h"'),
        ("3000000h", "is longer than a Go duration can be, about 292 years (2562047h47m16.854775807s)"),
    ],
)
def test_says_what_is_wrong_and_what_to_write(text, says):
    with pytest.raises(duration.DurationError) as raised:
        duration.parse(text)
    assert str(raised.value) == says


@given(st.integers(-(2**63), 2**63 - 1))
@example(-(2**63))
@example(0)
def test_what_is_printed_is_read_back(nanoseconds):
    assert abs(duration.parse(printed_by_go(nanoseconds)) - nanoseconds) <= (
        # Go rounds `.…s` through a float64; nothing else may be lost.
        1 if abs(nanoseconds) >= 10**9 else 0
    )


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["h", "m", "s", "ms", "us", "ns"])), min_size=1)
)
def test_terms_add_up(terms):
    units = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    total = sum(count * units[unit] for count, unit in terms)
    text = "".join(f"{count}{unit}" for count, unit in terms)
    if total <= INT64_MAX:
        assert duration.parse(text) == total
        assert duration.parse(f"-{text}") == -total


@given(st.text(alphabet="0123456789.+-hmsuµμnd \n", max_size=24))
def test_any_text_is_a_duration_or_a_duration_error(text):
    try:
        nanoseconds = duration.parse(text)
    except duration.DurationError:
        return
    assert -(2**63) <= nanoseconds <= INT64_MAX
