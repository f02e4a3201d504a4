"""One Event on the Workflow, for outcomes that its author should see; best effort."""

import os
from datetime import UTC, datetime

from memoize.event import UNTOLD, event
from memoize.outcome import Outcome
from sidecar.deadline import Deadline
from sidecar.kube import METADATA_ONLY, Client, NoReplyError
from sidecar.settings import Settings

_COMPONENT = "stepmemo"


def post_event(outcome: Outcome, settings: Settings, client: Client, until: Deadline) -> None:
    """Post the Event of an outcome that has one. A service account without the permission is fine."""
    if outcome.reason in UNTOLD or until.over:
        return
    step = settings.step
    told = event(
        name=f"{step.workflow}.{os.urandom(8).hex()}",
        namespace=settings.namespace,
        involved=step.workflow,
        involved_uid=step.workflow_uid,
        reason=outcome.reason,
        text=f"node {step.node_id}, cache {step.cache}: {outcome.detail}",
        component=_COMPONENT,
        instance=settings.pod_name,
        now=datetime.now(UTC),
    )
    path = f"/api/v1/namespaces/{settings.namespace}/events"
    try:
        client.call("POST", path, told, accept=METADATA_ONLY, until=until)
    except NoReplyError:
        return
