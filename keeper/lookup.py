"""What a cache says of a step, for those who do not care where it is kept."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from keeper.cache.view import NOT_NOW, View
from memoize.entry import Hit, Miss, look_up
from memoize.outcome import Outcome
from memoize.step import Step

PATIENCE = 0.25
"""Seconds that a look-up waits for a cache to be read. Whoever looks up has one of few slots, and is called
again when it has been read."""


class Lookup(NamedTuple):
    """What was found."""

    found: Hit | Miss | None
    """None where that is not known now."""
    text: str = ""
    """The entry as it stands in the cache, "" where there is none."""


class CacheLookup:
    """Looks steps up in the caches that a view follows; `now` is aware."""

    def __init__(self, view: View, now: Callable[[], datetime]) -> None:
        self._view, self._now = view, now

    async def look_up(self, namespace: str, cache: str, step: Step) -> Lookup:
        """Say whether the cache answers the step, whose template must be known (`declared`).

        Without a request where the cache was read since it last changed.
        """
        if step.declared is None or not self._view.knows(namespace):
            return Lookup(None)
        data = await self._view.read(namespace, cache, PATIENCE)
        if isinstance(data, Outcome):
            return Lookup(None if data.reason in NOT_NOW else Miss(data.reason, data.detail))
        return Lookup(look_up(data, step, step.declared, self._now()), data.get(step.data_key, ""))
