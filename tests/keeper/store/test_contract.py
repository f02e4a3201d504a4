"""What every store does, on the devcluster and on a real API server, and with a real PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from keeper.store import NOT_NOW, CacheInfo, EntryInfo, Page, Store
from memoize import configmap
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.keeper.store.backing import CACHE, Backing, Waiting, seed
from tests.waiting import until

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
pytestmark = pytest.mark.contract


def text(key: str, max_age: str = "", *, created: datetime = NOW, result: str = "") -> str:
    return Entry("node", {"result": result}, created, None, key, max_age).dump()


async def put(store: Store, namespace: str, entries: Mapping[str, str], cache: str = CACHE) -> set[Reason]:
    outcomes = await asyncio.gather(
        *(store.put(namespace, cache, data_key, one, NOW) for data_key, one in entries.items())
    )
    return {outcome.reason for outcome in outcomes}


async def all_entries(store: Store, namespace: str, limit: int = 500) -> dict[str, EntryInfo]:
    found, after = dict[str, EntryInfo](), ""
    while True:
        page = await store.entries(namespace, CACHE, after, limit)
        assert isinstance(page, Page)
        assert len(page.items) <= limit
        assert not found.keys() & {one.data_key for one in page.items}
        found |= {one.data_key: one for one in page.items}
        if not (after := page.after):
            return found


@pytest_asyncio.fixture
async def other(backing: Backing) -> AsyncIterator[Store]:
    """Another keeper's."""
    async with backing.keeper() as store:
        yield store


# --- Reading and writing ------------------------------------------------------------------------------


