"""What counts of a row and of a ConfigMap, and which read is too old to be joined."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from kubernetes_asyncio.client import ApiClient

from keeper.cache.lru import Answer
from keeper.cache.view import View
from keeper.postgresql.database import Database
from keeper.postgresql.hits import DatabaseHits
from keeper.postgresql.rows import LONG_AGO, EntryRef
from keeper.postgresql.store import PostgresStore
from keeper.postgresql.upkeep import Upkeep
from keeper.store import NOT_NOW, READ_TIMEOUT, Page
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.beside import beside
from tests.keeper.postgresql.conftest import Own
from tests.waiting import until

NOW = datetime.now(UTC).replace(microsecond=0)
NAMESPACE, CACHE = WHERE = "work", "cache"
BEHIND = Outcome(Reason.RATE_LIMITED, "the Namespace's reads are behind")
SECONDS, YEARS = timedelta(seconds=1), timedelta(days=2000)
pytestmark = pytest.mark.slow


def text(created: datetime, key: str = "a") -> str:
    return Entry("node", {"result": key}, created, None, key).dump()


class Caches(View):
    """ConfigMaps as a test says them."""

    def __init__(self, api: ApiClient) -> None:
        super().__init__(api)
        self.answer: Answer = {}
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, namespace: str, cache: str, seconds: float | None = READ_TIMEOUT) -> Answer:
        answer = self.answer
        self.asked.set()
        await self.answers.wait()
        return answer


class World:
    """A store and another keeper's, with the ConfigMaps that both see."""

    def __init__(self, own: Own, api: ApiClient) -> None:
        self.view = Caches(api)
        self.created: datetime | None = LONG_AGO
        self.databases = [Database(own.dsn_file, 6) for _ in range(2)]
        self.store, self.other = (
            PostgresStore(one, self.view, DatabaseHits(one, 600.0), upkeep, self.since, 6)
            for one in self.databases
            for upkeep in [Upkeep(one, self.view, lambda namespace: 1 << 30)]
        )

    async def since(self, namespace: str) -> datetime | None:
        return self.created

    async def read(self) -> str | Outcome:
        return await self.store.read(*WHERE, "a")

    async def put(self, entry: str) -> None:
        assert (await self.store.put(*WHERE, "a", entry, NOW)).reason is Reason.STORED


@pytest_asyncio.fixture
async def world(own: Own) -> AsyncIterator[World]:
    async with ApiClient() as api:
        world = World(own, api)
        async with beside(*(one.run() for one in world.databases)):
            await until(lambda: all(one.is_well for one in world.databases))
            yield world
        for store in (world.store, world.other):
            await store.close()


# --- Which of two entries -----------------------------------------------------------------------------


async def test_a_config_maps_entry_from_the_future_hides_no_row_and_no_delete(world: World) -> None:
    future, past = text(NOW + YEARS), text(NOW - SECONDS)
    world.view.answer = {"a": future}
    assert await world.read() == future  # there is nothing else
    await world.put(past)
    assert await world.read() == past
    assert await world.store.delete(*WHERE, "a") is True
    assert await world.read() == ""
    await world.put(text(NOW))
    assert await world.read() == text(NOW)


async def test_a_clock_may_be_some_seconds_ahead(world: World) -> None:
    await world.put(text(NOW))
    world.view.answer = {"a": text(NOW + 20 * SECONDS)}
    assert await world.read() == text(NOW + 20 * SECONDS)


async def test_nothing_is_called_deleted_that_a_config_map_may_bring_back(world: World) -> None:
    await world.put(text(NOW - YEARS))
    world.view.answer = BEHIND
    assert await world.store.delete(*WHERE, "a") == BEHIND
    world.view.answer = {"a": text(NOW)}
    assert await world.store.delete(*WHERE, "a") is True
    assert await world.read() == ""


@pytest.mark.parametrize("reason", [Reason.NOT_A_CACHE, Reason.FORBIDDEN])
async def test_where_config_maps_answer_no_step_a_row_can_be_deleted(world: World, reason: Reason) -> None:
    await world.put(text(NOW))
    world.view.answer = Outcome(reason)
    assert await world.store.delete(*WHERE, "a") is True
    world.view.answer = {}
    assert await world.read() == ""


async def test_what_is_gone_does_not_come_back_by_being_told_twice(world: World) -> None:
    world.view.answer = {"a": text(NOW)}
    await world.put(text(NOW))
    await world.put(text(NOW))
    assert await world.store.delete(*WHERE, "a") is True
    await world.put(text(NOW))  # a keeper that was late, or a request sent again
    assert await world.read() == ""
    await world.put(text(NOW + SECONDS))
    assert await world.read() == text(NOW + SECONDS)


# --- Reads that are under way -------------------------------------------------------------------------


@pytest.mark.parametrize("heard", ["another keeper's change", "new connections"])
async def test_who_looks_again_after_a_change_does_not_join_a_read_from_before(
    world: World, heard: str
) -> None:
    world.view.answers.clear()  # the row is read, and the ConfigMap waited for
    before = asyncio.ensure_future(world.read())
    await world.view.asked.wait()
    assert (await world.other.put(*WHERE, "a", text(NOW), NOW)).reason is Reason.STORED
    if heard == "new connections":
        world.databases[0].on_well()
    else:
        await world.store._look([EntryRef(*WHERE, "a")])
    again = asyncio.ensure_future(world.read())
    await asyncio.sleep(0)
    world.view.answers.set()
    assert (await before, await again) == ("", text(NOW))
    assert not world.store._tasks


async def test_what_an_earlier_namespace_of_the_name_had_is_not_there_for_a_later_one(world: World) -> None:
    await world.put(text(NOW))
    world.created = datetime.now(UTC) + timedelta(hours=1)
    assert await world.read() == ""
    assert await world.store.delete(*WHERE, "a") is False
    assert await world.store.entries(*WHERE) == Page([], "")
    assert await world.store.caches(NAMESPACE) == Page([], "")
    world.view.answer = {"a": text(NOW - YEARS)}
    assert await world.read() == text(NOW - YEARS), "nor does it keep out what a ConfigMap has"
    world.created = NOW - SECONDS
    assert await world.read() == text(NOW)
    assert [one.entries for one in (await world.store.caches(NAMESPACE)).items] == [1]


async def test_where_it_is_not_known_when_the_namespace_was_created_that_is_said(world: World) -> None:
    await world.put(text(NOW))
    world.created = None
    for answer in (
        await world.read(),
        await world.store.entries(*WHERE),
        await world.store.caches(NAMESPACE),
    ):
        assert isinstance(answer, Outcome)
        assert (answer.reason in NOT_NOW, answer.detail) == (True, "the Namespace could not be read")


async def test_a_database_that_is_only_busy_is_no_outage_to_those_who_wait_for_an_entry(
    own: Own, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are let run in an outage, all at once: where a table is locked, or writes queue, they wait on."""
    monkeypatch.setattr("keeper.postgresql.store.WRITE_SECONDS", 2.0)
    connection = await asyncpg.connect(own.dsn_file.read_text())
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE stepmemo.entries")
            assert (await world.store.put(*WHERE, "a", text(NOW), NOW)).reason is Reason.RATE_LIMITED
    finally:
        await connection.close()
    await world.put(text(NOW))
