"""What a PromQL expression names: metrics, the labels that it picks them by, and those that it groups by."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[a-zA-Z_][a-zA-Z0-9_:]*|[0-9][\w.]*|=~|!~|!=|\S')
_WORD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_:]*")
_OPERATORS = {"and", "or", "unless", "offset", "bool", "atan2"}
_GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


class Named(NamedTuple):
    """A metric, "" for a grouping, and labels."""

    metric: str
    labels: frozenset[str]


def named(expression: str) -> Iterator[Named]:
    """All that the expression names, in its order."""
    tokens = _TOKEN.findall(expression)
    position = 0
    while position < len(tokens):
        word, after = tokens[position], tokens[position + 1] if position + 1 < len(tokens) else ""
        position += 1
        if not _WORD.fullmatch(word) or word in _OPERATORS:
            continue
        if word in _GROUPINGS:
            end = tokens.index(")", position)
            yield Named("", frozenset(filter(_WORD.fullmatch, tokens[position:end])))
            position = end
        elif after == "(" or after in _GROUPINGS:
            continue  # a function
        elif after == "{":
            end = tokens.index("}", position)
            matchers = tokens[position + 1 : end]
            yield Named(word, frozenset(filter(_WORD.fullmatch, matchers)))
            position = end
        else:
            yield Named(word, frozenset())
