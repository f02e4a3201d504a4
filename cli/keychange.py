"""In which parts a computed key differs from the one that its template had before, for people; pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from cli.inventory import ago
from memoize import autokey, keyparts, names
from memoize.entry import Entry

MOST_PARTS = 10
"""Parts that are named in a sentence; of more their number is told."""


class Earlier(NamedTuple):
    """An entry that a step's key is compared with."""

    data_key: str
    entry: Entry


def form_of(data_key: str) -> str:
    """The form of a key that was computed, "" for one that its author wrote."""
    return data_key.split("-")[1] if autokey.is_computed(data_key) else ""


def changed(data_key: str, parts: Mapping[str, str], earlier: Earlier | None) -> list[str] | None:
    """The names of the parts in which a key differs from an earlier one, in order; None if that is not known.

    It is where there is no earlier one, or it is of another form, or does not record its parts.
    """
    if earlier is None or not earlier.entry.parts:
        return None
    form = form_of(earlier.data_key)
    if not form or form != form_of(data_key):
        return None
    return keyparts.changed(earlier.entry.parts, parts)


def difference(
    data_key: str, parts: Mapping[str, str], template: str, earlier: Earlier | None, now: datetime
) -> str:
    """In which parts a key differs from an earlier one of its template: whole sentences.

    `data_key` and `parts` are the step's own.
    """
    automatic = f"Its key is {names.AUTO_KEY}."
    named = f"the template {template}" if template else "its template, whose name is not known here"
    if earlier is None:
        return f"{automatic} There is nothing to compare it with: its cache has no earlier entry of {named}."
    entry = earlier.entry
    maker = f" by workflow {entry.workflow}" if entry.workflow else ""
    which = f"the newest earlier entry of {named}, made {ago(entry.created, now)} ago{maker}"
    form, other = form_of(data_key), form_of(earlier.data_key)
    if other and form != other:
        return (
            f"{automatic} Its form is {form}, and {other} in {which}: another release of stepmemo made that, "
            "so their parts cannot be compared."
        )
    found = changed(data_key, parts, earlier)
    if found is None:
        return f"{automatic} Which part of it changed cannot be told: {which}, does not record its parts."
    changes = [_change(name, entry.parts, parts) for name in found]
    if not changes:
        return f"{automatic} Compared with {which}, no part that is recorded changed."
    more = f", and {len(changes) - MOST_PARTS} more" if len(changes) > MOST_PARTS else ""
    return f"{automatic} Compared with {which}: {', '.join(changes[:MOST_PARTS])}{more}."


def _change(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Say of one part what happened to it."""
    if not _is_in(name, before):
        return f"{words(name)} is new"
    return f"{words(name)} changed" if _is_in(name, after) else f"{words(name)} is gone"


def _is_in(name: str, parts: Mapping[str, str]) -> bool:
    return name in parts or any(one.startswith(f"{name}/") for one in parts)


_CONTAINERS = {"containers": "container", "sidecars": "sidecar", "initContainers": "init container"}
_GROUPS = {
    "mounts": "mount",
    "devices": "device",
    "volumes": "volume",
    "artifact": "input artifact",
    "output/parameter": "output parameter",
    "output/artifact": "output artifact",
    "output": "output",
    "ref/secret": "Secret",
    "ref/configmap": "ConfigMap",
    "ref": "reference",
}


def words(name: str) -> str:
    """The name of a part as words: `containers/a/env/B` is `env B of container a`."""
    kind, _, rest = name.partition("/")
    if kind in _CONTAINERS and rest:
        of, _, part = rest.partition("/")
        return f"{words(part)} of {_CONTAINERS[kind]} {of}" if part else f"{_CONTAINERS[kind]} {of}"
    for group, word in _GROUPS.items():
        if name == group:
            return f"{word}s"
        if name.startswith(f"{group}/"):
            return f"{word} {name.removeprefix(f'{group}/').replace('%2F', '/').replace('%25', '%')}"
    return name.replace("/", " ")
