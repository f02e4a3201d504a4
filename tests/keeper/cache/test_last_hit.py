import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argo import names as argo
from keeper.cache import last_hit as hits
from keeper.cache.last_hit import LastHits, is_due, renew
from keeper.cache.view import View
from keeper.cache.writer import Writer
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.beside import beside
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=11)
INTERVAL = timedelta(minutes=10)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


def text(node: str = "wf-1", last_hit: datetime | None = NOW) -> str:
    outputs = {"parameters": [{"name": "out", "value": "42"}]}
    return Entry(node, outputs, NOW, last_hit, key="k", took=3).dump()


class Clock:
    def __init__(self) -> None:
        self.now = LATER

    def __call__(self) -> datetime:
        return self.now


class Caches:
    """The ConfigMap `results`, and LastHits that renew the times in it."""

    def __init__(
        self, cluster: Cluster, hits: LastHits, clock: Clock, told: list[tuple[Reason, int]]
    ) -> None:
        self.cluster, self.namespace, self.hits, self.clock, self.told = (
            cluster,
            cluster.namespace(),
            hits,
            clock,
            told,
        )

    def holds(self, data: Mapping[str, str], label: str = argo.CONFIGMAP_TYPE_CACHE) -> None:
        metadata = {
            "name": "results",
            "namespace": self.namespace,
            "labels": {argo.CONFIGMAP_TYPE: label},
        }
        created = {"kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
        assert self.cluster.create(created)[0] == 201

    def change(self, place: str, value: str | None) -> None:
        patch: dict[str, Any] = {"data": {place: value}}
        assert self.cluster.patch("ConfigMap", self.namespace, "results", patch)[0] == 200

    def get(self) -> tuple[dict[str, str], str]:
        found = self.cluster.get("ConfigMap", self.namespace, "results")[1]
        return found.get("data") or {}, found["metadata"]["resourceVersion"]

    def hit(self, place: str, value: str) -> None:
        self.hits.hit(self.namespace, "results", place, value)


@pytest.fixture
async def caches(cluster: Cluster):
    clock = Clock()
    told: list[tuple[Reason, int]] = []
    async with api_client(cluster) as api:
        found = LastHits(Writer(api), View(api), 600, on_renewed=lambda *what: told.append(what), now=clock)
        yield Caches(cluster, found, clock, told)


@pytest.mark.contract
async def test_the_times_of_a_cache_are_renewed_by_one_write(caches: Caches) -> None:
    before = {"a": text("wf-1"), "b": text("wf-2"), "c": text("wf-3")}
    caches.holds(before)
    for _ in range(5):
        caches.hit("a", before["a"])
        caches.hit("b", before["b"])
    await caches.hits.flush()
    data, _ = caches.get()
    assert data == {"a": text("wf-1", LATER), "b": text("wf-2", LATER), "c": before["c"]}
    assert caches.told == [(Reason.STORED, 2)]


@pytest.mark.contract
async def test_an_entry_that_changed_or_went_since_it_was_hit_is_left_alone(caches: Caches) -> None:
    before = {place: text(f"wf-{place}") for place in "abc"}
    caches.holds(before)
    for place, value in before.items():
        caches.hit(place, value)
    newer = text("wf-9")  # due as well, but nobody has hit it
    caches.change("a", newer)
    caches.change("b", None)
    await caches.hits.flush()
    assert caches.get()[0] == {"a": newer, "c": text("wf-c", LATER)}


@pytest.mark.contract
async def test_a_configmap_that_is_no_cache_is_not_written(caches: Caches) -> None:
    caches.holds({"a": text()}, label="other")
    _, version = caches.get()
    caches.hit("a", text())
    await caches.hits.flush()
    assert caches.get() == ({"a": text()}, version)
    assert caches.told == [(Reason.NOT_A_CACHE, 1)]


async def test_an_entry_is_renewed_once_per_interval(caches: Caches) -> None:
    caches.holds({"a": text()})
    caches.hit("a", text())
    await caches.hits.flush()
    renewed, version = caches.get()
    caches.clock.now += INTERVAL - timedelta(seconds=1)
    caches.hit("a", renewed["a"])
    await caches.hits.flush()
    assert caches.get()[1] == version
    caches.clock.now += timedelta(seconds=1)
    caches.hit("a", renewed["a"])
    await caches.hits.flush()
    assert caches.get()[1] != version


async def test_a_cache_that_cannot_be_written_is_left_in_peace_for_an_interval(caches: Caches) -> None:
    caches.holds({"a": text()}, label="other")
    for _ in range(3):
        caches.hit("a", text())
        await caches.hits.flush()
    assert len(caches.told) == 1
    caches.clock.now += INTERVAL
    caches.hit("a", text())
    await caches.hits.flush()
    assert len(caches.told) == 2


async def test_what_is_no_entry_is_not_touched(caches: Caches) -> None:
    caches.holds({"a": "{"})
    caches.hit("a", "{")
    await caches.hits.flush()
    assert caches.told == []


async def test_hits_beyond_the_bound_are_forgotten(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "MOST", 2)
    before = {place: text(f"wf-{place}") for place in "abc"}
    caches.holds(before)
    for place, value in before.items():
        caches.hit(place, value)
    await caches.hits.flush()
    assert caches.told == [(Reason.STORED, 2)]
    assert caches.get()[0]["c"] == before["c"]


async def test_a_namespace_that_takes_long_keeps_no_other_waiting(cluster: Cluster) -> None:
    """Neither in one round nor in the next, and what it hits meanwhile is not lost."""

    class Slow:
        def __init__(self) -> None:
            self.read_of: list[str] = []
            self.answers = asyncio.Event()

        async def read(self, namespace: str, cache: str) -> Outcome:
            self.read_of.append(f"{namespace}/{cache}")
            if namespace == "slow":
                await self.answers.wait()
            return Outcome(Reason.CONFLICT)

    view, rounds = Slow(), asyncio.Semaphore(0)
    async with api_client(cluster) as api:
        found = LastHits(Writer(api), view, now=lambda: LATER, sleep=lambda _: rounds.acquire())
        async with beside(found.run()):
            for number in range(3):
                for namespace in ("slow", "other"):
                    found.hit(namespace, str(number), "a", text())
                rounds.release()
                await until(lambda number=number: f"other/{number}" in view.read_of)
            assert view.read_of.count("slow/0") == 1
            view.answers.set()
            rounds.release()
            await until(lambda: "slow/2" in view.read_of)
    assert sorted(set(view.read_of)) == [
        f"{who}/{number}" for who in ("other", "slow") for number in range(3)
    ]


async def test_a_bug_ends_neither_the_task_nor_the_other_caches(cluster: Cluster) -> None:
    class Broken:
        async def read(self, namespace: str, cache: str) -> Outcome:
            raise RuntimeError(cache)

    told: list[Reason] = []
    async with api_client(cluster) as api:
        found = LastHits(Writer(api), Broken(), on_renewed=lambda why, _: told.append(why), now=lambda: LATER)
        found.hit("work", "one", "a", text())
        found.hit("work", "other", "a", text())
        await found.flush()
    assert told == [Reason.INTERNAL_ERROR] * 2


@pytest.mark.parametrize(
    ("last_hit", "due"),
    [
        (None, True),
        (NOW, False),
        (NOW - INTERVAL + timedelta(seconds=1), False),
        (NOW - INTERVAL, True),
        (NOW + timedelta(days=400), True),
    ],
)
def test_the_entry_itself_says_whether_it_is_due(last_hit: datetime | None, due: bool) -> None:
    assert is_due(text(last_hit=last_hit), INTERVAL, NOW) == due


@pytest.mark.slow
@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(min_size=1), st.recursive(INTEGERS | st.text() | st.none(), st.lists, max_leaves=5)
    )
)
def test_nothing_but_the_time_changes_in_an_entry_that_argo_wrote(extra: dict[str, Any]) -> None:
    known = {"nodeID", "outputs", "creationTimestamp", "lastHitTimestamp", "stepmemo"}
    unknown = {name: value for name, value in extra.items() if name not in known}
    entry = {
        **unknown,
        "nodeID": "wf-1",
        "outputs": {"result": "x", "exitCode": "0"},
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "lastHitTimestamp": "2026-03-01T12:00:00Z",
        "stepmemo": {"key": "k", "later": [1]},
    }
    found = json.loads(renew(json.dumps(entry), LATER))
    assert found == {**entry, "lastHitTimestamp": "2026-03-01T12:11:00Z"}
