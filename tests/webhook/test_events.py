import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import api_client
from webhook.events import WAITING, Events, skip_event
from webhook.pods import Owner

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWNER = Owner("work", "hello", "u-1")


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
