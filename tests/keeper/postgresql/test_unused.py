"""The clean-up of what nobody uses, in a database: what goes, how much, and who says that nothing does."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper.gc import CacheGC
from keeper.postgresql import unused
from keeper.postgresql.store import PostgresStore
from keeper.postgresql.unused import UnusedRows
from keeper.postgresql.upkeep import Upkeep
from memoize import names
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.postgresql.conftest import Own
from tests.keeper.stores import in_postgresql
from tests.waiting import until
from tests.webhook.serving import api_client

CACHE = "cache"
UNUSED_FOR = 3600.0
pytestmark = pytest.mark.contract


class World:
    """A clean-up of a database that has no pauses; the clock stands still."""

    def __init__(self, cluster: Cluster, own: Own, api: ApiClient, store: PostgresStore) -> None:
        self.cluster, self.own, self._api, self.store = cluster, own, api, store
        self.acts, self.start, self.slept = True, "00" * 32, list[float]()
        self.clock: Callable[[], float] = lambda: 0.0
        self.upkeep = Upkeep(
            store._database, store._view, lambda _: 1 << 30, clock=lambda: self.clock(), sleep=self._sleep
        )

    def gc(self, *namespaces: str) -> CacheGC:
        caches = UnusedRows(
            self._api,
            self.store._database,
            self.upkeep,
            namespaces,
            UNUSED_FOR,
            anywhere=lambda: self.start,
        )
        return CacheGC(self._api, caches, lambda: self.acts, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def fill(self, namespace: str, used: int, unused: int, cache: str = CACHE) -> None:
        """So many entries that were hit a moment ago, and that nobody used for two hours."""
        await self.own.run(
            "INSERT INTO stepmemo.entries"
            " (namespace, cache, digest, data_key, text, bytes, created, written, last_hit)"
            " SELECT $1, $2, sha256(n::text::bytea), CASE WHEN n <= $3 THEN 'used-' ELSE 'unused-' END || n,"
            " 'x', 1, now(), now() - interval '2 hours', CASE WHEN n <= $3 THEN now() END"
            " FROM generate_series(1, $3::int + $4::int) n",
            namespace,
            cache,
            used,
            unused,
        )

    async def left(self, namespace: str, cache: str = CACHE) -> tuple[int, int]:
        """How many are left that were used, and that were not."""
        ((used, unused),) = await self.own.run(
            "SELECT count(*) FILTER (WHERE data_key LIKE 'used-%'),"
            " count(*) FILTER (WHERE data_key LIKE 'unused-%')"
            " FROM stepmemo.entries WHERE namespace = $1 AND cache = $2 AND text IS NOT NULL",
            namespace,
            cache,
        )
        return used, unused

    def make(self, namespace: str, data: dict[str, str], **annotations: str) -> None:
        metadata: dict[str, Any] = {"name": CACHE, "namespace": namespace, "annotations": annotations}
        metadata["labels"] = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})
        assert status == 201, body


@pytest_asyncio.fixture
async def world(cluster: Cluster, own: Own) -> AsyncIterator[World]:
    async with api_client(cluster) as api:
        store = in_postgresql(api, own.dsn_file)
        async with beside(store.run()):
            await until(lambda: store.in_sync)
            yield World(cluster, own, api, store)
        await store.close()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace()


async def test_a_pass_removes_what_nobody_used_for_so_long_and_nothing_else(
    world: World, namespace: str
) -> None:
    await world.fill(namespace, 90, 10)
    await world.own.run("UPDATE stepmemo.entries SET written = now() WHERE data_key = 'unused-100'")
    await world.gc().collect()
    assert await world.left(namespace) == (90, 1), "what was written lately counts as used"


@pytest.mark.parametrize(("entries", "gone"), [(1, 1), (3, 1), (40, 10)])
async def test_no_more_than_a_share_goes_at_once(
    world: World, namespace: str, entries: int, gone: int
) -> None:
    await world.fill(namespace, 0, entries)
    await world.gc().collect()
    assert await world.left(namespace) == (0, entries - gone)


@pytest.mark.parametrize("start", ["00", "80", "ff"])
async def test_of_a_large_cache_a_pass_looks_at_a_part_from_anywhere_on_and_round_the_end(
    world: World, namespace: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unused, "LOOKED_AT", 10)
    monkeypatch.setattr(unused, "ROWS", 7)
    world.start = start * 32
    await world.fill(namespace, 100, 100)
    await world.gc().collect()
    used, left = await world.left(namespace)
    assert used == 100
    looked_at = await world.own.run(
        "SELECT count(*) FROM (SELECT data_key FROM (SELECT data_key, digest > decode($1, 'hex') AS behind,"
        " digest FROM (SELECT n, CASE WHEN n <= 100 THEN 'used-' ELSE 'unused-' END || n AS data_key,"
        " sha256(n::text::bytea) AS digest FROM generate_series(1, 200) n) AS a) AS b"
        " ORDER BY NOT behind, digest LIMIT 50) AS c WHERE data_key LIKE 'unused-%'",
        world.start,
    )
    assert 100 - left == looked_at[0][0]


async def test_passes_from_anywhere_remove_all_of_it_in_the_end(
    world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unused, "LOOKED_AT", 10)
    await world.fill(namespace, 20, 80)
    for number in range(0, 256, 8):
        world.start = f"{number:02x}" * 32
        await world.gc().collect()
    assert await world.left(namespace) == (20, 0)


@pytest.mark.parametrize(
    ("label", "annotation", "cleaned"),
    [
        (None, None, True),
        ("true", None, True),
        ("false", None, False),
        ("off", None, False),
        ("false", "true", True),
        ("true", "false", False),
        (None, "no", False),
    ],
)
async def test_it_is_on_or_off_by_namespace_and_by_the_config_map_of_the_caches_name(
    world: World, label: str | None, annotation: str | None, cleaned: bool
) -> None:
    namespace = world.cluster.namespace({names.GC: label} if label else {})
    if annotation:
        world.make(namespace, {}, **{names.GC: annotation})
    await world.fill(namespace, 4, 1)
    await world.gc().collect()
    assert await world.left(namespace) == (4, 0 if cleaned else 1)


async def test_of_a_namespace_that_is_gone_rows_go(world: World) -> None:
    await world.fill("never-there", 4, 1)
    await world.gc().collect()
    assert await world.left("never-there") == (4, 0)


async def test_only_what_is_kept_is_cleaned_up(world: World) -> None:
    kept, other = (world.cluster.namespace() for _ in range(2))
    for name in (kept, other):
        await world.fill(name, 4, 1)
    await world.gc(kept).collect()
    assert [await world.left(name) for name in (kept, other)] == [(4, 0), (4, 1)]


async def test_a_config_map_brings_nothing_back(world: World, namespace: str) -> None:
    world.make(namespace, {"unused-5": '{"nodeID":"n"}'})
    await world.fill(namespace, 4, 1)
    await world.gc().collect()
    assert await world.own.run("SELECT data_key FROM stepmemo.entries WHERE text IS NULL") == [("unused-5",)]


async def test_nothing_that_a_gated_pod_looks_for_goes(world: World, namespace: str) -> None:
    await world.fill(namespace, 8, 3)
    world.upkeep.spare(lambda where, cache: {"unused-9", "unused-11"})
    for _ in range(3):
        await world.gc().collect()
    rows = await world.own.run(
        "SELECT data_key FROM stepmemo.entries WHERE data_key LIKE 'unused-%' ORDER BY 1"
    )
    assert rows == [("unused-11",), ("unused-9",)]


async def test_caches_of_all_namespaces_have_their_turn_while_it_acts(world: World) -> None:
    places = [(world.cluster.namespace(), f"c-{number}") for number in range(3)]
    for name, cache in places:
        await world.fill(name, 4, 1, cache)
    world.acts = False
    await world.gc().collect()
    assert [await world.left(*place) for place in places] == [(4, 1)] * 3
    world.acts = True
    await world.gc().collect()
    assert [await world.left(*place) for place in places] == [(4, 0)] * 3
    assert len(world.slept) >= 3


async def test_a_cache_has_its_time_and_no_more(world: World, namespace: str) -> None:
    seconds = itertools.count(step=unused.SECONDS / 4.5)
    world.clock = lambda: next(seconds)
    await world.fill(namespace, 0, 4000)
    await world.gc().collect()
    _, left = await world.left(namespace)
    assert left == 4000 - unused.ROWS, "a batch, of the thousand that may go"


async def test_a_pass_that_was_killed_anywhere_leaves_nothing_half_done(world: World, namespace: str) -> None:
    await world.fill(namespace, 10, 30)
    for turns in range(0, 60, 5):
        task = asyncio.ensure_future(world.gc().collect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    counted = await world.own.run("SELECT entries FROM stepmemo.usage WHERE namespace = $1", namespace)
    assert counted == [(sum(await world.left(namespace)),)]
    for _ in range(40):
        await world.gc().collect()
    assert await world.left(namespace) == (10, 0)


async def test_without_the_database_a_pass_ends_and_the_next_one_goes_on(
    world: World, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await world.fill(namespace, 4, 1)
    await world.own.run("ALTER TABLE stepmemo.usage RENAME TO away")
    await world.gc().collect()
    assert "cannot list the caches to clean up" in caplog.text
    await world.own.run("ALTER TABLE stepmemo.away RENAME TO usage")
    await until(lambda: world.store.in_sync)
    await world.gc().collect()
    assert await world.left(namespace) == (4, 0)


async def test_a_cache_whose_config_map_cannot_be_read_is_left_alone(
    world: World, namespace: str, cluster: Cluster
) -> None:
    await world.fill(namespace, 4, 1)
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]
    token = cluster.service_account(namespace, "keeper", rules)
    async with api_client(cluster, token=token) as api:
        restricted = World(cluster, world.own, api, world.store)
        await restricted.gc().collect()
    assert await world.left(namespace) == (4, 1)
