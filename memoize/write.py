"""How entries get into a ConfigMap that was read: one request, and what goes with it. Pure."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from memoize import configmap
from memoize.configmap import MOST_OBJECT_BYTES
from memoize.eviction import SETTLED, Eviction, make_room
from memoize.outcome import Outcome

_FULL = 3 / 4
"""What is left of an object that the API server will not have any larger, for a reason other than its values:
nobody says how much it takes."""


class Write(NamedTuple):
    """What to send, and what comes of it once it is done."""

    patch: dict[str, Any] | list[dict[str, Any]] | None
    """A merge-patch, a JSON patch, or None: there is nothing to write."""
    fitting: Mapping[str, str]
    """Entries that are in the cache then, by data key."""
    refused: Mapping[str, Outcome]
    """Why the others are not."""
    evicted: list[Eviction]
    """What goes for them."""

    @property
    def evicted_bytes(self) -> int:
        """Of values."""
        return sum(one.bytes for one in self.evicted)

    def outcome(self, data_key: str, problem: str = "") -> Outcome:
        """What becomes of one of the entries; `problem` is told beside it."""
        if data_key in self.refused:
            return self.refused[data_key]
        reason, detail = configmap.stored(self.fitting[data_key])
        if self.evicted:
            detail += f"; {len(self.evicted)} entries of {self.evicted_bytes} bytes made room"
        return Outcome(reason, f"{detail}; {problem}" if problem else detail)


def write(
    config_map: Mapping[str, Any],
    entries: Mapping[str, str],
    now: datetime,
    limit: int,
    *,
    written: bool = False,
    full: bool = False,
    keep: Collection[str] = (),
    settled: timedelta = SETTLED,
) -> Write:
    """Decide how the entries get into a cache of at most `limit` bytes of values, and what makes room.

    `written`: they are there already, and those that find no room go again. `full`: the API server takes
    no larger object. The rest is as in `make_room`. What goes, goes on condition that nobody wrote since: who
    did may have used, or replaced, just that.
    """
    present = configmap.data(config_map)
    object_limit = MOST_OBJECT_BYTES
    if full:
        object_limit = int(sum(configmap.object_bytes(*item) for item in present.items()) * _FULL)
    fitting, evicted = make_room(
        present,
        entries,
        now,
        limit,
        object_limit=object_limit,
        other_bytes=configmap.binary_bytes(config_map),
        keep=keep,
        settled=settled,
    )
    refused = {
        data_key: configmap.too_large_for(text, limit) or configmap.full(text)
        for data_key, text in entries.items()
        if data_key not in fitting
    }
    gone = {one.data_key for one in evicted}
    patch: dict[str, Any] | list[dict[str, Any]] | None
    if written:
        gone |= refused.keys() & present.keys()
        patch = configmap.seen(config_map, {}, gone) if gone else None
    elif not fitting:
        patch = None
    elif gone or not present:
        patch = configmap.seen(config_map, fitting, gone)
    else:
        patch = configmap.added(fitting)
    return Write(patch, fitting, refused, evicted)
