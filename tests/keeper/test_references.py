"""Whatever a later step can refer to of one that ran, it finds of one that was answered without a node.

`scope` is a model of what Argo's controller makes of a Pod and its WorkflowTaskResult, written after
workflow/controller/operator.go, v4.1.2 (the same in 3.5 to 4.0 but for the guard of outputs):

- `id`, `status`, `startedAt`, `finishedAt`, `hostNodeName`: the node (buildLocalScope); `ip`: daemons alone
- `exitCode`: the container `main` of the Pod's status (getExitCode)
- `outputs.result`, `outputs.parameters.X`, `outputs.artifacts.X`: the result (addNodeOutputsToLocalScope)
- `outputs.result`, `outputs.parameters` and `outputs.parameters.X` of a loop: each child's result
  (processAggregateNodeOutputs)
- `workflow.outputs.parameters.G`, `workflow.outputs.artifacts.G`: `globalName` in the result
  (addOutputsToGlobalScope)
- the nodes of a containerSet: each container of the Pod's status (assessNodeStatus)
"""

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from keeper import patches
from keeper.steppods import GatedStep, read
from memoize.entry import Entry
from memoize.outputs import NotStorable, sound, storable
from memoize.taskresult import answer
from tests.keeper.gatedsteps import RECORDED, held

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = "2026-01-01T12:00:09Z"
WITHOUT_A_NODE = {"hostNodeName"}
"""What only a Pod with a node has: uses of it are found at submit, and such a step is never gated."""
OF_THE_RUN = {"startedAt", "finishedAt"}
"""There in both, with each one's own value."""

CASES = sorted(
    str(path.relative_to(RECORDED).with_suffix(""))
    for path in RECORDED.glob("*/*.json")
    if ".golden." not in path.name and path.stem not in ("daemon", "large-template")
)


def scope(pod: Json, result: Json) -> dict[str, Any]:
    """What later steps can refer to, by its name behind `steps.X.`; `node.C` is a container's phase."""
    status, outputs = pod["status"], result.get("outputs") or {}
    assert result["metadata"]["labels"]["workflows.argoproj.io/report-outputs-completed"] == "true"
    ended = {one["name"]: one["state"]["terminated"] for one in status["containerStatuses"]}
    found = {
        "id": result["metadata"]["name"],
        "status": status["phase"],
        "startedAt": pod["metadata"]["creationTimestamp"],
        "finishedAt": max(one["finishedAt"] for one in ended.values()),
        **{f"node.{name}": "Succeeded" if one["exitCode"] == 0 else "Failed" for name, one in ended.items()},
    }
    if "nodeName" in pod["spec"]:
        found["hostNodeName"] = pod["spec"]["nodeName"]
    if "main" in ended:
        found["exitCode"] = str(ended["main"]["exitCode"])
    if outputs.get("result") is not None:
        found["outputs.result"] = outputs["result"]
    for kind in ("parameters", "artifacts"):
        for one in outputs.get(kind) or []:
            value = one["value"] if kind == "parameters" else place(one)
            found[f"outputs.{kind}.{one['name']}"] = value
            if one.get("globalName"):
                found[f"workflow.outputs.{kind}.{one['globalName']}"] = value
    return found


def place(artifact: Json) -> Json:
    """What a consumer of an artifact goes by: where it lies and how it is packed."""
    return {k: v for k, v in artifact.items() if k not in ("path", "globalName", "optional", "artifactGC")}


def templates(pod: Json) -> list[Json]:
    """The variables that hold the Pod's template."""
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    return [e for c in containers for e in c.get("env", ()) if e["name"] == "ARGO_TEMPLATE"]


def step_pod(case: str) -> tuple[Json, GatedStep]:
    """A recorded Pod that is held, each of its outputs exported under a global name."""
    pod = held(case)
    for variable in templates(pod):
        template = json.loads(variable["value"])
        for kind in ("parameters", "artifacts"):
            for one in (template.get("outputs") or {}).get(kind) or ():
                one["globalName"] = f"global-{one['name']}"
        variable["value"] = json.dumps(template)
    step = read(pod)
    assert isinstance(step, GatedStep), step
    return pod, step


def ran(pod: Json, step: GatedStep) -> tuple[Json, Json]:
    """The Pod as it is when it has run on a node, and what its executor reported."""
    pod = deepcopy(pod)
    pod["spec"]["nodeName"] = "node-1"
    state = {"terminated": {"exitCode": 0, "startedAt": LATER, "finishedAt": LATER}}
    statuses = [{"name": c["name"], "state": state} for c in pod["spec"]["containers"]]
    pod["status"] = {"phase": "Succeeded", "containerStatuses": statuses}
    template = json.loads(templates(pod)[0]["value"])
    declared = template.get("outputs") or {}
    outputs: Json = {
        "parameters": [{**p, "value": f"of {p['name']}"} for p in declared.get("parameters") or ()],
        "artifacts": [
            {**a, "s3": {"endpoint": "e", "bucket": "b", "key": f"wf/{a['name']}"}}
            for a in declared.get("artifacts") or ()
        ],
    }
    if step.declared.archives_logs:
        outputs["artifacts"] += [
            {"name": f"{main}-logs", "s3": {"endpoint": "e", "bucket": "b", "key": f"wf/{main}.log"}}
            for main in step.declared.mains
        ]
    if step.declared.result:
        outputs["result"] = '{"said": "hello"}'
    labels = {"workflows.argoproj.io/report-outputs-completed": "true"}
    return pod, {"metadata": {"name": step.step.node_id, "labels": labels}, "outputs": outputs}


def hit(pod: Json, step: GatedStep, reported: Json) -> tuple[Json, Json]:
    """The same Pod, answered with what a run of it reported."""
    stored = storable(sound(reported["outputs"]), step.declared, gc=False)
    assert not isinstance(stored, NotStorable)
    entry = Entry.parse(Entry("wf-0", stored, NOW, None).dump())
    status = patches.status(step, entry, NOW)["status"]
    return {**pod, "status": status}, answer(step.step, step.declared, step.uid, entry.outputs)


@pytest.mark.parametrize("case", CASES)
def test_every_reference_to_a_step_that_ran_resolves_for_one_that_was_answered(case: str) -> None:
    pod, step = step_pod(case)
    a_run = ran(pod, step)
    of_a_run, of_a_hit = scope(*a_run), scope(*hit(pod, step, a_run[1]))
    assert of_a_run.keys() - of_a_hit.keys() == WITHOUT_A_NODE
    assert of_a_hit.keys() <= of_a_run.keys()
    for name in of_a_hit.keys() - OF_THE_RUN:
        assert of_a_hit[name] == of_a_run[name], name


def test_the_recorded_pods_hold_every_kind_of_reference() -> None:
    seen: set[str] = set()
    for case in CASES:
        seen |= {".".join(name.split(".")[:-1]) or name for name in scope(*ran(*step_pod(case)))}
    assert {"id", "exitCode", "outputs", "outputs.parameters", "outputs.artifacts", "node"} <= seen
    assert {"workflow.outputs.parameters", "workflow.outputs.artifacts"} <= seen


def test_a_loop_of_answered_children_aggregates_as_one_of_children_that_ran() -> None:
    pod, step = step_pod("v4.1.2-legacy/container")
    a_run = ran(pod, step)
    children = [a_run[1], hit(pod, step, a_run[1])[1]]
    values = [{p["name"]: p["value"] for p in child["outputs"]["parameters"]} for child in children]
    assert values[0] == values[1]
    assert all("result" not in child["outputs"] for child in children)
