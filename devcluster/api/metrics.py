"""How many requests were answered, as the API server tells it at `/metrics` in Prometheus' text format."""

from collections import Counter

from devcluster.api.requests import RequestInfo

PATH = "/metrics"

_NAME = "apiserver_request_total"
_METHODS = {"create": "POST", "update": "PUT"}
"""Verbs of RBAC that the metrics call by their method (apiserver 0.35, endpoints/metrics/metrics.go)."""


class Requests:
    """Counts requests by verb, resource and code. Left out: watches, and paths of no resource."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, info: RequestInfo, code: int) -> None:
        """One more, answered with this code."""
        verb = _METHODS.get(info.verb, info.verb.upper())
        labels = {
            "code": str(code),
            "component": "apiserver",
            "dry_run": "All" if info.dry_run else "",
            "group": info.kind.group,
            "resource": info.kind.plural,
            "subresource": info.subresource,
            "verb": verb,
            "version": info.kind.version,
        }
        self._counts[",".join(f'{name}="{value}"' for name, value in labels.items())] += 1

    def text(self) -> str:
        """All counts."""
        samples = [f"{_NAME}{{{labels}}} {count}" for labels, count in self._counts.items()]
        return "\n".join([f"# TYPE {_NAME} counter", *samples, ""])
