"""The time as Kubernetes writes it."""

from datetime import UTC, datetime


def now() -> str:
    """RFC 3339 in UTC, whole seconds, like metav1.Time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
