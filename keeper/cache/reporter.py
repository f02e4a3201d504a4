"""Says what becomes of caches: in a log line, in metrics, and in an Event on the ConfigMap now and then."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from argo.steppod import Owner
from kube.caching import TtlCache
from memoize.eviction import Cause, Eviction
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.metrics import Metrics

_log = logging.getLogger(__name__)

EVENT_EVERY = 60.0
"""Seconds from one Event about what went from a cache to the next."""
PROBLEM_EVERY = 86_400.0
"""The same for one and the same mistake in a ConfigMap."""
_CACHES, _CACHES_OF_ONE = 1_000, 100
"""Of which it is remembered that something was told, and those of one Namespace."""


class CacheReporter:
    """Reports without waiting for anybody; `now` is aware, `clock` counts seconds."""

    def __init__(
        self,
        metrics: Metrics,
        events: Events,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._events, self._now = metrics, events, now
        self._told = TtlCache[tuple[str, str, str], bool](
            _CACHES, clock, group=lambda key: key[0], most_of_one=_CACHES_OF_ONE
        )

    def on_evicted(self, cache: Owner, evicted: Sequence[Eviction]) -> None:
        """Entries of this ConfigMap made room for others."""
        self._removed(cache, evicted, "write", "made room for newer ones")

    def on_collected(self, cache: Owner, removed: Sequence[Eviction]) -> None:
        """Entries of this ConfigMap were cleaned up."""
        self._removed(cache, removed, "gc", "were cleaned up")

    def on_problem(self, cache: Owner, problem: str) -> None:
        """What this ConfigMap says of its limit is wrong, and ignored."""
        if self._is_new(cache, problem, PROBLEM_EVERY):
            self._say(logging.WARNING, cache, Reason.INVALID_LIMIT, problem)
            self._events.of_cache(cache, Reason.INVALID_LIMIT, problem, self._now())

    def _removed(self, cache: Owner, removed: Sequence[Eviction], by: str, what: str) -> None:
        entries, size = Counter[Cause](), Counter[Cause]()
        for one in removed:
            entries[one.cause] += 1
            size[one.cause] += one.bytes
        for cause, count in entries.items():
            self._metrics.evicted(by, cause.value, count, size[cause])
        text = (
            f"{entries.total()} entries of {size.total()} bytes {what}: {entries[Cause.EXPIRED]} had expired,"
            f" {entries[Cause.UNUSED]} were not used for the longest time"
        )
        # A full cache makes room with every entry.
        level = logging.DEBUG if by == "write" else logging.INFO
        self._say(level, cache, Reason.EVICTED, text)
        if self._is_new(cache, by, EVENT_EVERY):
            self._events.of_cache(cache, Reason.EVICTED, text, self._now())

    def _say(self, level: int, cache: Owner, reason: Reason, text: str) -> None:
        told = fields(reason=reason.value, namespace=cache.namespace, cache=cache.name, detail=text)
        _log.log(level, "a cache", extra=told)

    def _is_new(self, cache: Owner, what: str, seconds: float) -> bool:
        key = cache.namespace, cache.name, what
        if self._told.get(key):
            return False
        self._told.put(key, True, seconds)
        return True
