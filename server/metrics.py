"""What /metrics shows: decisions and outcomes by reason, times, what was dropped or not read."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from memoize.reasons import Reason
from server.events import Dropped
from server.refusals import Refusal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds, up to the webhooks' time-out."""
_COMPLETION_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds, from an answer at once to that of a Pod which waited for an equal step."""


class Metrics:
    """The counters of one server; each server has a registry of its own.

    A label's value is always of a closed set: no Namespace, no name, nothing that a caller can choose.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._decisions = self._counter(
            "stepmemo_decisions", "Admission decisions by webhook and reason code.", ["webhook", "reason"]
        )
        self._seconds = self._histogram(
            "stepmemo_admission_duration_seconds",
            "Time from an admission review's arrival to its answer, by webhook and HTTP status.",
            _BUCKETS,
            ["webhook", "status"],
        )
        self._refused = self._counter(
            "stepmemo_refused_requests",
            "Connections and requests that were not served, by reason.",
            ["reason"],
        )
        self._connections = self._gauge("stepmemo_connections", "Connections that are open.")
        self._body_bytes = self._gauge("stepmemo_body_bytes", "Bytes of requests' bodies in memory.")
        self._lookup_failures = self._counter(
            "stepmemo_lookup_failures",
            "Namespaces and Workflows that could not be read in time.",
            ["resource"],
        )
        self._events_dropped = self._counter(
            "stepmemo_events_dropped", "Events that were not written, by reason.", ["reason"]
        )
        self._steps = self._counter(
            "stepmemo_steps", "What the keeper made of steps, by reason code.", ["reason"]
        )
        self._gated = self._gauge(
            "stepmemo_gated_pods", "Pods that are gated right now, at the keeper that acts."
        )
        self._queue_depth = self._gauge(
            "stepmemo_queue_depth", "Pods that the keeper has something to do for right now."
        )
        self._queue_oldest = self._gauge(
            "stepmemo_queue_oldest_seconds", "Time that the oldest of those waits which had no turn yet."
        )
        self._completed = self._histogram(
            "stepmemo_hit_seconds",
            "Time from a gated Pod's creation to Succeeded, served from the cache.",
            _COMPLETION_BUCKETS,
        )
        self._saved = self._counter(
            "stepmemo_saved_seconds",
            "Time that steps which were served from the cache took when they ran, where an entry says it.",
        )
        self._requests = self._counter(
            "stepmemo_service_requests",
            "Requests to the cache service by route and HTTP status.",
            ["route", "status"],
        )
        self._writes = self._counter(
            "stepmemo_cache_writes",
            "Entries written to cache ConfigMaps, or not, by reason code.",
            ["reason"],
        )
        self._evicted = self._counter(
            "stepmemo_cache_evicted_entries",
            "Entries that were removed from caches, by what for (write, gc) and why (expired, unused).",
            ["by", "reason"],
        )
        self._evicted_bytes = self._counter(
            "stepmemo_cache_evicted_bytes", "Bytes of these entries.", ["by", "reason"]
        )
        self._last_hit_updates = self._counter(
            "stepmemo_last_hit_updates",
            "lastHitTimestamps of entries that were renewed, or not, by reason code.",
            ["reason"],
        )
        self._nudges = self._counter(
            "stepmemo_nudges",
            "Workflows that Argo's controller was to look at at once after hits, by what became of it.",
            ["result"],
        )
        self._certificate_expiry = self._gauge(
            "stepmemo_certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends, in seconds since 1970; 0 while there is none.",
        )
        self._breaker = self._gauge(
            "stepmemo_breaker_open", "1 while containers of our image cannot be started in step Pods, else 0."
        )
        self._breaker_deleted = self._counter(
            "stepmemo_breaker_deleted_pods", "Step Pods deleted since a container of ours could not start."
        )
        self._kept_bytes = self._gauge(
            "stepmemo_view_kept_bytes", "Memory that caches take which were read and have not changed since."
        )
        self._keeper = Gauge(
            "stepmemo_keeper_state",
            "1 for the state that admission finds the keeper in, 0 for the others.",
            ["state"],
            registry=self._registry,
        )
        self._in_sync = self._gauge(
            "stepmemo_view_in_sync", "1 while the view of the caches is in sync, else 0."
        )

    def decided(self, webhook: str, reason: Reason) -> None:
        """Count one decision."""
        self._decisions.labels(webhook, reason.value).inc()

    def answered(self, webhook: str, status: int, seconds: float) -> None:
        """Count one answer and how long it took."""
        self._seconds.labels(webhook, str(status)).observe(seconds)

    def refused(self, refusal: Refusal) -> None:
        """Count one connection or request that was not served."""
        self._refused.labels(refusal.value).inc()

    def show_connections(self, count: Callable[[], int]) -> None:
        """Have every scrape ask how many connections are open."""
        self._connections.set_function(count)

    def show_body_bytes(self, count: Callable[[], int]) -> None:
        """Have every scrape ask how many bytes of bodies there are."""
        self._body_bytes.set_function(count)

    def lookup_failed(self, resource: str) -> None:
        """Count one look-up that brought nothing."""
        self._lookup_failures.labels(resource).inc()

    def event_dropped(self, dropped: Dropped) -> None:
        """Count one Event that was not written."""
        self._events_dropped.labels(dropped.value).inc()

    def step_outcome(self, reason: Reason) -> None:
        """Count what the keeper made of one step: answered, let run, stored, or why not."""
        self._steps.labels(reason.value).inc()

    def completed_seconds(self, seconds: float) -> None:
        """Observe the time from a Pod's creation to Succeeded; a clock that was set back counts as 0."""
        self._completed.observe(max(0.0, seconds))

    def seconds_saved(self, seconds: float) -> None:
        """Add what an answered step took when it ran; entries are tenants', so only a sane time counts."""
        if math.isfinite(seconds) and seconds > 0:
            self._saved.inc(min(seconds, _LONGEST_STEP))

    def service_requests(self, route: str, status: int) -> None:
        """Count one answer of the cache service; `route` is the pattern, not the path that was asked for."""
        self._requests.labels(route, str(status)).inc()

    def cache_writes(self, reason: Reason) -> None:
        """Count one entry that was to be written."""
        self._writes.labels(reason.value).inc()

    def evicted(self, by: str, reason: str, entries: int, size: int) -> None:
        """Count entries that were removed from a cache, and their bytes."""
        self._evicted.labels(by, reason).inc(entries)
        self._evicted_bytes.labels(by, reason).inc(size)

    def last_hit_updates(self, reason: Reason, entries: int) -> None:
        """Count entries whose lastHitTimestamp was to be renewed by one write."""
        self._last_hit_updates.labels(reason.value).inc(entries)

    def nudged(self, result: str) -> None:
        """Count one nudge, or one that was left out; `result` is a keeper.nudges.NudgeResult."""
        self._nudges.labels(result).inc()

    def breaker_deleted(self) -> None:
        """Count one step Pod that was deleted since a container of ours could not start."""
        self._breaker_deleted.inc()

    def show_keeper_state(self, states: Iterable[str], state: Callable[[], str]) -> None:
        """Have every scrape ask which of these states the keeper is in."""
        for one in states:
            self._keeper.labels(one).set_function(partial(_is, state, one))

    def show_view(self, kept_bytes: Callable[[], int], in_sync: Callable[[], bool]) -> None:
        """Have every scrape ask how much memory the view takes, and whether it is in sync."""
        self._kept_bytes.set_function(kept_bytes)
        self._in_sync.set_function(in_sync)

    def show_work(
        self,
        gated: Callable[[], int],
        depth: Callable[[], int],
        oldest: Callable[[], float],
        breaker_open: Callable[[], bool],
    ) -> None:
        """Have every scrape ask what all replicas see, and the one that acts shows, so that a sum is right.

        That is how many Pods are gated, how many wait for the keeper, for how many seconds the oldest of
        these does, and whether injection is stopped anywhere.
        """
        self._gated.set_function(gated)
        self._queue_depth.set_function(depth)
        self._queue_oldest.set_function(oldest)
        self._breaker.set_function(breaker_open)

    def show_keeper(self, acts: Callable[[], bool], ready: Callable[[], bool]) -> None:
        """Have every scrape ask whether this keeper acts, and whether it is ready for gated Pods."""
        self._gauge("stepmemo_keeper_acts", "1 in the keeper that holds the Lease, else 0.").set_function(
            acts
        )
        self._gauge(
            "stepmemo_keeper_ready", "1 while this keeper would decide a Pod soon that is gated now, else 0."
        ).set_function(ready)

    def show_certificate(self, expiry: Callable[[], float]) -> None:
        """Have every scrape ask when the certificate that is served ends."""
        self._certificate_expiry.set_function(expiry)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)


def _is(state: Callable[[], str], one: str) -> bool:
    return state() == one


_LONGEST_STEP = 30 * 86_400.0
"""Seconds that one hit may add to the time saved: an entry that claims years would spoil the sum."""
