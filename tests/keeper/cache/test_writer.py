import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper.cache import writer as writing
from keeper.cache.writer import Writer
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import DEVCLUSTER, Cluster
from tests.keeper.api.asked import Asked, recorded
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
CACHE_LABELS = {"labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}}
MIB = 1 << 20


def entry(fill: str = "", **fields: Any) -> str:
    made = {
        "nodeID": "wf-1",
        "outputs": {"result": fill},
        "creationTimestamp": "2026-07-31T11:00:00Z",
        "lastHitTimestamp": "2026-07-31T11:00:00Z",
    }
    return json.dumps({**made, **fields}, separators=(",", ":"))


def expired(fill: str = "") -> str:
    return entry(fill, stepmemo={"maxAge": "1m"})


class Setting:
    """A namespace, and the writer with the admin's rights."""

    def __init__(self, cluster: Cluster, writer: Writer, asked: Asked) -> None:
        self.cluster, self.writer, self.asked = cluster, writer, asked
        self.namespace = cluster.namespace()

    async def put(self, place: str, text: str) -> Outcome:
        return await self.writer.put(self.namespace, "my-cache", place, text, NOW)

    async def put_all(self, entries: Mapping[str, str]) -> dict[str, Reason]:
        """Put entries at once; the reason of each."""
        outcomes = await asyncio.gather(*(self.put(*item) for item in entries.items()))
        return dict(zip(entries, (outcome.reason for outcome in outcomes), strict=True))

    def make(self, name: str = "my-cache", **fields: Any) -> None:
        metadata = {**fields.pop("metadata", CACHE_LABELS), "name": name, "namespace": self.namespace}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, **fields})
        assert status == 201, body

    def config_map(self, name: str = "my-cache") -> Any:
        status, body = self.cluster.get("ConfigMap", self.namespace, name)
        return body if status == 200 else None

    def data(self) -> dict[str, str]:
        data: dict[str, str] = self.config_map().get("data") or {}
        return data


@pytest.fixture
async def setting(cluster: Cluster) -> AsyncIterator[Setting]:
    async with api_client(cluster) as api, writing_with(api) as writer:
        with recorded(api) as asked:
            yield Setting(cluster, writer, asked)


class writing_with:  # noqa: N801 - a context manager
    def __init__(self, api: ApiClient, **settings: Any) -> None:
        self.writer = Writer(api, **settings)

    async def __aenter__(self) -> Writer:
        return self.writer

    async def __aexit__(self, *_: object) -> None:
        await self.writer.close()


@pytest.mark.contract
async def test_the_first_entry_makes_the_cache(setting: Setting) -> None:
    assert (await setting.put("a", entry())).reason is Reason.STORED
    made = setting.config_map()
    assert made["data"] == {"a": entry()}
    assert made["metadata"]["labels"] == CACHE_LABELS["labels"]


@pytest.mark.contract
async def test_entries_of_the_same_moment_go_in_one_request(setting: Setting) -> None:
    setting.make(data={"other": "x"})
    setting.asked.clear()
    entries = {f"key-{number}": entry(str(number)) for number in range(20)}
    assert set((await setting.put_all(entries)).values()) == {Reason.STORED}
    assert setting.data() == {"other": "x", **entries}
    assert setting.asked.methods() == ["PATCH"]


@pytest.mark.contract
async def test_hundreds_at_once_all_land_and_cost_few_requests(setting: Setting) -> None:
    setting.make()
    entries = {f"key-{number}": entry(str(number)) for number in range(300)}
    assert set((await setting.put_all(entries)).values()) == {Reason.STORED}
    assert setting.data() == entries
    assert len(setting.asked) <= 5


@pytest.mark.contract
async def test_of_two_entries_for_one_place_the_later_one_stays(setting: Setting) -> None:
    outcomes = await asyncio.gather(*(setting.put("a", entry(fill)) for fill in "123"))
    assert {outcome.reason for outcome in outcomes} == {Reason.STORED}
    assert setting.data() == {"a": entry("3")}


@pytest.mark.contract
@pytest.mark.parametrize("labels", [{}, {"labels": {argo.CONFIGMAP_TYPE: "Parameter"}}])
async def test_a_config_map_that_is_no_cache_is_not_written(setting: Setting, labels: Any) -> None:
    setting.make(metadata=labels, data={"mine": "x"})
    assert await setting.put_all({"a": entry(), "b": entry()}) == {
        "a": Reason.NOT_A_CACHE,
        "b": Reason.NOT_A_CACHE,
    }
    assert setting.data() == {"mine": "x"}


