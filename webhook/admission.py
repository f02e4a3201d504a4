"""One review in, one outcome out: looks up what is needed, and lets the pure modules decide.

Answer, log line, metric and Event are made from the outcome (hooks.py); nothing here knows HTTP.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from argo import artifact_gc, templates
from argo import names as argo
from argo.fields import FieldError
from argo.steppod import NotAStep, Owner, StepPod
from kube.jsonpatch import Op
from memoize.autokey import ObjectReference, Version
from memoize.event import EVENT_AT_ADMISSION
from memoize.keeper_status import KeeperStatus
from memoize.opt_in import Mode
from memoize.podstep import references
from memoize.reasons import Reason
from server.rate_limit import RateLimits
from webhook import keeper_state
from webhook.inject.containers import InjectSettings
from webhook.inject.patch import inject
from webhook.keeper_state import Injection
from webhook.pods import decision, gating, room, traces
from webhook.pods.decision import MemoizedStep, Skip
from webhook.review import AdmissionRequest
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

GATED_RATE, GATED_BURST = 50.0, 1000
"""Pods of one Namespace that a replica gates in a second, and at once. The Lease says a second or two late
that a Namespace has too many, and it is not to fill its queue in that time. A fan-out of a thousand equal
steps is gated as a whole, however fast its controller makes it."""
TRIAL_SECONDS = 10.0
"""Between two Pods that a replica injects into in a Namespace where the image could not be started. While it
still cannot, each costs its step two minutes."""
_NAMESPACES = 1000
"""Namespaces for which these are counted; the one not seen for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class AdmissionOutcome:
    """What was decided about one object."""

    reason: Reason
    detail: str = ""
    errors: Sequence[FieldError] = ()
    """Any of them denies the object."""
    more_errors: int = 0
    """Errors beyond those in `errors`."""
    warnings: Sequence[str] = ()
    ops: Sequence[Op] = ()
    """They change the object that is admitted."""
    workflow: str = ""
    """Of a step Pod, the name of its Workflow."""
    node: str = ""
    """Of a Pod, the id of the node that it names."""


OfStep = tuple[Mapping[str, Any] | None, Mapping[str, str] | None, bool]


class AdmissionLookups(Protocol):
    """What admission looks up (server.lookups)."""

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a Namespace; None where it could not be read."""

    async def of_step(self, owner: Owner) -> OfStep:
        """The metadata of a step's Workflow, the labels of its Namespace, and whether too many were asked."""

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        """Whether the Workflow's artifacts are deleted; None where that could not be read."""

    async def versions(
        self, namespace: str, references: tuple[ObjectReference, ...]
    ) -> Mapping[ObjectReference, Version]:
        """The versions of these objects, without those that could not be read."""


class AdmissionEvents(Protocol):
    """Where it tells of what it left alone (server.events)."""

    def skipped(self, owner: Owner, node: str, reason: Reason, detail: str) -> None:
        """Write an Event on the Workflow."""


class Shares(Protocol):
    """What a Namespace may have of what all have to share; asking for it takes it."""

    def may_gate(self, namespace: str) -> bool:
        """Whether one more Pod may be gated there now."""

    def may_try(self, namespace: str) -> bool:
        """Whether containers of ours may be tried in a Pod there now."""


