"""What admission decided about a Pod that is decided outside of itself: an annotation, read by the keeper."""

import json
from typing import NamedTuple

LONGEST = 16 * 1024
"""Characters of a plan at most. Of what it says the ConfigMap's name and the data key are the longest, of 253
characters each, so that one of ours is far below it."""


class Plan(NamedTuple):
    """The plan for one Pod.

    `cache` and `data_key` name the entry. `share`: it may wait for an equal step, until `until` at the latest
    (RFC 3339). `capture`: its outputs are to be stored. `gc`: Argo may delete artifacts that do not say
    `Never` themselves.
    """

    cache: str
    data_key: str
    share: bool
    capture: bool
    gc: bool
    until: str

    def to_json(self) -> str:
        """The value of names.PLAN."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The inverse of to_json; ValueError for anything else, since whoever makes Pods can write it.

        Fields that are not known are left out: a replica of another version may have written it.
        """
        if len(text) > LONGEST:
            raise ValueError("too long for a plan")
        fields = json.loads(text)
        if not isinstance(fields, dict) or not set(cls._fields) <= set(fields):
            raise ValueError("not a plan")
        if any(type(fields[name]) is not kind for name, kind in cls.__annotations__.items()):
            raise ValueError("not a plan")
        return cls(*(fields[name] for name in cls._fields))
