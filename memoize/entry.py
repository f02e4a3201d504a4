"""One entry of a cache: the JSON that Argo keeps for a memoize key, and what it is worth to a step.

Argo's fields are those of Entry in workflow/controller/cache/cache.go. Our own lie under one object,
`stepmemo`; Argo drops it when it rewrites an entry on a hit of its own, so every field of it is optional.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from memoize import duration, keyparts, strictjson
from memoize.key import belongs
from memoize.outputs import BrokenOutputsError, Declared, Outputs, missing, sound
from memoize.reasons import Reason

_NANOSECONDS = 1_000_000_000
_OWN = "stepmemo"
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
LONGEST_TOOK = 1_000_000_000
"""Seconds, thirty years: a step that took longer was not measured but made up."""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
"""RFC 3339 as metav1.Time reads it; Python alone would take more of ISO 8601."""


class BrokenEntry(ValueError):  # noqa: N818 - named as Reason.BROKEN_ENTRY, which it becomes
    """Text that is not an entry as Argo or stepmemo would write it; the message never repeats a value."""


class Memoized(Protocol):
    """What a look-up must know of a step: a Memo, or the sidecar's Step."""

    @property
    def data_key(self) -> str:
        """The data key of the memoize key."""

    @property
    def max_age(self) -> str:
        """A Go duration, or empty."""


