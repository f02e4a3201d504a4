import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from argo.steppod import Owner
from memoize.entry import Entry
from memoize.reasons import Reason
from server.events import (
    ATTEMPTS,
    LONGEST_DETAIL,
    LONGEST_NAME,
    PACE_OF_ONE,
    UNREAD,
    WAITING,
    WAITING_OF_ONE,
    Dropped,
    Events,
    ReportingController,
    Workflows,
    hit_event,
    skip_event,
    stored_event,
)
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper import troubled
from tests.waiting import until
from tests.webhook.serving import api_client

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPORTER = ReportingController("stepmemo-keeper", "stepmemo-0")
ANOTHER = ReportingController("stepmemo-webhook", "stepmemo-1")
OWNER = Owner("work", "hello", "u-1")
ENTRY = Entry("wf-1", None, NOW - timedelta(hours=3), None, workflow="hello-x2k9f", took=312)


@asynccontextmanager
async def telling(cluster: Cluster, token: str | None = None) -> AsyncIterator[tuple[Events, list[None]]]:
    """Events that are being written, and the list that grows with every lost one."""
    lost: list[None] = []
    async with api_client(cluster, token=token) as api:
        events = Events(api, lambda _: lost.append(None), *REPORTER)
        async with beside(events.run()):
            yield events, lost


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
    assert event["source"] == {"component": "stepmemo-keeper", "host": "stepmemo-0"}
    assert (event["reportingComponent"], event["reportingInstance"]) == REPORTER
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
        events = Events(api, lambda _: lost.append(None), *REPORTER)
        for number in range(WAITING_OF_ONE + 7):
            events.skipped(OWNER, str(number), Reason.NAME_CLASH, "")
    assert len(lost) == 7


def test_the_name_follows_from_what_is_said() -> None:
    def name(
        owner: Owner = OWNER, node: str = "n", reason: Reason = Reason.NAME_CLASH, detail: str = ""
    ) -> str:
        event: dict[str, Any] = skip_event(owner, node, reason, detail, REPORTER, NOW)
        found: str = event["metadata"]["name"]
        return found

    later = skip_event(OWNER, "n", Reason.NAME_CLASH, "", ANOTHER, NOW.replace(hour=13))
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
    event = skip_event(
        owner,
        "n" * 300,
        Reason.NAME_CLASH,
        "d" * 2000,
        ReportingController("stepmemo-webhook", "h" * 63),
        NOW,
    )
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
            "Hit: step hello-12 was served from the cache: saved 5m12s, from workflow hello-x2k9f, 3h ago",
        ),
        "MemoizationStored": ("Normal", "Stored: the outputs of step hello-13 were stored: cache results"),
    }
    assert lost == []


def test_another_replica_says_the_same_hit_under_the_same_name_and_a_newer_answer_under_another() -> None:
    def name(entry: Entry, reporter: ReportingController, now: datetime) -> str:
        found: str = hit_event(OWNER, "n", entry, reporter, now)["metadata"]["name"]
        return found

    first = name(ENTRY, REPORTER, NOW)
    assert name(ENTRY, ANOTHER, NOW + timedelta(minutes=1)) == first
    assert name(ENTRY._replace(created=NOW), REPORTER, NOW) != first
    assert stored_event(OWNER, "n", "", REPORTER, NOW)["metadata"]["name"] != first


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
async def paced(
    cluster: Cluster, url: str, dropped: Counter[Dropped], workflows: Workflows | None = None
) -> AsyncIterator[tuple[Events, Ticking]]:
    ticking = Ticking()
    async with api_client(cluster, url=url) as api:
        events = Events(
            api,
            lambda why: dropped.update([why]),
            *REPORTER,
            workflows=workflows,
            clock=ticking.clock,
            sleep=ticking.sleep,
        )
        async with beside(events.run()):
            yield events, ticking


async def test_a_fan_out_is_told_at_a_bounded_rate_and_a_warning_does_not_wait_behind_it(
    cluster: Cluster,
) -> None:
    arrived: list[str] = []

    async def take(request: web.Request) -> web.StreamResponse:
        arrived.append((await request.json())["reason"])
        return web.json_response({}, status=201)

    async with (
        troubled.answering(take, "POST") as url,
        paced(cluster, url, lost := Counter[Dropped]()) as (events, ticking),
    ):
        for number in range(100):
            events.hit(OWNER, f"hello-{number}", ENTRY, NOW)
        events.skipped(OWNER, "hello-bad", Reason.NAME_CLASH, "")
        await until(lambda: len(arrived) == 101)
        assert round(ticking.time - 99 * PACE_OF_ONE, 6) >= 0
    assert "MemoizationSkipped" in arrived[:3]
    assert not lost


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
        paced(cluster, url, lost := Counter[Dropped]()) as (events, ticking),
    ):
        events.stored(OWNER, "n", "")
        await until(lambda: lost)
    assert len(tries) == ATTEMPTS
    assert ticking.time == pytest.approx(1.0 + 2.0 + 4.0, abs=PACE_OF_ONE)


# --- many Namespaces, and callers that nobody knows --------------------------------------------------


