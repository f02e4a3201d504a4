"""What a full cache costs: writes that have to make room, and what each sends to everybody who watches."""

import asyncio
import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from argo.steppod import Owner
from bench import api, machine
from bench.figures import Report, Target, compare
from bench.measure import Series, percentile
from bench.relay import Relay, relayed
from bench.steps import entries, step
from keeper.cache.view import View
from keeper.cache.writer import Writer
from kube import client
from memoize import names
from memoize.configmap import MOST_BYTES, size
from memoize.entry import Miss, look_up, timestamp
from memoize.eviction import Eviction
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.webhook.serving import api_client

NAME = "full"
_METHOD = """The keeper's writer against the API server, with some captures at a time under way. First one
cache takes more than fits, entry after entry, each of its own key; a write counts once the cache has been
full. Beside it, in turns, as many captures of the same size overwrite entries of a cache that stays half
full. Every capture must be stored, the cache within its limit, and of the newest half of the entries every
one a hit. Then the bytes for captures into one cache, on the wire: from the writer to the API server, and
from there to one watcher of whole ConfigMaps, as Argo's controller is one, and to one of metadata, as the
keeper is. (etcd takes each version whole as well, as does each API server from it.) Against the same into a
cache with `stepmemo.dev/max-bytes: 128Ki`."""
_ENTRY = 500
"""Bytes of a capture that fills the cache."""
_LARGE_ENTRY = 2_000
_AT_ONCE = 8
_LIMIT = "128Ki"
_SETTLE_SECONDS = 1.0
_PATIENCE = 60.0
"""Seconds for a write: an API server that hangs is to show in the figures, and not to end them."""
_FULL, _HALF = "full", "half full"
_SENT, _WHOLE, _METADATA = "to the API server", "to a watcher of whole ConfigMaps", "to a watcher of metadata"


def add_arguments(parser: ArgumentParser) -> None:
    """How many captures."""
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--captures", type=int, default=3000, metavar="N", help="into a cache (default %(default)s)"
    )
    parser.add_argument(
        "--large-captures",
        type=int,
        default=1000,
        metavar="N",
        help="of 2 KB, whose bytes are counted (default %(default)s)",
    )


def run(arguments: Namespace) -> Report:
    """Fill caches, and count."""
    described = machine.describe()
    with api.scratch() as (cluster, _), ExitStack() as stack:
        where = urlsplit(cluster.url)
        relays = {
            kind: stack.enter_context(relayed(str(where.hostname), where.port or 443))
            for kind in (_SENT, _WHOLE, _METADATA)
        }
        series, facts = asyncio.run(_measure(cluster, relays, arguments))
        facts = {
            "API server": api.describe(cluster),
            "captures": f"{arguments.captures} of {_ENTRY} bytes, {_AT_ONCE} at a time",
            **facts,
        }
    captures = arguments.large_captures
    figures = [
        compare(
            "a write to a full cache: p99",
            "ms",
            series[f"p99 {_FULL}"],
            _HALF,
            series[f"p99 {_HALF}"],
            Target("at most", 2),
        ),
        compare(
            "a write to a full cache: median",
            "ms",
            series[f"median {_FULL}"],
            _HALF,
            series[f"median {_HALF}"],
        ),
        *(
            compare(
                f"{captures} captures of 2 KB into one cache: {kind}",
                "MiB",
                series[f"{kind} 1Mi"],
                f"into one of {_LIMIT}",
                series[f"{kind} {_LIMIT}"],
            )
            for kind in (_SENT, _WHOLE, _METADATA)
        ),
    ]
    return Report(NAME, "A cache that is full", _METHOD, facts, described, tuple(figures))


class _Cache:
    """One cache that is written to, and what its writer says."""

    def __init__(self, cluster: Cluster, api_: ApiClient, namespace: str, name: str) -> None:
        self.namespace, self.name, self.evicted, self._cluster = namespace, name, 0, cluster
        self.writer = Writer(api_, on_cache=self, seconds=_PATIENCE)
        self.took: list[float] = []

    def on_evicted(self, cache: Owner, evicted: Sequence[Eviction]) -> None:
        self.evicted += len(evicted)

    def on_collected(self, cache: Owner, removed: Sequence[Eviction]) -> None:
        raise AssertionError("nothing is cleaned up here")

    def on_problem(self, cache: Owner, problem: str) -> None:
        raise RuntimeError(problem)

    def make(self, data: dict[str, str], **annotations: str) -> None:
        labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
        metadata = {"name": self.name, "namespace": self.namespace, "labels": labels}
        metadata = {**metadata, "annotations": annotations}
        api.create(self._cluster, {"kind": "ConfigMap", "metadata": metadata, "data": data})

    async def put(self, key: str, bytes_: int) -> None:
        now = datetime.now(UTC)
        text = _entry(now, bytes_)
        begun = time.perf_counter()
        outcome = await self.writer.put(self.namespace, self.name, key, text, now)
        self.took.append((time.perf_counter() - begun) * 1000)
        if outcome.reason is not Reason.STORED:
            raise RuntimeError(f"a capture was not stored: {outcome}")


