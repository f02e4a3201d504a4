"""GatedStep Pods: recorded ones as admission leaves them, and made-up ones as the keeper sees them."""

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from argo.steppod import Owner
from keeper.steppods import GatedStep, Key, Phase
from memoize import names
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.plan import Plan
from memoize.step import Step
from tests.recordedpods import PODS

Json = dict[str, Any]

RECORDED = PODS
START = datetime(2026, 1, 1, tzinfo=UTC)
GATE = {"name": names.SCHEDULING_GATE}


def recorded(case: str) -> Json:
    """A Pod that a real controller asked for, created by an API server since."""
    pod: Json = json.loads((RECORDED / f"{case}.json").read_text())
    created = {"uid": "pod-uid", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pod["metadata"].update(created)
    pod["status"] = {"phase": "Pending"}
    return pod


def held(case: str = "v4.1.2-legacy/container", **changes: Any) -> Json:
    """The same, held; `changes` are of its plan."""
    pod = deepcopy(recorded(case))
    metadata = pod["metadata"]
    annotations = metadata["annotations"]
    note = Plan(
        cache=annotations[names.CACHE],
        data_key=data_key(annotations[names.KEY]),
        share=True,
        capture=True,
        gc=False,
        wait_seconds=600,
    )
    annotations[names.PLAN] = note._replace(**changes).to_json()
    metadata["labels"][names.RESULT] = names.RESULT_GATED
    pod["spec"]["schedulingGates"] = [GATE]
    return pod


def gated_step(
    uid: str,
    *,
    phase: Phase = Phase.GATED,
    namespace: str = "default",
    cache: str = "memo",
    place: str = "k",
    created_at: datetime = START,
    until: datetime = START + timedelta(minutes=10),
    share: bool = True,
    capture: bool = True,
    deleting: bool = False,
    size: int = 1000,
    release_reason: Outcome | None = None,
    may_nudge: bool = False,
) -> GatedStep:
    """A Pod as the single-flight table sees it."""
    step = Step(
        key=place,
        cache=cache,
        max_age="",
        node_id=f"wf-{uid}",
        workflow="wf",
        workflow_uid="wf-uid",
        instance_id="",
        include_result=False,
        gc=False,
        declared=Declared(),
    )
    return GatedStep(
        uid=uid,
        namespace=namespace,
        name=uid,
        version="1",
        phase=phase,
        deleting=deleting,
        gates=(names.SCHEDULING_GATE,) if phase is Phase.GATED else (),
        has_annotations=True,
        node_id=f"wf-{uid}",
        label=names.RESULT_GATED if phase is Phase.GATED else names.RESULT_MISS,
        size=size,
        release_reason=release_reason,
        created_at=created_at,
        owner=Owner(namespace, "wf", "wf-uid"),
        step=step,
        declared=Declared(),
        plan=Plan(cache, place, share, capture, gc=False),
        key=Key(namespace, cache, place),
        until=until,
        containers=(("main", "x"),),
        needs_pause=False,
        may_nudge=may_nudge,
    )
