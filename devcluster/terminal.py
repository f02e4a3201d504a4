"""Printing for a person: sections, commands, a table; colour only where a terminal shows it."""

import os
from collections.abc import Sequence
from typing import TextIO

_BOLD, _DIM, _RED, _GREEN, _CYAN, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[36m", "\033[0m"


class Terminal:
    """Writes to `stream`; NO_COLOR (no-color.org) and TERM=dumb are honoured."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colour = stream.isatty() and not plain
        self._section = 0

    def title(self, text: str) -> None:
        """The first line of all."""
        self._line(self._paint(_BOLD, text))

    def section(self, title: str) -> None:
        """A numbered heading."""
        self._section += 1
        self._line("")
        self._line(self._paint(_BOLD, f"{self._section}. {title}"))

    def say(self, text: str) -> None:
        """Plain text; each of its lines indented."""
        for line in text.splitlines():
            self._line(f"   {line}".rstrip())

    def command(self, text: str) -> None:
        """What a user would type."""
        self._line(self._paint(_CYAN, f"   $ {text}"))

    def quote(self, text: str) -> None:
        """What a program printed."""
        for line in text.splitlines():
            self._line(self._paint(_DIM, f"     {line}".rstrip()))

    def good(self, text: str) -> None:
        """What came out as promised."""
        self._line(self._paint(_GREEN, f"   {text}"))

    def bad(self, text: str) -> None:
        """What went wrong."""
        self._line(self._paint(_RED, text))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Columns in line; the first row is the heading."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._line(self._paint(_BOLD, f"   {cells}") if number == 0 else f"   {cells}")

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._colour else text

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
