"""What an author wrote about memoization: Argo's `memoize` block, or the same as flat annotations.

Both forms become one Memo, and both report everything that cannot work at once. Values may still hold
Argo's `{{…}}` tags: what a tag will turn into is not judged here, only whether Argo knows its first word.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from argo import tags
from argo.fields import FieldError, Kind, annotation, misspelt, show
from memoize import duration, names
from memoize.key import data_key, is_hashed

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SUBDOMAIN_LENGTH = 253


@dataclass(frozen=True, slots=True)
class Memo:
    """One sound memoization: the key, the cache's ConfigMap and the longest age of an entry.

    `max_age` is a Go duration, or empty: entries then never expire, as in Argo. `digest` is the data key
    where a Pod carries that alone (names.KEY_DIGEST); the key is empty then.
    """

    key: str
    cache: str
    max_age: str = ""
    digest: str = ""

    @property
    def data_key(self) -> str:
        """The data key under which the entry lies."""
        return self.digest or data_key(self.key)


def is_dns1123_subdomain(name: str) -> bool:
    """Whether Kubernetes takes `name` for a ConfigMap (apimachinery, util/validation)."""
    return len(name) <= _SUBDOMAIN_LENGTH and _is_subdomain(name)


@lru_cache(maxsize=256)  # hundreds of templates name the same one
def _is_subdomain(name: str) -> bool:
    return _SUBDOMAIN.fullmatch(name) is not None


def from_block(block: object, path: str) -> tuple[Memo | None, list[FieldError]]:
    """The Memo of a `memoize` block found at `path`, or None and every error in it.

    `cache.configMap.key` and `.optional` are legal and mean nothing, as in Argo.
    """
    if not isinstance(block, Mapping):
        return None, [FieldError(path, Kind.TYPE_INVALID, "must be an object with key and cache", block)]
    name, cache_errors = _cache_name(block.get("cache"), f"{path}.cache")
    return _memo(
        [*_unknown(block, ("key", "cache", "maxAge"), path), *cache_errors],
        key=_Value(f"{path}.key", block.get("key"), _KEY),
        # One mistake, one error: a name that a broken `cache` hides is not missing as well.
        cache=_Value(f"{path}.cache.configMap.name", name, "" if cache_errors else _CACHE),
        max_age=_Value(f"{path}.maxAge", block.get("maxAge")),
    )


def from_annotations(annotations: Mapping[str, object], path: str) -> tuple[Memo | None, list[FieldError]]:
    """The Memo of the annotations of the metadata at `path`, or None and every error in them.

    Without names.KEY there is nothing to judge: None and no error.
    """
    if names.KEY not in annotations:
        return None, []
    return _memo(
        [],
        key=_Value(annotation(path, names.KEY), annotations[names.KEY], _KEY),
        cache=_Value(annotation(path, names.CACHE), annotations.get(names.CACHE), _CACHE),
        max_age=_Value(annotation(path, names.MAX_AGE), annotations.get(names.MAX_AGE)),
    )


def from_pod(annotations: Mapping[str, object], path: str) -> tuple[Memo | None, list[FieldError]]:
    """The same for a Pod's annotations, where names.KEY_DIGEST may stand in the place of names.KEY."""
    if annotations.get(names.KEY) == names.AUTO_KEY:
        detail = "is computed when the Pod is created, and was not"
        return None, [FieldError(annotation(path, names.KEY), Kind.INVALID, detail, names.AUTO_KEY)]
    digest = annotations.get(names.KEY_DIGEST)
    if names.KEY in annotations or digest is None:
        return from_annotations(annotations, path)
    memo, errors = from_annotations({**annotations, names.KEY: digest}, path)
    if not (isinstance(digest, str) and is_hashed(digest)):
        detail = "is written by the Pod webhook alone: write the key itself"
        return None, [*errors, FieldError(annotation(path, names.KEY_DIGEST), Kind.INVALID, detail, digest)]
    return (replace(memo, key="", digest=digest) if memo is not None else None), errors


