"""One review in, one outcome out: looks up what is needed, and lets the pure modules decide.

Answer, log line, metric and Event are made from the outcome (server.py); nothing here knows HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memoize import names
from memoize.fields import FieldError
from memoize.reasons import Reason
from webhook import artifactgc, pods, templates, workflows
from webhook.containers import InjectSettings
from webhook.events import TOLD, Events
from webhook.inject import inject
from webhook.lookups import Lookups
from webhook.patch import Op
from webhook.review import Request

ARGO_GROUP = names.ARGO_API_VERSION.partition("/")[0]
WORKFLOW_OPERATIONS: Mapping[str, frozenset[str]] = {
    templates.WORKFLOW: frozenset({"CREATE"}),
    templates.WORKFLOW_TEMPLATE: frozenset({"CREATE", "UPDATE"}),
    templates.CLUSTER_WORKFLOW_TEMPLATE: frozenset({"CREATE", "UPDATE"}),
    templates.CRON_WORKFLOW: frozenset({"CREATE", "UPDATE"}),
}
"""What the workflow webhook looks at; the configuration's rules say the same, and may have been edited.

The controller updates a Workflow at every step, so updates of these are none of our business.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was decided about one object. Any error denies it; `ops` change it."""

    reason: Reason
    detail: str = ""
    errors: Sequence[FieldError] = ()
    warnings: Sequence[str] = ()
    ops: Sequence[Op] = ()
    workflow: str = ""
    node: str = ""


class Admission:
    """The two webhooks' decisions, with the look-ups they need."""

    def __init__(self, lookups: Lookups, events: Events, validate: str, settings: InjectSettings) -> None:
        self._lookups, self._events = lookups, events
        self._validate, self._settings = validate, settings

    async def workflow(self, request: Request) -> Outcome:
        """Judge the memoize blocks of a Workflow or a template, and take opted-in ones over."""
        operations = WORKFLOW_OPERATIONS.get(request.kind, frozenset())
        if request.group != ARGO_GROUP or request.subresource or request.operation not in operations:
            return Outcome(Reason.NOT_MEMOIZED, "not an object that this webhook looks at")
        # None means the server's defaults: a submit must not fail because its Namespace cannot be read.
        labels = await self._lookups.namespace_labels(request.namespace) if request.namespace else None
        verdict = workflows.review(
            request.kind,
            request.object or {},
            request.old_object,
            request.operation,
            labels,
            self._validate,
        )
        return Outcome(
            verdict.reason,
            errors=verdict.errors,
            warnings=verdict.warnings,
            ops=verdict.ops,
            workflow=request.shown_name,
        )

    async def pod(self, request: Request) -> Outcome:
        """Inject check and capture into a step Pod, or leave it alone and say why. Never denies."""
        if (request.group, request.kind, request.subresource, request.operation) != ("", "Pod", "", "CREATE"):
            return Outcome(Reason.NOT_A_STEP, "not an object that this webhook looks at")
        pod = request.object or {}
        decision = await self._decide(pod, request.namespace)
        owner = pods.owner(pod, request.namespace)
        node = pods.node_id(pod.get("metadata") or {})
        if isinstance(decision, pods.Skip) and decision.reason in TOLD and owner and not request.dry_run:
            self._events.skipped(owner, node, decision.reason, decision.detail)
        return Outcome(
            decision.reason,
            decision.detail,
            ops=inject(pod, decision.plan, self._settings) if isinstance(decision, pods.Inject) else (),
            workflow=owner.name if owner else "",
            node=node,
        )

    async def _decide(self, pod: Mapping[str, Any], namespace: str) -> pods.Skip | pods.Inject:
        owner = pods.screen(pod, namespace)
        if isinstance(owner, pods.Skip):
            return owner
        metadata, labels = await self._lookups.of_step(owner)
        decision = pods.decide(pod, namespace, metadata, labels, self._settings.gate)
        if isinstance(decision, pods.Skip) or metadata is None or not _must_ask(decision, metadata):
            return decision
        # What could not be read may well be deleted; an entry that points nowhere is worse than none.
        deleted = await self._lookups.deletes_artifacts(owner) is not False
        return decision.of_deleted_artifacts() if deleted else decision


def _must_ask(decision: pods.Inject, metadata: Mapping[str, Any]) -> bool:
    """Whether it matters that Argo may delete artifacts of the workflow, and its metadata cannot tell."""
    plan = decision.plan
    return plan.capture and artifactgc.concerns(plan.step) and artifactgc.told_by(metadata) is None
