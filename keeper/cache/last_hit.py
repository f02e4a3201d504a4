"""The time of an entry's last hit, which Argo keeps in `lastHitTimestamp` and its cache clean-up goes by.

Argo rewrites the whole ConfigMap on every hit. Here a time is renewed at most once per entry and interval,
and the entries of one cache together. What the entry itself says decides whether it is due, so that neither a
restart nor another replica begins anew. Best effort: a cache that is full, or out of reach, is left alone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.store import Cache
from memoize.entry import BrokenEntry, Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.logs import fields

_log = logging.getLogger(__name__)

INTERVAL = 600.0
"""Seconds between two renewals of one entry, unless the settings say otherwise."""
LONGEST_GATHERED = 60.0
"""Seconds that hits are gathered before they are written: a tenth of the interval, and at most this. Every
write of a ConfigMap writes all its data to etcd, and sends it to everybody who watches."""
MOST = 5_000
"""Entries of one Namespace remembered from one write to the next, of some hundred bytes each; hits beyond are
forgotten."""

_Waiting = dict[str, dict[str, int]]
"""By cache and data key, a hash of the entry that was hit."""


class LastHits:
    """Gathers hits, and renews the times of the entries in a task of its own (`run`).

    `on_renewed` is told of every write: what became of it, and how many entries it was about. `now` is aware.
    """

    def __init__(
        self,
        writer: Writer,
        view: View,
        interval: float = INTERVAL,
        *,
        on_renewed: Callable[[Reason, int], None] = lambda reason, entries: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._writer, self._view, self._on_renewed = writer, view, on_renewed
        self._interval = timedelta(seconds=interval)
        self._gathered = gathered(interval)
        self._now, self._sleep = now, sleep
        self._waiting: dict[str, _Waiting] = {}
        """By Namespace."""
        self._counts: Counter[str] = Counter()
        self._busy: set[str] = set()
        """Namespaces whose entries are being renewed."""
        self._quiet: dict[Cache, datetime] = {}

    def hit(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Remember that the entry with this text answered a step. Returns at once."""
        key, now = (namespace, cache), self._now()
        if self._counts[namespace] >= MOST or now < self._quiet.get(key, now):
            return
        if data_key in self._waiting.get(namespace, {}).get(cache, ()):
            return
        if is_due(text, self._interval, now):
            # Of the text only a hash is kept: values of thousands of entries might be gigabytes. Two texts of
            # one hash would at worst renew an entry that was not hit.
            self._waiting.setdefault(namespace, {}).setdefault(cache, {})[data_key] = hash(text)
            self._counts[namespace] += 1

    async def run(self) -> None:
        """Renew what was hit, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._sleep(self._gathered)
                for namespace in self._due():
                    group.create_task(self._flush(namespace))

    async def flush(self) -> None:
        """Renew what was hit until now; does not raise."""
        await asyncio.gather(*map(self._flush, self._due()))

    def _due(self) -> set[str]:
        """The Namespaces whose turn it is."""
        now = self._now()
        self._quiet = {key: until for key, until in self._quiet.items() if now < until}
        return self._waiting.keys() - self._busy

    async def _flush(self, namespace: str) -> None:
        """Renew what was hit in the Namespace, one cache after another; others do not wait for it."""
        self._busy.add(namespace)
        waiting = self._waiting.pop(namespace, {})
        del self._counts[namespace]
        try:
            for cache, data_keys in waiting.items():
                await self._flush_cache((namespace, cache), data_keys)
        finally:
            self._busy.discard(namespace)

    async def _flush_cache(self, key: Cache, data_keys: dict[str, int]) -> None:
        try:
            outcome = await self._renew(key, data_keys)
        except Exception:
            _log.exception("cannot renew the times of hits", extra=fields(namespace=key[0], cache=key[1]))
            outcome = Outcome(Reason.INTERNAL_ERROR)
        self._on_renewed(outcome.reason, len(data_keys))
        if outcome.reason not in (Reason.STORED, Reason.CONFLICT):
            # Nothing that the next hit would change: full, not a cache, forbidden, or the server is away.
            self._quiet[key] = self._now() + self._interval

    async def _renew(self, key: Cache, data_keys: dict[str, int]) -> Outcome:
        data = await self._view.read(*key)
        if isinstance(data, Outcome):
            return data
        now, changes = self._now(), dict[str, tuple[str, str]]()
        for data_key, seen in data_keys.items():
            text = data.get(data_key, "")
            # An entry that was written anew since it was hit is another one: its own hits will renew it.
            if hash(text) == seen and is_due(text, self._interval, now):
                changes[data_key] = text, renew(text, now)
                await asyncio.sleep(0)  # thousands of entries must not hold everybody else up
        return await self._writer.replace(*key, changes) if changes else Outcome(Reason.CONFLICT)


def gathered(interval: float) -> float:
    """How long hits are gathered that renew an entry once in so many seconds."""
    return min(LONGEST_GATHERED, interval / 10)


def is_due(text: str, interval: timedelta, now: datetime) -> bool:
    """Whether the entry's last hit is an interval ago, or unknown; never for what is no entry."""
    try:
        last = Entry.parse_times(text).last_hit
    except BrokenEntry:
        return False
    return last is None or abs(now - last) >= interval  # one from the far future was set by a wrong clock


def renew(text: str, now: datetime) -> str:
    """The same entry, hit just now; BrokenEntry for what is none. Nothing else of it changes."""
    return Entry.parse(text)._replace(last_hit=now).dump()
