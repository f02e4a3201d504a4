"""The step that a step Pod stands for: its key, and what its template declares, from the Pod alone."""

from collections.abc import Mapping

from argo import names as argo
from argo.layout import Layout
from argo.steppod import StepPod
from memoize import autokey, eligibility, names, outputs, spec
from memoize.autokey import ObjectReference, Version
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.spec import Memo
from memoize.step import Step


def with_key(pod: StepPod, versions: Mapping[ObjectReference, Version] | None = None) -> StepPod | Outcome:
    """The Pod with its key computed, if it asks for that; or why it has none. Only admission asks this.

    `versions` are those of `references`, where they are to count.

    Later the Pod may be another one, since other webhooks change it; so the key is computed once, and kept.
    """
    if pod.annotations.get(names.KEY) != names.AUTO_KEY:
        return pod
    for name in (names.SALT, names.KEY_IGNORE):
        if "{{" in str(pod.annotations.get(name)):
            return Outcome(Reason.UNRESOLVED_TAG, name)
    key = autokey.of_pod(pod, versions)
    if isinstance(key, str):
        return Outcome(Reason.NO_AUTO_KEY, key)
    return pod.with_annotations(key.annotations)


def references(pod: StepPod) -> tuple[ObjectReference, ...]:
    """Of what the Pod's key can have the versions counted: none where it asks for no computed key."""
    return autokey.references(pod) if pod.annotations.get(names.KEY) == names.AUTO_KEY else ()


def step_of(pod: StepPod, *, gc: bool) -> Step | Outcome:
    """The step, or why it is not memoized. `gc`: Argo may delete artifacts of its workflow.

    Whether the words of its Workflow and its Namespace allow it is not asked here.
    """
    memo = _memo(pod)
    if isinstance(memo, Outcome):
        return memo
    shape = pod.layout
    if blocker := _blocker(shape, pod.owner.uid):
        return blocker
    declared = None
    if shape.template is not None:
        try:
            declared = outputs.declared(shape.template, shape.include_result)
        except outputs.BrokenOutputsError as error:
            return Outcome(Reason.NOT_A_STEP, f"its template: {error}")
    mains = mains_of(declared, shape)
    if not mains or not set(mains) <= set(shape.workers):
        return Outcome(Reason.NOT_A_STEP, "a main container of the template is not in the Pod")
    parts = autokey.parts_of(pod.annotations)
    return Step(
        key=memo.key,
        cache=memo.cache,
        max_age=memo.max_age,
        node_id=pod.node_id,
        workflow=pod.owner.name,
        workflow_uid=pod.owner.uid,
        instance_id=pod.instance_id,
        include_result=shape.include_result,
        gc=gc,
        declared=declared,
        deadline=shape.deadline,
        digest=memo.digest,
        template=_template_name(shape) if parts else "",
        parts=parts,
    )


def _template_name(shape: Layout) -> str:
    name = (shape.template or {}).get("name")
    return name if isinstance(name, str) and len(name) <= argo.LONGEST_TEMPLATE else ""


def mains_of(declared: Declared | None, shape: Layout) -> tuple[str, ...]:
    """The names of the step's main containers; those that the Pod shows for a template that is not in it.

    Those of a containerSet look like sidecars. The capture reads the template and looks at each again.
    """
    if declared is not None:
        return declared.mains
    return (argo.MAIN_CONTAINER,) if argo.MAIN_CONTAINER in shape.workers else shape.workers


def _memo(pod: StepPod) -> Memo | Outcome:
    for name in (names.KEY, names.CACHE, names.MAX_AGE):
        if "{{" in str(pod.annotations.get(name)):
            return Outcome(Reason.UNRESOLVED_TAG, name)
    if pod.annotations.get(names.KEY) == names.AUTO_KEY:
        return Outcome(Reason.NO_AUTO_KEY, "admission did not compute it")
    memo, errors = spec.from_pod(pod.annotations, "metadata")
    if memo is None or errors:
        return Outcome(Reason.INVALID_ANNOTATIONS, "; ".join(f"{e.field}: {e.kind.text}" for e in errors))
    return memo


def _blocker(shape: Layout, workflow_uid: str) -> Outcome | None:
    if shape.template is not None:
        return eligibility.blocker(shape.template, workflow_uid)
    if shape.offloaded:
        return None
    return Outcome(Reason.NOT_A_STEP, f"no container has a readable {argo.ENV_TEMPLATE}")
