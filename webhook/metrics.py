"""What /metrics tells: decisions by reason, admission latency, and what was dropped or could not be read."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from memoize.reasons import Reason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds, up to the webhooks' time-out."""


class Metrics:
    """The counters of one server; each server has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "stepmemo_decisions",
            "Admission decisions by webhook and reason code.",
            ["webhook", "reason"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "stepmemo_admission_seconds",
            "Time from an admission review's arrival to its answer, by webhook and HTTP status.",
            ["webhook", "status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._unreadable = Counter(
            "stepmemo_lookup_failures",
            "Namespaces and Workflows that could not be read in time.",
            ["resource"],
            registry=self._registry,
        )
        self._lost_events = Counter(
            "stepmemo_lost_events", "Events that were not written.", registry=self._registry
        )

    def decided(self, webhook: str, reason: Reason) -> None:
        """Count one decision."""
        self._decisions.labels(webhook, reason.value).inc()

    def answered(self, webhook: str, status: int, seconds: float) -> None:
        """Count one answer and how long it took."""
        self._seconds.labels(webhook, str(status)).observe(seconds)

    def unreadable(self, resource: str) -> None:
        """Count one look-up that brought nothing."""
        self._unreadable.labels(resource).inc()

    def lost_event(self) -> None:
        """Count one Event that was not written."""
        self._lost_events.inc()

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
