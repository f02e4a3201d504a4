"""One Event on the Workflow for what an author wants to see beside it; best effort, and never waited for."""

import os
from datetime import UTC, datetime

from memoize.event import UNTOLD, event
from memoize.outcome import Outcome
from sidecar.deadline import Deadline
from sidecar.kube import METADATA_ONLY, Client, NoAnswerError
from sidecar.settings import Settings

_COMPONENT = "stepmemo"


def tell(outcome: Outcome, settings: Settings, client: Client, until: Deadline) -> None:
    """Post the Event that belongs to the outcome, if any. A service account without the right is fine."""
    if outcome.reason in UNTOLD or until.over:
        return
    step = settings.step
    told = event(
        name=f"{step.workflow}.{os.urandom(8).hex()}",
        namespace=settings.namespace,
        workflow=step.workflow,
        workflow_uid=step.workflow_uid,
        reason=outcome.reason,
        text=f"node {step.node_id}, cache {step.cache}: {outcome.detail}",
        component=_COMPONENT,
        instance=settings.pod_name,
        now=datetime.now(UTC),
    )
    path = f"/api/v1/namespaces/{settings.namespace}/events"
    try:
        client.call("POST", path, told, accept=METADATA_ONLY, until=until)
    except NoAnswerError:
        return