@pytest.mark.contract
@pytest.mark.parametrize("data", [{}, {"data": {}}])
async def test_a_cache_without_data_takes_entries(setting: Setting, data: Any) -> None:
    setting.make(**data)
    assert await setting.put_all({"a": entry(), "b": entry()}) == {"a": Reason.STORED, "b": Reason.STORED}
    assert setting.data().keys() == {"a", "b"}


@pytest.mark.contract
async def test_an_immutable_cache_is_not_written(setting: Setting) -> None:
    if setting.cluster.tier == DEVCLUSTER:
        pytest.skip("the devcluster lets an immutable ConfigMap be changed")
    setting.make(data={"other": "x"}, immutable=True)
    assert (await setting.put("a", entry())).reason is Reason.NOT_A_CACHE


@pytest.mark.contract
async def test_a_full_cache_gives_up_its_expired_entries(setting: Setting) -> None:
    old = expired("p" * 5000)
    setting.make(data={"old": old, "fill": "x" * (MIB - len(old))})
    assert (await setting.put("a", entry())).reason is Reason.STORED
    assert setting.data().keys() == {"fill", "a"}


@pytest.mark.contract
async def test_entries_that_expired_stay_where_there_is_room(setting: Setting) -> None:
    setting.make(data={"old": expired()})
    await setting.put("a", entry())
    assert setting.data().keys() == {"old", "a"}


@pytest.mark.contract
async def test_what_does_not_fit_does_not_take_the_others_down(setting: Setting) -> None:
    setting.make(data={"fill": "x" * (MIB - 1000)})
    large = entry("y" * 2000)
    outcomes = await setting.put_all({"large": large, "a": entry(), "b": entry()})
    assert outcomes == {"large": Reason.CACHE_FULL, "a": Reason.STORED, "b": Reason.STORED}
    assert setting.data().keys() == {"fill", "a", "b"}


@pytest.mark.contract
async def test_a_new_cache_takes_entries_until_it_is_full(setting: Setting) -> None:
    sizes = {"large": MIB - 5000, "a": 3000, "b": 3000}
    outcomes = await setting.put_all({place: "x" * size for place, size in sizes.items()})
    assert outcomes == {"large": Reason.STORED, "a": Reason.STORED, "b": Reason.CACHE_FULL}


