"""What a cache says of a step, for those who do not care where it is kept."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from keeper.cache.view import View
from memoize.entry import Hit, Miss, look_up
from memoize.keeper_status import Known
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.step import Step

NOT_NOW = frozenset({Reason.API_UNAVAILABLE, Reason.CONFLICT, Reason.FORBIDDEN})
"""Why a cache cannot be written or read, and may be later."""


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

        Without a request where the view knows of no entry that is fresh.
        """
        known, _ = self._view.ask(namespace, cache, step, self._now())
        if known is Known.UNKNOWN or step.declared is None:
            return Lookup(None)
        if known is Known.ABSENT:
            return Lookup(Miss(Reason.MISS))
        data = await self._view.read(namespace, cache)
        if isinstance(data, Outcome):
            return Lookup(None if data.reason in NOT_NOW else Miss(data.reason, data.detail))
        return Lookup(look_up(data, step, step.declared, self._now()), data.get(step.data_key, ""))
