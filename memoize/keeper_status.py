"""What the keeper that acts says of itself, in an annotation of its Lease; admission goes by it.

The other text that crosses between the two programs (see plan.py), under the same rules: it bears a version,
a field that is not known is ignored, and one that is absent has a value with which nothing can go wrong.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any

VERSION = 1
"""The version that is written, and the only one that is read."""
LONGEST = 16 * 1024
"""Bytes of the annotation at most; a watch of the Lease carries it at every renewal."""
MOST_NAMES = 100
"""Namespaces of one list at most; more of them are written as `*`, all."""
MOST_STEPS = 200
"""Steps whose last Pod met trouble, at most."""
_ALL = "*"


class Known(Enum):
    """What is known of an entry."""

    FRESH = "fresh"
    ABSENT = "absent"
    """Not there, no entry, or too old."""
    UNKNOWN = "unknown"
    """The caches are not in sync, or nobody looks after the Namespace's."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Some Namespaces, or all of them."""

    names: frozenset[str] = frozenset()
    all: bool = False

    def __contains__(self, namespace: object) -> bool:
        return self.all or namespace in self.names

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, names: Collection[str]) -> "Namespaces":
        """These; all where they are too many for a list."""
        return EVERY if len(names) > MOST_NAMES else cls(frozenset(names))


EVERY = Namespaces(all=True)
NONE = Namespaces()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperStatus:
    """What the keeper says."""

    ready: bool = False
    """A Pod that is gated now will be decided soon."""
    keeps: Namespaces = NONE
    """Those whose Pods it keeps. A Pod that is gated elsewhere waits for ever."""
    wait_seconds: int = 0
    """The longest that a Pod may wait for an equal step, in seconds."""
    plans: frozenset[int] = frozenset()
    """The versions of plans that it reads."""
    backlogged: Namespaces = NONE
    """Those whose new Pods wait longer than they should."""
    stopped: Namespaces = NONE
    """Those where no container of ours is to be injected (`breaker`) …"""
    trial: Namespaces = NONE
    """… and those where one is, now and then, to see."""
    troubled: tuple[str, ...] = ()
    """`digest` of steps whose last Pod had a container of ours that could not start. Where there is no room
    for all, the first are told."""

    def to_json(self) -> str:
        """The value of names.KEEPER_STATUS, of LONGEST bytes at most.

        The longest list gives way first: Namespaces are told as all, of the troubled steps the second half is
        left out.
        """
        told = self
        while len(text := told._text()) > LONGEST:
            lists = {
                "backlogged": told.backlogged.names,
                "stopped": told.stopped.names,
                "trial": told.trial.names,
                "troubled": told.troubled,
            }
            longest = max(lists, key=lambda name: sum(map(len, lists[name])))
            if not lists[longest]:
                # Only the Namespaces kept are left, which somebody listed in a flag: nobody is gated then.
                return KeeperStatus(plans=self.plans)._text()
            half = told.troubled[: len(told.troubled) // 2]
            shorter: dict[str, Any] = {longest: half if longest == "troubled" else EVERY}
            told = replace(told, **shorter)
        return text

    def _text(self) -> str:
        fields = {
            "version": VERSION,
            "ready": self.ready,
            "keeps": _told(self.keeps),
            "waitSeconds": self.wait_seconds,
            "plans": sorted(self.plans),
            "backlogged": _told(self.backlogged),
            "stopped": _told(self.stopped),
            "trial": _told(self.trial),
            "troubled": self.troubled[:MOST_STEPS],
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "KeeperStatus | None":
        """The inverse of to_json; None for what is no status of a version that is known."""
        if len(text) > LONGEST:
            return None
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict) or fields.get("version") != VERSION:
            return None
        wait = fields.get("waitSeconds")
        return cls(
            ready=fields.get("ready") is True,
            keeps=_read(fields, "keeps"),
            wait_seconds=max(0, wait) if type(wait) is int else 0,
            plans=frozenset(one for one in _list(fields, "plans") if type(one) is int),
            backlogged=_read(fields, "backlogged"),
            stopped=_read(fields, "stopped"),
            trial=_read(fields, "trial"),
            troubled=tuple(one for one in _list(fields, "troubled") if isinstance(one, str)),
        )


def digest(namespace: str, node_id: str) -> str:
    """A short name for a step: 8 bytes as hexadecimal digits."""
    return sha256(f"{namespace}/{node_id}".encode()).hexdigest()[:16]


def _told(namespaces: Namespaces) -> object:
    return _ALL if namespaces.all else sorted(namespaces.names)


def _read(fields: Mapping[str, Any], name: str) -> Namespaces:
    if fields.get(name) == _ALL:
        return EVERY
    return Namespaces(frozenset(one for one in _list(fields, name) if isinstance(one, str)))


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []
