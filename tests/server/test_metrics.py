import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from memoize.reasons import Reason
from server.events import Dropped
from server.metrics import NAMESPACE, OTHER, GatedPod, Metrics, WaitsFor
from tests.exposed import everything, families, labels, ours

UNITS = {"seconds", "bytes", "ratio"}
NAMES_OF_UNITS = ("milliseconds", "_ms", "_kb", "kibibytes", "percent", "minutes")


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[str]], float]:
    """Values by name and label values."""
    found = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in found
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
    metrics.api_request("PATCH", 403)
    metrics.api_request("PATCH", 0)
    found = samples(metrics)
    assert found["stepmemo_lookup_failures_total", frozenset({"workflows"})] == 1
    assert found["stepmemo_events_dropped_total", frozenset({"Flood"})] == 1
    assert found["stepmemo_api_requests_total", frozenset({"PATCH", "403"})] == 1
    assert found["stepmemo_api_requests_total", frozenset({"PATCH", "<error>"})] == 1


def test_the_keepers_state_is_the_one_that_it_is_in_at_the_scrape() -> None:
    metrics, state = Metrics(), ["gone"]
    metrics.show_keeper_state(("ready", "gone"), lambda: state[0])
    for state[0] in ("gone", "ready"):
        found = samples(metrics)
        for one in ("ready", "gone"):
            assert found["stepmemo_keeper_state", frozenset({one})] == (one == state[0])


def test_what_became_of_steps_is_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.step_outcome("work", Reason.HIT)
    metrics.step_ended("work", "hit")
    metrics.completed_seconds(0.04)
    metrics.completed_seconds(-3)  # the API server's clock is ahead of ours
    found = samples(metrics)
    assert found["stepmemo_steps_total", frozenset({"Hit"})] == 1
    assert found["stepmemo_step_results_total", frozenset({"hit"})] == 1
    assert found["stepmemo_hit_duration_seconds_count", frozenset()] == 2
    assert found["stepmemo_hit_duration_seconds_bucket", frozenset({"0.05"})] == 2
    assert found["stepmemo_hit_duration_seconds_sum", frozenset()] == 0.04


@pytest.mark.parametrize(
    ("told", "counted"), [(312.5, 312.5), (0, 0), (-1, 0), (math.nan, 0), (math.inf, 0), (1e9, 30 * 86_400)]
)
def test_the_time_saved_is_not_spoilt_by_what_an_entry_claims(told: float, counted: float) -> None:
    metrics = Metrics()
    metrics.seconds_saved("work", told)
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


@pytest.mark.parametrize("namespaces", [0, 1])
def test_results_begin_at_zero_so_that_the_first_is_a_rise(namespaces: int) -> None:
    metrics, rest = Metrics(namespaces), {OTHER} if namespaces else set()
    for result in ("hit", "stored", "skipped"):
        assert samples(metrics)["stepmemo_step_results_total", frozenset({result, *rest})] == 0
    metrics.step_ended("a", "stored")
    own = {"a"} if namespaces else set()
    assert samples(metrics)["stepmemo_step_results_total", frozenset({"hit", *own})] == 0
    assert samples(metrics)["stepmemo_step_results_total", frozenset({"stored", *own})] == 1


def test_a_bug_is_counted_wherever_it_is_met() -> None:
    metrics = Metrics()
    assert samples(metrics)["stepmemo_internal_errors_total", frozenset()] == 0, (
        "so that the first one is a rise"
    )
    metrics.decided("pods", Reason.INTERNAL_ERROR)
    metrics.step_failed(Reason.INTERNAL_ERROR)
    metrics.step_outcome("work", Reason.INTERNAL_ERROR)
    for reason in (Reason.API_UNAVAILABLE, Reason.MISS):
        metrics.decided("pods", reason)
        metrics.step_failed(reason)
        metrics.step_outcome("work", reason)
    found = samples(metrics)
    assert found["stepmemo_internal_errors_total", frozenset()] == 3
    assert found["stepmemo_step_retries_total", frozenset({"ApiUnavailable"})] == 1


def test_states_go_up_and_down() -> None:
    metrics, well = Metrics(), True
    metrics.show_view(lambda: 50_000, lambda: well)
    metrics.show_database(lambda: well)
    for state in (True, False):
        well = state
        found = samples(metrics)
        assert found["stepmemo_view_in_sync", frozenset()] == state
        assert found["stepmemo_database_up", frozenset()] == state
    assert found["stepmemo_view_kept_bytes", frozenset()] == 50_000


def test_the_end_of_the_certificate_is_asked_for_at_each_scrape() -> None:
    metrics, end = Metrics(), 0.0
    metrics.show_certificate(lambda: end)
    for end in (0.0, 1.8e9):
        found = samples(metrics)
        assert found["stepmemo_certificate_expiry_timestamp_seconds", frozenset()] == end


def test_two_programs_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.breaker_deleted()
    assert samples(other)["stepmemo_breaker_deleted_pods_total", frozenset()] == 0


def test_what_a_program_has_not_is_no_zero_among_its_metrics() -> None:
    """An alert on `stepmemo_database_up == 0` must not fire for a program that has no database."""
    shown = ours(Metrics())
    assert [name for name, one in shown.items() if one.type == "gauge"] == ["stepmemo_build_info"]


