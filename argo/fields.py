"""Errors that name a field, in the words of the Kubernetes API (apimachinery, util/validation/field)."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """A cause's machine-readable reason (metav1.CauseType) and, as `text`, how kubectl words it."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    TYPE_INVALID = "FieldValueTypeInvalid"
    UNKNOWN = "FieldValueUnknown"
    FORBIDDEN = "FieldValueForbidden"

    @property
    def text(self) -> str:
        """The phrase between the field's path and the detail."""
        return _PHRASES[self]


_PHRASES = {
    Kind.REQUIRED: "Required value",
    Kind.INVALID: "Invalid value",
    Kind.NOT_SUPPORTED: "Unsupported value",
    Kind.TYPE_INVALID: "Invalid value",
    Kind.UNKNOWN: "Unknown field",
    Kind.FORBIDDEN: "Forbidden",
}


class _Nothing(Enum):
    """The one value that no field has; of a kind that is itself again in another process."""

    VALUE = "no value"


_NO_VALUE = _Nothing.VALUE
_SHOWN = 120
"""Longest value that a message repeats, in characters: a message is for reading."""


class Misspelt(NamedTuple):
    """A word that is none of those there are.

    Its text costs thousands of times what the value does, so it is made of what is told alone.
    """

    word: str
    known: tuple[str, ...]
    proposes: bool = True
    """Whether the text looks for the word that was meant, or only tells those there are."""

    def __str__(self) -> str:
        from difflib import get_close_matches

        spelt = {name.lower(): name for name in self.known if len(name) <= _LONGEST_WORD}
        word = self.word.lower().replace("-", "").replace("_", "")
        close = get_close_matches(word, spelt, n=1) if self.proposes and len(word) <= _LONGEST_WORD else []
        if close:
            return f"did you mean {spelt[close[0]]}?"
        return f"only {', '.join(map(cut, self.known))} are known here"


_CONSIDERED = 20
"""Known words that a proposal is chosen from or that are told: a message is for reading, and soon made."""
_LONGEST_WORD = 40
"""Characters of a word that is compared: the time for it grows with their square."""


def misspelt(word: object, known: Iterable[str]) -> Misspelt:
    """The word among those there are, of which the first few count."""
    return Misspelt(str(word), tuple(itertools.islice(known, _CONSIDERED)))


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field: where, what kind, and what to write instead.

    `meant` follows the detail in the message.
    """

    field: str
    kind: Kind
    detail: str
    value: object = _NO_VALUE
    meant: Misspelt | None = None

    @property
    def message(self) -> str:
        """All but the field's path: `Invalid value: "x": must be …`."""
        shown = "" if self.value is _NO_VALUE else f": {show(self.value)}"
        return f"{self.kind.text}{shown}: {self.detail}{self.meant or ''}"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def show(value: object) -> str:
    """The value as JSON, no longer than a message repeats it, and made no longer than that either."""
    if isinstance(value, str):
        return cut(_encoder.encode(value[:_SHOWN]), _SHOWN)
    text = ""
    for part in _encoder.iterencode(value):  # piece by piece, where `encode` makes the whole
        text += part
        if len(text) > _SHOWN:
            break
    return cut(text, _SHOWN)


_encoder = json.JSONEncoder(ensure_ascii=False, default=str)


def cut(text: str, most: int = _SHOWN) -> str:
    """The text, or the beginning of a longer one."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def annotation(path: str, name: str) -> str:
    """The path of one annotation below the metadata at `path`: names hold dots, so they go in brackets."""
    return f"{path}.annotations[{name}]"
