import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from argo.steppod import Owner
from memoize.entry import Entry
from memoize.reasons import Reason
from server.events import ATTEMPTS, PACE, WAITING, Events, hit_event, skip_event, stored_event
from tests.cluster import Cluster
from tests.keeper import troubled
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWNER = Owner("work", "hello", "u-1")
ENTRY = Entry("wf-1", None, NOW - timedelta(hours=3), None, workflow="hello-x2k9f", took=312)


@asynccontextmanager
async def telling(cluster: Cluster, token: str | None = None) -> AsyncIterator[tuple[Events, list[None]]]:
    """Events that are being written, and the list that grows with every lost one."""
    lost: list[None] = []
    async with api_client(cluster, token=token) as api:
        events = Events(api, lambda: lost.append(None), "stepmemo-0")
        task = asyncio.create_task(events.run())
        try:
            yield events, lost
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def told(cluster: Cluster, namespace: str, count: int) -> list[dict[str, Any]]:
    """The Namespace's Events, once there are that many."""

    def items() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.list("Event", namespace)[1]["items"]
        return found

    await until(lambda: len(items()) >= count)
    return items()


@pytest.mark.contract
async def test_a_skip_is_told_on_the_workflow(cluster: Cluster) -> None:
    owner = Owner(cluster.namespace(), "hello", "u-1")
    async with telling(cluster) as (events, lost):
        events.skipped(owner, "hello-12", Reason.UNRESOLVED_TAG, "stepmemo.dev/key")
        (event,) = await told(cluster, owner.namespace, 1)
    assert event["involvedObject"]["kind"] == "Workflow"
    assert event["involvedObject"]["name"] == "hello"
    assert event["involvedObject"]["uid"] == "u-1"
    assert event["reason"] == "MemoizationSkipped"
    assert event["type"] == "Warning"
    assert event["message"] == "UnresolvedTag: step hello-12 is not memoized: stepmemo.dev/key"
    assert lost == []


@pytest.mark.contract
async def test_the_same_skip_is_told_once_and_another_one_besides(cluster: Cluster) -> None:
    owner = Owner(cluster.namespace(), "hello", "u-1")
    async with telling(cluster) as (events, lost):
        for _ in range(3):
            events.skipped(owner, "hello-12", Reason.NAME_CLASH, "volume stepmemo")
        events.skipped(owner, "hello-13", Reason.NAME_CLASH, "volume stepmemo")
        items = await told(cluster, owner.namespace, 2)
    assert sorted(item["message"].split()[2] for item in items) == ["hello-12", "hello-13"]
    assert lost == []


@pytest.mark.contract
async def test_an_event_that_cannot_be_written_is_counted_and_the_next_one_is_tried(cluster: Cluster) -> None:
    owner = Owner(cluster.namespace(), "hello", "u-1")
    rules = [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]
    token = cluster.service_account(owner.namespace, "webhook", rules)
    async with telling(cluster, token) as (events, lost):
        events.skipped(Owner("elsewhere", "hello", "u-1"), "n", Reason.NAME_CLASH, "")
        events.skipped(owner, "n", Reason.NAME_CLASH, "")
        await told(cluster, owner.namespace, 1)
    assert len(lost) == 1


async def test_a_flood_is_dropped_and_counted_and_nobody_waits(cluster: Cluster) -> None:
    lost: list[None] = []
    async with api_client(cluster) as api:
        events = Events(api, lambda: lost.append(None), "stepmemo-0")
        for number in range(WAITING + 7):
            events.skipped(OWNER, str(number), Reason.NAME_CLASH, "")
    assert len(lost) == 7


def test_the_name_follows_from_what_is_said() -> None:
    def name(
        owner: Owner = OWNER, node: str = "n", reason: Reason = Reason.NAME_CLASH, detail: str = ""
    ) -> str:
        event: dict[str, Any] = skip_event(owner, node, reason, detail, "stepmemo-0", NOW)
        found: str = event["metadata"]["name"]
        return found

    later = skip_event(OWNER, "n", Reason.NAME_CLASH, "", "stepmemo-1", NOW.replace(hour=13))
    assert later["metadata"]["name"] == name()
    others = {
        name(Owner("work", "hello", "u-2")),
        name(node="m"),
        name(reason=Reason.MODE_UNKNOWN),
        name(detail="d"),
    }
    assert len({name(), *others}) == 5


