"""What /metrics shows: decisions and outcomes by reason, times, what was dropped or not read.

Names are as Prometheus wants them: base units, `_total` for what only grows. A label's value is of a closed
set, never what a caller can choose; but for Namespaces, where an admin asks for them, and then no more than
he says. docs/monitoring.md explains each metric; a test holds the two together.
"""

import math
import platform
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from memoize import __version__, names
from memoize.reasons import Reason
from server.events import Dropped
from server.refusals import Refusal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAMESPACE = "workflow_namespace"
"""The label of a Namespace of workflows: `namespace` is, to Prometheus, that of the Pod it asked."""
OTHER = "other"
"""Its value for all Namespaces beyond those that are told apart."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds, up to the webhooks' time-out."""
_COMPLETION_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds, from an answer at once to that of a Pod which waited for an equal step."""
Fill = tuple[str, int, int]
"""Of something that has a limit: its Namespace, what is in it, and what may be, in bytes."""
_RESULTS = (names.RESULT_HIT, names.RESULT_STORED, names.RESULT_SKIPPED)
"""The final values of the label names.RESULT."""
_LONGEST_STEP = 30 * 86_400.0
"""Seconds that one hit may add to the time saved: an entry that claims years would spoil the sum."""

# Else each counter has a twin that says when it was made, which Prometheus keeps as a series of its own.
disable_created_metrics()  # type: ignore[no-untyped-call]


class WaitsFor(StrEnum):
    """What a gated Pod waits for."""

    DECISION = "decision"
    """Its lookup, and what follows from it."""
    EQUAL_STEP = "equal_step"
    """The end of an equal step, which runs."""


class GatedPod(NamedTuple):
    """A Pod that is gated right now."""

    namespace: str
    waits_for: WaitsFor
    seconds: float
    """Since it was made."""


class Metrics:
    """The metrics of one program; each has a registry of its own.

    `namespaces` is how many Namespaces are told apart in what is by Namespace: the first that something is
    counted of. 0: no metric is by Namespace. What a program does not `show…` is not among its metrics.
    """

    def __init__(self, namespaces: int = 0) -> None:
        self._registry = CollectorRegistry()
        self._namespaces = _Namespaces(namespaces)
        ProcessCollector(registry=self._registry)
        Info("stepmemo_build", "1; its labels say which release this is.", registry=self._registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._decisions = self._counter(
            "stepmemo_decisions", "Admission decisions by webhook and reason code.", ["webhook", "reason"]
        )
        self._seconds = self._histogram(
            "stepmemo_admission_duration_seconds",
            "Time from an admission review's arrival to its answer, by webhook and HTTP status.",
            _BUCKETS,
            ["webhook", "code"],
        )
        self._refused = self._counter(
            "stepmemo_refused_requests",
            "Connections and requests that were not served, by reason.",
            ["reason"],
        )
        self._api_requests = self._counter(
            "stepmemo_api_requests",
            "Requests to the API server by method and HTTP status; <error> for no answer.",
            ["method", "code"],
        )
        self._lookup_failures = self._counter(
            "stepmemo_lookup_failures",
            "Namespaces, Workflows, Secrets and ConfigMaps that could not be read in time.",
            ["resource"],
        )
        self._events_dropped = self._counter(
            "stepmemo_events_dropped", "Events that were not written, by reason.", ["reason"]
        )
        self._steps = self._counter(
            "stepmemo_steps",
            "What the keeper made of steps, by reason code: why one was let run, and how it ended.",
            ["reason", *self._namespaces.label],
        )
        self._retries = self._counter(
            "stepmemo_step_retries",
            "What the keeper could not do for a step at once, and tried again, by reason code.",
            ["reason"],
        )
        self._results = self._counter(
            "stepmemo_step_results",
            "Steps whose memoization is over, by the final value of the label stepmemo.dev/result.",
            ["result", *self._namespaces.label],
        )
        self._begin_results(self._namespaces.rest)
        self._completed = self._histogram(
            "stepmemo_hit_duration_seconds",
            "Time from a gated Pod's creation to Succeeded, served from the cache.",
            _COMPLETION_BUCKETS,
        )
        self._saved = self._counter(
            "stepmemo_saved_seconds",
            "Time that steps which were served from the cache took when they ran, where an entry says it.",
            self._namespaces.label,
        )
        self._requests = self._counter(
            "stepmemo_service_requests",
            "Requests to the cache service by route and HTTP status.",
            ["route", "code"],
        )
        self._writes = self._counter(
            "stepmemo_cache_writes",
            "Entries written to caches, or not, by reason code.",
            ["reason"],
        )
        self._evicted = self._counter(
            "stepmemo_cache_evicted_entries",
            "Entries that were removed from caches, by what for (write, gc, verify) and why.",
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
        self._artifact_checks = self._counter(
            "stepmemo_artifact_checks",
            "Artifacts of entries that were looked for in their repositories, by what came of it.",
            ["finding"],
        )
        self._bugs = self._counter(
            "stepmemo_internal_errors", "Bugs of ours that were met: the log has a traceback of each."
        )
        self._certificate_flaws = self._counter(
            "stepmemo_certificate_flaws",
            "Times that a certificate or a CA was found in files that cannot be used; the last good one is.",
        )
        self._breaker_deleted = self._counter(
            "stepmemo_breaker_deleted_pods", "Step Pods deleted since a container of ours could not start."
        )

    # --- What is counted ------------------------------------------------------------------------------

    def decided(self, webhook: str, reason: Reason) -> None:
        """Count one decision."""
        self._decisions.labels(webhook, reason.value).inc()
        self._count_bug(reason)

    def answered(self, webhook: str, status: int, seconds: float) -> None:
        """Count one answer and how long it took."""
        self._seconds.labels(webhook, str(status)).observe(seconds)

    def refused(self, refusal: Refusal) -> None:
        """Count one connection or request that was not served."""
        self._refused.labels(refusal.value).inc()

    def certificate_flawed(self) -> None:
        """Count one certificate or CA that was found in files and cannot be used."""
        self._certificate_flaws.inc()

    def api_request(self, method: str, status: int) -> None:
        """Count one request to the API server; status 0: no answer came."""
        self._api_requests.labels(method, str(status) if status else "<error>").inc()

    def lookup_failed(self, resource: str) -> None:
        """Count one look-up that brought nothing."""
        self._lookup_failures.labels(resource).inc()

    def event_dropped(self, dropped: Dropped) -> None:
        """Count one Event that was not written."""
        self._events_dropped.labels(dropped.value).inc()

    def step_outcome(self, namespace: str, reason: Reason) -> None:
        """Count what the keeper made of one step: answered, let run, stored, or why not."""
        self._steps.labels(reason.value, *self._namespaces.of(namespace)).inc()
        self._count_bug(reason)

    def step_failed(self, reason: Reason) -> None:
        """Count what kept something from being done for a step, which will be tried again."""
        self._retries.labels(reason.value).inc()
        self._count_bug(reason)

    def step_ended(self, namespace: str, result: str) -> None:
        """Count one step whose Pod has, or is to have, this final label."""
        of_namespace = self._namespaces.of(namespace)
        self._begin_results(of_namespace)
        self._results.labels(result, *of_namespace).inc()

    def completed_seconds(self, seconds: float) -> None:
        """Observe the time from a Pod's creation to Succeeded; a clock that was set back counts as 0."""
        self._completed.observe(max(0.0, seconds))

    def seconds_saved(self, namespace: str, seconds: float) -> None:
        """Add what an answered step took when it ran; entries are tenants', so only a sane time counts."""
        if math.isfinite(seconds) and seconds > 0:
            of_namespace = self._namespaces.of(namespace)
            saved = self._saved.labels(*of_namespace) if of_namespace else self._saved
            saved.inc(min(seconds, _LONGEST_STEP))

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

    def artifact_checked(self, finding: str) -> None:
        """Count one artifact that was looked for; `finding` is a keeper.artifacts.verifier.ArtifactState."""
        self._artifact_checks.labels(finding).inc()

    def breaker_deleted(self) -> None:
        """Count one step Pod that was deleted since a container of ours could not start."""
        self._breaker_deleted.inc()

    # --- What every scrape asks for -------------------------------------------------------------------

    def show_connections(self, count: Callable[[], int]) -> None:
        """Show how many connections are open."""
        self._gauge("stepmemo_connections", "Connections that are open.", count)

    def show_body_bytes(self, count: Callable[[], int]) -> None:
        """Show how many bytes of bodies there are."""
        self._gauge("stepmemo_body_bytes", "Bytes of requests' bodies in memory.", count)

    def show_certificate(self, expiry: Callable[[], float]) -> None:
        """Show when the certificate that is served ends."""
        self._gauge(
            "stepmemo_certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends, in seconds since 1970; 0 while there is none.",
            expiry,
        )

    def show_keeper_state(self, states: Iterable[str], state: Callable[[], str]) -> None:
        """Show which of these states admission finds the keeper in."""
        shown = Gauge(
            "stepmemo_keeper_state",
            "1 for the state that admission finds the keeper in, 0 for the others.",
            ["state"],
            registry=self._registry,
        )
        for one in states:
            shown.labels(one).set_function(partial(_is, state, one))

    def show_keeper(self, acts: Callable[[], bool], ready: Callable[[], bool]) -> None:
        """Show whether this keeper acts, and whether it is ready for gated Pods."""
        self._gauge("stepmemo_keeper_acts", "1 in the keeper that holds the Lease, else 0.", acts)
        self._gauge(
            "stepmemo_keeper_ready",
            "1 while this keeper would decide a Pod soon that is gated now, else 0.",
            ready,
        )

    def show_view(self, kept_bytes: Callable[[], int], in_sync: Callable[[], bool]) -> None:
        """Show how much memory the view takes, and whether it is in sync."""
        self._gauge(
            "stepmemo_view_kept_bytes",
            "Memory that caches take which were read and have not changed since.",
            kept_bytes,
        )
        self._gauge("stepmemo_view_in_sync", "1 while the view of the caches is in sync, else 0.", in_sync)

    def show_database(self, is_well: Callable[[], bool]) -> None:
        """Show whether the database answers."""
        self._gauge("stepmemo_database_up", "1 while the database answers, else 0.", is_well)

    def show_work(
        self, depth: Callable[[], int], oldest: Callable[[], float], breaker_open: Callable[[], bool]
    ) -> None:
        """Show what all replicas see, and the one that acts shows, so that a sum is right.

        That is how many Pods wait for the keeper, for how many seconds the oldest of these does, and whether
        injection is stopped anywhere.
        """
        self._gauge("stepmemo_queue_depth", "Pods that the keeper has something to do for right now.", depth)
        self._gauge(
            "stepmemo_queue_oldest_seconds",
            "Time that the oldest of those waits which had no turn yet.",
            oldest,
        )
        self._gauge(
            "stepmemo_breaker_open",
            "1 while containers of our image cannot be started in step Pods, else 0.",
            breaker_open,
        )

    def show_gated(self, pods: Callable[[], Iterable[GatedPod]], limits: Mapping[WaitsFor, float]) -> None:
        """Show how many Pods are gated, and the longest that one waits for each of WaitsFor.

        `limits`: how many seconds each may wait by the settings. `pods` are none where another replica acts.
        """
        self._registry.register(_Collected(partial(self._gated, pods, limits)))

    def show_caches(self, fills: Callable[[], Iterable[Fill]]) -> None:
        """Show how full the caches are of which that is known."""
        self._registry.register(_Collected(partial(self._filled, fills)))

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    # --------------------------------------------------------------------------------------------------

    def _gated(
        self, pods: Callable[[], Iterable[GatedPod]], limits: Mapping[WaitsFor, float]
    ) -> Iterator[Metric]:
        counts, longest = Count({tuple(self._namespaces.rest): 0}), dict.fromkeys(limits, 0.0)
        for pod in pods():
            counts[tuple(self._namespaces.of(pod.namespace))] += 1
            longest[pod.waits_for] = max(longest[pod.waits_for], pod.seconds)
        yield _family(
            "stepmemo_gated_pods",
            "Pods that are gated right now, at the keeper that acts.",
            self._namespaces.label,
            counts,
        )
        yield _family(
            "stepmemo_gated_longest_wait_seconds",
            "Time since the oldest Pod was made that is gated right now, by what it waits for.",
            ["waits_for"],
            {(one.value,): seconds for one, seconds in longest.items()},
        )
        yield _family(
            "stepmemo_gated_wait_limit_seconds",
            "The longest that a Pod may stay gated for it, by the keeper's settings.",
            ["waits_for"],
            {(one.value,): seconds for one, seconds in limits.items()},
        )

    def _filled(self, fills: Callable[[], Iterable[Fill]]) -> Iterator[Metric]:
        rest = tuple(self._namespaces.rest)
        used, limit, fullest = Count({rest: 0}), Count({rest: 0}), {rest: 0.0}
        for namespace, size, most in fills():
            key = tuple(self._namespaces.of(namespace))
            used[key] += size
            limit[key] += most
            fullest[key] = max(fullest.get(key, 0.0), size / most)
        for name, text, values in (
            ("stepmemo_cache_bytes", "Bytes of the entries in caches of which that is known.", used),
            ("stepmemo_cache_limit_bytes", "Bytes that these caches may hold.", limit),
            ("stepmemo_cache_fullest_ratio", "How full the fullest of them is; 1 is its limit.", fullest),
        ):
            yield _family(name, text, self._namespaces.label, values)

    def _begin_results(self, of_namespace: Sequence[str]) -> None:
        """Have all begin at 0: what first appears with its first step has no rise to Prometheus."""
        for result in _RESULTS:
            self._results.labels(result, *of_namespace)

    def _count_bug(self, reason: Reason) -> None:
        if reason is Reason.INTERNAL_ERROR:
            self._bugs.inc()

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)


class _Namespaces:
    """The values of the label NAMESPACE, as a list that is empty where no metric is by Namespace."""

    def __init__(self, most: int) -> None:
        self._most, self._named = most, set[str]()
        self.label = [NAMESPACE] if most else []
        """The label's name."""
        self.rest = [OTHER] if most else []

    def of(self, namespace: str) -> list[str]:
        """What this Namespace is counted under."""
        if namespace in self._named:
            return [namespace]
        if len(self._named) >= self._most:
            return self.rest
        self._named.add(namespace)
        return [namespace]


class _Collected(Collector):
    """Metrics whose label values come and go, made anew for each scrape."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        return self._collect()


def _family(
    name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family


def _is(state: Callable[[], str], one: str) -> bool:
    return state() == one
