import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from memoize.reasons import Reason
from server.events import Dropped
from server.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[str]], float]:
    """Values by name and label values."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_decisions_are_counted_by_webhook_and_reason() -> None:
    metrics = Metrics()
    metrics.decided("pods", Reason.INJECTED)
    metrics.decided("pods", Reason.INJECTED)
    metrics.decided("workflows", Reason.ACCEPTED)
    found = samples(metrics)
    assert found["stepmemo_decisions_total", frozenset({"pods", "Injected"})] == 2
    assert found["stepmemo_decisions_total", frozenset({"workflows", "Accepted"})] == 1


def test_latency_is_observed_by_webhook_and_status() -> None:
    metrics = Metrics()
    metrics.answered("pods", 200, 0.003)
    found = samples(metrics)
    assert found["stepmemo_admission_duration_seconds_count", frozenset({"pods", "200"})] == 1
    assert found["stepmemo_admission_duration_seconds_bucket", frozenset({"pods", "200", "0.0025"})] == 0
    assert found["stepmemo_admission_duration_seconds_bucket", frozenset({"pods", "200", "0.005"})] == 1


def test_failures_of_the_api_are_counted() -> None:
    metrics = Metrics()
    metrics.lookup_failed("workflows")
    metrics.event_dropped(Dropped.FLOOD)
    found = samples(metrics)
    assert found["stepmemo_lookup_failures_total", frozenset({"workflows"})] == 1
    assert found["stepmemo_events_dropped_total", frozenset({"Flood"})] == 1


def test_the_keepers_state_is_the_one_that_it_is_in_at_the_scrape() -> None:
    metrics, state = Metrics(), ["gone"]
    metrics.show_keeper_state(("ready", "gone"), lambda: state[0])
    for state[0] in ("gone", "ready"):
        found = samples(metrics)
        for one in ("ready", "gone"):
            assert found["stepmemo_keeper_state", frozenset({one})] == (one == state[0])


def test_what_became_of_steps_is_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.step_outcome(Reason.HIT)
    metrics.completed_seconds(0.04)
    metrics.completed_seconds(-3)  # the API server's clock is ahead of ours
    found = samples(metrics)
    assert found["stepmemo_steps_total", frozenset({"Hit"})] == 1
    assert found["stepmemo_hit_seconds_count", frozenset()] == 2
    assert found["stepmemo_hit_seconds_bucket", frozenset({"0.05"})] == 2
    assert found["stepmemo_hit_seconds_sum", frozenset()] == 0.04


@pytest.mark.parametrize(
    ("told", "counted"), [(312.5, 312.5), (0, 0), (-1, 0), (math.nan, 0), (math.inf, 0), (1e9, 30 * 86_400)]
)
def test_the_time_saved_is_not_spoilt_by_what_an_entry_claims(told: float, counted: float) -> None:
    metrics = Metrics()
    metrics.seconds_saved(told)
    assert samples(metrics)["stepmemo_saved_seconds_total", frozenset()] == counted


def test_requests_and_writes_are_counted() -> None:
    metrics = Metrics()
    metrics.service_requests("/v1/entries", 429)
    metrics.cache_writes(Reason.STORED)
    metrics.last_hit_updates(Reason.STORED, 12)
    metrics.breaker_deleted()
    found = samples(metrics)
    assert found["stepmemo_service_requests_total", frozenset({"/v1/entries", "429"})] == 1
    assert found["stepmemo_cache_writes_total", frozenset({"Stored"})] == 1
    assert found["stepmemo_last_hit_updates_total", frozenset({"Stored"})] == 12
    assert found["stepmemo_breaker_deleted_pods_total", frozenset()] == 1


def test_states_go_up_and_down() -> None:
    metrics, synced = Metrics(), True
    metrics.show_view(lambda: 50_000, lambda: synced)
    for state in (True, False):
        synced = state
        found = samples(metrics)
        assert found["stepmemo_view_in_sync", frozenset()] == state
    assert found["stepmemo_view_kept_bytes", frozenset()] == 50_000


def test_the_end_of_the_certificate_is_asked_for_at_each_scrape() -> None:
    metrics, end = Metrics(), 0.0
    metrics.show_certificate(lambda: end)
    for end in (0.0, 1.8e9):
        found = samples(metrics)
        assert found["stepmemo_certificate_expiry_timestamp_seconds", frozenset()] == end


def test_every_name_begins_with_ours_and_two_servers_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.breaker_deleted()
    assert samples(other)["stepmemo_breaker_deleted_pods_total", frozenset()] == 0
    assert all(name.startswith("stepmemo_") for name, _ in samples(one))


def test_how_many_wait_for_the_keeper_and_for_how_long_is_asked_at_each_scrape() -> None:
    metrics, waiting = Metrics(), [3, 1.5]
    gated, stopped = (lambda: 7), (lambda: True)
    metrics.show_work(gated, lambda: int(waiting[0]), lambda: waiting[1], stopped)
    waiting[:] = [5, 2.5]
    found = samples(metrics)
    assert found["stepmemo_gated_pods", frozenset()] == 7
    assert found["stepmemo_breaker_open", frozenset()] == 1
    assert found["stepmemo_queue_depth", frozenset()] == 5
    assert found["stepmemo_queue_oldest_seconds", frozenset()] == 2.5
