"""What goes, what stays, and that nothing which went comes back through a ConfigMap."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper.cache import last_hit
from keeper.postgresql import hits, sql, upkeep
from keeper.postgresql.store import PostgresStore
from keeper.postgresql.upkeep import Upkeep
from keeper.store import Page
from memoize.entry import Entry
from memoize.eviction import Cause
from memoize.reasons import Reason
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.postgresql.conftest import Own
from tests.keeper.stores import in_postgresql, running
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime.now(UTC).replace(microsecond=0)
CACHE = "cache"
pytestmark = pytest.mark.slow


def text(key: str, *, age: timedelta = timedelta(0), max_age: str = "", size: int = 0) -> str:
    return Entry("node", {"result": "x" * size}, NOW - age, None, key, max_age).dump()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace()


@pytest_asyncio.fixture
async def api(cluster: Cluster) -> AsyncIterator[ApiClient]:
    async with api_client(cluster) as api:
        yield api


@pytest_asyncio.fixture
async def store(own: Own, namespace: str, api: ApiClient) -> AsyncIterator[PostgresStore]:
    store = in_postgresql(api, own.dsn_file, [namespace])
    async with beside(store.run()):
        await until(lambda: store.in_sync)
        yield store
    await store.close()


async def test_a_store_that_runs_does_so_by_itself(
    own: Own, namespace: str, api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PERIOD", 0.05)
    async with running(in_postgresql(api, own.dsn_file, [namespace])) as store:
        expired = text("k", age=timedelta(days=2), max_age="1h")
        assert (await store.put(namespace, CACHE, "k", expired, NOW)).reason is Reason.STORED

        async def is_gone() -> bool:
            page = await store.entries(namespace, CACHE)
            return isinstance(page, Page) and not page.items

        await until(is_gone)


class Evicted:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int]] = []

    def __call__(self, by: str, reason: str, entries: int, size: int) -> None:
        self.told.append((by, reason, entries, size))


def keeping(store: PostgresStore, most_bytes: int = 1 << 30, **of_one: int) -> tuple[Upkeep, Evicted]:
    """An upkeep without its pauses, of the store's database; `of_one` are limits of single Namespaces."""
    evicted = Evicted()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    def limit(namespace: str) -> int:
        return of_one.get(namespace, most_bytes)

    work = Upkeep(store._database, store._view, limit, evicted, clock=lambda: 0.0, sleep=sleep)
    return work, evicted


async def rounds(work: Upkeep) -> None:
    """A look at sizes and a round, which come one beside the other otherwise."""
    await work.measure()
    await work.round()


def seed(cluster: Cluster, namespace: str, data: dict[str, str]) -> None:
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    metadata = {"name": CACHE, "namespace": namespace, "labels": labels}
    assert cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})[0] == 201


async def keys(store: PostgresStore, namespace: str, cache: str = CACHE) -> set[str]:
    page = await store.entries(namespace, cache, limit=1000)
    assert isinstance(page, Page)
    return {one.data_key for one in page.items}