@pytest.mark.contract
async def test_binary_data_takes_room_too(setting: Setting) -> None:
    setting.make(data={"x": "x"}, binaryData={"fill": "eHh4" * ((MIB - 2000) // 3)})
    outcomes = await setting.put_all({"large": entry("y" * 3000), "a": entry(), "b": entry()})
    assert outcomes == {"large": Reason.CACHE_FULL, "a": Reason.STORED, "b": Reason.STORED}


@pytest.mark.contract
async def test_a_key_that_is_taken_by_binary_data_spoils_no_other(setting: Setting) -> None:
    if setting.cluster.tier == DEVCLUSTER:
        pytest.skip("the devcluster lets data and binaryData share a key")
    setting.make(data={"x": "x"}, binaryData={"taken": "eHh4"})
    outcomes = await setting.put_all({"taken": entry(), "a": entry()})
    assert outcomes == {"taken": Reason.API_UNAVAILABLE, "a": Reason.STORED}


@pytest.mark.contract
async def test_an_entry_larger_than_any_config_map_asks_nobody(setting: Setting) -> None:
    assert (await setting.put("a", "x" * (MIB + 1))).reason is Reason.CACHE_FULL
    assert setting.asked == []


@pytest.mark.contract
async def test_an_entry_takes_the_place_of_its_older_self_in_a_full_cache(setting: Setting) -> None:
    old = entry("1" * 100)
    setting.make(data={"a": old, "fill": "x" * (MIB - len(old))})
    assert (await setting.put("a", entry("2" * 100))).reason is Reason.STORED


@pytest.mark.contract
async def test_a_full_cache_is_seldom_asked(setting: Setting) -> None:
    setting.make(data={"fill": "x" * MIB})
    assert (await setting.put("a", entry())).reason is Reason.CACHE_FULL
    setting.asked.clear()
    began = asyncio.get_running_loop().time()
    assert set((await setting.put_all({f"k{n}": entry() for n in range(50)})).values()) == {Reason.CACHE_FULL}
    assert asyncio.get_running_loop().time() - began >= writing.GATHERED_WHEN_FULL
    assert setting.asked.methods() == ["GET"]


@pytest.mark.contract
async def test_others_that_write_all_the_time_lose_nothing(setting: Setting) -> None:
    setting.make()
    theirs = [f"theirs-{number}" for number in range(30)]

    def write() -> None:
        for place in theirs:
            status, body = setting.cluster.patch(
                "ConfigMap", setting.namespace, "my-cache", {"data": {place: "x"}}
            )
            assert status == 200, body

    entries = {f"ours-{number}": entry() for number in range(60)}
    other = asyncio.create_task(asyncio.to_thread(write))
    for at in range(0, 60, 10):
        batch = dict(list(entries.items())[at : at + 10])
        assert set((await setting.put_all(batch)).values()) == {Reason.STORED}
    await other
    assert setting.data().keys() == {*theirs, *entries}


@pytest.mark.contract
async def test_a_cache_that_appears_in_between_is_written(setting: Setting) -> None:
    puts = [Writer.put(setting.writer, setting.namespace, "my-cache", "a", entry(), NOW)]
    async with api_client(setting.cluster) as api, writing_with(api) as second:
        puts += [second.put(setting.namespace, "my-cache", "b", entry(), NOW)]
        outcomes = await asyncio.gather(*puts)
    assert {outcome.reason for outcome in outcomes} == {Reason.STORED}
    assert setting.data().keys() == {"a", "b"}


@pytest.mark.contract
@pytest.mark.parametrize("deleted", [False, True])
async def test_a_write_in_between_is_neither_overwritten_nor_missed(setting: Setting, deleted: bool) -> None:
    setting.make()  # without data, so that the writer has to read before it writes

    def interfere() -> None:
        if deleted:
            status, body = setting.cluster.delete("ConfigMap", setting.namespace, "my-cache")
        else:
            status, body = setting.cluster.patch(
                "ConfigMap", setting.namespace, "my-cache", {"data": {"a": "theirs", "theirs": "x"}}
            )
        assert status == 200, body

    setting.asked.after("GET", interfere)
    assert (await setting.put("a", entry())).reason is Reason.STORED
    assert setting.data() == ({"a": entry()} if deleted else {"a": entry(), "theirs": "x"})


@pytest.mark.contract
async def test_what_etcd_cannot_hold_is_said_to_be_full(setting: Setting) -> None:
    if setting.cluster.tier == DEVCLUSTER:
        pytest.skip("the devcluster has no etcd")
    # Kubernetes counts values alone, and lets these through; etcd takes 1.5 MiB with all that is around them.
    keys = {f"{number:0253}": "x" * 100 for number in range(3000)}
    setting.make(data=keys)
    outcomes = await setting.put_all({"a": entry(), "large": entry("x" * 600_000)})
    assert outcomes == {"a": Reason.STORED, "large": Reason.CACHE_FULL}


@pytest.mark.contract
async def test_without_the_right_an_entry_is_lost_at_once(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "server", [])
    async with api_client(cluster, token=token) as api, writing_with(api) as writer:
        outcome = await writer.put(namespace, "my-cache", "a", entry(), NOW)
    assert outcome.reason is Reason.FORBIDDEN


@pytest.mark.contract
async def test_unchanged_entries_are_replaced_and_others_left_alone(setting: Setting) -> None:
    setting.make(data={"a": "1", "b": "newer"})
    changes = {"a": ("1", "2"), "b": ("1", "2"), "gone": ("1", "2")}
    outcome = await setting.writer.replace(setting.namespace, "my-cache", changes)
    assert outcome == Outcome(Reason.STORED, "1 of 3")
    assert setting.data() == {"a": "2", "b": "newer"}


@pytest.mark.contract
async def test_replacing_takes_one_request(setting: Setting) -> None:
    setting.make(data={"a": "1", "b": "1"})
    await setting.writer.replace(setting.namespace, "my-cache", {"a": ("1", "2"), "b": ("1", "2")})
    assert setting.asked.methods() == ["PATCH"]
    assert setting.data() == {"a": "2", "b": "2"}


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.contract
async def test_replacing_much_takes_several_requests(setting: Setting) -> None:
    old, new = '"' * 340_000, "'" * 340_000
    setting.make(data=dict.fromkeys("abc", old))
    outcome = await setting.writer.replace(setting.namespace, "my-cache", dict.fromkeys("abc", (old, new)))
    assert outcome == Outcome(Reason.STORED, "3 of 3")
    assert setting.asked.methods() == ["PATCH"] * 3


@pytest.mark.contract
async def test_replacing_makes_no_cache_and_changes_none_that_lacks_the_label(setting: Setting) -> None:
    change = {"a": ("1", "2")}
    absent = await setting.writer.replace(setting.namespace, "none", change)
    setting.make("other", metadata={}, data={"a": "1"})
    other = await setting.writer.replace(setting.namespace, "other", change)
    assert (absent.reason, other.reason) == (Reason.API_UNAVAILABLE, Reason.NOT_A_CACHE)
    assert setting.config_map("none") is None
    assert setting.config_map("other")["data"] == {"a": "1"}


# --- an API server in trouble ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [hang, broken, gibberish])
async def test_an_api_server_in_trouble_costs_the_entry_and_a_bounded_time(
    cluster: Cluster, answer: Answer
) -> None:
    reasons: list[Reason] = []
    async with (
        answering(answer, "*") as url,
        api_client(cluster, url=url) as api,
        writing_with(api, on_written=reasons.append, seconds=0.3) as writer,
        asyncio.timeout(5),
    ):
        outcome = await writer.put("ns", "my-cache", "a", entry(), NOW)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert reasons == [Reason.API_UNAVAILABLE]


async def test_an_entry_survives_troubles_that_pass(cluster: Cluster) -> None:
    answers = [broken, gibberish]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers.pop()(request) if answers else web.json_response({"metadata": {}})

    async with (
        answering(answer, "*") as url,
        api_client(cluster, url=url) as api,
        writing_with(api) as writer,
    ):
        outcome = await writer.put("ns", "my-cache", "a", entry(), NOW)
    assert outcome.reason is Reason.STORED


async def test_a_server_that_asks_for_patience_gets_it(cluster: Cluster) -> None:
    times: list[float] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"metadata": {}})

    async with (
        answering(answer, "*") as url,
        api_client(cluster, url=url) as api,
        writing_with(api) as writer,
    ):
        outcome = await writer.put("ns", "my-cache", "a", entry(), NOW)
    assert outcome.reason is Reason.STORED
    assert times[1] - times[0] >= 1


async def test_what_waits_is_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 3)
    monkeypatch.setattr(writing, "BYTES_WAITING_IN_ALL", 4 * writing._weight(entry()))
    async with (
        answering(hang, "*") as url,
        api_client(cluster, url=url) as api,
        writing_with(api, seconds=0.3) as writer,
    ):
        one = [writer.put("ns", "one", f"k{n}", entry(), NOW) for n in range(4)]
        two = [writer.put("ns", "two", f"k{n}", entry(), NOW) for n in range(2)]
        outcomes = await asyncio.gather(*one, *two)
    assert outcomes[3].reason is Reason.RATE_LIMITED
    assert outcomes[5].detail == "too many entries wait to be written"


