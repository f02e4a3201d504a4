"""What a cache says of a step, for those who do not care where it is kept."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from keeper.artifacts.verifier import NOT_KNOWN_YET, Verifier
from keeper.store import NOT_NOW, Store
from memoize.entry import Hit, Miss, look_up
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.step import Step

LOOKUP_TIMEOUT = 0.25
"""Seconds that a look-up waits for a cache to be read. Whoever looks up has one of few slots, and is called
again when it has been read."""

VERIFY_TIMEOUT = 0.05
"""The same for its artifacts, of which it hears at once: a repository that is slow must not have all slots of
its Namespace wait, or its next Pods find none."""


class Lookup(NamedTuple):
    """What was found."""

    found: Hit | Miss | None
    """None where that is not known now."""
    text: str = ""
    """The entry as it stands in the cache, "" where there is none."""


class CacheLookup:
    """Looks steps up in the caches of a store; `now` is aware.

    With a `verifier` an entry is a hit only where its artifacts let it be served.
    """

    def __init__(self, store: Store, now: Callable[[], datetime], verifier: Verifier | None = None) -> None:
        self._store, self._now, self._verifier = store, now, verifier

    async def look_up(self, namespace: str, cache: str, step: Step) -> Lookup:
        """Say whether the cache answers the step, whose template must be known (`declared`)."""
        if step.declared is None or not self._store.knows(namespace):
            return Lookup(None)
        text = await self._store.read(namespace, cache, step.data_key, LOOKUP_TIMEOUT)
        if isinstance(text, Outcome):
            known = text.reason not in NOT_NOW or text.reason is Reason.STORE_UNAVAILABLE
            return Lookup(Miss(text.reason, text.detail) if known else None)
        found = look_up({step.data_key: text}, step, step.declared, self._now())
        if self._verifier is not None and isinstance(found, Hit):
            miss = await self._verifier.verify(namespace, cache, step.data_key, text, VERIFY_TIMEOUT)
            if miss is not None:
                return Lookup(Miss(*miss) if miss is not NOT_KNOWN_YET else None)
        return Lookup(found, text)
