"""Which entries a cache gives up: so that others find room, or since nobody uses them. Pure.

An entry's last use is its last hit, or else its creation. What is no entry, broken or somebody else's, is
never given up; it only takes room.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Any, NamedTuple

from memoize import names
from memoize.configmap import MOST_BYTES, MOST_OBJECT_BYTES, annotations, object_bytes, size
from memoize.entry import BrokenEntry, Entry

FREE_SHARE = 8
"""Where room is made, this part of it is free afterwards, so that few writes have to make any …"""
MOST_SHARE = 4
"""… and a clean-up removes this part of the entries at most: a wrong clock, or a wrong setting, is found out
before all of them are gone."""
SETTLED = timedelta(seconds=60)
"""How long a hit may be gathered before its entry tells of it (keeper.cache.last_hit)."""
_ON = "true"
_NEVER = datetime.min.replace(tzinfo=UTC)


class Cause(StrEnum):
    """Why an entry is given up."""

    EXPIRED = "expired"
    """It is older than the `maxAge` that it names."""
    UNUSED = "unused"
    """Its last use is the longest ago, or longer than is allowed."""


class Eviction(NamedTuple):
    """An entry to remove."""

    data_key: str
    cause: Cause
    bytes: int
    """Of its value."""


class Policy(NamedTuple):
    """What a clean-up removes, beside entries that expired by their own word."""

    unused_for: timedelta | None = None
    """Entries whose last use is so long ago; None: none of these."""
    limit: int = MOST_BYTES
    """Bytes of values; from a cache that holds more go also those whose last use is the longest ago."""


class Room(NamedTuple):
    """What becomes of a cache that is to take some entries."""

    fitting: Mapping[str, str]
    """Those of them that find room, by data key."""
    evicted: list[Eviction]
    """What goes for them."""


class _Turn(IntEnum):
    """The order in which entries go."""

    EXPIRED = 0
    UNUSED = 1
    """Not used for as long as was asked for."""
    RECENT = 2
    NEWEST = 3


def make_room(
    present: Mapping[str, str],
    entries: Mapping[str, str],
    now: datetime,
    limit: int = MOST_BYTES,
    *,
    object_limit: int = MOST_OBJECT_BYTES,
    other_bytes: int = 0,
    keep: Collection[str] = (),
    settled: timedelta = SETTLED,
) -> Room:
    """Decide what goes from a cache that holds `present`, so that as many of the `entries` find room as can.

    Where all of them do, nothing goes. Else what expired by its own word goes first, then what was not used
    for the longest time: hits of the time `settled` may not be known yet, so what was used within it comes
    last but for the newest. Never the `entries` themselves, nor the data keys in `keep`. Some more goes than
    must: see FREE_SHARE.

    `limit` is in bytes of values, `object_limit` in those of the whole object; `other_bytes` are values that
    `present` does not hold (`binaryData`). `now` is aware.
    """
    used = other_bytes + sum(map(size, present.values()))
    whole = other_bytes + sum(object_bytes(*item) for item in present.items())
    growth = {data_key: size(text) - size(present.get(data_key, "")) for data_key, text in entries.items()}
    new = sum(object_bytes(data_key, "") for data_key in entries.keys() - present.keys())
    if used + sum(growth.values()) <= limit and whole + sum(growth.values()) + new <= object_limit:
        return Room(entries, [])
    order = _in_order(present, now, settled, {*entries, *keep})
    # What cannot go does not count for the part that is to be free: it would make all others go.
    most = limit - (limit - used + sum(size(present[one.data_key]) for one in order)) // FREE_SHARE
    removable = sum(object_bytes(one.data_key, present[one.data_key]) for one in order)
    most_whole = object_limit - (object_limit - whole + removable) // FREE_SHARE
    candidates: Iterator[tuple[_Turn, Eviction]] = _entries(order, present)
    fitting, evicted = dict[str, str](), list[Eviction]()
    for data_key in sorted(growth, key=growth.__getitem__):
        if size(entries[data_key]) > limit:
            continue
        # 1. With it the cache holds so much …
        then = used + growth[data_key]
        then_whole = whole + growth[data_key] + (0 if data_key in present else object_bytes(data_key, ""))
        # 2. … less what goes for it.
        taken = list[tuple[_Turn, Eviction]]()
        while (then > limit or then_whole > object_limit) and (one := next(candidates, None)) is not None:
            taken.append(one)
            then, then_whole = then - one[1].bytes, then_whole - _object_bytes(one[1])
        if then > limit or then_whole > object_limit:
            # Nothing goes in vain; and those that need more room do not find it either.
            candidates = chain(taken, candidates)
            break
        used, whole = then, then_whole
        fitting[data_key] = entries[data_key]
        evicted += (eviction for _, eviction in taken)
    # 3. Once something goes, some more does.
    while evicted and (used > most or whole > most_whole):
        turn, eviction = next(candidates, (_Turn.NEWEST, None))
        if turn is _Turn.NEWEST or eviction is None:
            break
        evicted.append(eviction)
        used, whole = used - eviction.bytes, whole - _object_bytes(eviction)
    return Room(fitting, evicted)


def is_collected(config_map: Mapping[str, Any], namespace_labels: Mapping[str, str]) -> bool:
    """Whether a ConfigMap, given whole or by its metadata, is to be cleaned up: see memoize.names.GC."""
    said = annotations(config_map).get(names.GC)
    return (namespace_labels.get(names.GC, _ON) if said is None else said) == _ON


def to_collect(
    data: Mapping[str, str],
    now: datetime,
    policy: Policy,
    *,
    other_bytes: int = 0,
    keep: Collection[str] = (),
) -> list[Eviction]:
    """Decide what a clean-up removes from a cache that holds `data`: see Policy.

    Never the newest entry, nor the data keys in `keep`; and of many no more than MOST_SHARE says, so that the
    next clean-up goes on. An entry that tells no time does not count as unused. `other_bytes` is as in
    `make_room`, `now` aware.
    """
    over = other_bytes + sum(map(size, data.values())) - policy.limit
    most, removed = max(1, len(data) // MOST_SHARE), list[Eviction]()
    for turn, eviction in _entries(_in_order(data, now, policy.unused_for, keep), data):
        if turn is _Turn.NEWEST or len(removed) >= most or (turn is _Turn.RECENT and over <= 0):
            break
        removed.append(eviction)
        over -= eviction.bytes
    return removed


class _Place(NamedTuple):
    """Of what may be an entry, in the order in which they go."""

    turn: _Turn
    used: datetime
    data_key: str


def _in_order(
    data: Mapping[str, str], now: datetime, unused_for: timedelta | None, keep: Collection[str]
) -> list[_Place]:
    """Return what may go, as far as that can be told in passing. With no `unused_for`, none is unused."""
    read = {data_key: times for data_key, text in data.items() if (times := _times(text)) is not None}

    def age(data_key: str) -> tuple[datetime, datetime]:
        return read[data_key].created or _NEVER, read[data_key].last_hit or _NEVER

    youngest_first = sorted(read, key=age, reverse=True)
    newest = next((data_key for data_key in youngest_first if _is_entry(data[data_key])), None)
    since = now - unused_for if unused_for is not None else None

    def place(data_key: str) -> _Place:
        times = read[data_key]
        # A time to come is a wrong clock's: its entry stays no longer than one that is used now.
        used = min(max(times.last_hit or _NEVER, times.created or _NEVER), now)
        if data_key == newest:
            return _Place(_Turn.NEWEST, used, data_key)
        if times.expired(now):
            return _Place(_Turn.EXPIRED, used, data_key)
        is_unused = since is not None and _NEVER < used <= since
        return _Place(_Turn.UNUSED if is_unused else _Turn.RECENT, used, data_key)

    return sorted(place(data_key) for data_key in read if data_key not in keep)


def _entries(order: list[_Place], data: Mapping[str, str]) -> Iterator[tuple[_Turn, Eviction]]:
    """Yield those that are entries: only what is to go is read whole."""
    for turn, _, data_key in order:
        if _is_entry(data[data_key]):
            cause = Cause.EXPIRED if turn is _Turn.EXPIRED else Cause.UNUSED
            yield turn, Eviction(data_key, cause, size(data[data_key]))


def _times(text: str) -> Entry | None:
    try:
        return Entry.parse_times(text)
    except BrokenEntry:
        return None


def _is_entry(text: str) -> bool:
    try:
        Entry.parse(text)
    except BrokenEntry:
        return False
    return True


def _object_bytes(eviction: Eviction) -> int:
    return eviction.bytes + object_bytes(eviction.data_key, "")
