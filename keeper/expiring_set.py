"""Keys of steps that are marked for a while, such as those that are not shared."""

from collections import OrderedDict
from datetime import datetime, timedelta

from keeper.steppods import Key

MOST = 5000
"""Marks of one Namespace, some hundred bytes each. One that is forgotten costs a step that waits in vain."""


class ExpiringSet:
    """Keys that are marked, all for the same time; `most` of each Namespace, its newest. `now` is aware."""

    def __init__(self, time: timedelta, most: int = MOST) -> None:
        self._time, self._most = time, most
        self._until: OrderedDict[str, OrderedDict[Key, datetime]] = OrderedDict()
        """By Namespace, the one that was marked last at the end; in each, what ends soonest first."""

    def __len__(self) -> int:
        return sum(map(len, self._until.values()))

    def add(self, key: Key, now: datetime) -> None:
        """Mark the key from now on; marks that have ended are forgotten."""
        marks = self._until.setdefault(key.namespace, OrderedDict())
        self._until.move_to_end(key.namespace)
        marks[key] = now + self._time
        marks.move_to_end(key)
        while len(marks) > self._most or next(iter(marks.values())) <= now:
            marks.popitem(last=False)
        while (first := next(iter(self._until.values()))) is not marks:
            if next(reversed(first.values())) > now:
                break
            self._until.popitem(last=False)

    def until(self, key: Key, now: datetime) -> datetime | None:
        """When the mark ends, None where there is none."""
        marks = self._until.get(key.namespace)
        until = marks.get(key) if marks is not None else None
        return until if until is not None and until > now else None
