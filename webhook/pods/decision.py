"""Decides what to do with a step Pod: leave it alone and say why, or memoize its step.

Pure: what has to be looked up, the metadata of the owning Workflow and the Namespace's labels, comes in as
arguments. A Pod is never denied. `classify_pod` says whether the step is memoized at all, `plan_injection`
how that is done inside the Pod. (gating.py decides what can be done without touching its containers.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from argo import artifact_gc
from argo import names as argo
from argo.layout import ContainerRef, Layout
from argo.steppod import NotAStep, StepPod
from kube.jsonpatch import Op, add
from memoize import names, opt_in
from memoize.autokey import ObjectReference, Version
from memoize.opt_in import Mode
from memoize.outcome import Outcome
from memoize.podstep import mains_of, step_of, with_key
from memoize.reasons import Reason
from memoize.step import Step
from webhook.pods import delivery, eligibility, room, traces
from webhook.pods.delivery import Delivery

_MODES = {mode.value: mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the Pod as it is."""

    reason: Reason
    detail: str = ""
    """Says more than the reason does, but never a parameter's value."""


@dataclass(frozen=True, slots=True)
class MemoizedStep:
    """A step to memoize, and its Pod."""

    step: Step
    pod: StepPod
    mode: Mode
    """How its author wants it done; never OFF."""
    ops: tuple[Op, ...] = ()
    """They write its key on the API server's Pod, where it was computed; `pod` has that already."""

    @property
    def mains(self) -> tuple[str, ...]:
        """The names of the step's main containers."""
        return mains_of(self.step.declared, self.pod.layout)

    def of_deleted_artifacts(self) -> "MemoizedStep":
        """The same, for a workflow whose artifacts Argo will delete."""
        return replace(self, step=self.step._replace(gc=True))


@dataclass(frozen=True)
class InjectionPlan:
    """What to inject: the check, the capture, or both, and how the entrypoint gets there."""

    step: Step
    layout: Layout
    """Of the Pod as it is before the injection."""
    mains: tuple[str, ...]
    """Names of the step's main containers."""
    check: bool
    """The key is looked up in the Pod, and containers wait for the answer."""
    capture: bool
    """The step's outputs are stored from within the Pod."""
    delivery: Delivery
    """How the gate gets there."""

    @cached_property
    def variable(self) -> str:
        """The value of names.ENV_STEP."""
        return self.step.to_json()

    @property
    def wrapped(self) -> tuple[ContainerRef, ...]:
        """Containers that start by the entrypoint: all that must not run on a hit, else those to record."""
        return delivery.to_wrap(self.delivery, self.layout) if self.check else self.layout.recorded


@dataclass(frozen=True, slots=True)
class Inject:
    """Inject what the plan says."""

    reason: Reason
    plan: InjectionPlan
    detail: str = ""
    """Why it is less than check and capture, or delivered in another way than `--injection` says."""


def screen(pod: StepPod) -> Skip | None:
    """What the Pod alone decides, so that nothing is looked up for a Pod that is left alone anyway.

    None means: look up its Workflow's metadata and the Namespace's labels, then ask `classify_pod`.
    """
    if pod.component == argo.COMPONENT_AGENT:
        return Skip(Reason.UNSUPPORTED_TEMPLATE, "an agent Pod answers many steps")
    if pod.component is not None:
        return Skip(Reason.NOT_A_STEP)
    if names.KEY not in pod.annotations:
        return Skip(Reason.NO_KEY)
    if names.PLAN in pod.annotations or traces.injected(pod.pod):
        return Skip(Reason.ALREADY_INJECTED)
    if opt_in.of_template(pod.annotations) is False:
        return Skip(Reason.OPTED_OUT, "the template says so")
    return None


def classify_pod(
    pod: StepPod | NotAStep,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
    versions: Mapping[ObjectReference, Version] | None = None,
) -> Skip | MemoizedStep:
    """Whether this Pod's step is memoized. None is what could not be read, as opposed to empty.

    `versions` are those of the objects that it refers to (podstep.references); None where they do not count.
    """
    if isinstance(pod, NotAStep):
        return Skip(Reason.NOT_A_STEP)
    if skip := screen(pod):
        return skip
    if workflow_metadata is None or workflow_metadata.get("uid", pod.owner.uid) != pod.owner.uid:
        return Skip(Reason.MODE_UNKNOWN, "the owning Workflow could not be read")
    opted_out = _opted_out(pod.annotations, workflow_metadata, namespace_labels)
    if opted_out is not None:
        return opted_out
    mode = _mode(pod.annotations, workflow_metadata)
    if mode is None:
        return Skip(Reason.MODE_UNKNOWN, f"{names.MODE} must be one of {', '.join(Mode)}")
    if mode is Mode.OFF:
        return Skip(Reason.MODE_OFF)
    keyed = with_key(pod, versions)
    if isinstance(keyed, Outcome):
        return Skip(*keyed)
    step = step_of(keyed, gc=artifact_gc.told_by(workflow_metadata) is True)
    return MemoizedStep(step, keyed, mode, _written(pod, keyed)) if isinstance(step, Step) else Skip(*step)


