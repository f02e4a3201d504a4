"""Decides what to do with a step Pod: leave it alone and say why, or memoize its step.

Pure: what has to be looked up, the metadata of the owning Workflow and the Namespace's labels, comes in as
arguments. A Pod is never denied. `judge` says whether the step is memoized at all; `inside` how that is done
inside the Pod, by injection. (holds/hold.py decides what can be done without touching its containers.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from argo import artifact_gc, layout
from argo import names as argo
from argo.layout import ContainerRef, Layout
from memoize import names, opt_in, outputs, spec
from memoize.opt_in import Mode
from memoize.reasons import Reason
from memoize.step import Step
from webhook.pods import delivery, eligibility, room, traces
from webhook.pods.delivery import Delivery

_MODES = {mode.value: mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class Owner:
    """The Workflow that a step Pod belongs to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the Pod as it is. `detail` says more than the code does, but never a parameter's value."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MemoizedStep:
    """A step to memoize: what is known of it, its Pod's layout, and how its author wants it done."""

    step: Step
    layout: Layout
    mains: tuple[str, ...]
    mode: Mode

    def of_deleted_artifacts(self) -> "MemoizedStep":
        """The same, for a workflow whose artifacts Argo will delete."""
        return replace(self, step=self.step._replace(gc=True))


@dataclass(frozen=True)
class InjectionPlan:
    """What to inject: the check, the capture, or both, and how the entrypoint gets there."""

    step: Step
    layout: Layout
    mains: tuple[str, ...]
    check: bool
    capture: bool
    delivery: Delivery

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
    """Inject `plan`; `detail` says why it is less than check and capture, or delivered in another way."""

    reason: Reason
    plan: InjectionPlan
    detail: str = ""


def owner(pod: Mapping[str, Any], namespace: str) -> Owner | None:
    """The Workflow that controls this Pod and that the Pod's label names too; None: not a Pod of Argo's."""
    metadata = pod.get("metadata") or {}
    for reference in metadata.get("ownerReferences") or ():
        group = str(reference.get("apiVersion", "")).partition("/")[0]
        if reference.get("controller") and reference.get("kind") == "Workflow" and group == argo.GROUP:
            found = Owner(namespace, str(reference.get("name", "")), str(reference.get("uid", "")))
            labelled = (metadata.get("labels") or {}).get(argo.WORKFLOW_LABEL)
            return found if found.name and found.uid and found.name == labelled else None
    return None


def screen(pod: Mapping[str, Any], namespace: str) -> Skip | Owner:
    """What the Pod alone decides, so that nothing is looked up for a Pod that is left alone anyway.

    An Owner means: look up its metadata and the Namespace's labels, then ask `judge`.
    """
    metadata = pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    workflow = owner(pod, namespace)
    component = (metadata.get("labels") or {}).get(argo.COMPONENT)
    if component == argo.COMPONENT_AGENT:
        return Skip(Reason.UNSUPPORTED_TEMPLATE, "an agent Pod answers many steps")
    if workflow is None or component is not None or not node_id(metadata):
        return Skip(Reason.NOT_A_STEP)
    if names.KEY not in annotations:
        return Skip(Reason.NO_KEY)
    if names.PLAN in annotations or traces.injected(pod):
        return Skip(Reason.ALREADY_INJECTED)
    if opt_in.of_template(annotations) is False:
        return Skip(Reason.OPTED_OUT, "the template says so")
    return workflow


def judge(
    pod: Mapping[str, Any],
    namespace: str,
    workflow_metadata: Mapping[str, Any] | None,
    namespace_labels: Mapping[str, str] | None,
) -> Skip | MemoizedStep:
    """Whether this Pod's step is memoized. None is what could not be read, as opposed to empty."""
    workflow = screen(pod, namespace)
    if isinstance(workflow, Skip):
        return workflow
    if workflow_metadata is None or workflow_metadata.get("uid", workflow.uid) != workflow.uid:
        return Skip(Reason.MODE_UNKNOWN, "the owning Workflow could not be read")
    annotations = pod["metadata"]["annotations"]
    opted_out = _opted_out(annotations, workflow_metadata, namespace_labels)
    if opted_out is not None:
        return opted_out
    mode = _mode(annotations, workflow_metadata)
    if mode is None:
        return Skip(Reason.MODE_UNKNOWN, f"{names.MODE} must be one of {', '.join(Mode)}")
    if mode is Mode.OFF:
        return Skip(Reason.MODE_OFF)
    return _wanted(pod, workflow, mode, gc=artifact_gc.told_by(workflow_metadata) is True)


def step_of(pod: Mapping[str, Any], namespace: str, *, gc: bool) -> Skip | Step:
    """The step that a Pod stands for, from the Pod alone, for one that was judged before.

    `gc`: Argo may delete artifacts of its workflow.
    """
    workflow = owner(pod, namespace)
    if workflow is None:
        return Skip(Reason.NOT_A_STEP)
    wanted = _wanted(pod, workflow, Mode.USE, gc=gc)
    return wanted.step if isinstance(wanted, MemoizedStep) else wanted


