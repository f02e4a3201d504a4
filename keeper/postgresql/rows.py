"""What a row says of an entry; pure."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from memoize import configmap, spec
from memoize.entry import BrokenEntry, Entry
from memoize.key import HASHED, digest, is_hashed

LONG_AGO = datetime.fromtimestamp(0, UTC)
"""When an entry was made that does not say so."""
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""IsConfigMapKey in util/validation of Kubernetes."""


class Place(NamedTuple):
    """Where an entry lies."""

    namespace: str
    cache: str
    data_key: str

    @property
    def valid(self) -> bool:
        """Whether an entry could lie there, in either store. Nothing else is sent to a server."""
        return is_cache(self.namespace, self.cache) and bool(_DATA_KEY.fullmatch(self.data_key))

    @property
    def row(self) -> tuple[str, str, str]:
        """The row's primary key, its digest in hexadecimal digits."""
        return self.namespace, self.cache, digest_of(self.data_key)


class Times(NamedTuple):
    """What the entry says of itself; all are aware."""

    created: datetime
    expires: datetime | None
    last_hit: datetime | None


def is_cache(namespace: str, cache: str) -> bool:
    """Whether these could be a cache's names."""
    return spec.is_dns1123_subdomain(namespace) and spec.is_dns1123_subdomain(cache)


def digest_of(data_key: str) -> str:
    """The SHA-256 in hexadecimal digits of the memoize key that has this data key."""
    return data_key.removeprefix(HASHED) if is_hashed(data_key) else digest(data_key)


def times_of(text: str) -> Times:
    """When an entry with this text was made, last hit, and expires; LONG_AGO where it does not say."""
    try:
        entry = Entry.parse_times(text)
    except BrokenEntry:
        return Times(LONG_AGO, None, None)
    return Times(entry.created or LONG_AGO, entry.expires, entry.last_hit)


def size(text: str) -> int:
    """Bytes of the text."""
    return configmap.size(text)


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no bare NUL, no half of a surrogate. JSON escapes both."""
    try:
        return bool(text) and "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False
