"""What a row says of an entry; pure."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from argo import names as argo
from memoize import configmap, spec
from memoize.entry import BrokenEntry, Entry
from memoize.key import HASHED, digest, is_hashed

LONG_AGO = datetime.fromtimestamp(0, UTC)
"""When an entry was made that does not say so."""
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""IsConfigMapKey in util/validation of Kubernetes."""


_TEMPLATE = re.compile(rf"[-a-zA-Z0-9]{{1,{argo.LONGEST_TEMPLATE}}}")
"""A template's name (workflowFieldNameFmt in Argo's workflow/validate/validate.go). Anybody may have written
an entry, so nothing else becomes a column."""


class EntryRef(NamedTuple):
    """Where an entry lies."""

    namespace: str
    cache: str
    data_key: str

    @property
    def valid(self) -> bool:
        """Whether an entry could lie there, in either store. Nothing else is sent to a server."""
        return is_cache(self.namespace, self.cache) and is_data_key(self.data_key)

    @property
    def row(self) -> tuple[str, str, str]:
        """The row's primary key, its digest in hexadecimal digits."""
        return self.namespace, self.cache, digest_of(self.data_key)


class _Columns(NamedTuple):
    """What an entry says of itself; times are aware."""

    created: datetime
    expires: datetime | None = None
    last_hit: datetime | None = None
    template: str | None = None


def is_cache(namespace: str, cache: str) -> bool:
    """Whether these could be a cache's names."""
    return spec.is_dns1123_subdomain(namespace) and spec.is_dns1123_subdomain(cache)


def is_data_key(text: str) -> bool:
    """Whether this could be a data key."""
    return bool(_DATA_KEY.fullmatch(text))


def is_template(text: str) -> bool:
    """Whether this could be a template's name."""
    return bool(_TEMPLATE.fullmatch(text))


def digest_of(data_key: str) -> str:
    """The SHA-256 in hexadecimal digits of the memoize key that has this data key."""
    return data_key.removeprefix(HASHED) if is_hashed(data_key) else digest(data_key)


def created_of(text: str) -> datetime:
    """When an entry with this text was made; LONG_AGO where it does not say."""
    return _columns(text).created


def put_arguments(place: EntryRef, text: str) -> tuple[object, ...]:
    """The arguments of `sql.PUT` for an entry with this text."""
    return *place.row, place.data_key, text, size(text), *_columns(text)


def _columns(text: str) -> _Columns:
    try:
        entry = Entry.parse_times(text)
    except BrokenEntry:
        return _Columns(LONG_AGO)
    template = entry.template if is_template(entry.template) else None
    return _Columns(entry.created or LONG_AGO, entry.expires, entry.last_hit, template)


def size(text: str) -> int:
    """Bytes of the text."""
    return configmap.size(text)


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no bare NUL, no half of a surrogate. JSON escapes both."""
    try:
        return bool(text) and "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False
