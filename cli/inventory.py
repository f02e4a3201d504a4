"""What a person wants to know of caches and their entries, from the ConfigMaps as they were read; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from argo.artifacts import DRIVERS
from argo.shape import mapping
from memoize import capacity, configmap, duration
from memoize.entry import BrokenEntry, Entry, timestamp
from memoize.event import brief
from memoize.key import data_key as data_key_of
from memoize.key import is_hashed

STORE, POSTGRESQL = "ConfigMap", "postgresql"
"""A store as a table names it, and the other one as the keeper does."""
_STORES = {"configmap": STORE, POSTGRESQL: "PostgreSQL"}
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CacheRow:
    """A cache, which is a ConfigMap or lies in a database; None is what is not known of that one."""

    namespace: str
    name: str
    entries: int | None
    """None where the ConfigMap is too large to be read."""
    others: int | None
    """Values that are no entry of Argo's or stepmemo's: they answer no step."""
    bytes: int
    """Of all values, as Kubernetes counts them against the limit."""
    limit: int | None
    last_hit: datetime | None
    oldest: datetime | None
    store: str = STORE

    @classmethod
    def kept(cls, namespace: str, found: Mapping[str, Any], store: str) -> "CacheRow":
        """What the keeper says of a cache, and of the store."""
        name, entries, size = str(found["cache"]), int(found["entries"]), int(found["bytes"])
        return cls(namespace, name, entries, None, size, None, None, None, _STORES.get(store, store))

    @classmethod
    def of(cls, found: Mapping[str, Any], limit: int = configmap.MOST_BYTES) -> "CacheRow":
        """Read a ConfigMap of `limit` bytes, or its metadata alone where it is too large for more."""
        metadata = mapping(found.get("metadata"))
        data = configmap.data(found)
        entries = [entry for text in data.values() if isinstance(entry := read(text), Entry)]
        hits = [entry.last_hit for entry in entries if entry.last_hit]
        made = [entry.created for entry in entries if entry.created]
        return cls(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata.get("name") or ""),
            entries=None if found.get("kind") == "PartialObjectMetadata" else len(entries),
            others=len(data) - len(entries),
            bytes=sum(map(configmap.size, data.values())),
            limit=capacity.limit(found, limit).bytes,
            last_hit=max(hits, default=None),
            oldest=min(made, default=None),
        )

    def row(self, now: datetime) -> list[str]:
        """The cells of CACHES."""
        read = self.entries is not None
        return [
            self.namespace,
            self.name,
            self.store,
            str(self.entries) if read else "?",
            size(self.bytes) if read else "?",
            "" if self.limit is None else f"{100 * self.bytes / self.limit:.0f}%" if read else "?",
            ago(self.last_hit, now),
            ago(self.oldest, now),
            "" if self.others is None else str(self.others),
            "" if self.limit is None else size(self.limit),
        ]

    def item(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "namespace": self.namespace,
            "cache": self.name,
            "store": self.store,
            "entries": self.entries,
            "notEntries": self.others,
            "bytes": self.bytes,
            "limitBytes": self.limit,
            "lastHit": _time(self.last_hit),
            "oldest": _time(self.oldest),
        }


@dataclass(frozen=True, slots=True)
class Item:
    """What lies under one data key of a cache."""

    data_key: str
    bytes: int
    entry: Entry | BrokenEntry

    @property
    def key(self) -> str:
        """The memoize key; the data key where the entry does not say it, and that does not spell it out."""
        return (self.entry.key if isinstance(self.entry, Entry) else "") or self.data_key

    @property
    def expires(self) -> datetime | None:
        """When it has outlived its own max-age; None where it says none."""
        if isinstance(self.entry, BrokenEntry) or self.entry.created is None or not self.entry.max_age:
            return None
        try:
            return self.entry.created + timedelta(microseconds=duration.parse(self.entry.max_age) / 1000)
        except (duration.DurationError, OverflowError):
            return None

    def row(self, now: datetime) -> list[str]:
        """The cells of ENTRIES."""
        entry = self.entry
        if isinstance(entry, BrokenEntry):
            why = f"not an entry: {entry}"
            return [self.key, "", "", "", "", size(self.bytes), "", why, self.data_key, ""]
        return [
            self.key,
            ago(entry.created, now),
            ago(entry.last_hit, now),
            until(self.expires, now),
            brief(entry.took) if entry.took else "",
            size(self.bytes),
            template_of(entry),
            entry.workflow,
            self.data_key,
            entry.node_id,
        ]

    def item(self) -> dict[str, Any]:
        """The same for programs."""
        common: dict[str, Any] = {"key": self.key, "dataKey": self.data_key, "bytes": self.bytes}
        if isinstance(self.entry, BrokenEntry):
            return {**common, "notAnEntry": str(self.entry)}
        return {
            **common,
            "created": _time(self.entry.created),
            "lastHit": _time(self.entry.last_hit),
            "maxAge": self.entry.max_age or None,
            "expires": _time(self.expires),
            "tookSeconds": self.entry.took or None,
            "template": self.entry.template or None,
            "workflow": self.entry.workflow or None,
            "pod": self.entry.pod or None,
            "nodeID": self.entry.node_id,
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """What the keeper says of an entry in a list: neither its key, if that is long, nor its workflow."""

    data_key: str
    bytes: int
    created: datetime | None
    last_hit: datetime | None
    expires: datetime | None
    template: str

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Listed":
        """Read what keeper.api.people says."""
        return cls(
            data_key=str(found["dataKey"]),
            bytes=int(found["bytes"]),
            created=read_time(found["created"]),
            last_hit=read_time(found["lastHit"]),
            expires=read_time(found["expires"]),
            template=str(found["template"] or ""),
        )

    @property
    def used(self) -> tuple[datetime, str]:
        """What it is ordered by: when it was hit last, or made."""
        return max(self.last_hit or _BEGINNING, self.created or _BEGINNING), self.data_key

    def row(self, now: datetime) -> list[str]:
        """The cells of ENTRIES."""
        times = ago(self.created, now), ago(self.last_hit, now), until(self.expires, now)
        return [self.data_key, *times, "", size(self.bytes), self.template, "", self.data_key, ""]

    def item(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "dataKey": self.data_key,
            "bytes": self.bytes,
            "created": _time(self.created),
            "lastHit": _time(self.last_hit),
            "expires": _time(self.expires),
            "template": self.template or None,
        }


def read(text: str) -> Entry | BrokenEntry:
    """The entry, or why it is none."""
    try:
        return Entry.parse(text)
    except BrokenEntry as error:
        return error


def items(config_map: Mapping[str, Any]) -> list[Item]:
    """All of a cache, the one that was hit last, or is newest, first; what is no entry last."""
    found = [
        Item(data_key, configmap.size(text), read(text))
        for data_key, text in configmap.data(config_map).items()
    ]
    return sorted(found, key=lambda item: (used(item.entry), item.data_key), reverse=True)


def places(key: str) -> list[str]:
    """The data keys that a person may mean by a key: that of the memoize key, or a digest as it stands."""
    return [data_key_of(key), key] if is_hashed(key) else [data_key_of(key)]


def used(entry: Entry | BrokenEntry) -> datetime:
    """When it was of use last, as it was hit or made; the beginning of time where it does not say."""
    if isinstance(entry, BrokenEntry):
        return _BEGINNING
    return max(entry.last_hit or _BEGINNING, entry.created or _BEGINNING)


def template_of(entry: Entry) -> str:
    """The template that made it: its name as recorded, else by its Pod's name (`workflow-template-hash`).

    "" where neither says it.
    """
    if entry.template:
        return entry.template
    rest = entry.pod.removeprefix(f"{entry.workflow}-")
    template, _, digits = rest.rpartition("-")
    return template if entry.workflow and rest != entry.pod and digits.isdigit() else ""


def facts(item: Item, entry: Entry, now: datetime) -> Iterator[tuple[str, str]]:
    """What is known of an entry, as a name and a text each; what an entry does not record says so."""
    yield "Key", item.key
    yield "Data key", item.data_key
    exact = f"{item.bytes} bytes"
    yield "Size", exact if item.bytes < 1024 else f"{size(item.bytes)} ({exact})"
    yield "Made", _told(entry.created, now) or "not recorded: it answers no template that has a maxAge"
    yield "Expires", _expiry(item, entry, now)
    yield "Last hit", _told(entry.last_hit, now) or "not recorded"
    yield "From workflow", entry.workflow or "not recorded (Argo's own entries do not say)"
    yield "From Pod", entry.pod or "not recorded"
    yield "From template", _template(entry)
    yield "From node", entry.node_id
    yield "Took", brief(entry.took) if entry.took else "not recorded"
    yield "Saved", _saved(entry)


def _template(entry: Entry) -> str:
    if entry.template or not (template := template_of(entry)):
        return entry.template or "not recorded"
    return f"{template} (by the Pod's name)"


def _saved(entry: Entry) -> str:
    if not entry.took:
        return "not known: the entry does not record how long the step took"
    return f"{brief(entry.took)} at each hit; how many hits there were is not recorded"


def _expiry(item: Item, entry: Entry, now: datetime) -> str:
    if not entry.max_age:
        return "never by its own word; a template's maxAge counts all the same"
    if item.expires is None:
        return f"by its maxAge {entry.max_age}, which tells no time"
    left = (item.expires - now).total_seconds()
    said = f"in {brief(left)}" if left > 0 else f"{brief(-left)} ago"
    return f"{timestamp(item.expires)} ({said}; maxAge {entry.max_age})"


def _told(time: datetime | None, now: datetime) -> str:
    return f"{timestamp(time)} ({ago(time, now)} ago)" if time else ""


def outputs(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Kind, name, and value or location of what a hit would give."""
    found = mapping(entry.outputs)
    for parameter in map(mapping, found.get("parameters") or ()):
        yield "parameter", str(parameter.get("name", "")), str(parameter.get("value", ""))
    for artifact in map(mapping, found.get("artifacts") or ()):
        yield "artifact", str(artifact.get("name", "")), _location(artifact)
    if "result" in found:
        yield "result", "", str(found["result"])
    if "exitCode" in found:
        yield "exitCode", "", str(found["exitCode"])


def _location(artifact: Mapping[str, Any]) -> str:
    """Where an artifact lies: the fields of its driver that say so, as `s3 bucket=b key=k`."""
    for driver in DRIVERS:
        if isinstance(where := artifact.get(driver), dict):
            said = [f"{name}={value}" for name, value in where.items() if isinstance(value, str)]
            return " ".join([driver, *said])
    return "its location is not in the entry"


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago, in the two largest units; "" for what is not known."""
    return brief((now - time).total_seconds()) if time else ""


def until(time: datetime | None, now: datetime) -> str:
    """How long until then, or `expired`; "" for what is not known."""
    if time is None:
        return ""
    return brief((time - now).total_seconds()) if time > now else "expired"


def size(number: int) -> str:
    """Bytes for people: `812`, `3.4Ki`, `1.0Mi`."""
    if number < 1024:
        return str(number)
    return f"{number / 1024:.1f}Ki" if number < 1024 * 1024 else f"{number / (1024 * 1024):.1f}Mi"


def _time(time: datetime | None) -> str | None:
    return timestamp(time) if time else None


def read_time(text: object) -> datetime | None:
    """A time as Kubernetes, or the keeper, writes it; None for what is none."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
