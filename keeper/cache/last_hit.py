"""The time of an entry's last hit, which Argo keeps in `lastHitTimestamp` and its cache clean-up goes by.

Argo rewrites the whole ConfigMap on every hit. Here a time is renewed at most once per entry and interval,
and the entries of one cache together. What the entry itself says decides whether it is due, so that neither a
restart nor another replica begins anew. Best effort: a cache that is full, or out of reach, is left alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from keeper.cache.view import View
from keeper.cache.writer import Writer
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
MOST = 20_000
"""Entries remembered from one write to the next, of some hundred bytes each; hits beyond are forgotten."""

_Cache = tuple[str, str]


class Hits:
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
        self._gathered = min(LONGEST_GATHERED, interval / 10)
        self._now, self._sleep = now, sleep
        self._waiting: dict[_Cache, dict[str, int]] = {}
        self._count = 0
        self._quiet: dict[_Cache, datetime] = {}

    def hit(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Remember that the entry with this text answered a step. Returns at once."""
        key, now = (namespace, cache), self._now()
        if self._count >= MOST or now < self._quiet.get(key, now) or data_key in self._waiting.get(key, ()):
            return
        if is_due(text, self._interval, now):
            # Of the text only a hash is kept: values of 20,000 entries might be gigabytes. Two texts of one
            # hash would at worst renew an entry that was not hit.
            self._waiting.setdefault(key, {})[data_key] = hash(text)
            self._count += 1

    async def run(self) -> None:
        """Renew what was hit, for ever."""
        while True:
            await self._sleep(self._gathered)
            await self.flush()

    async def flush(self) -> None:
        """Renew what was hit until now, one cache after another; does not raise."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        now = self._now()
        self._quiet = {key: until for key, until in self._quiet.items() if now < until}
        for key, data_keys in waiting.items():
            try:
                outcome = await self._renew(key, data_keys)
            except Exception:
                _log.exception("cannot renew the times of hits", extra=fields(namespace=key[0], cache=key[1]))
                outcome = Outcome(Reason.INTERNAL_ERROR)
            self._on_renewed(outcome.reason, len(data_keys))
            if outcome.reason not in (Reason.STORED, Reason.CONFLICT):
                # Nothing that the next hit would change: full, not a cache, forbidden, or the server is away.
                self._quiet[key] = self._now() + self._interval

    async def _renew(self, key: _Cache, data_keys: dict[str, int]) -> Outcome:
        data = await self._view.read(*key)
        if isinstance(data, Outcome):
            return data
        now = self._now()
        # An entry that was written anew since it was hit is another one: its own hits will renew it.
        texts = {
            data_key: data[data_key]
            for data_key, seen in data_keys.items()
            if hash(data.get(data_key, "")) == seen
        }
        changes = {
            data_key: (text, renew(text, now))
            for data_key, text in texts.items()
            if is_due(text, self._interval, now)
        }
        return await self._writer.replace(*key, changes) if changes else Outcome(Reason.CONFLICT)


def is_due(text: str, interval: timedelta, now: datetime) -> bool:
    """Whether the entry's last hit is an interval ago, or unknown; never for what is no entry."""
    try:
        last = Entry.parse(text).last_hit
    except BrokenEntry:
        return False
    return last is None or abs(now - last) >= interval  # one from the far future was set by a wrong clock


def renew(text: str, now: datetime) -> str:
    """The same entry, hit just now; BrokenEntry for what is none. Nothing else of it changes."""
    return Entry.parse(text)._replace(last_hit=now).dump()
