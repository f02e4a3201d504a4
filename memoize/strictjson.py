"""JSON from somebody else: only what every reader of it understands in the same way."""

import json
from typing import Any

_DEPTH = 64
"""Deepest nesting; Argo's own types need nine levels."""
_INT64 = 1 << 63


def loads(text: str) -> Any:
    """Parse JSON; ValueError for anything that Go's decoder would refuse or read differently.

    That is: NaN and infinities, integers outside int64, duplicate keys, lone surrogates, and nesting too deep
    to walk. The error's text never repeats a value.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check(value, _DEPTH)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object names a field twice")
    return fields


def _constant(_: str) -> Any:
    raise ValueError("a number is not finite")


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        for name, item in value.items():
            _check(name, depth - 1)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("a string holds half a surrogate pair")
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise ValueError("an integer is too large")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ValueError("a number is not finite")
