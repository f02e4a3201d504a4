"""What admission decided about a Pod that is decided outside of itself: an annotation, read by the keeper.

One of the two texts that cross between the programs (the other: keeper_status.py), and they may be of two
releases. So it bears a version. A field that is not known is ignored; one that is absent has a value with
which nothing can go wrong. A change that an older reader would get wrong is another version, and the keeper
says which ones it reads.
"""

import json
from typing import Any, NamedTuple

VERSION = 1
"""The version that is written."""
READS = frozenset({VERSION})
"""The versions that are read."""
LONGEST = 16 * 1024
"""Characters of a plan at most. Of what it says the ConfigMap's name and the data key are the longest, of 253
characters each, so that one of ours is far below it."""
LONGEST_WAIT = 30 * 86_400
"""Seconds that a plan may let a Pod wait; whoever makes Pods can write more."""


class Plan(NamedTuple):
    """The plan for one Pod."""

    cache: str
    """With `data_key` it names the entry: the ConfigMap …"""
    data_key: str
    """… and the key in its data."""
    share: bool = False
    """It may wait for an equal step, and equal steps for it."""
    capture: bool = False
    """Its outputs are to be stored."""
    gc: bool = True
    """Argo may delete artifacts that do not say `Never` themselves."""
    wait_seconds: int = 0
    """How long it may wait for an equal step from its creationTimestamp on, so by the API server's clock."""

    def to_json(self) -> str:
        """The value of names.PLAN."""
        fields = {
            "version": VERSION,
            "cache": self.cache,
            "dataKey": self.data_key,
            "share": self.share,
            "capture": self.capture,
            "gc": self.gc,
            "waitSeconds": self.wait_seconds,
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The inverse of to_json; ValueError for anything else, since whoever makes Pods can write it."""
        if len(text) > LONGEST:
            raise ValueError("too long for a plan")
        fields = json.loads(text)
        version = _field(fields, "version", int)
        if version not in READS:
            raise ValueError(f"a plan of version {version}")
        return cls(
            cache=_field(fields, "cache", str),
            data_key=_field(fields, "dataKey", str),
            share=_field(fields, "share", bool, False),
            capture=_field(fields, "capture", bool, False),
            gc=_field(fields, "gc", bool, True),
            wait_seconds=min(max(0, _field(fields, "waitSeconds", int, 0)), LONGEST_WAIT),
        )


def _field(fields: Any, name: str, kind: type, default: object = None) -> Any:
    """The field's value, or `default` where it is absent; ValueError where it is not of that kind."""
    value = fields.get(name, default) if isinstance(fields, dict) else None
    if type(value) is not kind:
        raise ValueError(f"not a plan: {name}")
    return value
