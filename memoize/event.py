"""The Event on a Workflow that tells its author what became of a step: one form for all who write one."""

from datetime import datetime
from typing import Any

from memoize import names
from memoize.reasons import Reason

_REASONS = {Reason.HIT: "MemoizationHit", Reason.STORED: "MemoizationStored"}
_SKIPPED = "MemoizationSkipped"
_LONGEST_MESSAGE = 1024
"""Characters; Kubernetes refuses an Event with a longer one."""


def event(
    *,
    name: str,
    namespace: str,
    workflow: str,
    workflow_uid: str,
    reason: Reason,
    text: str,
    component: str,
    instance: str,
    now: datetime,
) -> dict[str, Any]:
    """An Event (core/v1): `kubectl describe workflow` shows its reason and, with our code first, its message.

    `text` never holds a parameter's value. A hit and a stored entry are Normal, all else is a Warning.
    """
    word = _REASONS.get(reason, _SKIPPED)
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": names.ARGO_API_VERSION,
            "kind": "Workflow",
            "namespace": namespace,
            "name": workflow,
            "uid": workflow_uid,
        },
        "type": "Warning" if word == _SKIPPED else "Normal",
        "reason": word,
        "message": f"{reason}: {text}"[:_LONGEST_MESSAGE],
        "source": {"component": component, "host": instance},
        "reportingComponent": component,
        "reportingInstance": instance,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