class LocalShares:
    """The shares that this replica gives. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._gated = RateLimits(GATED_RATE, GATED_BURST, most=_NAMESPACES, clock=clock)
        self._trials = RateLimits(1 / TRIAL_SECONDS, 1, most=_NAMESPACES, clock=clock)

    def may_gate(self, namespace: str) -> bool:
        """See Shares."""
        return not self._gated.take(namespace)

    def may_try(self, namespace: str) -> bool:
        """See Shares."""
        return not self._trials.take(namespace)


class Admission:
    """The two webhooks' decisions, with the look-ups they need.

    `settings` is asked anew for each Pod, since certificates change. `keeper` gives what the keeper says of
    itself, None while it is gone; without a `keeper` every step is decided inside its Pod. With
    `count_versions` computed keys count the versions of Secrets and ConfigMaps.
    """

    def __init__(
        self,
        lookups: AdmissionLookups,
        events: AdmissionEvents,
        validate: str,
        settings: Callable[[], InjectSettings],
        keeper: Callable[[], KeeperStatus | None] | None = None,
        shares: Shares | None = None,
        *,
        count_versions: bool = False,
    ) -> None:
        self._lookups, self._events = lookups, events
        self._validate, self._settings, self._keeper = validate, settings, keeper
        self._shares = shares or LocalShares()
        self._count_versions = count_versions

    async def workflow(self, request: AdmissionRequest) -> AdmissionOutcome:
        """Validate the memoize blocks of a Workflow or a template, and take opted-in ones over."""
        operations = WORKFLOW_OPERATIONS.get(request.kind, frozenset())
        if request.group != argo.GROUP or request.subresource or request.operation not in operations:
            return AdmissionOutcome(Reason.NOT_MEMOIZED, "not an object that this webhook looks at")
        # None means the server's defaults: a submit must not fail because its Namespace cannot be read.
        labels = await self._lookups.namespace_labels(request.namespace) if request.namespace else None
        verdict = review_object(
            request.kind,
            request.object or {},
            request.old_object,
            request.operation,
            labels,
            self._validate,
            size=request.size,
        )
        return AdmissionOutcome(
            verdict.reason,
            errors=verdict.errors,
            more_errors=verdict.more_errors,
            warnings=verdict.warnings,
            ops=verdict.ops,
            workflow=request.shown_name,
        )

    async def pod(self, request: AdmissionRequest) -> AdmissionOutcome:
        """Gate a step Pod, let it run and be captured, inject into it, or leave it alone. Never denies."""
        if (request.group, request.kind, request.subresource, request.operation) != ("", "Pod", "", "CREATE"):
            return AdmissionOutcome(Reason.NOT_A_STEP, "not an object that this webhook looks at")
        if room.too_many_containers(request.object or {}):
            many = f"more than {room.CONTAINERS} containers"
            return AdmissionOutcome(Reason.BEYOND_BUDGET, many, warnings=[f"spec: {many}: not memoized"])
        pod, cleared = traces.cleared(request.object or {})
        step = StepPod.parse(pod, request.namespace)
        if isinstance(step, NotAStep):
            return AdmissionOutcome(Reason.NOT_A_STEP, ops=cleared, node=step.node_id)
        outcome = await self._step(step, request)
        if not outcome.ops:
            # A block's key became an annotation at submit: no Pod that is left alone may be refused for it.
            outcome = replace(outcome, ops=room.shortened(pod, {}) or ())
        if outcome.reason in EVENT_AT_ADMISSION and not request.dry_run:
            self._events.skipped(step.owner, step.node_id, outcome.reason, outcome.detail)
        return replace(outcome, ops=[*cleared, *outcome.ops], workflow=step.owner.name, node=step.node_id)

    async def _step(self, step: StepPod, request: AdmissionRequest) -> AdmissionOutcome:
        memoized = await self._classify(step)
        if isinstance(memoized, Skip):
            return AdmissionOutcome(memoized.reason, memoized.detail)
        status = self._keeper() if self._keeper else None
        if self._keeper:
            match gating.decide_gating(memoized, status, datetime.now(UTC)):
                case gating.Gate() as gate:
                    return self._gate(memoized, gate, request)
                case gating.RunAndCapture() as run:
                    return _run_and_capture(memoized, run, request)
                case Skip() as skip:
                    return AdmissionOutcome(skip.reason, skip.detail)
        settings = self._settings()
        injection = decision.plan_injection(memoized, settings.injection)
        if isinstance(injection, Skip):
            return AdmissionOutcome(injection.reason, injection.detail)
        if status and (refused := self._refused(status, step, request.dry_run)):
            return AdmissionOutcome(Reason.IMAGE_BROKEN, refused)
        pod = memoized.pod.pod
        ops = [*memoized.ops, *inject(pod, injection.plan, settings)]
        return _fitted(pod, AdmissionOutcome(injection.reason, injection.detail, ops=ops), {}, request)

    def _gate(self, memoized: MemoizedStep, gate: gating.Gate, request: AdmissionRequest) -> AdmissionOutcome:
        """Gate the Pod, if that is not one more than its Namespace may have gated now."""
        if not request.dry_run and not self._shares.may_gate(memoized.pod.owner.namespace):
            detail = f"the Namespace has more than {GATED_RATE:.0f} Pods gated in a second"
            return _run_and_capture(memoized, gating.RunAndCapture(gate.plan, detail), request)
        pod = memoized.pod.pod
        outcome = AdmissionOutcome(Reason.GATED, gate.detail, ops=[*memoized.ops, *gating.ops(pod, gate)])
        return _fitted(pod, outcome, gating.written(gate), request)

    def _refused(self, status: KeeperStatus, step: StepPod, dry_run: bool) -> str:
        """Why the Pod must not get containers of ours, "" where it may. A dry run is never the trial."""
        namespace = step.owner.namespace
        match keeper_state.injection(status, namespace, step.node_id):
            case Injection.TROUBLED:
                return "a container of ours could not start in this step's last Pod"
            case Injection.STOPPED:
                return "containers of ours cannot start in this Namespace; the keeper's log says why"
            case Injection.TRIAL if not dry_run and not self._shares.may_try(namespace):
                return "whether containers of ours can start in this Namespace again is tried in another Pod"
        return ""

    async def _classify(self, step: StepPod) -> Skip | MemoizedStep:
        if skip := decision.screen(step):
            return skip
        metadata, labels, limited = await self._lookups.of_step(step.owner)
        if limited:
            return Skip(Reason.RATE_LIMITED, "too many Workflows were looked up")
        found = decision.classify_pod(step, metadata, labels)
        if self._count_versions and isinstance(found, MemoizedStep) and (referred := references(step)):
            # Not before: nothing is looked up for who opted out, or for a Workflow that is not there.
            versions = await self._lookups.versions(step.owner.namespace, referred)
            found = decision.classify_pod(step, metadata, labels, versions)
        if isinstance(found, Skip) or metadata is None or not _must_ask(found, metadata):
            return found
        # What could not be read may well be deleted; an entry that points nowhere is worse than none.
        deleted = await self._lookups.deletes_artifacts(step.owner) is not False
        return found.of_deleted_artifacts() if deleted else found


def _run_and_capture(
    memoized: MemoizedStep, run: gating.RunAndCapture, request: AdmissionRequest
) -> AdmissionOutcome:
    pod = memoized.pod.pod
    outcome = AdmissionOutcome(Reason.NOT_GATED, run.detail, ops=[*memoized.ops, *gating.ops(pod, run)])
    return _fitted(pod, outcome, gating.written(run), request)


def _fitted(
    pod: Mapping[str, Any], outcome: AdmissionOutcome, written: Mapping[str, str], request: AdmissionRequest
) -> AdmissionOutcome:
    """The outcome, if the Pod has room for its operations and for the annotations `written` with them."""
    ops = room.fitted(pod, outcome.ops, written, request.size)
    return AdmissionOutcome(Reason.NO_ROOM, ops) if isinstance(ops, str) else replace(outcome, ops=ops)


def _must_ask(found: MemoizedStep, metadata: Mapping[str, Any]) -> bool:
    """Whether it matters that Argo may delete artifacts of the workflow, and its metadata cannot tell."""
    stored = found.mode is not Mode.READONLY
    return stored and found.step.artifacts_follow_workflow and artifact_gc.told_by(metadata) is None
