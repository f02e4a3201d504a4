"""Replacing entries by versions of themselves, such as one with the time of its last hit."""

from collections.abc import Iterator, Mapping

from keeper.cache.configmap import CacheError, ConfigMap
from kube.errors import Invalid
from memoize import configmap
from memoize.outcome import Outcome
from memoize.reasons import Reason

Changes = Mapping[str, tuple[str, str]]
"""By data key: the text that must be there, and the one to put in its place."""

BYTES_AT_ONCE = 1 << 20
"""Of one request, old and new together: quoted in JSON it may come to twice that, and 3 MiB is the limit."""
_ATTEMPTS = 4


async def refresh(cache: ConfigMap, changes: Changes) -> Outcome:
    """Replace what is unchanged and leave the rest alone."""
    replaced, outcome = 0, Outcome(Reason.CONFLICT, "nothing to replace")
    for chunk in _chunks(changes):
        result = await _refresh(cache, chunk)
        if isinstance(result, Outcome):
            outcome = result
        else:
            replaced += result
    return Outcome(Reason.STORED, f"{replaced} of {len(changes)}") if replaced else outcome


async def _refresh(cache: ConfigMap, changes: Changes) -> int | Outcome:
    """Replace what one request can hold; how many it were.

    A failed test does not tell which entry it was: the cache is then read, and the rest tried again.
    """
    left, outcome = changes, Outcome(Reason.CONFLICT, "the ConfigMap kept changing")
    try:
        for _ in range(_ATTEMPTS):
            try:
                await cache.patch(configmap.replaced(left))
                return len(left)
            except CacheError as trouble:
                if trouble.too_large:
                    return Outcome(Reason.CACHE_FULL, "no room for longer entries in the ConfigMap")
                if not isinstance(trouble.error, Invalid):
                    raise
            seen = await cache.get()
            if refused := configmap.refused(seen):
                return refused
            present = configmap.data(seen)
            left = {
                data_key: change for data_key, change in left.items() if present.get(data_key) == change[0]
            }
            if not left:
                return Outcome(Reason.CONFLICT, "the entries were changed or removed")
    except CacheError as trouble:
        outcome = trouble.outcome
    return outcome


def _chunks(changes: Changes) -> Iterator[Changes]:
    chunk: dict[str, tuple[str, str]] = {}
    size = 0
    for data_key, change in changes.items():
        more = sum(map(configmap.size, change))
        if chunk and size + more > BYTES_AT_ONCE:
            yield chunk
            chunk, size = {}, 0
        chunk[data_key] = change
        size += more
    if chunk:
        yield chunk
