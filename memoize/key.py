"""From a memoize key to the key of the ConfigMap's data that holds its entry."""

import hashlib
import re

from argo import names as argo

_LONGEST = 253
"""Kubernetes allows no longer key in a ConfigMap's data (IsConfigMapKey in util/validation)."""
HASHED = "sha256-"
"""What a data key begins with that is a digest."""
_HASHED = re.compile(rf"{HASHED}[0-9a-f]{{64}}")


def is_hashed(data_key: str) -> bool:
    """Say whether entries under `data_key` belong to a memoize key that the data key does not spell out."""
    return _HASHED.fullmatch(data_key) is not None


def data_key(key: str) -> str:
    """Return where in the ConfigMap's data the entry for a memoize key lies: no two keys share a place.

    A key that Argo allows stands for itself, so that Argo and stepmemo find each other's entries; any other
    one becomes `sha256-` and the digest of its UTF-8 form. A key that looks like such a digest is hashed too:
    otherwise it could take the place of the key that it is the digest of.
    """
    if len(key) <= _LONGEST and argo.CACHE_KEY.fullmatch(key) and not is_hashed(key):
        return key
    return f"{HASHED}{digest(key)}"


def belongs(said: str, place: str) -> bool:
    """Say whether an entry that lies under the data key `place` and says `said` of its key is of that place.

    It says the key; nothing, where the place spells that out; or the place itself, where the step's key was
    too long to be handed on. A key that looks like a digest has another place, and so says another thing.
    """
    if not said:
        return not is_hashed(place)
    return data_key(said) == place or (said == place and is_hashed(place))


def digest(key: str) -> str:
    """Return the SHA-256 of the key in hex: what a log may say of it. A lone surrogate counts as itself."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
