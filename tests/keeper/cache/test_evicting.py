"""Caches that have no room: what goes from them, and what does not, whoever writes at the same time."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from argo.steppod import Owner
from keeper.cache.batch import Rules
from keeper.cache.writer import Writer
from memoize import names
from memoize.eviction import Eviction
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import DEVCLUSTER, Cluster
from tests.keeper.api.asked import Asked, recorded
from tests.webhook.serving import api_client

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
LABELS = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
MIB = 1 << 20


def entry(minutes: float, bytes: int = 1000, **more: Any) -> str:
    """An entry of so many bytes that was used so many minutes ago."""
    used = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"nodeID": "n", "outputs": {"result": ""}, "creationTimestamp": used, "lastHitTimestamp": used}
    text = json.dumps({**fields, **more})
    return text + " " * (bytes - len(text))


def entries(limit: int, bytes: int = 1000) -> dict[str, str]:
    """So many that hardly anything more fits into the limit: `k9` was used longer ago than `k8`."""
    return {f"k{number}": entry(100 + number, bytes) for number in range(limit // bytes)}


class Told:
    """What writers say of caches."""

    def __init__(self) -> None:
        self.evicted: list[tuple[Owner, Sequence[Eviction]]] = []
        self.problems: list[str] = []

    def on_evicted(self, cache: Owner, evicted: Sequence[Eviction]) -> None:
        self.evicted.append((cache, evicted))

    def on_problem(self, cache: Owner, problem: str) -> None:
        self.problems.append(problem)


class Setting:
    """A namespace, and writers with the admin's rights."""

    def __init__(self, cluster: Cluster, api: ApiClient, asked: Asked) -> None:
        self.cluster, self._api, self.asked, self.told = cluster, api, asked, Told()
        self.namespace, self._writers = cluster.namespace(), list[Writer]()
        self.clock = 0.0
        self.limits: dict[str, int] = {}
        """Of single Namespaces."""

    def writer(self, most_bytes: int = MIB) -> Writer:
        made = Writer(
            self._api,
            rules=lambda namespace: Rules(self.limits.get(namespace, most_bytes)),
            on_cache=self.told,
            seconds=120,
            clock=lambda: self.clock,
        )
        self._writers.append(made)
        return made

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()

    async def put(self, writer: Writer, place: str, text: str) -> Outcome:
        return await writer.put(self.namespace, "my-cache", place, text, NOW)

    async def put_all(self, writer: Writer, new: dict[str, str]) -> set[Reason]:
        return {
            one.reason for one in await asyncio.gather(*(self.put(writer, *item) for item in new.items()))
        }

    def make(self, annotations: dict[str, str] | None = None, **fields: Any) -> None:
        metadata = {"labels": LABELS, "annotations": annotations or {}}
        metadata |= {"name": "my-cache", "namespace": self.namespace}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, **fields})
        assert status == 201, body

    def write(self, data: dict[str, str | None]) -> None:
        """As somebody else does."""
        status, body = self.cluster.patch("ConfigMap", self.namespace, "my-cache", {"data": data})
        assert status == 200, body

    def data(self) -> dict[str, str]:
        status, body = self.cluster.get("ConfigMap", self.namespace, "my-cache")
        assert status == 200, body
        data: dict[str, str] = body.get("data") or {}
        return data


@pytest.fixture
async def setting(cluster: Cluster) -> AsyncIterator[Setting]:
    async with api_client(cluster) as api:
        with recorded(api) as asked:
            made = Setting(cluster, api, asked)
            try:
                yield made
            finally:
                await made.close()


def total(data: dict[str, str]) -> int:
    return sum(map(len, data.values()))


