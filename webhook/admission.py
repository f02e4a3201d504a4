"""One review in, one outcome out: looks up what is needed, and lets the pure modules decide.

Answer, log line, metric and Event are made from the outcome (server.py); nothing here knows HTTP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from argo import artifact_gc, templates
from argo import names as argo
from argo.fields import FieldError
from argo.steppod import NotAStep, StepPod
from kube.jsonpatch import Op
from memoize.keeper_status import Known
from memoize.opt_in import Mode
from memoize.reasons import Reason
from memoize.step import Step
from server.events import TOLD, Events
from server.lookups import Lookups
from webhook.inject.containers import InjectSettings
from webhook.inject.patch import inject
from webhook.pods import decision, gating, room, traces
from webhook.pods.decision import MemoizedStep, Skip
from webhook.review import Request
from webhook.submit.verdict import review_object

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
    """What was decided about one object."""

    reason: Reason
    detail: str = ""
    errors: Sequence[FieldError] = ()
    """Any of them denies the object."""
    warnings: Sequence[str] = ()
    ops: Sequence[Op] = ()
    """They change the object that is admitted."""
    workflow: str = ""
    """Of a step Pod, the name of its Workflow."""
    node: str = ""
    """Of a Pod, the id of the node that it names."""


class Keeper(Protocol):
    """What admission has to know of the keeper."""

    @property
    def ready(self) -> bool:
        """Whether a Pod that is held now will be decided soon."""


class View(Protocol):
    """What admission has to know of the caches."""

    def ask(self, namespace: str, cache: str, step: Step, now: datetime, /) -> tuple[Known, str]:
        """Whether the cache holds an entry for the step that is fresh at `now`; and something for others."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What deciding steps outside of their Pods takes."""

    view: View
    keeper: Keeper
    follow: timedelta
    """How long a step may wait for an equal one."""


class Admission:
    """The two webhooks' decisions, with the look-ups they need.

    `settings` is asked anew for each Pod, since certificates change. `refused` says why the Pod of a step
    (Namespace, node id, whether it is a dry run) must not be injected, "" where it may. Without `outside`
    every step is decided inside its Pod.
    """

    def __init__(
        self,
        lookups: Lookups,
        events: Events,
        validate: str,
        settings: Callable[[], InjectSettings],
        refused: Callable[[str, str, bool], str] = lambda *_: "",
        outside: Outside | None = None,
    ) -> None:
        self._lookups, self._events = lookups, events
        self._validate, self._settings = validate, settings
        self._refused, self._outside = refused, outside

    async def workflow(self, request: Request) -> Outcome:
        """Judge the memoize blocks of a Workflow or a template, and take opted-in ones over."""
        operations = WORKFLOW_OPERATIONS.get(request.kind, frozenset())
        if request.group != argo.GROUP or request.subresource or request.operation not in operations:
            return Outcome(Reason.NOT_MEMOIZED, "not an object that this webhook looks at")
        # None means the server's defaults: a submit must not fail because its Namespace cannot be read.
        labels = await self._lookups.namespace_labels(request.namespace) if request.namespace else None
        verdict = review_object(
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
        """Hold a step Pod, watch it, inject into it, or leave it alone and say why. Never denies."""
        if (request.group, request.kind, request.subresource, request.operation) != ("", "Pod", "", "CREATE"):
            return Outcome(Reason.NOT_A_STEP, "not an object that this webhook looks at")
        pod, cleared = traces.cleared(request.object or {})
        step = StepPod.parse(pod, request.namespace)
        if isinstance(step, NotAStep):
            return Outcome(Reason.NOT_A_STEP, ops=cleared, node=step.node_id)
        outcome = await self._step(step, request.dry_run)
        if not outcome.ops:
            # A block's key became an annotation at submit: no Pod that is left alone may be refused for it.
            outcome = replace(outcome, ops=room.shortened(pod, {}) or ())
        if outcome.reason in TOLD and not request.dry_run:
            self._events.skipped(step.owner, step.node_id, outcome.reason, outcome.detail)
        return replace(outcome, ops=[*cleared, *outcome.ops], workflow=step.owner.name, node=step.node_id)

    async def _step(self, step: StepPod, dry_run: bool) -> Outcome:
        memoized = await self._classify(step)
        if isinstance(memoized, Skip):
            return Outcome(memoized.reason, memoized.detail)
        pod = step.pod
        match self._decide_gating(memoized):
            case gating.Gate() as gate:
                return _fitted(pod, Outcome(Reason.GATED, ops=gating.ops(pod, gate)), gating.written(gate))
            case gating.RunAndCapture() as run:
                outcome = Outcome(Reason.NOT_GATED, run.detail or "", ops=gating.ops(pod, run))
                return _fitted(pod, outcome, gating.written(run))
        settings = self._settings()
        injection = decision.plan_injection(memoized, settings.injection)
        if isinstance(injection, Skip):
            return Outcome(injection.reason, injection.detail)
        if refused := self._refused(step.owner.namespace, step.node_id, dry_run):
            return Outcome(Reason.IMAGE_BROKEN, refused)
        ops = inject(pod, injection.plan, settings)
        return _fitted(pod, Outcome(injection.reason, injection.detail, ops=ops), {})

    async def _classify(self, step: StepPod) -> Skip | MemoizedStep:
        if skip := decision.screen(step):
            return skip
        metadata, labels, limited = await self._lookups.of_step(step.owner)
        if limited:
            return Skip(Reason.RATE_LIMITED, "too many Workflows were looked up")
        found = decision.classify_pod(step, metadata, labels)
        if isinstance(found, Skip) or metadata is None or not _must_ask(found, metadata):
            return found
        # What could not be read may well be deleted; an entry that points nowhere is worse than none.
        deleted = await self._lookups.deletes_artifacts(step.owner) is not False
        return found.of_deleted_artifacts() if deleted else found

    def _decide_gating(self, memoized: MemoizedStep) -> gating.Gate | gating.RunAndCapture | None:
        here = self._outside
        if here is None or not here.keeper.ready:
            return None
        now = datetime.now(UTC)
        known, _ = here.view.ask(memoized.pod.owner.namespace, memoized.step.cache, memoized.step, now)
        return gating.decide_gating(memoized, known, now, here.follow)


def _fitted(pod: Mapping[str, Any], outcome: Outcome, written: Mapping[str, str]) -> Outcome:
    """The outcome, if the Pod has room for its operations and for the annotations `written` with them."""
    ops = room.fitted(pod, outcome.ops, written)
    return Outcome(Reason.NO_ROOM, ops) if isinstance(ops, str) else replace(outcome, ops=ops)


def _must_ask(found: MemoizedStep, metadata: Mapping[str, Any]) -> bool:
    """Whether it matters that Argo may delete artifacts of the workflow, and its metadata cannot tell."""
    stored = found.mode is not Mode.READONLY
    return stored and found.step.artifacts_follow_workflow and artifact_gc.told_by(metadata) is None
