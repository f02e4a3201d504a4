from prometheus_client.parser import text_string_to_metric_families

from memoize.reasons import Reason
from webhook.metrics import Metrics


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
    assert found["stepmemo_admission_seconds_count", frozenset({"pods", "200"})] == 1
    assert found["stepmemo_admission_seconds_bucket", frozenset({"pods", "200", "0.0025"})] == 0
    assert found["stepmemo_admission_seconds_bucket", frozenset({"pods", "200", "0.005"})] == 1


def test_failures_of_the_api_are_counted() -> None:
    metrics = Metrics()
    metrics.unreadable("workflows")
    metrics.lost_event()
    found = samples(metrics)
    assert found["stepmemo_lookup_failures_total", frozenset({"workflows"})] == 1
    assert found["stepmemo_lost_events_total", frozenset()] == 1


def test_every_name_begins_with_ours_and_two_servers_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.lost_event()
    assert samples(other)["stepmemo_lost_events_total", frozenset()] == 0
    assert all(name.startswith("stepmemo_") for name, _ in samples(one))