@pytest.mark.contract
async def test_what_was_not_used_for_long_makes_room_in_the_same_request(
    setting: Setting,
) -> None:
    present = entries(MIB, 10_000)
    setting.make(data=present)
    assert (await setting.put(setting.writer(), "new", entry(0, 10_000))).reason is Reason.STORED
    left = setting.data()
    gone = present.keys() - left.keys()
    assert "new" in left
    assert gone == {f"k{len(present) - 1 - number}" for number in range(len(gone))}
    assert total(left) <= MIB - MIB // 8 <= total(left) + 10_000
    assert setting.asked.methods() == ["PATCH", "GET", "PATCH"]
    ((cache, evicted),) = setting.told.evicted
    assert (cache.namespace, cache.name) == (setting.namespace, "my-cache")
    assert cache.uid
    assert {one.data_key for one in evicted} == gone


@pytest.mark.contract
async def test_once_room_was_made_writes_are_as_before(setting: Setting) -> None:
    setting.make(data=entries(MIB, 10_000))
    writer = setting.writer()
    await setting.put(writer, "new", entry(0, 10_000))
    setting.asked.clear()
    for number in range(12):
        assert (await setting.put(writer, f"new-{number}", entry(0, 10_000))).reason is Reason.STORED
    assert setting.asked.methods() == ["PATCH"] * 12
    # And it is known when it is full again.
    setting.asked.clear()
    for number in range(4):
        assert (await setting.put(writer, f"last-{number}", entry(0, 10_000))).reason is Reason.STORED
    assert sorted(setting.asked.methods()) == ["GET", *["PATCH"] * 4]


@pytest.mark.contract
async def test_what_steps_wait_for_stays(setting: Setting) -> None:
    present = entries(MIB, 100_000)
    setting.make(data=present)
    asked = list[tuple[str, str]]()

    def awaited(namespace: str, cache: str) -> Collection[str]:
        asked.append((namespace, cache))
        return {"k9", "k8"}

    writer = setting.writer()
    writer.spare(awaited)
    assert (await setting.put(writer, "new", entry(0, 100_000))).reason is Reason.STORED
    assert {"k9", "k8"} <= setting.data().keys()
    assert "k7" not in setting.data()
    assert asked == [(setting.namespace, "my-cache")]


@pytest.mark.contract
@pytest.mark.parametrize("annotation", [False, True])
async def test_a_lower_limit_holds(setting: Setting, annotation: bool) -> None:
    setting.make({names.MAX_BYTES: "20k"} if annotation else {}, data=entries(20_000))
    writer = setting.writer(MIB if annotation else 20_000)
    for number in range(30):
        assert (await setting.put(writer, f"new-{number}", entry(1 / (number + 2)))).reason is Reason.STORED
        assert total(setting.data()) <= 20_000
        assert f"new-{number}" in setting.data()
    # Most writes were the usual ones.
    assert setting.asked.methods().count("GET") <= 15


@pytest.mark.contract
@pytest.mark.parametrize("annotation", [False, True])
async def test_what_is_larger_than_a_lower_limit_is_told_with_its_size(
    setting: Setting, annotation: bool
) -> None:
    present = entries(20_000)
    setting.make({names.MAX_BYTES: "20k"} if annotation else {}, data=present)
    outcome = await setting.put(setting.writer(MIB if annotation else 20_000), "new", entry(0, 20_001))
    assert outcome.reason is Reason.CACHE_FULL
    assert "an entry of 20001 bytes does not fit into the 20000" in outcome.detail
    assert setting.data() == present


@pytest.mark.contract
@pytest.mark.parametrize("of_namespace", [False, True])
async def test_a_limit_that_is_raised_or_comes_later_counts_soon(
    setting: Setting, of_namespace: bool
) -> None:
    setting.limits = {setting.namespace: 20_000} if of_namespace else {}
    setting.make({} if of_namespace else {names.MAX_BYTES: "20k"}, data=entries(20_000))
    writer = setting.writer()
    await setting.put(writer, "a", entry(0))
    for value, most in (("40k", 40_000), ("10k", 10_000)):
        metadata = {"metadata": {"annotations": {names.MAX_BYTES: value}}}
        if of_namespace:
            setting.limits = {setting.namespace: most, "other": MIB}
        else:
            assert setting.cluster.patch("ConfigMap", setting.namespace, "my-cache", metadata)[0] == 200
        setting.clock += 60
        new = {f"{value}-{number}": entry(0) for number in range(50)}
        for item in new.items():
            assert (await setting.put(writer, *item)).reason is Reason.STORED
        assert most * 3 / 4 <= total(setting.data()) <= most