async def usage(own: Own, store: PostgresStore) -> None:
    """What is counted is what is there."""
    counted = await own.run("SELECT namespace, cache, entries, gone, bytes FROM stepmemo.usage ORDER BY 1, 2")
    there = await own.run(
        "SELECT namespace, cache, count(text), count(*) - count(text), sum(bytes)::bigint"
        " FROM stepmemo.entries GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert counted == there


async def test_usage_is_what_is_there_whatever_was_done(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    for number in range(5):
        await store.put(namespace, f"cache-{number % 2}", f"k-{number}", text("k", size=number), NOW)
    await store.put(namespace, "cache-0", "k-0", text("k", size=100), NOW)
    await usage(own, store)
    await store.delete(namespace, "cache-1", "k-1")
    await store.delete(namespace, "cache-1", "k-3")
    await usage(own, store)
    await own.run("UPDATE stepmemo.entries SET last_hit = now()")
    await usage(own, store)
    await own.run("UPDATE stepmemo.entries SET text = NULL WHERE data_key = 'k-2'")
    await usage(own, store)
    for statement in ("DELETE FROM stepmemo.entries", "TRUNCATE stepmemo.entries"):
        await store.put(namespace, CACHE, "k", text("k"), NOW)
        await usage(own, store)
        await own.run(statement)
        assert await own.run("SELECT * FROM stepmemo.usage") == []


async def test_how_full_each_namespace_is_is_known_once_it_was_measured(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    entry = text("k")
    assert (await store.put(namespace, CACHE, "k", entry, NOW)).reason is Reason.STORED
    kept, _ = keeping(store, most_bytes=10_000)
    assert kept.fills() == []
    await kept.measure()
    assert kept.fills() == [(namespace, len(entry) + sql.OVERHEAD, 10_000)]


async def test_what_has_expired_goes_and_nothing_else(own: Own, store: PostgresStore, namespace: str) -> None:
    long_ago = timedelta(days=2)
    await store.put(namespace, CACHE, "old", text("old", age=long_ago, max_age="24h"), NOW)
    await store.put(namespace, CACHE, "fresh", text("fresh", max_age="24h"), NOW)
    await store.put(namespace, CACHE, "for-ever", text("for-ever", age=long_ago), NOW)
    await store.put(namespace, CACHE, "no-entry", "{", NOW)
    work, evicted = keeping(store)
    await rounds(work)
    assert await keys(store, namespace) == {"fresh", "for-ever", "no-entry"}
    assert [told[:3] for told in evicted.told] == [("gc", "expired", 1)]
    assert await store.read(namespace, CACHE, "old") == ""
    await usage(own, store)


async def test_thousands_go_in_rounds_that_are_bounded(
    own: Own, store: PostgresStore, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 50)
    await own.run(
        "INSERT INTO stepmemo.entries (namespace, cache, digest, data_key, text, bytes, created, expires)"
        " SELECT $1, $2, sha256(n::text::bytea), n::text, 'x', 1, now(), now()"
        " FROM generate_series(1, 1500) n",
        namespace,
        CACHE,
    )
    work, evicted = keeping(store)
    await rounds(work)
    assert sum(entries for _, _, entries, _ in evicted.told) == upkeep.MOST_BATCHES * 50
    await rounds(work)
    assert await keys(store, namespace) == set()
    await usage(own, store)


async def fill(own: Own, namespace: str, cache: str, rows: int, size: int) -> None:
    """Entries that were hit one after the other, the first one longest ago, an hour at least."""
    await own.run(
        "INSERT INTO stepmemo.entries"
        " (namespace, cache, digest, data_key, text, bytes, created, written, last_hit)"
        " SELECT $1, $2, sha256(n::text::bytea), n::text, repeat('x', $4), $4, now(),"
        " now() - interval '1 year', now() - interval '1 hour' - ($3 - n) * interval '1 minute'"
        " FROM generate_series(1, $3::int) n",
        namespace,
        cache,
        rows,
        size,
    )


async def test_a_namespace_above_its_limit_loses_what_was_of_use_longest_ago_and_no_other_anything(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    each = 1000 + sql.OVERHEAD
    await fill(own, namespace, CACHE, 400, 1000)
    await fill(own, "quiet", CACHE, 100, 1000)
    work, evicted = keeping(store, 300 * each)
    await rounds(work)
    left = {int(key) for key in await keys(store, namespace)}
    assert 0.6 * 300 <= len(left) <= 0.91 * 300
    # Sampled, so not the oldest exactly; but of the newest tenth hardly any.
    assert len([key for key in left if key > 360]) >= 36
    assert sum(left) / len(left) > 230
    assert len(await keys(store, "quiet")) == 100
    assert {told[:2] for told in evicted.told} == {("gc", "unused")}
    await usage(own, store)
    before = len(evicted.told)
    await rounds(work)
    assert len(evicted.told) == before


@pytest.mark.parametrize(("flag", "own_limit"), [(1000, 60), (60, 1000)])
async def test_a_namespaces_own_limit_takes_the_place_of_that_of_the_others(
    own: Own, store: PostgresStore, flag: int, own_limit: int
) -> None:
    each = 1000 + sql.OVERHEAD
    for namespace in ("one", "other"):
        await fill(own, namespace, CACHE, 100, 1000)
    work, _ = keeping(store, flag * each, one=own_limit * each)
    await rounds(work)
    left = {namespace: len(await keys(store, namespace)) for namespace in ("one", "other")}
    small = "one" if own_limit < flag else "other"
    assert left.pop(small) <= 60
    assert list(left.values()) == [100]
    limits = {fill.namespace: fill.limit for fill in work.fills()}
    assert limits == {"one": own_limit * each, "other": flag * each}


async def test_what_was_written_or_hit_a_moment_ago_is_not_evicted_and_a_full_namespace_stores_nothing(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    await fill(own, namespace, CACHE, 100, 1000)
    await own.run("UPDATE stepmemo.entries SET last_hit = now()")
    work, evicted = keeping(store, 50 * (1000 + sql.OVERHEAD))
    await rounds(work)
    assert len(await keys(store, namespace)) == 100
    assert evicted.told == []
    assert work.is_full(namespace)
    assert not work.is_full("another")
    store._upkeep = work
    assert (await store.put(namespace, CACHE, "k", text("k"), NOW)).reason is Reason.CACHE_FULL
    await own.run("UPDATE stepmemo.entries SET last_hit = now() - interval '1 hour'")
    await rounds(work)
    assert not work.is_full(namespace)
    assert (await store.put(namespace, CACHE, "k", text("k"), NOW)).reason is Reason.STORED


def test_what_is_put_counts_before_the_next_round(store: PostgresStore) -> None:
    work, _ = keeping(store, 10_000)
    for _ in range(3):
        assert not work.is_full("work")
        work.on_put("work", 1000, None)
    assert work.is_full("work")


def test_what_takes_the_place_of_an_entry_counts_by_what_it_adds(store: PostgresStore) -> None:
    work, _ = keeping(store, 10_000)
    for _ in range(100):
        work.on_put("work", 5000, 5000)
    assert not work.is_full("work")
    work.on_put("work", 9000, 5000)
    assert work.is_full("work")
    work.on_put("work", 1000, 9000)
    assert not work.is_full("work")


async def test_a_refresh_of_one_key_fills_no_namespace(store: PostgresStore, namespace: str) -> None:
    store._upkeep, _ = keeping(store, 10_000)
    for age in range(10, 0, -1):
        entry = text("k", age=timedelta(seconds=age), size=2000)
        assert (await store.put(namespace, CACHE, "k", entry, NOW)).reason is Reason.STORED
    await store.delete(namespace, CACHE, "k")
    assert (await store.put(namespace, CACHE, "k", text("k"), NOW)).reason is Reason.STORED


async def test_what_was_evicted_does_not_come_back_through_its_config_map(
    own: Own, store: PostgresStore, namespace: str, cluster: Cluster
) -> None:
    seed(cluster, namespace, {"a": text("a", age=timedelta(days=3)), "newer": text("newer")})
    for key in ("a", "newer", "alone"):
        await store.put(namespace, CACHE, key, text(key, age=timedelta(days=2), max_age="24h"), NOW)
    work, _ = keeping(store)
    await rounds(work)
    assert [await store.read(namespace, CACHE, key) for key in ("a", "newer", "alone")] == [
        "",
        text("newer"),
        "",
    ]
    assert await own.run("SELECT data_key FROM stepmemo.entries ORDER BY 1") == [("a",), ("newer",)]
    await usage(own, store)


async def test_the_mark_of_what_is_gone_goes_with_the_config_map(
    own: Own, store: PostgresStore, namespace: str, cluster: Cluster
) -> None:
    seed(cluster, namespace, {"a": text("a"), "b": text("b")})
    for key in ("a", "b"):
        assert await store.delete(namespace, CACHE, key) is True
    work, _ = keeping(store)
    await own.run("UPDATE stepmemo.entries SET written = now() - interval '2 days'")
    cluster.patch("ConfigMap", namespace, CACHE, {"data": {"a": None}})

    async def seen() -> bool:
        data = await store._view.read(namespace, CACHE)
        return isinstance(data, dict) and "a" not in data

    await until(seen)
    await rounds(work)
    assert await own.run("SELECT data_key FROM stepmemo.entries") == [("b",)]
    assert [await store.read(namespace, CACHE, key) for key in ("a", "b")] == ["", ""]


async def test_an_entry_that_was_put_anew_meanwhile_stays(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    await store.put(namespace, CACHE, "a", text("a", age=timedelta(days=2), max_age="24h"), NOW)
    rows = await store._database.fetch(sql.EXPIRED, namespace, *upkeep._Behind(), 10)
    assert len(rows) == 1
    await store.put(namespace, CACHE, "a", text("a", max_age="24h"), NOW)
    work, _ = keeping(store)
    assert (await work.remove(work.turn(namespace, 1.0), rows, Cause.EXPIRED)).entries == 0
    assert await store.read(namespace, CACHE, "a") == text("a", max_age="24h")


async def test_a_round_that_was_killed_anywhere_is_gone_on_with_by_later_ones(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    for number in range(5):
        await store.put(namespace, CACHE, f"k-{number}", text("k", age=timedelta(days=2), max_age="1h"), NOW)
    work, _ = keeping(store)
    for turns in range(1, 30):
        task = asyncio.ensure_future(rounds(work))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await usage(own, store)

    async def nothing_is_left() -> bool:
        await rounds(work)
        return await keys(store, namespace) == set()

    # Killed while it removed some, the next one begins behind these, and the one after it with them.
    await until(nothing_is_left)


async def test_hits_are_written_once_an_interval_and_no_index_is_on_their_time(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    renewed: list[tuple[Reason, int]] = []
    gathered = hits.DatabaseHits(
        store._database, 600.0, lambda reason, entries: renewed.append((reason, entries))
    )
    for number in range(3):
        await store.put(namespace, CACHE, f"k-{number}", text("k"), NOW)
    for _ in range(3):
        for number in (2, 0):
            gathered.hit(namespace, CACHE, f"k-{number}", text("k"))
        gathered.hit(namespace, CACHE, "absent", text("k"))
        await gathered.flush()
    assert renewed == [(Reason.STORED, 2), (Reason.STORED, 0), (Reason.STORED, 0)]
    rows = await own.run("SELECT data_key FROM stepmemo.entries WHERE last_hit IS NOT NULL ORDER BY 1")
    assert rows == [("k-0",), ("k-2",)]
    assert await own.run("SELECT 1 FROM pg_indexes WHERE indexdef LIKE '%last_hit%'") == []


async def test_of_a_flood_of_hits_of_one_namespace_others_lose_none(store: PostgresStore) -> None:
    gathered = hits.DatabaseHits(store._database, 600.0)
    for number in range(last_hit.MOST + 100):
        gathered.hit("loud", CACHE, f"k-{number}", "")
    gathered.hit("quiet", CACHE, "k", "")
    assert len(gathered._hits) == last_hit.MOST + 1


async def test_a_turn_that_the_database_took_all_of_goes_on_by_a_row(
    own: Own, store: PostgresStore, namespace: str
) -> None:
    for key in ("a", "b"):
        await store.put(namespace, CACHE, key, text(key, age=timedelta(days=2), max_age="24h"), NOW)
    rows = await store._database.fetch(sql.EXPIRED, namespace, *upkeep._Behind(), 10)
    work, _ = keeping(store)
    assert (await work.remove(work.turn(namespace, 0.0), rows, Cause.EXPIRED)).entries >= 1