@pytest.mark.contract
def test_the_api_server_takes_an_event_about_the_longest_names(cluster: Cluster) -> None:
    owner = Owner(cluster.namespace(), "a" * 199 + "." + "b" * 53, "u-1")
    event = skip_event(owner, "n" * 300, Reason.NAME_CLASH, "d" * 2000, "h" * 63, NOW)
    assert cluster.create(event)[0] == 201


@pytest.mark.contract
async def test_a_hit_says_what_it_saved_and_a_stored_entry_is_told(cluster: Cluster) -> None:
    owner = Owner(cluster.namespace(), "hello", "u-1")
    async with telling(cluster) as (events, lost):
        events.hit(owner, "hello-12", ENTRY, NOW)
        events.stored(owner, "hello-13", "cache results")
        items = await told(cluster, owner.namespace, 2)
    found = {item["reason"]: (item["type"], item["message"]) for item in items}
    assert found == {
        "MemoizationHit": (
            "Normal",
            "Hit: step hello-12 was answered from the cache: saved 5m12s, from workflow hello-x2k9f, 3h ago",
        ),
        "MemoizationStored": ("Normal", "Stored: the outputs of step hello-13 were stored: cache results"),
    }
    assert lost == []


def test_another_replica_says_the_same_hit_under_the_same_name_and_a_newer_answer_under_another() -> None:
    def name(entry: Entry, instance: str, now: datetime) -> str:
        found: str = hit_event(OWNER, "n", entry, instance, now)["metadata"]["name"]
        return found

    first = name(ENTRY, "stepmemo-0", NOW)
    assert name(ENTRY, "stepmemo-1", NOW + timedelta(minutes=1)) == first
    assert name(ENTRY._replace(created=NOW), "stepmemo-0", NOW) != first
    assert stored_event(OWNER, "n", "", "stepmemo-0", NOW)["metadata"]["name"] != first


class Ticking:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def paced(cluster: Cluster, url: str, lost: list[None]) -> AsyncIterator[tuple[Events, Ticking]]:
    ticking = Ticking()
    async with api_client(cluster, url=url) as api:
        events = Events(
            api, lambda: lost.append(None), "stepmemo-0", clock=ticking.clock, sleep=ticking.sleep
        )
        task = asyncio.create_task(events.run())
        try:
            yield events, ticking
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_fan_out_is_told_at_a_bounded_rate_and_a_warning_does_not_wait_behind_it(
    cluster: Cluster,
) -> None:
    arrived: list[str] = []

    async def take(request: web.Request) -> web.StreamResponse:
        arrived.append((await request.json())["reason"])
        return web.json_response({}, status=201)

    async with (
        troubled.answering(take, "POST") as url,
        paced(cluster, url, lost := []) as (events, ticking),
    ):
        for number in range(100):
            events.hit(OWNER, f"hello-{number}", ENTRY, NOW)
        events.skipped(OWNER, "hello-bad", Reason.NAME_CLASH, "")
        await until(lambda: len(arrived) == 101)
        assert ticking.time >= 99 * PACE
    assert "MemoizationSkipped" in arrived[:3]
    assert lost == []


@pytest.mark.parametrize("answer", [troubled.overloaded, troubled.broken])
async def test_an_event_is_tried_again_while_the_server_is_in_trouble_and_not_for_ever(
    cluster: Cluster, answer: troubled.Answer
) -> None:
    tries: list[None] = []

    async def counted(request: web.Request) -> web.StreamResponse:
        tries.append(None)
        return await answer(request)

    async with (
        troubled.answering(counted, "POST") as url,
        paced(cluster, url, lost := []) as (events, ticking),
    ):
        events.stored(OWNER, "n", "")
        await until(lambda: lost)
    assert len(tries) == ATTEMPTS
    assert ticking.slept[:3] == [1.0, 2.0, 4.0]
