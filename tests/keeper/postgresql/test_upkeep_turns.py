"""No Namespace waits for another one's upkeep, whatever that one's rows and ConfigMaps are like."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from kubernetes_asyncio.client import ApiClient

from keeper.cache.lru import Answer
from keeper.cache.view import View
from keeper.postgresql import removal, sql, upkeep
from keeper.postgresql.database import Database
from keeper.postgresql.rows import LONG_AGO
from keeper.postgresql.upkeep import Upkeep
from keeper.store import READ_TIMEOUT
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.beside import beside
from tests.keeper.postgresql.conftest import Own
from tests.waiting import until

BEHIND = Outcome(Reason.RATE_LIMITED, "the Namespace's reads are behind")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch, in_the_program: dict[str, Any]) -> None:
    for name in ("CONFIG_MAP_TIMEOUT", "LEAST"):
        monkeypatch.setattr(removal, name, in_the_program[f"keeper.postgresql.removal.{name}"])


class Caches(View):
    """ConfigMaps as a test says them, else empty. Those that are behind take long."""

    def __init__(self, api: ApiClient) -> None:
        super().__init__(api)
        self.answers: dict[str, Answer] = {}
        """By Namespace, or by Namespace and name."""
        self.asked = list[str]()
        self.seconds = 0.0
        """Of a clock that only moves while somebody waits."""
        self.hangs = False

    async def read(self, namespace: str, cache: str, seconds: float | None = READ_TIMEOUT) -> Answer:
        self.asked.append(f"{namespace}/{cache}")
        if self.hangs:
            await asyncio.Event().wait()
        answer = self.answers.get(f"{namespace}/{cache}", self.answers.get(namespace, {}))
        if answer == BEHIND:
            self.seconds += seconds or 0.0
        return answer

    def clock(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class World:
    """An upkeep, its database, and what ConfigMaps say."""

    def __init__(self, own: Own, view: Caches, database: Database) -> None:
        self.own, self.view, self.database = own, view, database

    def upkeep(self, most_bytes: int = 1 << 30) -> Upkeep:
        return Upkeep(
            self.database, self.view, lambda _: most_bytes, clock=self.view.clock, sleep=self.view.sleep
        )

    async def expired(self, namespace: str, caches: int, *, each: int = 1, ago: int = 60) -> None:
        """Rows that have expired, those of one cache one second after those of the one before it."""
        await self.own.run(
            "INSERT INTO stepmemo.entries (namespace, cache, digest, data_key, text, bytes, created, expires)"
            " SELECT $1, 'c-' || lpad(c::text, 3, '0'), sha256(('expired' || n)::bytea), n::text, 'x', 1,"
            " now(), now() - make_interval(secs => $4 - c)"
            " FROM generate_series(0, $2::int - 1) c, generate_series(1, $3::int) n",
            namespace,
            caches,
            each,
            float(ago),
        )

    async def marks(self, namespace: str, number: int, *, cache: str = "c-000", age: timedelta) -> None:
        await self.own.run(
            "INSERT INTO stepmemo.entries (namespace, cache, digest, data_key, text, bytes, created, written)"
            " SELECT $1, $2, sha256(('mark' || n)::bytea), 'mark' || n, NULL, 0, now(), now() - $4::interval"
            " FROM generate_series(1, $3::int) n",
            namespace,
            cache,
            number,
            age,
        )

    async def rows(self, namespace: str, cache: str = "") -> tuple[int, int]:
        """How many entries there are, and how many marks."""
        ((entries, marks),) = await self.own.run(
            "SELECT count(text), count(*) - count(text) FROM stepmemo.entries"
            " WHERE namespace = $1 AND ($2 = '' OR cache = $2)",
            namespace,
            cache,
        )
        return entries, marks


@pytest_asyncio.fixture
async def world(own: Own) -> AsyncIterator[World]:
    async with ApiClient() as api:
        database = Database(own.dsn_file, 6)
        async with beside(database.run()):
            await until(lambda: database.is_well)
            yield World(own, Caches(api), database)


# --- ConfigMaps that cannot be read ---------------------------------------------------------------------


async def test_a_namespace_whose_config_maps_are_behind_has_its_time_and_no_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.view.answers["busy"] = BEHIND
    await world.expired("busy", 200)
    await world.expired("quiet", 2)
    work = world.upkeep()
    await work.round()
    assert await world.rows("quiet") == (0, 0)
    assert await world.rows("busy") == (200, 0), "what is not known to be in a ConfigMap leaves no mark"
    assert world.view.seconds <= upkeep.TURN_SECONDS + 2 * removal.LONGEST_REST
    await work.round()
    said = [one for one in caplog.records if "stay in the database until later" in one.getMessage()]
    assert len(said) == 1
    assert vars(said[0])["fields"] == {
        "namespace": "busy",
        "detail": "RateLimited: the Namespace's reads are behind",
    }


async def test_of_many_such_namespaces_each_round_tries_some_and_none_of_the_others_waits(
    world: World,
) -> None:
    for number in range(20):
        world.view.answers[f"busy-{number}"] = BEHIND
        await world.expired(f"busy-{number}", 10)
    work = world.upkeep()
    await work.round()  # and it is known which they are
    await world.expired("quiet", 1)
    world.view.asked.clear()
    before = world.view.seconds
    await work.round()
    assert world.view.asked[0] == "quiet/c-000"
    assert world.view.seconds - before <= upkeep.TROUBLED_SECONDS + upkeep.TURN_SECONDS + removal.LONGEST_REST
    world.view.answers.clear()
    for _ in range(3):
        await work.round()
    assert await world.own.run("SELECT 1 FROM stepmemo.entries") == []


async def test_what_is_left_keeps_nothing_behind_it_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 2)
    world.view.answers["work/c-000"] = BEHIND
    await world.expired("work", 2, each=5)
    work = world.upkeep()
    await work.round()
    assert [await world.rows("work", cache) for cache in ("c-000", "c-001")] == [(5, 0), (0, 0)]
    world.view.answers.clear()
    await work.round()
    assert await world.rows("work") == (0, 0)


async def test_a_turn_goes_on_where_the_time_of_the_last_one_ended(world: World) -> None:
    world.view.answers["work"] = BEHIND
    await world.expired("work", 20)
    work = world.upkeep()
    for _ in range(5):
        before = set(world.view.asked)
        await work.round()
        assert before < set(world.view.asked) or len(before) == 20
    assert len(set(world.view.asked)) == 20


async def test_where_config_maps_may_not_be_read_rows_go(world: World) -> None:
    world.view.answers["work"] = Outcome(Reason.FORBIDDEN)
    await world.expired("work", 2)
    await world.upkeep().round()
    assert await world.rows("work") == (0, 0)


# --- Marks ------------------------------------------------------------------------------------------------


async def test_marks_of_which_nothing_can_be_told_stay_and_keep_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 2)
    two_days = timedelta(days=2)
    await world.marks("work", 5, cache="behind", age=2 * two_days)
    await world.marks("work", 5, cache="gone", age=two_days)
    await world.marks("work", 5, cache="there", age=two_days)
    world.view.answers |= {"work/behind": BEHIND, "work/there": {f"mark{n}": "{}" for n in range(1, 6)}}
    work = world.upkeep()
    await work.round()
    left = [await world.rows("work", cache) for cache in ("behind", "gone", "there")]
    assert left == [(0, 5), (0, 0), (0, 5)]
    world.view.asked.clear()
    await work.round()
    assert set(world.view.asked) == {"work/behind"}, "the others were looked at today"


async def test_many_marks_are_looked_at_within_minutes_and_take_of_what_their_namespace_may_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MOST_GONE", 100)
    await world.marks("work", 101, age=timedelta(minutes=11))
    await world.marks("few", 100, age=timedelta(minutes=11))
    work = world.upkeep(50 * sql.OVERHEAD)
    await work.measure()
    assert work.is_full("work")
    await work.round()
    assert [await world.rows(name) for name in ("work", "few")] == [(0, 0), (0, 100)]
    await work.measure()
    assert not work.is_full("work")


async def test_what_goes_leaves_a_mark_where_a_config_map_holds_it_too(world: World) -> None:
    world.view.answers["work"] = {"1": "{}"}
    await world.expired("work", 1, each=3)
    await world.upkeep().round()
    assert await world.rows("work") == (0, 1)


async def test_what_goes_first_is_found_among_any_number_of_marks_by_a_bounded_look(world: World) -> None:
    await world.marks("work", 20_000, age=timedelta(0))
    await fill(world, "work", 10)
    plan = await world.own.run(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.LEAST_USED}", "work", "00" * 32, 120.0)
    read = list(_rows_read(json.loads(plan[0][0])[0]["Plan"]))
    assert 0 < sum(read) <= 2 * 512


async def test_a_page_of_entries_is_read_without_those_behind_it(world: World) -> None:
    await fill(world, "work", 5_000)
    await world.own.run("ANALYZE stepmemo.entries")
    plan = await world.own.run(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.ENTRIES}", "work", "c-000", "", 100, LONG_AGO
    )
    read = list(_rows_read(json.loads(plan[0][0])[0]["Plan"]))
    assert 0 < sum(read) <= 101


async def test_the_entry_of_a_template_is_found_among_any_number_of_others(world: World) -> None:
    await fill(world, "work", 5_000)
    await world.own.run("UPDATE stepmemo.entries SET template = 'say' WHERE digest < '\\x80'")
    await world.own.run("ANALYZE stepmemo.entries")
    asked = "work", "c-000", "say", "own", None, LONG_AGO
    plan = await world.own.run(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.EARLIER}", *asked)
    assert sum(_rows_read(json.loads(plan[0][0])[0]["Plan"])) == 1


def _rows_read(node: dict[str, Any]) -> list[float]:
    """What each scan of the entries gave, or filtered out."""
    read = [one for below in node.get("Plans", []) for one in _rows_read(below)]
    if node.get("Relation Name") == "entries":
        read.append((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    return read


async def fill(world: World, namespace: str, rows: int) -> None:
    """Entries of 1,000 bytes that nobody has used for an hour."""
    await world.own.run(
        "INSERT INTO stepmemo.entries (namespace, cache, digest, data_key, text, bytes, created, written)"
        " SELECT $1, 'c-000', sha256(n::text::bytea), n::text, repeat('x', 1000), 1000, now(),"
        " now() - interval '1 hour' FROM generate_series(1, $2::int) n",
        namespace,
        rows,
    )


# --- What fails, and what hangs ---------------------------------------------------------------------------


async def test_what_fails_in_one_namespace_fails_in_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.own.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END $$"
    )
    await world.own.run(
        "CREATE TRIGGER refuse BEFORE DELETE ON stepmemo.entries FOR EACH ROW"
        " WHEN (OLD.namespace = 'bad' AND OLD.cache = 'c-000') EXECUTE FUNCTION refuse()"
    )
    await fill(world, "bad", 10)
    await fill(world, "large", 10)
    for number in range(5):
        await world.expired(f"n-{number}", 1)
    await world.expired("bad", 1)
    work = world.upkeep(5 * (1000 + sql.OVERHEAD))
    for _ in range(2):  # once at least the bad one is not the last
        await work.measure()
        await work.round()
    assert [await world.rows(f"n-{number}") for number in range(5)] == [(0, 0)] * 5
    assert (await world.rows("large"))[0] <= 5
    assert (await world.rows("bad"))[0] == 11
    assert "stay in the database until later" in caplog.text


async def test_a_batch_that_fails_keeps_none_behind_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 2)
    await world.own.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END $$"
    )
    await world.own.run(
        "CREATE TRIGGER refuse BEFORE DELETE ON stepmemo.entries FOR EACH ROW"
        " WHEN (OLD.cache = 'c-000') EXECUTE FUNCTION refuse()"
    )
    await world.expired("work", 2, each=2)
    work = world.upkeep()
    for _ in range(2):
        await work.round()
    assert [await world.rows("work", cache) for cache in ("c-000", "c-001")] == [(2, 0), (0, 0)]


async def test_how_much_there_is_is_learned_while_a_round_hangs(world: World) -> None:
    world.view.hangs = True
    await world.expired("work", 1)
    most = 5 * (1000 + sql.OVERHEAD)
    work = Upkeep(
        world.database,
        world.view,
        lambda namespace: most,
        clock=lambda: 0.0,
        sleep=lambda seconds: asyncio.sleep(0.01),
    )
    async with beside(work.run()):
        await until(lambda: world.view.asked)
        await fill(world, "large", 10)
        await until(lambda: work.is_full("large"))


async def test_nothing_that_a_gated_pod_looks_for_goes(world: World) -> None:
    await world.expired("work", 1, each=3)
    await fill(world, "large", 10)
    work = world.upkeep(1000 + sql.OVERHEAD)
    work.spare(lambda namespace, cache: {"1", "7"})
    for _ in range(10):
        await work.measure()
        await work.round()
    left = await world.own.run("SELECT namespace, data_key FROM stepmemo.entries ORDER BY 1, 2")
    assert left == [("large", "1"), ("large", "7"), ("work", "1")]