def _written(pod: StepPod, keyed: StepPod) -> tuple[Op, ...]:
    return tuple(
        add(("metadata", "annotations", name), value)
        for name, value in keyed.annotations.items()
        if pod.annotations.get(name) != value
    )


def plan_injection(step: MemoizedStep, injection: Delivery = Delivery.INIT_CONTAINER) -> Skip | Inject:
    """How the step is memoized inside its Pod, by containers of ours.

    `injection` is what `--injection` says; a Pod that cannot take it gets the other one.
    """
    if blocker := eligibility.blocker(step.pod.spec, step.pod.layout):
        return Skip(*blocker)
    told = step.step
    if room.is_too_long(names.ENV_STEP, told.to_json()):
        told = told.without_key()
    if room.is_too_long(names.ENV_STEP, told.to_json()):
        return Skip(Reason.NO_ROOM, "what its template declares is too long to be handed to a container")
    return _plan(replace(step, step=told), injection)


def _plan(memoized: MemoizedStep, injection: Delivery) -> Skip | Inject:
    """How much of check and capture this Pod can take, and its mode asks for."""
    shape, mode = memoized.pod.layout, memoized.mode
    auxiliary = shape.auxiliary
    if auxiliary is not None and auxiliary.blocker is not None:
        return Skip(Reason.CANNOT_WRAP_COMMAND, f"container {auxiliary.name} {auxiliary.blocker}")
    unrecorded = next((m for m in shape.recorded if not m.container.get("command")), None)
    if unrecorded is not None:
        return Skip(Reason.CANNOT_WRAP_COMMAND, f"container {unrecorded.name} {unrecorded.blocker}")
    way, otherwise = delivery.for_check(injection, shape)
    plan = InjectionPlan(memoized.step, shape, memoized.mains, check=True, capture=True, delivery=way)
    unwrappable = next((m for m in delivery.to_wrap(way, shape) if m.blocker is not None), None)
    blocker = f"container {unwrappable.name} {unwrappable.blocker}" if unwrappable is not None else None
    if mode is Mode.READONLY:
        if blocker:
            return Skip(Reason.CANNOT_WRAP_COMMAND, blocker)
        detail = f"mode {mode}, {otherwise}" if otherwise else f"mode {mode}"
        return Inject(Reason.INJECTED_CHECK, replace(plan, capture=False), detail)
    if mode is Mode.REFRESH:
        blocker = f"mode {mode}"
    if blocker:
        # Nothing is answered, so nothing has to be decided before the template's init containers.
        return Inject(Reason.INJECTED_CAPTURE, replace(plan, check=False, delivery=injection), blocker)
    return Inject(Reason.INJECTED, plan, otherwise or "")


def _opted_out(
    annotations: Mapping[str, Any],
    workflow_metadata: Mapping[str, Any],
    namespace_labels: Mapping[str, str] | None,
) -> Skip | None:
    """The nearest opt-in says false. A key is an opt-in of its own, so none at all means yes.

    A key that the webhook made of a block was opted in at submit, by opt-ins nearer to the template than the
    Workflow's and the Namespace's: a WorkflowTemplate's do not show on the Pod.
    """
    if opt_in.of_template(annotations) is not None or names.MANAGED in annotations:
        return None  # a template that says false ended in `screen`
    holder = opt_in.of_holder({"metadata": workflow_metadata})
    if holder is not None:
        return None if holder else Skip(Reason.OPTED_OUT, "the Workflow says so")
    if namespace_labels is None:
        return Skip(Reason.API_UNAVAILABLE, "the Namespace could not be read")
    if opt_in.of_labels(namespace_labels) is False:
        return Skip(Reason.OPTED_OUT, "the Namespace says so")
    return None


def _mode(annotations: Mapping[str, Any], workflow_metadata: Mapping[str, Any]) -> Mode | None:
    """The run's mode, else the template's, else `use`; None for a value that is none."""
    places = (workflow_metadata.get("annotations"), workflow_metadata.get("labels"), annotations)
    word = next((place[names.MODE] for place in places if place and names.MODE in place), Mode.USE)
    return _MODES.get(str(word))
