"""One Event on the Workflow for what an author wants to see beside it; best effort, and never waited for."""

import secrets
from datetime import UTC, datetime

from memoize import names
from memoize.reasons import Reason
from sidecar.deadline import Deadline
from sidecar.kube import METADATA_ONLY, Client, NoAnswerError
from sidecar.outcome import Outcome
from sidecar.settings import Settings

_COMPONENT = "stepmemo"
_LONGEST_MESSAGE = 1024
"""Kubernetes refuses an Event with a longer one."""
_UNTOLD = (
    Reason.MISS,
    Reason.EXPIRED,
    Reason.UNDECIDED,
    Reason.STEP_FAILED,
    Reason.API_UNAVAILABLE,
)
"""The step runs as it would have, or its own end says it; or the server that would take the Event is away."""


def tell(outcome: Outcome, settings: Settings, client: Client, until: Deadline) -> None:
    """Post the Event that belongs to the outcome, if any. A service account without the right is fine."""
    if outcome.reason in _UNTOLD or until.over:
        return
    reason = {Reason.HIT: "MemoizationHit", Reason.STORED: "MemoizationStored"}.get(
        outcome.reason, "MemoizationSkipped"
    )
    step = settings.step
    message = f"{outcome.reason}: node {step.node_id}, cache {step.cache}: {outcome.detail}"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{step.workflow}.{secrets.token_hex(8)}", "namespace": settings.namespace},
        "involvedObject": {
            "apiVersion": names.ARGO_API_VERSION,
            "kind": "Workflow",
            "namespace": settings.namespace,
            "name": step.workflow,
            "uid": step.workflow_uid,
        },
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
        "type": "Warning" if reason == "MemoizationSkipped" else "Normal",
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": settings.pod_name,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    path = f"/api/v1/namespaces/{settings.namespace}/events"
    try:
        client.call("POST", path, event, accept=METADATA_ONLY, until=until)
    except NoAnswerError:
        return
