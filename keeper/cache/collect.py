"""Removing from one cache what a clean-up removes: see memoize.eviction.to_collect."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from keeper.cache.configmap import CacheError, ConfigMap
from kube.errors import Conflict, NotFound
from memoize import capacity, configmap
from memoize.eviction import Eviction, Policy, is_collected, to_collect

_ATTEMPTS = 3
"""Times that the cache is read: whoever writes to it comes first."""


class Collected(NamedTuple):
    """What became of one cache."""

    uid: str = ""
    """Of the ConfigMap, "" where nothing was to be done."""
    removed: Sequence[Eviction] = ()
    problem: str = ""
    """What is wrong with what the ConfigMap says of its limit."""


async def collect(
    cache: ConfigMap,
    policy: Policy,
    namespace_labels: Mapping[str, str],
    now: datetime,
    keep: Callable[[], Collection[str]],
) -> Collected:
    """Clean the cache up, unless it says itself that it is not to be; CacheError.

    One request removes what is to go, on condition that nobody wrote since the cache was read: an entry that
    was just used, or replaced, is looked at anew. `keep` says data keys that stay.
    """
    for attempt in range(_ATTEMPTS):
        try:
            seen = await cache.get()
            if configmap.refused(seen) or not is_collected(seen, namespace_labels):
                return Collected()
            limit, problem = capacity.limit(seen, policy.limit)
            decide = partial(
                to_collect,
                configmap.data(seen),
                now,
                policy._replace(limit=limit),
                other_bytes=configmap.binary_bytes(seen),
                keep=keep(),
            )
            # A megabyte of entries takes long to read: not in the loop that decides gated Pods.
            removed = await asyncio.to_thread(decide)
            if removed:
                await cache.patch(configmap.seen(seen, {}, [one.data_key for one in removed]))
            return Collected(str(seen["metadata"].get("uid", "")), removed, problem)
        except CacheError as error:
            if isinstance(error.error, NotFound):
                return Collected()
            if not isinstance(error.error, Conflict) or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
