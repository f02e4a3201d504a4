"""`python -m bench.view_process`: the process whose memory and look-ups `bench view` measures.

It is told in JSON what to follow, and prints one line of JSON. It imports what a keeper has, and little else.
"""

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kubernetes_asyncio.client import ApiClient

from bench.measure import percentile
from bench.peak import most_resident
from bench.steps import step
from keeper.cache.lru import size_of
from keeper.cache.view import View
from keeper.lookup import CacheLookup
from kube import client
from memoize.entry import Hit
from memoize.outcome import Outcome
from tests.keeper.stores import config_maps
from tests.waiting import until

CACHE = "cache"
_SYNC_SECONDS = 300.0
_PAUSE = 0.05
_MIB = 1 << 20


async def _measured(what: Mapping[str, Any]) -> Mapping[str, float]:
    async with await client.connect() as connected:
        if what["do"] == "memory":
            return await _grown(connected, what["idle"], what["quiet"], what["other"], what["caches"])
        return await _latencies(connected, what["quiet"], what["other"], what["seconds"])


@contextlib.asynccontextmanager
async def _followed(connected: ApiClient, *namespaces: str) -> AsyncIterator[View]:
    """A view that is in sync."""
    view = View(connected, namespaces)
    following = asyncio.create_task(view.run())
    try:
        await until(lambda: view.in_sync, _SYNC_SECONDS)
        yield view
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _grown(
    connected: ApiClient, empty: str, quiet: str, other: str, caches: int
) -> Mapping[str, float]:
    async with _followed(connected, empty):
        gc.collect()
        idle = most_resident()
    async with _followed(connected, quiet, other) as view:
        listed = most_resident() - idle
        kept = await view.read(quiet, CACHE)
        cpu, size = [], []
        for number in range(caches):
            began = time.process_time()
            answer = await view.read(other, f"cache-{number}", None)
            cpu.append(1000 * (time.process_time() - began))
            size.append(size_of(answer) / _MIB)
            if isinstance(answer, Outcome):
                raise RuntimeError(f"a cache cannot be read: {answer}")  # noqa: TRY004 - a benchmark gone wrong
        if await view.read(quiet, CACHE) is not kept:
            raise RuntimeError("one tenant's caches took another's place")
        asked = most_resident() - idle
    return {
        "idle": idle,
        "listed": listed,
        "asked": asked,
        "cpu": percentile(cpu, 50),
        "size": percentile(size, 50),
    }


async def _latencies(connected: ApiClient, quiet: str, other: str, seconds: float) -> Mapping[str, float]:
    taken: list[float] = []
    async with _followed(connected, quiet, other) as view:
        view.subscribe(lambda *_: None, {(other, "cache-0")})
        store = config_maps(connected, view=view)
        lookup, asked = CacheLookup(store, lambda: datetime.now(UTC)), step("key-7", CACHE)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            view.forget(quiet, CACHE)
            while (found := (await lookup.look_up(quiet, CACHE, asked)).found) is None:
                pass
            if not isinstance(found, Hit):
                raise RuntimeError(f"the look-up missed: {found.reason}")  # noqa: TRY004
            taken.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(_PAUSE)
    return {"p50": percentile(taken, 50), "p99": percentile(taken, 99)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measured(json.loads(sys.argv[1])))))