def text_errors(value: object, path: str) -> list[FieldError]:
    """What is wrong with a text, found at `path`, that may hold tags."""
    text, errors = _text(_Value(path, value), "")
    return [*errors, *_tag_errors(path, text)]


_KEY = "the key under which the result is kept"
_CACHE = "the ConfigMap that holds the results"


class _Value(NamedTuple):
    """What stands at one path; `required` says what is missing if nothing does."""

    path: str
    value: object
    required: str = ""


def _cache_name(cache: object, path: str) -> tuple[object, list[FieldError]]:
    """The `configMap.name` of a block's `cache`, or None and what keeps it from being read."""
    if cache is None:
        return None, []
    if not isinstance(cache, Mapping):
        return None, [FieldError(path, Kind.TYPE_INVALID, "must be an object with configMap", cache)]
    errors = _unknown(cache, ("configMap",), path)
    config_map, path = cache.get("configMap"), f"{path}.configMap"
    if config_map is None:
        return None, errors
    if not isinstance(config_map, Mapping):
        return None, [*errors, FieldError(path, Kind.TYPE_INVALID, "must be an object with name", config_map)]
    return config_map.get("name"), [*errors, *_unknown(config_map, ("name", "key", "optional"), path)]


def _memo(
    errors: list[FieldError], *, key: _Value, cache: _Value, max_age: _Value
) -> tuple[Memo | None, list[FieldError]]:
    texts = []
    for value, example in ((key, ""), (cache, ""), (max_age, "10s")):
        text, wrong = _text(value, example)
        texts.append(text)
        errors += [*wrong, *_tag_errors(value.path, text)]
    memo = Memo(*texts)
    if memo.cache and not tags.has_tags(memo.cache) and not is_dns1123_subdomain(memo.cache):
        errors.append(FieldError(cache.path, Kind.INVALID, _SUBDOMAIN_RULE, memo.cache))
    if memo.max_age and not tags.has_tags(memo.max_age):
        try:
            duration.parse(memo.max_age)
        except duration.DurationError as e:
            errors.append(FieldError(max_age.path, Kind.INVALID, str(e), memo.max_age))
    return (None, errors) if errors else (memo, [])


_SUBDOMAIN_RULE = (
    "must name a ConfigMap: lower-case letters, digits, '-' and '.', a letter or digit at both ends, "
    f"{_SUBDOMAIN_LENGTH} characters at most"
)


def _text(value: _Value, example: str) -> tuple[str, list[FieldError]]:
    """The string that stands there, else the empty one and why it is none."""
    path, found, required = value
    if isinstance(found, str):
        if found.strip() or not required:
            return found, []
        return "", [FieldError(path, Kind.REQUIRED, f"{required} must not be blank")]
    if found is None:
        return "", [FieldError(path, Kind.REQUIRED, required)] if required else []
    if isinstance(found, bool | int | float):
        return "", [FieldError(path, Kind.TYPE_INVALID, _quoting(found, example), found)]
    return "", [FieldError(path, Kind.TYPE_INVALID, "must be a string", found)]


def _quoting(value: bool | float, example: str) -> str:
    if example:
        return f'must be a string: a number with a unit, in quotes, such as "{example}"'
    return f'must be a string: put it in quotes, "{json.dumps(value)}"'


def _unknown(found: Iterable[object], known: tuple[str, ...], path: str) -> list[FieldError]:
    return [
        FieldError(f"{path}.{name}", Kind.UNKNOWN, "", meant=misspelt(name, known))
        for name in found
        if name not in known
    ]


_ROOTS = sorted(tags.ROOTS)


def _tag_errors(path: str, text: str) -> Iterator[FieldError]:
    if not tags.has_tags(text):
        return
    if tags.is_unbalanced(text):
        yield FieldError(path, Kind.INVALID, "a {{ is never closed by }}", text)
    for tag in tags.distinct(tags.find(text)):
        for root in tag.unknown_roots:
            detail = f"{tag} begins with {show(root)}, which Argo does not know: "
            yield FieldError(path, Kind.INVALID, detail, text, misspelt(root, _ROOTS))
