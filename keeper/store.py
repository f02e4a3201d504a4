"""Where entries are kept, as the rest of the keeper sees it: entry by entry, and never which store it is.

An entry is its JSON text (memoize.entry). It lies under a data key (memoize.key) of a cache, which has a name
and a Namespace in either store.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar

from argo import names as argo
from memoize import configmap
from memoize.entry import BrokenEntry, Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason

T = TypeVar("T")

Cache = tuple[str, str]
"""Namespace and name of a cache."""

READ_TIMEOUT = 1.5
"""Seconds until whoever asks for an entry gets an answer: one who waits in a Pod does not do so for long."""
NOT_NOW = frozenset(
    {
        Reason.API_UNAVAILABLE,
        Reason.CONFLICT,
        Reason.FORBIDDEN,
        Reason.RATE_LIMITED,
        Reason.STORE_UNAVAILABLE,
        Reason.UNDECIDED,
    }
)
"""Why an entry cannot be written or read, and may be later."""

OnChange = Callable[[str, str, Mapping[str, Hashable]], None]
"""Namespace, cache, and by data key a value that differs where the entry is another one by now."""


class Followed(Protocol):
    """The entries that somebody waits for, as they are whenever it is asked.

    There may be many: none of these makes a copy, so do not keep what they give.
    """

    @property
    def caches(self) -> Collection[Cache]:
        """Their caches."""

    @property
    def caches_of(self) -> Mapping[str, Collection[str]]:
        """The names of these by Namespace."""

    def data_keys(self, namespace: str, cache: str) -> Collection[str]:
        """The data keys of those in this cache."""


class CacheInfo(NamedTuple):
    """What a cache comes to."""

    namespace: str
    cache: str
    entries: int
    bytes: int
    """Of the entries' texts."""


class CacheFill(NamedTuple):
    """How full something is that has a limit: a ConfigMap, or what a Namespace may have of the database."""

    namespace: str
    bytes: int
    limit: int


class EntryInfo(NamedTuple):
    """What is known of an entry without its outputs; times are aware, None where it does not say."""

    data_key: str
    bytes: int
    """Of its text."""
    created: datetime | None
    last_hit: datetime | None
    expires: datetime | None
    """By its own `maxAge`."""
    template: str = ""
    """That it was made by; "" where the entry does not say."""


def entry_info(data_key: str, text: str) -> EntryInfo:
    """Describe the entry with this text; without times, where it is none."""
    size = configmap.size(text)
    try:
        entry = Entry.parse(text)
    except BrokenEntry:
        return EntryInfo(data_key, size, None, None, None)
    template = entry.template[: argo.LONGEST_TEMPLATE]
    return EntryInfo(data_key, size, entry.created, entry.last_hit, entry.expires, template)


class Found(NamedTuple):
    """An entry that was looked for by something else than its data key."""

    data_key: str
    text: str


class Page(NamedTuple, Generic[T]):
    """A part of a list, in no order that means anything."""

    items: Sequence[T]
    after: str
    """Asks for the next page; "" where there is none. It means something to the store alone."""


class Store(Protocol):
    """Entries by namespace, cache and data key.

    No method raises for what others do to it: a store out of reach is an Outcome, whose reason is one of
    NOT_NOW where the same may work later. A name that could be no cache's holds nothing.
    """

    # --- For steps ------------------------------------------------------------------------------------

    async def read(
        self, namespace: str, cache: str, data_key: str, seconds: float | None = READ_TIMEOUT
    ) -> str | Outcome:
        """Give the text of the entry, "" for none; an Outcome where that is not known, or it is no cache.

        No older than the last change that the store heard of, and than what was put here, before the call.
        RateLimited or Undecided where it takes more than `seconds`; then `on_change` is told of it
        later, if the entry is followed. None: however long it takes. StoreUnavailable: it is not worth a
        wait.
        """

    async def put(self, namespace: str, cache: str, data_key: str, text: str, now: datetime) -> Outcome:
        """Keep the entry; Stored, or why not, within some ten seconds. `now` is aware.

        It replaces an older one, and logs what is lost. An entry whose time is over may still arrive, if its
        last request was not answered.
        """

    def hit(self, namespace: str, cache: str, data_key: str, text: str) -> None:
        """Remember that the entry with this text answered a step. Returns at once; best effort."""

    async def drop(self, namespace: str, cache: str, data_key: str, text: str) -> bool | Outcome:
        """Take the entry away, for good, if it still has this text.

        Whether it did, or why that could not be done. Tried once: who finds it again asks again.
        """

    # --- For those who wait ---------------------------------------------------------------------------

    def knows(self, namespace: str) -> bool:
        """Whether changes of the Namespace's entries are heard of: only then is no entry a miss."""

    def last_contact(self, namespace: str) -> float:
        """When the store was last known to be well, by the clock that it was given ("": for all Namespaces).

        Minus infinity while it is not, or changes may have been missed.
        """

    def subscribe(self, on_change: OnChange, followed: Followed) -> None:
        """Have `on_change` called after followed entries may have changed, once for several of a cache.

        Also of all of them each time that the store has come in sync, or is away. `followed` is asked each
        time; neither must block. There is one subscriber.
        """

    # --- For people -----------------------------------------------------------------------------------

    async def delete(self, namespace: str, cache: str, data_key: str) -> bool | Outcome:
        """Take the entry away, for good; whether there was one, or why that could not be done."""

    async def entries(
        self, namespace: str, cache: str, after: str = "", limit: int = 500
    ) -> Page[EntryInfo] | Outcome:
        """List the entries of a cache, `limit` at most; `after` is that of the page before."""

    async def earlier(
        self, namespace: str, cache: str, template: str, but_not: str, before: datetime | None
    ) -> Found | Outcome | None:
        """Find what `memoize.earlier` says of the cache; None where there is none."""

    async def caches(self, namespace: str, after: str = "", limit: int = 500) -> Page[CacheInfo] | Outcome:
        """List the caches of a Namespace, of all for "", `limit` at most; `after` as with `entries`."""

    # --- For the process ------------------------------------------------------------------------------

    @property
    def in_sync(self) -> bool:
        """Whether `knows` is true of every Namespace that is looked after."""

    @property
    def kept_bytes(self) -> int:
        """How much memory is taken by what was read and is kept."""

    def fills(self) -> Iterable[CacheFill]:
        """How full everything is of which that is known; nothing is read for it."""

    async def run(self) -> object:
        """Do what is to be done in the background, for ever."""

    async def close(self) -> None:
        """Give up what still waits to be written."""