def test_how_many_wait_for_the_keeper_and_for_how_long_is_asked_at_each_scrape() -> None:
    metrics, waiting = Metrics(), [3, 1.5]
    metrics.show_work(lambda: int(waiting[0]), lambda: waiting[1], lambda: True)
    waiting[:] = [5, 2.5]
    found = samples(metrics)
    assert found["stepmemo_breaker_open", frozenset()] == 1
    assert found["stepmemo_queue_depth", frozenset()] == 5
    assert found["stepmemo_queue_oldest_seconds", frozenset()] == 2.5


def test_gated_pods_are_counted_and_the_longest_wait_is_told_by_what_they_wait_for() -> None:
    metrics, pods = Metrics(), list[GatedPod]()
    metrics.show_gated(lambda: pods, {WaitsFor.DECISION: 30.0, WaitsFor.EQUAL_STEP: 600.0})
    wait = "stepmemo_gated_longest_wait_seconds"
    found = samples(metrics)
    assert found["stepmemo_gated_pods", frozenset()] == 0
    assert [found[wait, frozenset({one})] for one in ("decision", "equal_step")] == [0, 0]
    pods += [GatedPod("a", WaitsFor.EQUAL_STEP, seconds) for seconds in (20.0, 200.0, 100.0)]
    pods.append(GatedPod("b", WaitsFor.DECISION, 2.0))
    found = samples(metrics)
    assert found["stepmemo_gated_pods", frozenset()] == 4
    assert [found[wait, frozenset({one})] for one in ("decision", "equal_step")] == [2, 200]
    assert found["stepmemo_gated_wait_limit_seconds", frozenset({"equal_step"})] == 600


def test_caches_are_told_by_what_they_hold_may_hold_and_how_full_the_fullest_is() -> None:
    metrics = Metrics()
    metrics.show_caches(lambda: [("a", 100, 1000), ("a", 300, 400), ("b", 0, 1000)])
    found = samples(metrics)
    assert found["stepmemo_cache_bytes", frozenset()] == 400
    assert found["stepmemo_cache_limit_bytes", frozenset()] == 2400
    assert found["stepmemo_cache_fullest_ratio", frozenset()] == 0.75


# --- By Namespace ------------------------------------------------------------------------------------


def by_namespace(metrics: Metrics, name: str) -> dict[str, float]:
    """Sums of all samples of this metric."""
    (family,) = [one for shown, one in families(metrics).items() if shown == name]
    found: dict[str, float] = {}
    for sample in family.samples:
        namespace = sample.labels[NAMESPACE]
        found[namespace] = found.get(namespace, 0) + sample.value
    return found


def test_no_metric_names_a_namespace_unless_it_is_asked_for() -> None:
    assert all(NAMESPACE not in labels(one) for one in ours(everything(0)).values())


def test_what_is_by_namespace() -> None:
    assert {name for name, one in ours(everything(1)).items() if NAMESPACE in labels(one)} == {
        "stepmemo_steps_total",
        "stepmemo_step_results_total",
        "stepmemo_saved_seconds_total",
        "stepmemo_gated_pods",
        "stepmemo_cache_bytes",
        "stepmemo_cache_limit_bytes",
        "stepmemo_cache_fullest_ratio",
    }


def test_as_many_namespaces_are_named_as_an_admin_says_and_the_others_are_counted_together() -> None:
    metrics, crowd = Metrics(2), [f"crowd-{number}" for number in range(100)]
    for namespace in ("a", "b", *crowd, "a"):
        metrics.step_outcome(namespace, Reason.MISS)
        metrics.step_ended(namespace, "stored")
        metrics.seconds_saved(namespace, 1)
    metrics.show_gated(
        lambda: [GatedPod(one, WaitsFor.DECISION, 1.0) for one in ("b", *crowd)],
        dict.fromkeys(WaitsFor, 30.0),
    )
    metrics.show_caches(lambda: [(one, 1, 2) for one in ("b", *crowd)])
    for name in ("stepmemo_steps_total", "stepmemo_step_results_total", "stepmemo_saved_seconds_total"):
        assert by_namespace(metrics, name) == {"a": 2, "b": 1, OTHER: 100}
    for name in ("stepmemo_gated_pods", "stepmemo_cache_bytes"):
        assert by_namespace(metrics, name) == {"b": 1, OTHER: 100}


# --- Names -------------------------------------------------------------------------------------------


def test_names_are_as_prometheus_wants_them() -> None:
    """One prefix, base units at the end, `_total` for counters (prometheus.io/docs/practices/naming)."""
    shown = families(everything())
    assert all(name.startswith(("stepmemo_", "process_")) for name in shown)
    for name, one in ours(everything()).items():
        assert name == name.lower()
        assert not any(unit in name for unit in NAMES_OF_UNITS)
        assert name.endswith("_total") == (one.type == "counter")
        assert not set(name.removesuffix("_total").split("_")[:-1]) & UNITS, "the unit ends the name"
        assert one.documentation.endswith(".")


def test_everything_that_can_be_shown_has_a_sample() -> None:
    """So that its labels are seen by those who hold docs, rules and dashboard to them."""
    assert [name for name, one in families(everything()).items() if not one.samples] == []
