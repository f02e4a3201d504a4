"""The pictures in RESULTS.md: SVG made of the same reports, with text as text, for light and dark pages.

Pure. Axes are logarithmic, since what is compared lies orders of magnitude apart.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from bench.figures import Figure, Report
from memoize import duration

_WIDTH = 920
_STYLE = """text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328 }
.title { font-size: 16px } .title, .group { font-weight: 600 }
.middle { text-anchor: middle } .end { text-anchor: end }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 }
.a { stroke: #0969da; fill: #0969da } .b { stroke: #bc4c00; fill: #bc4c00 }
.c { stroke: #6e7781; fill: #6e7781 } .missed { stroke: #cf222e; fill: #cf222e }
.hollow.a, .hollow.c { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .page { fill: #0d1117 } .grid { stroke: #30363d }
.a { stroke: #58a6ff; fill: #58a6ff } .b { stroke: #f0883e; fill: #f0883e }
.c { stroke: #9198a1; fill: #9198a1 } .missed { stroke: #ff7b72; fill: #ff7b72 }
.hollow.a, .hollow.c { fill: #0d1117 } }
.line.line { fill: none; stroke-width: 2 }"""
_CLASSES = "abc"
"""Of colours, in the order of the lines."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Scale:
    """A logarithmic axis, from one place in the picture to another; ends are logarithms."""

    lowest: float
    highest: float
    begin: float
    end: float

    @classmethod
    def of_decades(cls, values: Iterable[float], begin: float, end: float) -> "_Scale":
        """One of whole decades that has room for these values; what is not above 0 is at its begin."""
        logs = [math.log10(value) for value in values if value > 0] or [0.0]
        lowest = math.floor(min(logs))
        return cls(lowest, max(math.ceil(max(logs)), lowest + 1), begin, end)

    @property
    def decades(self) -> list[float]:
        """A value for each."""
        return [10.0**power for power in range(math.ceil(self.lowest), math.floor(self.highest) + 1)]

    def at(self, value: float) -> float:
        """Where a value lies."""
        log = math.log10(value) if value > 0 else self.lowest
        part = (log - self.lowest) / ((self.highest - self.lowest) or 1)
        return round(self.begin + part * (self.end - self.begin), 1)


class _Axis(NamedTuple):
    """What an axis says, and how a value on it is written."""

    says: str
    written: Callable[[float], str]


def seconds(value: float) -> str:
    """A time with its unit, three digits that count."""
    return f"{_short(value)} s" if value >= 1 else f"{_short(value * 1000)} ms"


def kilobytes(value: float) -> str:
    """A size of so many thousand bytes."""
    return f"{_short(value)} KB" if value < 1000 else f"{_short(value / 1000)} MB"


def kibibytes(value: float) -> str:
    """A size of so many KiB."""
    return f"{_short(value)} KiB"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def drawn(reports: Sequence[Report]) -> dict[str, str]:
    """SVG by the name of the report that it shows, for those that there is a picture of."""
    made = {}
    for report in reports:
        for name, draw in _PICTURES.items():
            if (report.name == name or report.name.startswith(f"{name}-")) and (picture := draw(report)):
                made[report.name] = picture
    return made


def _hits_in_a_row(report: Report) -> str:
    """Seconds by requeue time, of the fewest hits in a row that were taken."""
    of = {what: re.fullmatch(r"(\d+) hits in a row, (\w+)", what) for what in _whats(report)}
    taken = [(found, figure) for figure in report.figures if (found := of.get(figure.what))]
    if not taken:
        return ""
    fewest = min(int(found[1]) for found, _ in taken)
    lines: dict[str, list[Point]] = {"stepmemo": []}
    for found, figure in taken:
        if int(found[1]) == fewest:
            requeue = duration.parse(found[2]) / 1e9
            lines["stepmemo"].append((requeue, figure.value.median))
            lines.setdefault(figure.against, []).append((requeue, figure.reference.median))
    title = f"{fewest} hits in a row, by the requeue time of Argo's controller"
    x, y = _Axis("DEFAULT_REQUEUE_TIME", seconds), _Axis("until the workflow is over", seconds)
    return _lines(title, x, y, {name: sorted(set(points)) for name, points in lines.items()})


def _bytes_per_hit(report: Report) -> str:
    """KiB to the API server by the size of the cache."""
    of = {what: re.fullmatch(r"a hit in a cache of (\d+) KB", what) for what in _whats(report)}
    lines: dict[str, list[Point]] = {"stepmemo": []}
    for figure in report.figures:
        if found := of[figure.what]:
            lines["stepmemo"].append((int(found[1]), figure.value.median))
            lines.setdefault(figure.against, []).append((int(found[1]), figure.reference.median))
    title = "What a hit sends to the API server, by the size of its cache"
    x, y = _Axis("values of the cache's ConfigMap", kilobytes), _Axis("for one hit", kibibytes)
    return _lines(title, x, y, lines) if lines["stepmemo"] else ""


class _Load(NamedTuple):
    """What a neighbour waits beside one load."""

    name: str
    figure: Figure
    plain_write: float | None


_MEASURED = {": slowest hit": "the neighbour's slowest hit", ": p99 of a review": "p99 of honest reviews"}
"""By the end of a figure's name, what is measured."""


def _victims_wait(report: Report) -> str:
    """A row for each load: alone, beside it, and what the API server alone has others wait."""
    loads: dict[str, list[_Load]] = {}
    for figure, following in zip(report.figures, _after(report.figures), strict=True):
        for end, measured in _MEASURED.items():
            if figure.what.endswith(end):
                name = figure.what.removesuffix(end).partition(" (")[0]
                plain = next((one for one in following if "plain write" in one.what), None)
                value = plain.value.median if plain else None
                loads.setdefault(measured, []).append(_Load(name, figure, value))
    return _rows("What a neighbour waits beside one load", loads) if loads else ""


def _after(figures: Sequence[Figure]) -> Iterator[list[Figure]]:
    """For each figure those after it that belong to the same load."""
    for index in range(len(figures)):
        rest = figures[index + 1 :]
        until = next((n for n, one in enumerate(rest) if not one.what.startswith("…")), len(rest))
        yield list(rest[:until])


_PICTURES: Mapping[str, Callable[[Report], str]] = {
    "requeue": _hits_in_a_row,
    "written": _bytes_per_hit,
    "tenants": _victims_wait,
}
"""By the name of a benchmark. Its report may have a label behind that; "" where there is nothing to draw."""


def _whats(report: Report) -> set[str]:
    return {figure.what for figure in report.figures}


def _lines(title: str, x: _Axis, y: _Axis, lines: Mapping[str, Sequence[Point]]) -> str:
    """Lines with their names at their ends."""
    height, left, right, top, bottom = 410, 90, _WIDTH - 200, 74, 350
    points = [point for line in lines.values() for point in line]
    measured = sorted({at for at, _ in points})
    across = _Scale(math.log10(measured[0]), math.log10(measured[-1]), left + 30, right - 10)
    up = _Scale.of_decades((at for _, at in points), bottom, top)
    parts = [_text(left - 60, 28, title, "title"), _text(left - 60, 50, y.says)]
    parts += [_rule(left, up.at(tick), right, up.at(tick)) for tick in up.decades]
    parts += [_text(left - 8, up.at(tick) + 4, y.written(tick), "end") for tick in up.decades]
    parts += [_rule(across.at(tick), top, across.at(tick), bottom) for tick in measured]
    parts += [_text(across.at(tick), bottom + 20, x.written(tick), "middle") for tick in measured]
    parts += [_text((left + right) / 2, bottom + 44, x.says, "middle")]
    ends: list[tuple[float, str]] = []
    for colour, (name, line) in zip(_CLASSES, lines.items(), strict=False):
        path = " ".join(f"{across.at(a)},{up.at(b)}" for a, b in line)
        parts.append(f'<polyline class="line {colour}" points="{path}"/>')
        for a, b in line:
            told = escape(f"{name}: {y.written(b)} at {x.written(a)}")
            dot = f'<circle class="{colour}" cx="{across.at(a)}" cy="{up.at(b)}" r="4">'
            parts.append(f"{dot}<title>{told}</title></circle>")
        ends.append((up.at(line[-1][1]), f"{name}, {y.written(line[-1][1])}"))
    lowest = -math.inf
    for at, told in sorted(ends):  # names that would lie upon each other are pushed apart
        lowest = max(at, lowest + 16)
        parts.append(_text(right + 10, lowest + 4, told))
    return _svg(height, title, parts)


def _rows(title: str, groups: Mapping[str, Sequence[_Load]]) -> str:
    """Two dots a row, and a third where there is a plain write."""
    left, right, top, row = 466, _WIDTH - 80, 96, 26
    every = [load for loads in groups.values() for load in loads]
    values = [number for load in every for number in _values(load)]
    across = _Scale.of_decades(values, left, right)
    bottom = top + row * (len(every) + len(groups))
    parts = [_text(20, 28, title, "title")]
    for place, class_, told in (
        (20, "hollow a", "alone, some seconds before"),
        (240, "a", "beside the load"),
        (385, "missed", "the same, over the target"),
        (584, "hollow c", "a plain write beside it: the API server alone"),
    ):
        parts += [_dot(place + 6, 52, class_), _text(place + 18, 56, told)]
    for tick in across.decades:
        parts.append(_rule(across.at(tick), top - 12, across.at(tick), bottom - 8))
        parts.append(_text(across.at(tick), top - 16, seconds(tick), "middle"))
    at = top + 4
    for measured, loads in groups.items():
        parts.append(_text(20, at + 4, measured, "group"))
        at += row
        for load in loads:
            alone, beside = across.at(load.figure.reference.median), across.at(load.figure.value.median)
            target = load.figure.target
            class_ = "missed" if target is not None and not target.met(load.figure) else "a"
            parts += [_text(left - 14, at + 4, load.name, "end"), _rule(alone, at, beside, at)]
            if load.plain_write is not None:
                parts.append(_dot(across.at(load.plain_write), at, "hollow c"))
            parts += [_dot(alone, at, "hollow a"), _dot(beside, at, class_)]
            furthest = max(beside, *(across.at(value) for value in _values(load)))
            parts.append(_text(furthest + 10, at + 4, seconds(load.figure.value.median)))
            at += row
    return _svg(bottom + 12, title, parts)


def _values(load: _Load) -> list[float]:
    plain = [] if load.plain_write is None else [load.plain_write]
    return [load.figure.reference.median, load.figure.value.median, *plain]


def _text(x: float, y: float, text: str, class_: str = "") -> str:
    class_ = f' class="{class_}"' if class_ else ""
    return f'<text x="{x:g}" y="{y:g}"{class_}>{escape(text, quote=False)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _dot(x: float, y: float, class_: str) -> str:
    return f'<circle class="{class_}" cx="{x:g}" cy="{y:g}" r="5"/>'


def _svg(height: float, title: str, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" role="img">'
    page = f'<rect class="page" width="{_WIDTH}" height="{height:g}" rx="8"/>'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", page, *parts, "</svg>\n"]
    )
