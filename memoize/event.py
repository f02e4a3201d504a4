"""The Event on a Workflow that tells what became of a step, or on a ConfigMap what became of a cache.

One form for all who write one.
"""

import math
from datetime import datetime
from typing import Any

from argo import names as argo
from memoize.entry import Entry, timestamp
from memoize.reasons import Reason

_REASONS = {
    Reason.HIT: "MemoizationHit",
    Reason.STORED: "MemoizationStored",
    Reason.EVICTED: "MemoizationEvicted",
    Reason.INVALID_LIMIT: "MemoizationLimit",
}
_SKIPPED = "MemoizationSkipped"
EVENT_AT_ADMISSION = frozenset(
    {
        Reason.UNRESOLVED_TAG,
        Reason.NO_AUTO_KEY,
        Reason.INVALID_ANNOTATIONS,
        Reason.MODE_UNKNOWN,
        Reason.UNSUPPORTED_TEMPLATE,
        Reason.OWNED_BY_WORKFLOW,
        Reason.NAME_CLASH,
        Reason.NO_ROOM,
        Reason.CANNOT_WRAP_COMMAND,
        Reason.IMAGE_BROKEN,
        Reason.KEEPER_UNAVAILABLE,
        Reason.NAMESPACE_NOT_KEPT,
        Reason.API_UNAVAILABLE,
    }
)
"""Reasons at admission to leave an opted-in step alone that its author did not ask for."""
WITHOUT_EVENT = frozenset(
    {
        Reason.MISS,
        Reason.EXPIRED,
        Reason.UNDECIDED,
        Reason.SHARED_RUN_FAILED,
        Reason.SHARED_RUN_TIMEOUT,
        Reason.STEP_FAILED,
        Reason.API_UNAVAILABLE,
        Reason.STORE_UNAVAILABLE,
    }
)
"""Outcomes of a step that get no Event: it runs as it would have, or its own end says it; or the server that
would take the Event is away."""
_LONGEST_MESSAGE = 1024
"""Characters; Kubernetes refuses an Event with a longer one."""


def event(
    *,
    name: str,
    namespace: str,
    involved: str,
    involved_uid: str,
    reason: Reason,
    text: str,
    component: str,
    instance: str,
    now: datetime,
    kind: str = "Workflow",
) -> dict[str, Any]:
    """An Event (core/v1): `kubectl describe workflow` shows its reason and, with our code first, its message.

    `kind` is that of the object it is on, Workflow or ConfigMap. `text` never holds a parameter's value. What
    went well is Normal, all else is a Warning.
    """
    word = _REASONS.get(reason, _SKIPPED)
    time = timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": argo.API_VERSION if kind == "Workflow" else "v1",
            "kind": kind,
            "namespace": namespace,
            "name": involved,
            "uid": involved_uid,
        },
        "type": "Warning" if word == _SKIPPED or reason is Reason.INVALID_LIMIT else "Normal",
        "reason": word,
        "message": f"{reason}: {text}"[:_LONGEST_MESSAGE],
        "source": {"component": component, "host": instance},
        "reportingComponent": component,
        "reportingInstance": instance,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def saved(entry: Entry) -> str:
    """How long the step took when it ran, as `saved 5m12s`; "" where the entry does not tell."""
    return f"saved {brief(entry.took)}" if math.isfinite(entry.took) and entry.took > 0 else ""


def origin(entry: Entry, now: datetime) -> str:
    """Where an answer is from, as `from workflow hello-x2k9f, 3h ago`, in so far as the entry tells."""
    workflow = f"from workflow {entry.workflow}" if entry.workflow else ""
    age = f"{brief((now - entry.created).total_seconds())} ago" if entry.created else ""
    return ", ".join(filter(None, (workflow, age)))


def brief(seconds: float) -> str:
    """A time for people: its two largest units, as `5m12s`, `3h` or `2d4h`; below a second `0.4s`.

    Less than nothing (a clock was wrong) is `0s`.
    """
    if 0 < seconds < 0.95:
        return f"{max(seconds, 0.1):.1f}s"
    rest = max(0, round(seconds))
    for unit, size, lesser, part in _UNITS:
        if rest >= size:
            small = rest % size // part
            return f"{rest // size}{unit}" + (f"{small}{lesser}" if small else "")
    return f"{rest}s"


_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1))