class Known:
    """What is known of Workflows: `read` were read, `there` can be."""

    def __init__(self) -> None:
        self.read: set[Owner] = set()
        self.there: set[Owner] = set()
        self.asked: list[Owner] = []

    def has_read(self, owner: Owner) -> bool:
        return owner in self.read

    async def workflow_metadata(self, owner: Owner) -> object | None:
        self.asked.append(owner)
        return {} if owner in self.there else None


class Taking:
    """An API server that takes Events; their Namespaces in the order of their arrival."""

    def __init__(self) -> None:
        self.namespaces: list[str] = []
        self.events: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.namespaces.append(request.path.split("/")[4])
        self.events.append(await request.json())
        return web.json_response({}, status=201)


def flood(events: Events, count: int, namespace: str = "noisy") -> None:
    for number in range(count):
        events.skipped(Owner(namespace, "hello", "u-1"), f"n-{number}", Reason.NAME_CLASH, "")


async def test_a_flood_of_one_namespace_delays_and_loses_nothing_of_another(cluster: Cluster) -> None:
    taking, dropped = Taking(), Counter[Dropped]()
    async with (
        troubled.answering(taking.take, "POST") as url,
        paced(cluster, url, dropped) as (events, _),
    ):
        flood(events, WAITING_OF_ONE + 100)
        flood(events, WAITING_OF_ONE, "noisy-too")
        for number in range(10):
            events.skipped(Owner("quiet", "hello", "u-2"), f"n-{number}", Reason.NAME_CLASH, "")
        await until(lambda: taking.namespaces.count("quiet") == 10)
    quiet = [place for place, namespace in enumerate(taking.namespaces) if namespace == "quiet"]
    assert quiet[9] < 33
    assert dropped == {Dropped.FLOOD: 100}


async def test_when_all_is_full_the_namespace_with_the_most_loses(cluster: Cluster) -> None:
    taking, dropped = Taking(), Counter[Dropped]()
    async with (
        troubled.answering(taking.take, "POST") as url,
        paced(cluster, url, dropped) as (events, _),
    ):
        for noisy in range(WAITING // WAITING_OF_ONE):
            flood(events, WAITING_OF_ONE, f"noisy-{noisy}")
        events.skipped(Owner("quiet", "hello", "u-2"), "n", Reason.NAME_CLASH, "")
        assert dropped == {Dropped.FLOOD: 1}
        await until(lambda: "quiet" in taking.namespaces)


async def test_an_api_server_that_limits_one_namespace_holds_up_no_other(cluster: Cluster) -> None:
    taking, dropped = Taking(), Counter[Dropped]()
    tries: list[int] = []

    async def limiting(request: web.Request) -> web.StreamResponse:
        if "/noisy/" in request.path:
            tries.append(len(taking.events))
            return await troubled.overloaded(request)
        return await taking.take(request)

    async with (
        troubled.answering(limiting, "POST") as url,
        paced(cluster, url, dropped) as (events, _),
    ):
        flood(events, 3)
        flood(events, 3, "quiet")
        await until(lambda: len(taking.events) == 3)
        assert len([told for told in tries if told < 3]) == 1
        await until(lambda: dropped == {Dropped.NOT_WRITTEN: 3})


async def test_what_a_review_names_gets_an_event_only_where_it_was_read(cluster: Cluster) -> None:
    taking, dropped, known = Taking(), Counter[Dropped](), Known()
    read, there, forged = (Owner("work", name, "u") for name in ("read", "there", "forged"))
    known.read, known.there = {read}, {there}
    async with (
        troubled.answering(taking.take, "POST") as url,
        paced(cluster, url, dropped, known) as (events, _),
    ):
        for owner in (forged, there, read):
            events.skipped(owner, "n", Reason.NAME_CLASH, "")
        await until(lambda: dropped and len(taking.events) == 2)
    assert {event["involvedObject"]["name"] for event in taking.events} == {"read", "there"}
    assert dropped == {Dropped.WORKFLOW_UNKNOWN: 1}
    assert known.asked == [forged, there]


async def test_three_thousand_forged_names_lose_no_event_of_a_workflow_that_was_read(
    cluster: Cluster,
) -> None:
    taking, dropped, known = Taking(), Counter[Dropped](), Known()
    known.read = {OWNER}
    async with (
        troubled.answering(taking.take, "POST") as url,
        paced(cluster, url, dropped, known) as (events, _),
    ):
        for number in range(3_000):
            forged = Owner(f"work-{number % 300}", f"forged-{number}", "u")
            events.skipped(forged, "n", Reason.NAME_CLASH, "whatever I like to say")
        events.skipped(OWNER, "n", Reason.NAME_CLASH, "")
        await until(lambda: taking.events and dropped.total() == 3_000)
    assert [event["involvedObject"]["name"] for event in taking.events] == [OWNER.name]
    assert dropped == {Dropped.FLOOD: 3_000 - UNREAD, Dropped.WORKFLOW_UNKNOWN: UNREAD}
    assert len(known.asked) == UNREAD


def test_a_callers_text_is_one_short_line() -> None:
    event = skip_event(OWNER, "n" * 10_000, Reason.NAME_CLASH, "d\n\x1b[31m" * 10_000, REPORTER, NOW)
    message = event["message"]
    assert len(message) < LONGEST_NAME + LONGEST_DETAIL + 100
    assert message.isprintable()
