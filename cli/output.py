"""What commands print: tables that fit the terminal, or the same as JSON or YAML for programs."""

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from cli import documents
from cli.plain import escaped, plain

_GAP = 2
"""Columns of the terminal between two columns of a table, as in kubectl's."""
_LEAST = 12
"""What a column that gives way keeps."""
_ENDLESS = 1 << 20
"""The width where nobody looks: what is read by a program is not cut."""
_COLOURS = {
    "hit": "green",
    "stored": "green",
    "ok": "green",
    "gated": "yellow",
    "warn": "yellow",
    "unknown": "yellow",
    "fail": "bold red",
}
"""Of a cell that is just this word."""


class Field(NamedTuple):
    """A column of a table."""

    title: str
    wide: bool = False
    """Only with `-o wide`."""
    number: bool = False
    yields: bool = False
    """Where the terminal is too narrow, this one is cut, with `…` at its end."""


def show(
    form: str,
    fields: Sequence[Field],
    rows: Sequence[Sequence[str]],
    items: Iterable[Mapping[str, Any]],
) -> None:
    """Print the rows as a table, or as JSON or YAML the `items`, which say the same in full."""
    if form in ("json", "yaml"):
        document({"items": list(items)}, form)
    else:
        table(fields, rows, console(), wide=form == "wide")


def document(found: Mapping[str, Any], form: str) -> None:
    """Print one document as `json` or `yaml`."""
    print(escaped(documents.dump([found], form)), end="")


def console() -> Console:
    """Standard output: its width and colours, if it is a terminal; NO_COLOR and TERM count."""
    out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = _ENDLESS
    return out


def table(
    fields: Sequence[Field], rows: Sequence[Sequence[str]], out: Console, *, wide: bool = False
) -> None:
    """Print the rows; `wide` shows all columns, whole."""
    shown = [index for index, field in enumerate(fields) if wide or not field.wide]
    cells = [[plain(row[index]) for index in shown] for row in rows]
    wanted = [
        max([cell_len(fields[index].title), *(cell_len(row[at]) for row in cells)])
        for at, index in enumerate(shown)
    ]
    room = _ENDLESS if wide else out.width
    widths = _fitted(wanted, [fields[index].yields for index in shown], room)
    # Not rich's Table: it takes seconds for the five thousand entries that a cache may hold.
    _line(out, [fields[index].title for index in shown], widths, fields, shown, "bold")
    for row in cells:
        _line(out, row, widths, fields, shown)


def _line(
    out: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    fields: Sequence[Field],
    shown: Sequence[int],
    style: str = "",
) -> None:
    line = Text(style=style)
    for cell, width, index in zip(cells, widths, shown, strict=True):
        cut = cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
        gap = " " * (width - cell_len(cut))
        line.append(f"{gap}{cut}" if fields[index].number else f"{cut}{gap}", _COLOURS.get(cell))
        line.append(" " * _GAP)
    line.rstrip()
    if out.color_system is None:
        out.file.write(f"{line.plain}\n")
    else:
        out.print(line, soft_wrap=True)


def _fitted(wanted: Sequence[int], yields: Sequence[bool], room: int) -> list[int]:
    """The columns' widths: what they want, but for those that yield, the widest first."""
    widths = list(wanted)
    excess = sum(widths) + _GAP * (len(widths) - 1) - room
    while excess > 0:
        at = max((at for at in range(len(widths)) if yields[at]), key=lambda at: widths[at], default=None)
        if at is None or widths[at] <= _LEAST:
            break
        next_widest = max([_LEAST, *(w for one, w in enumerate(widths) if yields[one] and one != at)])
        step = max(1, min(excess, widths[at] - next_widest))
        widths[at] -= step
        excess -= step
    return widths


def facts(found: Iterable[tuple[str, str]]) -> None:
    """Print names and what is known of each, one to a line, whole."""
    pairs = list(found)
    longest = max(len(name) for name, _ in pairs)
    out = console()
    for name, text in pairs:
        name = f"{name}:".ljust(longest + 1 + _GAP)
        out.print(Text.assemble((name, "bold"), plain(text)), soft_wrap=True)


def hanging(first: str, text: str, word: str = "") -> None:
    """Print a text beside `first`, wrapped to the right of it; `word` in that has its colour."""
    out = console()
    for number, line in enumerate(_wrapped(text, out.width - len(first))):
        beside = Text(first if not number else " " * len(first))
        if word:
            beside.highlight_words([word], _COLOURS.get(word, ""))
        out.print(beside.append(line), soft_wrap=True)


def paragraph(text: str) -> None:
    """Print a text, wrapped where the terminal ends; elsewhere as one line."""
    out = console()
    for line in _wrapped(text, out.width):
        out.print(Text(line), soft_wrap=True)


def line(text: str) -> None:
    """Print one line, however long: of a command to be copied nothing is cut, and nothing wrapped."""
    console().print(Text(plain(text)), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(plain(text), max(_LEAST, width), break_on_hyphens=False)
