"""Every metric that a program of ours can show, with every label: what docs, rules and dashboard may name."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from memoize.reasons import Reason
from server.events import Dropped
from server.metrics import GatedPod, Metrics, WaitsFor
from server.refusals import Refusal

LE = "le"
"""The label that Prometheus gives to the buckets of a histogram."""


def everything(namespaces: int = 2) -> Metrics:
    """Metrics of which everything was counted, good and bad, in the Namespace `a`, and all else is shown."""
    metrics = Metrics(namespaces)
    metrics.decided("pods", Reason.GATED)
    for status in (200, 503):
        metrics.answered("pods", status, 0.003)
    metrics.refused(Refusal.BODIES)
    for status in (200, 403, 0):
        metrics.api_request("GET", status)
    metrics.lookup_failed("workflows")
    metrics.event_dropped(Dropped.FLOOD)
    for reason in (Reason.HIT, Reason.MISS):
        metrics.step_outcome("a", reason)
    metrics.step_failed(Reason.INTERNAL_ERROR)
    metrics.step_ended("a", "hit")
    metrics.completed_seconds(0.04)
    metrics.seconds_saved("a", 60)
    metrics.service_requests("lookup", 200)
    metrics.cache_writes(Reason.STORED)
    metrics.evicted("write", "unused", 1, 500)
    metrics.last_hit_updates(Reason.STORED, 12)
    metrics.breaker_deleted()
    metrics.certificate_flawed()
    metrics.nudged("sent")
    metrics.artifact_checked("there")
    metrics.show_connections(lambda: 1)
    metrics.show_body_bytes(lambda: 1)
    metrics.show_certificate(lambda: 1.8e9)
    metrics.show_keeper_state(("ready", "gone"), lambda: "ready")
    metrics.show_keeper(lambda: True, lambda: True)
    metrics.show_view(lambda: 1, lambda: True)
    metrics.show_database(lambda: True)
    metrics.show_work(lambda: 1, lambda: 1.0, lambda: False)
    metrics.show_gated(lambda: [GatedPod("a", WaitsFor.DECISION, 1.0)], dict.fromkeys(WaitsFor, 30.0))
    metrics.show_caches(lambda: [("a", 1, 2)])
    return metrics


def families(metrics: Metrics) -> dict[str, Metric]:
    """What is shown, by name as it stands in a HELP line's sample: with `_total` for a counter."""
    found = text_string_to_metric_families(metrics.render().decode())
    return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in found}


def ours(metrics: Metrics) -> dict[str, Metric]:
    """The same without what Prometheus' own library tells of every process."""
    return {name: one for name, one in families(metrics).items() if name.startswith("stepmemo_")}


def labels(family: Metric) -> set[str]:
    """The labels of the metric's samples, but LE."""
    return {label for sample in family.samples for label in sample.labels} - {LE}