async def test_what_was_put_is_read_at_once_and_what_was_deleted_is_not(
    store: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE
    assert await store.read(*where, "a") == ""
    assert (await store.put(*where, "a", text("a"), NOW)).reason is Reason.STORED
    assert (await store.put(*where, "b", text("b"), NOW)).reason is Reason.STORED
    assert await store.read(*where, "a") == text("a")
    assert await store.delete(*where, "a") is True
    assert (await store.read(*where, "a"), await store.read(*where, "b")) == ("", text("b"))
    assert await store.delete(*where, "a") is False


async def test_what_one_keeper_put_another_one_reads_and_what_it_deleted_is_gone_for_both(
    store: Store, other: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE, "a"
    assert await other.read(*where) == ""
    await store.put(*where, text("a"), NOW)
    await until(lambda: _is(other, where, text("a")))
    assert await other.delete(*where) is True
    await until(lambda: _is(store, where, ""))
    assert await store.delete(*where) is False


async def _is(store: Store, where: tuple[str, str, str], expected: str) -> bool:
    return await store.read(*where) == expected


async def test_an_entry_replaces_an_older_one(store: Store, backing: Backing) -> None:
    where = backing.namespace, CACHE, "a"
    for age in (2, 1, 0):
        newer = text("a", created=NOW - timedelta(hours=age), result=str(age))
        assert (await store.put(*where, newer, NOW)).reason is Reason.STORED
        assert await store.read(*where) == newer


async def test_entries_with_a_fraction_of_a_second_and_of_no_time_are_kept_as_they_are(
    store: Store, backing: Backing
) -> None:
    odd = {
        "bare": '{"nodeID":"n"}',
        "null": '{"nodeID":"n","outputs":null,"creationTimestamp":null,"lastHitTimestamp":null}',
        "nanoseconds": '{"nodeID":"n","creationTimestamp":"2026-05-04T12:00:00.123456789Z"}',
        "zone": '{"nodeID":"n","creationTimestamp":"0001-01-01T00:00:00+23:59"}',
        "late": '{"nodeID":"n","creationTimestamp":"9999-12-31T23:59:59-23:59"}',
        "endless": text("endless", "2540400h", created=datetime(9999, 12, 31, tzinfo=UTC)),
        "order": '{ "outputs": {"parameters": [{"name": "b", "value": "1"}]}, "nodeID": "n" ,"a":1}',
        "nul": '{"nodeID":"n","outputs":{"result":"\\u0000 \\ud800 \\\\ \'"}}',
        "wide": '{"nodeID":"n","outputs":{"result":"é 漢 𝄞 $1 %s"}}',
        "no-entry": "[",
    }
    assert await put(store, backing.namespace, odd) == {Reason.STORED}
    for data_key, one in odd.items():
        assert await store.read(backing.namespace, CACHE, data_key) == one
    assert (await all_entries(store, backing.namespace)).keys() == odd.keys()


async def test_hundreds_at_once_all_land(store: Store, backing: Backing) -> None:
    entries = {f"key-{number}": text(str(number)) for number in range(300)}
    assert await put(store, backing.namespace, entries) == {Reason.STORED}
    assert (await all_entries(store, backing.namespace)).keys() == entries.keys()


async def test_of_two_keepers_that_put_at_once_one_entry_stays_whole(
    store: Store, other: Store, backing: Backing
) -> None:
    mine, his = ({f"key-{number}": text(f"{who}-{number}") for number in range(20)} for who in ("a", "b"))
    reasons = await asyncio.gather(put(store, backing.namespace, mine), put(other, backing.namespace, his))
    assert reasons == [{Reason.STORED}, {Reason.STORED}]
    for data_key in mine:
        assert await store.read(backing.namespace, CACHE, data_key) in (mine[data_key], his[data_key])


async def test_caches_and_namespaces_of_their_own_do_not_meet(store: Store, backing: Backing) -> None:
    where = backing.namespace
    for cache in ("one", "two"):
        await store.put(where, cache, "a", text(cache), NOW)
    assert await store.delete(where, "one", "a") is True
    assert await store.read(where, "two", "a") == text("two")


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("size", [configmap.MOST_BYTES - 100, configmap.MOST_BYTES])
async def test_an_entry_as_large_as_a_cache_can_hold_is_kept(
    store: Store, backing: Backing, size: int
) -> None:
    where = backing.namespace, CACHE, "a"
    large = text("a", result="x" * (size - len(text("a"))))
    assert len(large) == size
    assert (await store.put(*where, large, NOW)).reason is Reason.STORED
    assert await store.read(*where, seconds=None) == large


async def test_one_that_is_larger_is_refused_with_its_size(store: Store, backing: Backing) -> None:
    large = text("a", result="x" * configmap.MOST_BYTES)
    outcome = await store.put(backing.namespace, CACHE, "a", large, NOW)
    assert outcome.reason not in {Reason.STORED, *NOT_NOW}
    assert await store.read(backing.namespace, CACHE, "a") == ""


_NO_NAMES = ["absent", "../pods", "a/b", "", "UPPER", "x'; DROP TABLE entries; --", "nul\0", "\ud800", "é"]


@pytest.mark.parametrize("name", _NO_NAMES, ids=range(len(_NO_NAMES)))
async def test_a_name_that_is_no_caches_holds_nothing(store: Store, backing: Backing, name: str) -> None:
    assert await store.read(backing.namespace, name, "a") == ""
    assert await store.delete(backing.namespace, name, "a") is False
    assert await store.entries(backing.namespace, name) == Page([], "")


@pytest.mark.parametrize("name", _NO_NAMES[1:], ids=range(1, len(_NO_NAMES)))
async def test_nothing_is_put_where_a_name_is_no_caches(store: Store, backing: Backing, name: str) -> None:
    async with asyncio.timeout(30):
        outcome = await store.put(backing.namespace, name, "a", text("a"), NOW)
    assert outcome.reason is not Reason.STORED
    assert await store.read(backing.namespace, name, "a") == ""


async def test_a_read_that_was_given_up_harms_no_other(store: Store, backing: Backing) -> None:
    where = backing.namespace, CACHE, "a"
    await store.put(*where, text("a"), NOW)
    for turns in range(12):
        reading = asyncio.ensure_future(store.read(*where))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert await store.read(*where) == text("a")


async def test_what_still_waits_when_a_keeper_ends_is_told_so(backing: Backing) -> None:
    async with backing.keeper() as store:
        putting = [
            asyncio.ensure_future(store.put(backing.namespace, CACHE, f"key-{number}", text("a"), NOW))
            for number in range(50)
        ]
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        reasons = {outcome.reason for outcome in await asyncio.gather(*putting)}
    assert reasons <= {Reason.STORED, *NOT_NOW}


# --- ConfigMaps that are there ------------------------------------------------------------------------


async def test_an_entry_that_somebody_made_with_kubectl_is_read(store: Store, backing: Backing) -> None:
    assert await store.read(backing.namespace, CACHE, "a") == ""
    seed(backing, {"a": text("a")})
    await until(lambda: _is(store, (backing.namespace, CACHE, "a"), text("a")))
    assert await store.read(backing.namespace, CACHE, "b") == ""


async def test_a_newer_entry_takes_the_place_of_one_that_somebody_made_with_kubectl(
    store: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE, "a"
    seed(backing, {"a": text("a", created=NOW - timedelta(hours=1))})
    await until(lambda: _is(store, where, text("a", created=NOW - timedelta(hours=1))))
    assert (await store.put(*where, text("a"), NOW)).reason is Reason.STORED
    assert await store.read(*where) == text("a")


async def test_what_was_deleted_does_not_come_back_for_any_keeper(
    store: Store, other: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE, "a"
    seed(backing, {"a": text("a"), "b": text("b")})
    for keeper in (store, other):
        await until(lambda keeper=keeper: _is(keeper, where, text("a")))
    assert await store.delete(*where) is True
    assert await store.read(*where) == ""
    await until(lambda: _is(other, where, ""))
    assert await store.read(backing.namespace, CACHE, "b") == text("b")
    async with backing.keeper() as later:
        assert await later.read(*where) == ""


async def test_an_entry_that_is_put_after_it_was_deleted_is_there(store: Store, backing: Backing) -> None:
    where = backing.namespace, CACHE, "a"
    seed(backing, {"a": text("a")})
    await until(lambda: _is(store, where, text("a")))
    await store.delete(*where)
    again = text("a", created=NOW + timedelta(minutes=1))
    assert (await store.put(*where, again, NOW)).reason is Reason.STORED
    assert await store.read(*where) == again


async def test_a_config_map_that_is_no_cache_holds_no_entries(store: Store, backing: Backing) -> None:
    seed(backing, {"a": text("a")}, "mine", cache=False)
    found = await store.read(backing.namespace, "mine", "a")
    assert found == "" or (isinstance(found, Outcome) and found.reason is Reason.NOT_A_CACHE)
    refused = await store.delete(backing.namespace, "mine", "a")
    assert refused is False or (isinstance(refused, Outcome) and refused.reason is Reason.NOT_A_CACHE)
    status, body = backing.cluster.get("ConfigMap", backing.namespace, "mine")
    assert (status, body["data"]) == (200, {"a": text("a")})


# --- Dropping an entry that is of no use any more -------------------------------------------------------


async def test_an_entry_is_dropped_by_its_text_and_by_no_other(
    store: Store, other: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE, "a"
    newer = text("a", created=NOW + timedelta(minutes=1))
    assert await store.drop(*where, text("a")) is False
    await put(store, backing.namespace, {"a": text("a"), "b": text("b")})
    await until(lambda: _is(other, where, text("a")))
    await put(other, backing.namespace, {"a": newer})
    assert await store.drop(*where, text("a")) is False
    await until(lambda: _is(store, where, newer))
    assert await store.drop(*where, newer) is True
    assert await store.read(*where) == ""
    await until(lambda: _is(other, where, ""))
    assert await store.drop(*where, newer) is False
    assert await store.read(backing.namespace, CACHE, "b") == text("b")


async def test_what_was_dropped_of_a_config_map_does_not_come_back_for_any_keeper(
    store: Store, backing: Backing
) -> None:
    where = backing.namespace, CACHE, "a"
    seed(backing, {"a": text("a"), "b": text("b")})
    await until(lambda: _is(store, where, text("a")))
    assert await store.drop(*where, text("b")) is False
    assert await store.drop(*where, text("a")) is True
    assert await store.read(*where) == ""
    async with backing.keeper() as later:
        assert await later.read(*where) == ""
        assert await later.read(backing.namespace, CACHE, "b") == text("b")
    again = text("a", created=NOW + timedelta(minutes=1))
    assert (await store.put(*where, again, NOW)).reason is Reason.STORED
    assert await store.read(*where) == again


@pytest.mark.parametrize("counts", ["put", "seeded"])
async def test_where_two_are_there_the_one_that_counts_is_dropped_and_neither_comes_back(
    store: Store, backing: Backing, counts: str
) -> None:
    where = backing.namespace, CACHE, "a"
    older, newer = text("a", result="older"), text("a", created=NOW + timedelta(minutes=1))
    seed(backing, {"a": older if counts == "put" else newer})
    await until(lambda: _is(store, where, older if counts == "put" else newer))
    await put(store, backing.namespace, {"a": newer if counts == "put" else older})
    found = await store.read(*where)
    assert isinstance(found, str)
    assert await store.drop(*where, found) is True
    assert await store.read(*where) == ""


async def test_nothing_is_dropped_of_a_config_map_that_is_no_cache(store: Store, backing: Backing) -> None:
    seed(backing, {"a": text("a")}, "mine", cache=False)
    assert await store.drop(backing.namespace, "mine", "a", text("a")) is False
    status, body = backing.cluster.get("ConfigMap", backing.namespace, "mine")
    assert (status, body["data"]) == (200, {"a": text("a")})


@pytest.mark.parametrize(("cache", "data_key"), [("No Cache", "a"), ("cache", "a/b")])
async def test_a_name_that_could_be_no_entrys_has_nothing_to_drop(
    store: Store, backing: Backing, cache: str, data_key: str
) -> None:
    assert await store.drop(backing.namespace, cache, data_key, text("a")) is False


# --- Lists --------------------------------------------------------------------------------------------


async def test_entries_are_listed_page_by_page_without_what_they_hold(store: Store, backing: Backing) -> None:
    texts = {"a": text("a"), "b": text("b", "1h"), "c": "{"}
    await put(store, backing.namespace, texts)
    found = await all_entries(store, backing.namespace, limit=2)
    assert {data_key: one.bytes for data_key, one in found.items()} == {
        data_key: len(one) for data_key, one in texts.items()
    }
    assert (found["a"].created, found["a"].expires, found["c"].created) == (NOW, None, None)
    assert (found["b"].expires or NOW) - NOW >= timedelta(hours=1)


async def test_what_is_deleted_between_two_pages_takes_no_other_with_it(
    store: Store, backing: Backing
) -> None:
    await put(store, backing.namespace, {f"key-{number}": text("x") for number in range(9)})
    first = await store.entries(backing.namespace, CACHE, limit=3)
    assert isinstance(first, Page)
    for one in first.items:
        await store.delete(backing.namespace, CACHE, one.data_key)
    rest = await store.entries(backing.namespace, CACHE, first.after, limit=100)
    assert isinstance(rest, Page)
    assert len(rest.items) == 6


async def test_caches_are_listed_page_by_page_with_what_they_come_to(store: Store, backing: Backing) -> None:
    for name in ("one", "two", "three"):
        await store.put(backing.namespace, name, "a", text("a"), NOW)
    await store.put(backing.namespace, "two", "b", text("b"), NOW)
    found, after = list[CacheInfo](), ""
    while True:
        page = await store.caches(backing.namespace, after, limit=2)
        assert isinstance(page, Page)
        assert len(page.items) <= 2
        found += page.items
        if not (after := page.after):
            break
    size = len(text("a"))
    assert {one.cache: (one.entries, one.bytes) for one in found} == {
        "one": (1, size),
        "two": (2, 2 * size),
        "three": (1, size),
    }
    assert {one.namespace for one in found} == {backing.namespace}


@pytest.mark.parametrize("after", ["x", "\0", "'", "9" * 400])
async def test_a_page_that_nobody_gave_away_is_no_reason_to_raise(
    store: Store, backing: Backing, after: str
) -> None:
    await put(store, backing.namespace, {"a": text("a")})
    for asked in (store.entries(backing.namespace, CACHE, after), store.caches(backing.namespace, after)):
        assert isinstance(await asked, Page | Outcome)


async def test_the_newest_entry_of_a_template_is_found_that_was_there_before(
    store: Store, backing: Backing
) -> None:
    def of(template: str, age: timedelta) -> str:
        return Entry("node", None, NOW - age, None, template=template).dump()

    hour = timedelta(hours=1)
    entries = {
        "a": of("say", 2 * hour),
        "b": of("say", hour),
        "own": of("say", 0 * hour),
        "later": of("say", -hour),
        "other": of("shout", hour),
        "unnamed": of("", 0 * hour),
        "broken": "{",
    }
    await put(store, backing.namespace, entries)
    where = backing.namespace, CACHE
    assert await store.earlier(*where, "say", "own", NOW) == ("b", entries["b"])
    assert await store.earlier(*where, "say", "own", None) == ("later", entries["later"])
    assert await store.earlier(*where, "say", "own", NOW - 3 * hour) is None
    assert await store.delete(*where, "b") is True
    assert await store.earlier(*where, "say", "own", NOW) == ("a", entries["a"])
    for template, data_key in (("", "own"), ("none", "own"), ("\0", "\0"), ("'", "own"), ("x" * 200, "own")):
        assert await store.earlier(*where, template, data_key, NOW) is None


# --- Hits ---------------------------------------------------------------------------------------------


async def test_a_hit_is_seen_in_the_list_and_changes_nothing_else(store: Store, backing: Backing) -> None:
    entries = {name: text(name, created=datetime.now(UTC) - timedelta(days=1)) for name in ("hit", "other")}
    await put(store, backing.namespace, entries)
    began = datetime.now(UTC) - timedelta(seconds=5)
    for _ in range(3):
        store.hit(backing.namespace, CACHE, "hit", entries["hit"])

    async def last_hits() -> dict[str, datetime | None]:
        found = await all_entries(store, backing.namespace)
        return {data_key: one.last_hit for data_key, one in found.items()}

    async def seen() -> bool:
        return (await last_hits())["hit"] is not None

    await until(seen)
    last = await last_hits()
    assert last["hit"] is not None
    assert began <= last["hit"] <= datetime.now(UTC) + timedelta(seconds=5)
    assert last["other"] is None
    left = await store.read(backing.namespace, CACHE, "hit")
    assert isinstance(left, str)
    assert {**json.loads(left), "lastHitTimestamp": None} == json.loads(entries["hit"])


async def test_a_hit_on_what_is_no_entry_or_not_there_harms_nothing(store: Store, backing: Backing) -> None:
    await put(store, backing.namespace, {"broken": "{", "a": text("a")})
    for cache, data_key, one in (
        (CACHE, "broken", "{"),
        (CACHE, "absent", text("x")),
        (CACHE, "a\0", text("x")),
        ("../pods", "a", text("x")),
        ("absent", "a", text("x")),
    ):
        store.hit(backing.namespace, cache, data_key, one)
    store.hit(backing.namespace, CACHE, "a", text("a"))

    async def seen() -> bool:
        return (await all_entries(store, backing.namespace))["a"].last_hit is not None

    await until(seen)
    assert await store.read(backing.namespace, CACHE, "broken") == "{"
    assert await store.read(backing.namespace, CACHE, "absent") == ""


# --- Those who wait -----------------------------------------------------------------------------------


async def test_whoever_follows_an_entry_is_told_another_value_once_it_is_another_one(
    store: Store, backing: Backing
) -> None:
    waiting = Waiting(backing.namespace, "a", "b")
    store.subscribe(waiting.on_change, waiting)
    await put(store, backing.namespace, {"a": text("a")})
    await until(lambda: "a" in waiting.told)
    before = dict(waiting.told)
    await put(store, backing.namespace, {"b": text("b")})
    await until(lambda: waiting.told.get("b") != before.get("b"))
    assert before["a"] == waiting.told["a"]


async def test_he_is_told_of_what_another_keeper_or_kubectl_does(
    store: Store, other: Store, backing: Backing
) -> None:
    waiting = Waiting(backing.namespace, "a", "b")
    store.subscribe(waiting.on_change, waiting)
    seed(backing, {"b": text("b")})
    await until(lambda: "b" in waiting.told)
    newer = text("a", created=NOW + timedelta(hours=1))
    for change, left in (
        (other.put(backing.namespace, CACHE, "a", text("a"), NOW), text("a")),
        (other.put(backing.namespace, CACHE, "a", newer, NOW), newer),
        (other.delete(backing.namespace, CACHE, "a"), ""),
    ):
        before = waiting.told.get("a")
        await change
        await until(lambda before=before: waiting.told.get("a") != before)
        assert await store.read(backing.namespace, CACHE, "a") == left


async def test_a_store_that_runs_knows_of_its_namespace(store: Store, backing: Backing) -> None:
    assert store.knows(backing.namespace)
    assert store.last_contact(backing.namespace) > 0
    assert store.kept_bytes >= 0
