"""How much a cache may hold: numbers of bytes as people write them, and what a ConfigMap says of itself."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from memoize import names
from memoize.configmap import MOST_BYTES, annotations

LEAST_BYTES = 4 << 10
"""A smaller limit would be a slip: one entry takes some hundred bytes."""

_BYTES = re.compile(r"([0-9]{1,12})(k|M|Ki|Mi|)")
_FACTORS = {"": 1, "k": 1000, "M": 1000**2, "Ki": 1 << 10, "Mi": 1 << 20}
_SHOWN = 40
"""Characters of a value that are repeated."""


class Limit(NamedTuple):
    """Bytes of values that a cache may hold; `problem` says what is wrong with its annotation."""

    bytes: int
    problem: str = ""


def parse(text: str) -> int:
    """Read a number of bytes, such as `512Ki`; ValueError, whose text goes on after the value."""
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError('must be a number of bytes, such as "512Ki" or "500k"')
    if (number := int(found[1]) * _FACTORS[found[2]]) < LEAST_BYTES:
        raise ValueError(f'must be at least "{LEAST_BYTES >> 10}Ki"')
    return number


def limit(config_map: Mapping[str, Any], most: int = MOST_BYTES) -> Limit:
    """Return the limit of a ConfigMap, whole or its metadata: `most`, or less if an annotation says so.

    One that cannot be read is ignored.
    """
    text = annotations(config_map).get(names.MAX_BYTES)
    if text is None:
        return Limit(most)
    try:
        return Limit(min(most, parse(str(text))))
    except ValueError as error:
        return Limit(most, f'annotation {names.MAX_BYTES}: "{str(text)[:_SHOWN]}" {error}; it is ignored')