@pytest.mark.contract
async def test_a_bad_annotation_is_told_and_ignored(setting: Setting) -> None:
    setting.make({names.MAX_BYTES: "12 GB"}, data={"a": entry(5)})
    assert (await setting.put(setting.writer(), "b", entry(0))).reason is Reason.STORED
    assert setting.data().keys() == {"a", "b"}
    (problem,) = setting.told.problems
    assert 'stepmemo.dev/max-bytes: "12 GB" must be a number of bytes' in problem


@pytest.mark.contract
async def test_a_new_cache_is_made_within_a_lower_limit(setting: Setting) -> None:
    new = {f"k{number}": entry(0) for number in range(30)}
    assert await setting.put_all(setting.writer(20_000), new) == {Reason.STORED, Reason.CACHE_FULL}
    assert total(setting.data()) == 20_000


@pytest.mark.contract
async def test_who_loses_a_conflict_chooses_anew(setting: Setting) -> None:
    present = entries(MIB, 100_000)
    setting.make(data=present)
    # Between the look and the write somebody uses what was to go.
    setting.asked.after("GET", lambda: setting.write({"k9": entry(0, 100_000)}))
    assert (await setting.put(setting.writer(), "new", entry(0, 100_000))).reason is Reason.STORED
    assert setting.asked.methods() == ["PATCH", "GET", "PATCH", "GET", "PATCH"]
    assert "k9" in setting.data()
    assert "k8" not in setting.data()


@pytest.mark.contract
async def test_two_that_write_at_the_limit_lose_nothing_new(setting: Setting) -> None:
    setting.make(data=entries(200_000))
    one, other = setting.writer(200_000), setting.writer(200_000)
    for round_ in range(6):
        new = {f"new-{round_}-{number}": entry(9 - round_) for number in range(20)}
        half = dict(list(new.items())[:10]), dict(list(new.items())[10:])
        outcomes = await asyncio.gather(setting.put_all(one, half[0]), setting.put_all(other, half[1]))
        assert outcomes == [{Reason.STORED}, {Reason.STORED}]
        assert new.keys() <= setting.data().keys()
        # Each knows of the other's entries when it looks; until then they may exceed the limit by them.
        assert total(setting.data()) <= 200_000 + 10_000 * (round_ + 1)
    setting.clock += 60
    assert await setting.put_all(one, {"last": entry(0)}) == {Reason.STORED}
    assert total(setting.data()) <= 200_000


@pytest.mark.contract
async def test_what_etcd_cannot_hold_makes_room_by_its_data_keys(setting: Setting) -> None:
    if setting.cluster.tier == DEVCLUSTER:
        pytest.skip("the devcluster has no etcd")
    present = {f"{number:0253}": entry(100 + number, 240) for number in range(2900)}
    setting.make(data=present)
    assert (await setting.put(setting.writer(), "new", entry(0, 300_000))).reason is Reason.STORED
    left = setting.data()
    assert "new" in left
    assert f"{0:0253}" in left
    assert f"{2899:0253}" not in left


@pytest.mark.contract
async def test_what_is_no_entry_stays_and_stops_nothing(setting: Setting) -> None:
    broken = {"foreign": "x" * 5000, "no-json": "{" * 500, "nested": "[" * 5000, "empty": ""}
    setting.make(data={**broken, **entries(9000)})
    writer = setting.writer(20_000)
    for number in range(20):
        assert (await setting.put(writer, f"new-{number}", entry(0))).reason is Reason.STORED
    assert broken.items() <= setting.data().items()
    assert total(setting.data()) <= 20_000