class Entry(NamedTuple):
    """An entry; `created` and `last_hit` are aware, None where Argo wrote null or nothing.

    `key` (see memoize.key.belongs) and `max_age` are what the writing step said, `pod` and `workflow` who it
    was; empty where the entry does not say. `took` are the seconds that the step ran, 0 where the entry does
    not say. `template` is the name of its template and `parts` are short digests of what its key was computed
    from (memoize.keyparts), where it was computed. `etags` are those of its artifacts by their names, as far
    as they were known when it was stored (RFC 9110, 8.8.3). `extra` and `own_extra` hold fields we do not
    know, of the entry and of its `stepmemo`.
    """

    node_id: str
    outputs: Outputs | None
    created: datetime | None
    last_hit: datetime | None
    key: str = ""
    max_age: str = ""
    pod: str = ""
    workflow: str = ""
    took: float = 0
    template: str = ""
    parts: Mapping[str, str] = _NOTHING
    etags: Mapping[str, str] = _NOTHING
    extra: Mapping[str, Any] = _NOTHING
    own_extra: Mapping[str, Any] = _NOTHING

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Read an entry; BrokenEntry for anything that Argo would not take for one (or for a hit)."""
        try:
            fields = _fields(strictjson.loads(text), "entry")
            outputs = sound(fields.pop("outputs", None))
        except BrokenEntry:
            raise
        except (BrokenOutputsError, ValueError) as error:
            raise BrokenEntry(str(error)) from None
        own = _fields(fields.pop(_OWN, None) or {}, _OWN)
        node_id = _text(fields, "nodeID")
        if not node_id:
            raise BrokenEntry("nodeID is empty")
        return cls(
            node_id=node_id,
            outputs=outputs,
            created=_time(fields, "creationTimestamp"),
            last_hit=_time(fields, "lastHitTimestamp"),
            key=_text(own, "key"),
            max_age=_text(own, "maxAge"),
            pod=_text(own, "pod"),
            workflow=_text(own, "workflow"),
            took=_seconds(own, "tookSeconds"),
            template=_text(own, "template"),
            parts=_parts(own),
            etags=_texts(own, "etags"),
            extra=fields,
            own_extra=own,
        )

    @classmethod
    def parse_times(cls, text: str) -> "Entry":
        """Read an entry's times, `max_age` and `template` alone, in a fifth of the time; BrokenEntry.

        What this reads `parse` may still refuse.
        """
        try:
            fields = _fields(json.loads(text), "entry")
        except BrokenEntry:
            raise
        except (ValueError, RecursionError):
            raise BrokenEntry("not JSON") from None
        own = _fields(fields.get(_OWN) or {}, _OWN)
        return cls(
            node_id="",
            outputs=None,
            created=_time(fields, "creationTimestamp"),
            last_hit=_time(fields, "lastHitTimestamp"),
            max_age=_text(own, "maxAge"),
            template=_text(own, "template"),
        )

    def dump(self) -> str:
        """The entry's text, as short as JSON allows; ASCII, so that any client can carry it."""
        own: dict[str, Any] = {
            "key": self.key,
            "maxAge": self.max_age,
            "pod": self.pod,
            "workflow": self.workflow,
            "tookSeconds": self.took,
            "template": self.template,
            "parts": dict(self.parts),
            "etags": {**self.etags},
        }
        own = {**{name: value for name, value in own.items() if value}, **self.own_extra}
        fields: dict[str, Any] = {
            "nodeID": self.node_id,
            "outputs": self.outputs,
            "creationTimestamp": self.created and timestamp(self.created),
            "lastHitTimestamp": self.last_hit and timestamp(self.last_hit),
            **self.extra,
        }
        if own:
            fields[_OWN] = own
        return json.dumps(fields, separators=(",", ":"))

    def older_than(self, max_age: str, now: datetime) -> bool:
        """Whether the entry is too old under `max_age`, a Go duration ("" never is); DurationError.

        An entry from the future (a clock was wrong) is new. One without a creation time is older than
        anything, as in Argo. A max_age of zero or less is never met.
        """
        if not max_age:
            return False
        limit = duration.parse(max_age)
        if limit <= 0 or self.created is None:
            return True
        age = now - self.created
        seconds = age.days * 86_400 + age.seconds
        return seconds * _NANOSECONDS + age.microseconds * 1_000 > limit

    def expired(self, now: datetime) -> bool:
        """Whether it is too old by its own word: then it answers hardly any step any more."""
        return self.expires is not None and self.expires <= now

    @property
    def expires(self) -> datetime | None:
        """From when on the entry is too old by its own `max_age`; None for never, or what is no duration.

        One that is too old whatever the time expired when it was made, or at the beginning of time.
        """
        if not self.max_age:
            return None
        try:
            limit = duration.parse(self.max_age)
            if limit <= 0 or self.created is None:
                return self.created or _LONG_AGO
            # Not before `older_than` says so: a microsecond is the least that a datetime can tell.
            return self.created + timedelta(microseconds=limit // 1_000 + 1)
        except (ValueError, OverflowError):
            return None


class Hit(NamedTuple):
    """The entry answers the step."""

    entry: Entry


class Miss(NamedTuple):
    """No entry answers the step, and why."""

    reason: Reason
    detail: str = ""


def look_up(data: Mapping[str, str], memo: Memoized, declared: Declared, now: datetime) -> Hit | Miss:
    """Say whether the cache's `data` answers a step that declares `declared`, at the time `now` (aware).

    An entry answers when it is sound, of this very key, not older than max_age, and complete: Argo leaves
    a node Running for ever, or loses an output, where a result lacks what the template declares.
    """
    text = data.get(memo.data_key)
    if not text:
        return Miss(Reason.MISS)
    try:
        entry = Entry.parse(text)
    except BrokenEntry as error:
        return Miss(Reason.BROKEN_ENTRY, str(error))
    if not belongs(entry.key, memo.data_key):
        return Miss(Reason.KEY_MISMATCH, "the entry is of another key")
    try:
        if entry.older_than(memo.max_age, now):
            return Miss(Reason.EXPIRED, f"older than {memo.max_age}")
    except duration.DurationError as error:
        return Miss(Reason.INVALID_ANNOTATIONS, f"max-age {error}")
    if lacks := missing(entry.outputs, declared):
        return Miss(Reason.INCOMPLETE_ENTRY, f"without {', '.join(lacks)}")
    return Hit(entry)


def _fields(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BrokenEntry(f"{name} is not an object")
    return dict(value)


def _text(fields: dict[str, Any], name: str) -> str:
    """Take a string out of `fields`; an absent one and null are empty."""
    value = fields.pop(name, None)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BrokenEntry(f"{name} is not a string")
    return value


def _parts(fields: dict[str, Any]) -> Mapping[str, str]:
    """Take the digests of a computed key out of `fields`; what is in another form stays, and is none."""
    parts = keyparts.checked(fields.get("parts"))
    if parts:
        del fields["parts"]
    return parts


def _texts(fields: dict[str, Any], name: str) -> Mapping[str, str]:
    """Take an object of strings out of `fields`; anything else is left there, as a field we do not know."""
    value = fields.get(name)
    if not isinstance(value, dict) or not value or not all(isinstance(one, str) for one in value.values()):
        return _NOTHING
    fields.pop(name)
    return value


def _seconds(fields: dict[str, Any], name: str) -> float:
    """Take a number of seconds out of `fields`; an absent one and null are 0."""
    value = fields.pop(name, None)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_TOOK:
        raise BrokenEntry(f"{name} is not a number of seconds")
    return value


def _time(fields: dict[str, Any], name: str) -> datetime | None:
    """Take a metav1.Time out of `fields`: RFC 3339, with any offset and fraction, or null."""
    value = fields.pop(name, None)
    if value is None:
        return None
    try:
        if isinstance(value, str) and _TIME.fullmatch(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BrokenEntry(f"{name} is not a time")


def timestamp(time: datetime) -> str:
    """An aware time as metav1.Time writes it: UTC, whole seconds."""
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
