"""Counting work: how much more is done when there is more to do.

Calls are counted, and looks at the members of what is given, which then are calls too. What C does with
values of our own, such as copying a dictionary that was made on the way, is not seen.
"""

import json
from collections.abc import Callable, Iterator
from cProfile import Profile
from typing import Any, SupportsIndex


class CountedDict(dict[str, Any]):
    """Every look at a member is a call of Python's, and so is counted."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default)

    def keys(self) -> Any:
        return dict.fromkeys(self).keys()

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return {name: self[name] for name in self}.items()


class CountedList(list[Any]):
    """The same for a list."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()


def counted(value: Any) -> Any:
    """A copy of JSON that is counted when it is read."""
    if isinstance(value, dict):
        return CountedDict({name: counted(item) for name, item in value.items()})
    if isinstance(value, list):
        return CountedList(counted(item) for item in value)
    return value


def calls(function: Callable[[Any], object], value: Any) -> int:
    """Calls of Python's and of C's functions that `function(value)` makes, looks at members included."""
    given = counted(json.loads(json.dumps(value)))
    with Profile() as profile:
        function(given)
    return sum(entry.callcount for entry in profile.getstats())


def grows(function: Callable[[Any], object], made: Callable[[int], Any], small: int) -> float:
    """By how much work grows where its subject doubles, from `small` on: 2 is linear, 4 quadratic.

    What is done once whatever there is does not count.
    """
    function(made(small))  # what is made once and kept is no part of it
    one, two, four = (calls(function, made(size)) for size in (small, 2 * small, 4 * small))
    return (four - two) / max(two - one, 1)
