"""What is told of caches, and how often."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from argo.steppod import Owner
from keeper.cache.reporter import EVENT_EVERY, PROBLEM_EVERY, CacheReporter
from memoize.eviction import Cause, Eviction
from server.events import Events
from server.metrics import Metrics
from tests.beside import beside
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import api_client

GONE = [Eviction("a", Cause.EXPIRED, 10), Eviction("b", Cause.UNUSED, 200), Eviction("c", Cause.UNUSED, 300)]


class Told:
    """A reporter with a clock that the test turns, and what it told."""

    def __init__(self, cluster: Cluster, events: Events) -> None:
        self.seconds, self.metrics, self._cluster = 0.0, Metrics(), cluster
        self.namespace = cluster.namespace()
        self.cache = Owner(self.namespace, "my-cache", "u-1")
        begin = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.reporter = CacheReporter(
            self.metrics, events, lambda: begin + timedelta(seconds=self.seconds), lambda: self.seconds
        )

    def events(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._cluster.list("Event", self.namespace)[1]["items"]
        return items


@pytest.fixture
async def told(cluster: Cluster) -> AsyncIterator[Told]:
    async with api_client(cluster) as api:
        events = Events(api, lambda _: None, "stepmemo-keeper", "keeper-0")
        async with beside(events.run()):
            yield Told(cluster, events)


@pytest.mark.contract
async def test_what_went_is_counted_each_time_and_told_once_a_minute(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for told.seconds in (0, EVENT_EVERY - 1, EVENT_EVERY):
        told.reporter.on_evicted(told.cache, GONE)
    await until(lambda: len(told.events()) == 2)
    shown = told.metrics.render().decode()
    assert 'stepmemo_cache_evicted_entries_total{by="write",reason="unused"} 6.0' in shown
    assert 'stepmemo_cache_evicted_bytes_total{by="write",reason="unused"} 1500.0' in shown
    assert 'stepmemo_cache_evicted_entries_total{by="write",reason="expired"} 3.0' in shown
    assert len(caplog.records) == 3
    first = told.events()[0]
    assert first["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "namespace": told.namespace,
        "name": "my-cache",
        "uid": "u-1",
    }
    assert (first["type"], first["reason"]) == ("Normal", "MemoizationEvicted")
    assert first["message"] == (
        "Evicted: 3 entries of 510 bytes made room for newer ones: "
        "1 had expired, 2 were not used for the longest time"
    )


@pytest.mark.contract
async def test_a_clean_up_is_told_apart(told: Told) -> None:
    told.reporter.on_evicted(told.cache, GONE)
    told.seconds = EVENT_EVERY
    told.reporter.on_collected(told.cache, GONE[:1])
    await until(lambda: len(told.events()) == 2)
    shown = told.metrics.render().decode()
    assert 'stepmemo_cache_evicted_entries_total{by="gc",reason="expired"} 1.0' in shown
    assert any("cleaned up" in one["message"] for one in told.events())


@pytest.mark.contract
async def test_a_mistake_is_told_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    for told.seconds in (0, 1, 2, PROBLEM_EVERY - 1):
        told.reporter.on_problem(told.cache, 'annotation stepmemo.dev/max-bytes: "x" must be a number')
    await until(lambda: len(told.events()) == 1)
    (event,) = told.events()
    assert (event["type"], event["reason"]) == ("Warning", "MemoizationLimit")
    assert event["message"].startswith('InvalidLimit: annotation stepmemo.dev/max-bytes: "x"')
    assert len(caplog.records) == 1
