"""What is wrong with one object, and what its author should know: as much as somebody reads, and a count.

Anybody can make thousands of mistakes. Those that are only counted cost no more than finding them: no text
is made of them.
"""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import NamedTuple

from argo.fields import FieldError, Misspelt

MOST = 20
"""Errors, and warnings, that are written out; the others are counted."""
PROPOSALS = 10
"""Of the first so many, what a misspelt word may have been meant for: it takes a millisecond to find."""

LONGEST = 120
"""Characters of an admission warning: kubectl and the API server ask for no more, and cut at 256."""
_PATH = 45
"""Characters of a path that a long text leaves it."""


class Remark(NamedTuple):
    """A path, and what there is to say of it."""

    path: str
    text: str
    meant: Misspelt | None = None
    """Follows the text."""

    def __str__(self) -> str:
        """`path: text` in no more than LONGEST characters: the path gives way at its front, then the text."""
        text = f"{self.text}{self.meant or ''}"
        room = max(_PATH, LONGEST - len(": ") - len(text))
        path = self.path if len(self.path) <= room else f"…{self.path[len(self.path) - room + 1 :]}"
        whole = f"{path}: {text}"
        return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


class Findings:
    """Errors and remarks in their order, `most` of each at most."""

    def __init__(self, most: int = MOST) -> None:
        self.errors: list[FieldError] = []
        self.remarks: list[Remark] = []
        self._most = most
        self._known: set[Hashable] = set()
        self._remarks = 0

    @property
    def more_errors(self) -> int:
        """Errors that are not among `errors`."""
        return len(self._known) - len(self.errors)

    def add_errors(self, found: Iterable[FieldError]) -> None:
        """Note each once: what several templates inherit from `templateDefaults` is wrong once."""
        for error in found:
            told = (error.field, error.kind, error.detail, error.meant)
            if told not in self._known:
                self._known.add(told)
                if len(self.errors) < self._most:
                    meant = _in_turn(error.meant, len(self.errors))
                    self.errors.append(error if meant is error.meant else replace(error, meant=meant))

    def add_remarks(self, found: Iterable[Remark]) -> None:
        """Note each."""
        for remark in found:
            self._remarks += 1
            if len(self.remarks) < self._most:
                meant = _in_turn(remark.meant, len(self.remarks))
                self.remarks.append(remark._replace(meant=meant))

    def warnings(self, *, errors: bool = False) -> list[str]:
        """The remarks as warnings; with `errors` those come first."""
        told = [Remark(error.field, error.message) for error in self.errors] if errors else []
        told += self.remarks
        left = self._remarks + (len(self._known) if errors else 0) - self._most
        return [*map(str, told[: self._most]), *([f"and {left} more"] if left > 0 else [])]


def _in_turn(meant: Misspelt | None, turn: int) -> Misspelt | None:
    return meant._replace(proposes=False) if meant is not None and turn >= PROPOSALS else meant
