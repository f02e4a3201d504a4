"""The metrics that rules and dashboard may name, and the labels of each."""

from prometheus_client import Metric

from tests.exposed import LE, everything, families, labels
from tests.monitoring.promql import named

TARGET = frozenset({"job", "instance", "namespace", "pod", "container"})
"""What Prometheus and its operator say of the Pod that was asked."""
OTHERS = {
    "up": TARGET,
    # apiserver 0.35, admission/metrics/metrics.go; tests/contract/test_admission.py has a real one show it.
    "apiserver_admission_webhook_fail_open_count": TARGET | {"name", "type"},
}
"""Metrics that are not ours."""


def existing() -> dict[str, frozenset[str]]:
    """The labels of each by name, as it stands in an expression."""
    found = dict(OTHERS)
    for name, family in families(everything()).items():
        for shown, more in _samples(name, family):
            found[shown] = TARGET | labels(family) | more
    return found


def _samples(name: str, family: Metric) -> list[tuple[str, set[str]]]:
    if family.type == "histogram":
        return [(f"{name}_bucket", {LE}), (f"{name}_count", set()), (f"{name}_sum", set())]
    return [(name, set())]


def wrong(expression: str) -> list[str]:
    """What the expression names that there is not."""
    known, found, of_all = existing(), list(named(expression)), set[str]()
    problems = [f"no metric {one.metric}" for one in found if one.metric and one.metric not in known]
    for one in found:
        if one.metric in known:
            of_all |= known[one.metric]
            problems += [f"{one.metric} has no {label}" for label in one.labels - known[one.metric]]
    problems += [f"nothing has {label}" for one in found if not one.metric for label in one.labels - of_all]
    return problems