def _entry(now: datetime, bytes_: int) -> str:
    (text,) = entries(1, bytes_).values()
    made = json.loads(text) | {"creationTimestamp": timestamp(now), "lastHitTimestamp": timestamp(now)}
    text = json.dumps(made, separators=(",", ":"))
    return text + " " * (bytes_ - len(text))


async def _measure(
    cluster: Cluster, relays: dict[str, Relay], arguments: Namespace
) -> tuple[Series, dict[str, str]]:
    series: Series = {}
    evicted = 0
    for number in range(-1, arguments.rounds):
        async with AsyncExitStack() as stack:
            api_ = await stack.enter_async_context(api_client(cluster, url=relays[_SENT].url))
            taken, gone = await _fill(cluster, api_, arguments.captures)
            for limit in ("1Mi", _LIMIT):
                taken |= await _count(cluster, api_, relays, arguments.large_captures, limit)
        if number >= 0:
            evicted += gone
            for name, value in taken.items():
                series.setdefault(name, []).append(value)
    return series, {
        "entries that made room": f"{evicted // max(1, arguments.rounds)} of {arguments.captures}"
    }


async def _fill(cluster: Cluster, api_: ApiClient, captures: int) -> tuple[dict[str, float], int]:
    """The times of writes, and how many entries made room."""
    namespace = cluster.namespace()
    full, half = (_Cache(cluster, api_, namespace, name) for name in ("full", "half"))
    half.make(entries(MOST_BYTES // 2 // _ENTRY, MOST_BYTES // 2))
    for begin in range(0, captures, _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, captures))
        before = len(full.took)
        await asyncio.gather(*(full.put(f"new-{number:06}", _ENTRY) for number in some))
        if begin * _ENTRY < MOST_BYTES and begin + _AT_ONCE < captures:
            del full.took[before:]  # it has room yet
        overwritten = (f"key-{number % (MOST_BYTES // 2 // _ENTRY)}" for number in some)
        await asyncio.gather(*(half.put(key, _ENTRY) for key in overwritten))
    await _verify(cluster, api_, full, captures)
    for cache in (full, half):
        await cache.writer.close()
    return {
        f"{what} {which}": value
        for which, cache in ((_FULL, full), (_HALF, half))
        for what, value in (("p99", percentile(cache.took, 99)), ("median", percentile(cache.took, 50)))
    }, full.evicted


async def _verify(cluster: Cluster, api_: ApiClient, cache: _Cache, captures: int) -> None:
    data = await View(api_).read(cache.namespace, cache.name, None)
    if not isinstance(data, dict) or sum(map(size, data.values())) > MOST_BYTES:
        raise RuntimeError("the cache is beyond its limit, or cannot be read")
    now = datetime.now(UTC)
    for number in range(captures // 2, captures):
        wanted = step(f"new-{number:06}")
        assert wanted.declared is not None
        found = look_up(data, wanted, wanted.declared, now)
        if isinstance(found, Miss):
            raise RuntimeError(f"{wanted.key} of {captures} is no hit: {found}")  # noqa: TRY004


async def _count(
    cluster: Cluster, api_: ApiClient, relays: dict[str, Relay], captures: int, limit: str
) -> dict[str, float]:
    """MiB by who is sent them."""
    cache = _Cache(cluster, api_, cluster.namespace(), "cache")
    cache.make({}, **{names.MAX_BYTES: limit})
    async with (
        _watching(cluster, relays[_WHOLE], cache.namespace, client.JSON),
        _watching(cluster, relays[_METADATA], cache.namespace, client.METADATA_ONLY),
    ):
        sent = relays[_SENT].sent
        received = {kind: relays[kind].received for kind in (_WHOLE, _METADATA)}
        for begin in range(0, captures, _AT_ONCE):
            some = range(begin, min(begin + _AT_ONCE, captures))
            await asyncio.gather(*(cache.put(f"new-{number:06}", _LARGE_ENTRY) for number in some))
        await asyncio.sleep(_SETTLE_SECONDS)
        taken = {_SENT: relays[_SENT].sent - sent}
        taken |= {kind: relays[kind].received - before for kind, before in received.items()}
    await cache.writer.close()
    return {f"{kind} {limit}": bytes_ / (1 << 20) for kind, bytes_ in taken.items()}


@asynccontextmanager
async def _watching(cluster: Cluster, relay: Relay, namespace: str, accept: str) -> AsyncIterator[None]:
    """A watch of the namespace's ConfigMaps, whose events are received and dropped."""
    headers = {"Authorization": f"Bearer {cluster.admin_token}", "Accept": accept}
    path = f"{relay.url}{cluster.path('ConfigMap', namespace)}?watch=1"
    connector = aiohttp.TCPConnector(ssl=cluster.context())
    async with (
        aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        ) as session,
        session.get(path) as response,
    ):
        if response.status != 200:
            raise RuntimeError(f"watch: {response.status} {await response.text()}")

        async def drop() -> None:
            async for _ in response.content.iter_any():
                pass

        task = asyncio.create_task(drop())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
