"""Errors that name a field, in the words of the Kubernetes API (apimachinery, util/validation/field)."""

import json
from dataclasses import dataclass
from enum import StrEnum


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
_NO_VALUE = object()
_SHOWN = 120
"""Longest value that a message repeats, in characters: a message is for reading."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field: where, what kind, and what to write instead."""

    field: str
    kind: Kind
    detail: str
    value: object = _NO_VALUE

    @property
    def message(self) -> str:
        """All but the field's path: `Invalid value: "x": must be …`."""
        shown = "" if self.value is _NO_VALUE else f": {_show(self.value)}"
        return f"{self.kind.text}{shown}: {self.detail}"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def annotation(path: str, name: str) -> str:
    """The path of one annotation below the metadata at `path`: names hold dots, so they go in brackets."""
    return f"{path}.annotations[{name}]"