async def test_a_namespace_whose_entries_wait_keeps_nobody_elses_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BYTES_WAITING_OF_ONE", 6 * writing._weight(entry()))
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return await hang(request) if "/ns/" in request.path else web.json_response({"metadata": {}})

    async with (
        answering(answer, "*") as url,
        api_client(cluster, url=url) as api,
        writing_with(api, seconds=60) as writer,
    ):
        mine = [asyncio.create_task(writer.put("ns", f"cache-{n}", "a", entry(), NOW)) for n in range(8)]
        others = [writer.put(f"other-{n}", "cache", "a", entry(), NOW) for n in range(20)]
        assert {outcome.reason for outcome in await asyncio.gather(*others)} == {Reason.STORED}
        await until(lambda: sum("/ns/" in path for path in asked) == writing.REQUESTS_OF_ONE)
        assert [one.done() for one in mine] == [False] * 6 + [True] * 2
    reasons = [outcome.reason for outcome in await asyncio.gather(*mine)]
    assert reasons == [Reason.API_UNAVAILABLE] * 6 + [Reason.RATE_LIMITED] * 2
    assert sum("/ns/" in path for path in asked) == writing.REQUESTS_OF_ONE


async def test_closing_gives_up_what_waits(cluster: Cluster) -> None:
    async with answering(hang, "*") as url, api_client(cluster, url=url) as api:
        writer = Writer(api)
        waiting = asyncio.create_task(writer.put("ns", "my-cache", "a", entry(), NOW))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await writer.close()
        assert (await waiting).reason is Reason.API_UNAVAILABLE


@pytest.mark.parametrize("cache", ["../secrets", "a/b"])
async def test_a_name_that_is_none_leads_nowhere_else(cluster: Cluster, cache: str) -> None:
    async with api_client(cluster) as api, writing_with(api, seconds=0.2) as writer:
        outcome = await writer.put(cluster.namespace(), cache, "a", entry(), NOW)
    assert outcome.reason is not Reason.STORED