def _wanted(pod: Mapping[str, Any], workflow: Owner, mode: Mode, *, gc: bool) -> Skip | MemoizedStep:
    metadata = pod["metadata"]
    memo = _memo(metadata.get("annotations") or {})
    if isinstance(memo, Skip):
        return memo
    shape = layout.read(pod)
    unsuited = eligibility.unsuited(shape, workflow.uid)
    if unsuited is not None:
        return Skip(*unsuited)
    declared = None
    if shape.template is not None:
        try:
            declared = outputs.declared(shape.template, shape.include_result)
        except outputs.BrokenOutputsError as error:
            return Skip(Reason.NOT_A_STEP, f"its template: {error}")
    mains = declared.mains if declared is not None else _presumed_mains(shape)
    if not mains or not set(mains) <= set(shape.workers):
        return Skip(Reason.NOT_A_STEP, "a main container of the template is not in the Pod")
    step = Step(
        key=memo.key,
        cache=memo.cache,
        max_age=memo.max_age,
        node_id=node_id(metadata),
        workflow=workflow.name,
        workflow_uid=workflow.uid,
        instance_id=(metadata.get("labels") or {}).get(argo.INSTANCE_ID, ""),
        include_result=shape.include_result,
        gc=gc,
        declared=declared,
        deadline=shape.deadline,
        digest=memo.digest,
    )
    return MemoizedStep(step, shape, mains, mode)


def inside(
    pod: Mapping[str, Any], wanted: MemoizedStep, injection: Delivery = Delivery.INIT_CONTAINER
) -> Skip | Inject:
    """How the step is memoized inside its Pod, by containers of ours.

    `injection` is the way that the server was told; a Pod that cannot take it gets the other one.
    """
    unfit = eligibility.unfit(pod["spec"], wanted.layout)
    if unfit is not None:
        return Skip(*unfit)
    step = wanted.step
    if room.is_too_long(names.ENV_STEP, step.to_json()):
        step = step.without_key()
    if room.is_too_long(names.ENV_STEP, step.to_json()):
        return Skip(Reason.NO_ROOM, "what its template declares is too long to be handed to a container")
    return _plan(step, wanted.layout, wanted.mains, wanted.mode, injection)


def _plan(
    step: Step, shape: Layout, mains: tuple[str, ...], mode: Mode, injection: Delivery
) -> Skip | Inject:
    """How much of check and capture this Pod can take, and its mode asks for."""
    auxiliary = shape.auxiliary
    if auxiliary is not None and auxiliary.obstacle is not None:
        return Skip(Reason.CANNOT_WRAP_COMMAND, f"container {auxiliary.name} {auxiliary.obstacle}")
    unrecorded = next((m for m in shape.recorded if not m.container.get("command")), None)
    if unrecorded is not None:
        return Skip(Reason.CANNOT_WRAP_COMMAND, f"container {unrecorded.name} {unrecorded.obstacle}")
    way, otherwise = delivery.for_check(injection, shape)
    unwrappable = next((m for m in delivery.to_wrap(way, shape) if m.obstacle is not None), None)
    obstacle = f"container {unwrappable.name} {unwrappable.obstacle}" if unwrappable is not None else ""
    if mode is Mode.READONLY and obstacle:
        return Skip(Reason.CANNOT_WRAP_COMMAND, obstacle)
    if mode is Mode.READONLY:
        plan = InjectionPlan(step, shape, mains, check=True, capture=False, delivery=way)
        detail = f"mode {mode}, {otherwise}" if otherwise else f"mode {mode}"
        return Inject(Reason.INJECTED_CHECK, plan, detail)
    if mode is Mode.REFRESH or obstacle:
        # Nothing is answered, so nothing has to be decided before the template's init containers.
        plan = InjectionPlan(step, shape, mains, check=False, capture=True, delivery=injection)
        return Inject(Reason.INJECTED_CAPTURE, plan, f"mode {mode}" if mode is Mode.REFRESH else obstacle)
    plan = InjectionPlan(step, shape, mains, check=True, capture=True, delivery=way)
    return Inject(Reason.INJECTED, plan, otherwise)


def _presumed_mains(shape: Layout) -> tuple[str, ...]:
    """The main containers as far as the Pod shows them, for a template that is not in it.

    Those of a containerSet look like sidecars. The capture reads the template and looks at each again.
    """
    return (argo.MAIN_CONTAINER,) if argo.MAIN_CONTAINER in shape.workers else shape.workers


def _opted_out(
    annotations: Mapping[str, Any],
    workflow_metadata: Mapping[str, Any],
    namespace_labels: Mapping[str, str] | None,
) -> Skip | None:
    """The nearest word says false. A key is an opt-in of its own, so no word at all means yes.

    A key that the webhook made of a block was opted in at submit, by words nearer to the template than the
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


def _memo(annotations: Mapping[str, Any]) -> Skip | spec.Memo:
    for name in (names.KEY, names.CACHE, names.MAX_AGE):
        if "{{" in str(annotations.get(name)):
            return Skip(Reason.UNRESOLVED_TAG, name)
    memo, errors = spec.from_pod(annotations, "metadata")
    if memo is None or errors:
        return Skip(Reason.INVALID_ANNOTATIONS, "; ".join(f"{e.field}: {e.kind.text}" for e in errors))
    return memo


def node_id(metadata: Mapping[str, Any]) -> str:
    """The node's id: an annotation, else the Pod's name (Argo's workflow/common/common.go)."""
    annotation = (metadata.get("annotations") or {}).get(argo.NODE_ID)
    return str(annotation or metadata.get("name") or "")


def _mode(annotations: Mapping[str, Any], workflow_metadata: Mapping[str, Any]) -> Mode | None:
    """The run's mode, else the template's, else `use`; None for a word that is none."""
    places = (workflow_metadata.get("annotations"), workflow_metadata.get("labels"), annotations)
    word = next((place[names.MODE] for place in places if place and names.MODE in place), Mode.USE)
    return _MODES.get(str(word))
