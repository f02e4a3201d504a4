"""Events on a Workflow: why a step that opted in is not memoized, where its author looks for it.

Told behind the answer's back: an admission review never waits for an Event, and a flood of them is dropped.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.exceptions import ApiException

from memoize.event import event
from memoize.reasons import Reason
from webhook import kube
from webhook.logs import fields
from webhook.pods import Owner

_log = logging.getLogger(__name__)

TOLD = frozenset(
    {
        Reason.UNRESOLVED_TAG,
        Reason.INVALID_ANNOTATIONS,
        Reason.MODE_UNKNOWN,
        Reason.UNSUPPORTED_TEMPLATE,
        Reason.NAME_CLASH,
        Reason.NOT_GATEABLE,
        Reason.API_UNAVAILABLE,
    }
)
"""Reasons to leave an opted-in step alone that its author did not ask for."""
WAITING = 200
"""Events that may wait to be written; those beyond are dropped and counted."""
TIMEOUT = 5.0
"""Seconds for one request."""
_REPORTER = "stepmemo-webhook"


class Events:
    """Writes Events one after another, in a task of its own (`run`)."""

    def __init__(self, api: ApiClient, lost: Callable[[], None], instance: str) -> None:
        self._api, self._lost, self._instance = api, lost, instance
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING)

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        """Say on the Workflow that this step is not memoized and why. Returns at once."""
        told = skip_event(owner, node, reason, detail, self._instance, datetime.now(UTC))
        try:
            self._waiting.put_nowait(told)
        except asyncio.QueueFull:
            self._lost()

    async def run(self) -> None:
        """Write what comes, for ever; what cannot be written is counted and forgotten."""
        while True:
            told = await self._waiting.get()
            namespace = told["metadata"]["namespace"]
            path = f"/api/v1/namespaces/{namespace}/events"
            try:
                await kube.request(self._api, "POST", path, seconds=TIMEOUT, body=told)
            except kube.FAILURES as error:
                if isinstance(error, ApiException) and error.status == 409:
                    continue  # told before: a reinvocation, or another try of the same Pod
                self._lost()
                _log.warning(
                    "cannot write an Event", extra=fields(namespace=namespace, error=kube.explain(error))
                )


def skip_event(
    owner: Owner, node: str, reason: Reason, detail: str, instance: str, now: datetime
) -> dict[str, Any]:
    """The Event (core/v1) for one skip. Its name follows from what it says, so that it is told once."""
    said = hashlib.sha256("\0".join((owner.uid, node, reason, detail)).encode()).hexdigest()[:16]
    return event(
        name=f"{owner.name[:200].rstrip('.-')}.{said}",
        namespace=owner.namespace,
        workflow=owner.name,
        workflow_uid=owner.uid,
        reason=reason,
        text=f"step {node} is not memoized" + (f": {detail}" if detail else ""),
        component=_REPORTER,
        instance=instance,
        now=now,
    )
