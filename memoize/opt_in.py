"""`stepmemo.dev/memoize` and `stepmemo.dev/mode`, wherever a person may write them.

For one template the nearest value counts: its own annotation, then its holder's annotation or label, then the
Namespace's label. Writing `stepmemo.dev/key` oneself is an opt-in where none stands anywhere.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from argo import tags
from argo.fields import FieldError, Kind, Misspelt, misspelt
from argo.shape import mapping
from memoize import names

_MEMOIZE = {"true": True, "false": False}
_VALIDATE = ("enforce", "warn", "off")
BY_A_PERSON = (
    names.KEY,
    names.CACHE,
    names.MAX_AGE,
    names.KEY_IGNORE,
    names.SALT,
    names.MEMOIZE,
    names.MODE,
    names.SINGLE_FLIGHT,
    names.GATED,
)
"""Words that a person writes on templates, some of them elsewhere too."""
ON_TEMPLATE = frozenset({*BY_A_PERSON, names.MANAGED, names.CONFIG_MAP, names.GATED_FOR})
KNOWN = frozenset({*ON_TEMPLATE, names.VALIDATE})


class Mode(StrEnum):
    """The words of names.MODE."""

    USE = "use"
    REFRESH = "refresh"
    READONLY = "readonly"
    OFF = "off"


_CHOICES = (
    (names.MEMOIZE, tuple(_MEMOIZE)),
    (names.MODE, tuple(Mode)),
    (names.SINGLE_FLIGHT, tuple(_MEMOIZE)),
    (names.GATED, tuple(_MEMOIZE)),
)


def of_template(annotations: Mapping[str, Any]) -> bool | None:
    """The word in a template's annotations.

    One with tags counts as true: what it turns into stands on the Pod, and is read there.
    """
    word = annotations.get(names.MEMOIZE)
    if isinstance(word, str) and tags.has_tags(word):
        return True
    return _MEMOIZE.get(word) if isinstance(word, str) else None


def of_holder(obj: Mapping[str, Any]) -> bool | None:
    """The word on the object that holds templates: an annotation counts before a label."""
    metadata = mapping(obj.get("metadata"))
    field = place_of_holder(metadata)
    return None if field is None else of_labels(metadata[field])


def place_of_holder(metadata: Mapping[str, Any]) -> str | None:
    """The field of an object's metadata that its word stands in, None where it says none."""
    fields = ("annotations", "labels")
    return next((field for field in fields if of_labels(mapping(metadata.get(field))) is not None), None)


def of_labels(labels: Mapping[str, Any]) -> bool | None:
    """The word among labels; anything but the two words is none."""
    word = labels.get(names.MEMOIZE)
    return _MEMOIZE.get(word) if isinstance(word, str) else None


def validation(namespace_labels: Mapping[str, str] | None, default: str) -> str:
    """`enforce`, `warn` or `off`: the Namespace's word, else the server's."""
    word = (namespace_labels or {}).get(names.VALIDATE)
    return word if word in _VALIDATE else default


def in_metadata(obj: Mapping[str, Any]) -> list[Any]:
    """All words of ours in an object's metadata, for comparing two versions of it."""
    metadata = mapping(obj.get("metadata"))
    fields = (mapping(metadata.get(field)) for field in ("annotations", "labels"))
    return [{name: field[name] for name in KNOWN if name in field} for field in fields]


def errors(annotations: Mapping[str, Any], path: str, *, may_hold_tags: bool) -> Iterator[FieldError]:
    """Words in the annotations at `path` (`metadata.annotations`, `metadata.labels`) that mean nothing."""
    for name, known in _CHOICES:
        word = annotations.get(name)
        if word is None or (
            isinstance(word, str) and (word in known or (may_hold_tags and tags.has_tags(word)))
        ):
            continue
        quoted = [f'"{choice}"' for choice in known]
        detail = f"must be {', '.join(quoted[:-1])} or {quoted[-1]}"
        if isinstance(word, str):
            yield FieldError(f"{path}[{name}]", Kind.NOT_SUPPORTED, detail, word)
        else:
            yield FieldError(f"{path}[{name}]", Kind.TYPE_INVALID, f"{detail}, in quotes", word)


def meant(name: str) -> Misspelt:
    """What an unknown name of our domain may have been meant for."""
    return misspelt(name, BY_A_PERSON)
