"""Short digests of what a computed key is made of, by the names of the parts: what tells two keys apart.

They travel on the Pod and in the entry, so they are bounded: where there are many parts, a group of them
(`env` for `env/A` and `env/B`) has one digest.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

LENGTH = 8
"""Hex digits of a digest: enough to see that a part changed, and little of what it was."""
LONGEST = 1024
"""Bytes of all of them as JSON at most."""
_DIGEST = re.compile(rf"[0-9a-f]{{{LENGTH}}}")
_MOST_GROUPS = 32
"""Groups that are made one by one, all names being looked at for each; then all there are."""
_DEPTH = 3
"""Slashes in a name at most: `containers/a/env/NAME`."""


def digest(value: Any) -> str:
    """The SHA-256 of JSON in its canonical form: members by their names, no white space, ASCII."""
    return hashlib.sha256(encode(value).encode()).hexdigest()


encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""JSON in that form."""


def flat(name: object) -> str:
    """A name that somebody gave, as the last word of a part's: slashes separate groups."""
    return str(name).replace("%", "%25").replace("/", "%2F")


def short(digests: Mapping[str, str]) -> Mapping[str, str]:
    """The beginnings of the digests, in groups until they are no longer than LONGEST, the longest first."""
    found = {name: one[:LENGTH] for name, one in digests.items()}
    for _ in range(_MOST_GROUPS):
        if len(encode(found)) <= LONGEST:
            return found
        lengths: dict[str, int] = {}
        for name in found:
            if group := _group(name):
                lengths[group] = lengths.get(group, 0) + len(name) + LENGTH
        if not lengths:
            return found
        found = collapsed(found, max(sorted(lengths), key=lengths.__getitem__))
    for head in sorted({name.partition("/")[0] for name in found}):
        found = collapsed(found, head)
    return found


def checked(value: object) -> Mapping[str, str]:
    """The value if `short` may have made it, else nothing: anybody can write another."""
    if not isinstance(value, dict) or len(value) > LONGEST:
        return {}
    for name, one in value.items():
        if not isinstance(one, str) or not _DIGEST.fullmatch(one) or name.count("/") > _DEPTH:
            return {}
    return value if len(encode(value)) <= LONGEST else {}


def parsed(text: object) -> Mapping[str, str]:
    """What `checked` says of a JSON text."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        return checked(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def collapsed(found: Mapping[str, str], group: str) -> dict[str, str]:
    """The same short digests with one for all parts of the group.

    It is made of its own groups' digests: whether those were made one before makes no difference.
    """
    kept = {name: one for name, one in found.items() if not name.startswith(f"{group}/")}
    inside = {name: one for name, one in found.items() if name not in kept}
    for depth in range(_DEPTH, group.count("/"), -1):
        groups: dict[str, dict[str, str]] = {}
        for name, one in inside.items():
            groups.setdefault(_group(name) if name.count("/") == depth else name, {})[name] = one
        inside = {
            at: members[at] if members.keys() == {at} else digest(sorted(members.items()))[:LENGTH]
            for at, members in groups.items()
        }
    return {**kept, **inside}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names of the parts in which two keys differ, by their short digests, in order.

    Where one of them has a digest for a group alone, so is the other taken.
    """
    for group in sorted(before.keys() | after.keys()):
        if any(name.startswith(f"{group}/") for name in (*before, *after)):
            before, after = collapsed(before, group), collapsed(after, group)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _group(name: str) -> str:
    """The group that a part is in, "" for none."""
    return name.rpartition("/")[0]
