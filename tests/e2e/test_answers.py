"""An answer is what this very step would have reported: under its names, no more and no less, in time.

Each case was met with workflows that are fine without stepmemo. All of them run twice, and end well twice.
"""

import json
from typing import Any

import pytest

from argo import names as argo_names
from tests.e2e import server
from tests.e2e.cluster import Namespace, grant, workflow
from tests.e2e.kube import argo, kubectl, wait_for
from tests.e2e.outcome import has_none_of_ours
from tests.e2e.run import Run
from tests.e2e.steps import (
    RANDOM,
    Template,
    arguments,
    container,
    entry,
    in_a_row,
    look,
    memo,
    memoized,
    opted_in,
    parameter,
    script,
    shell,
    use,
)

MANY, MANY_PODS = 200, 40
"""Hits at once, each with a next step; and in direct access, where each takes a Pod."""


def succeeded(*runs: Run) -> None:
    assert [run.phase for run in runs] == ["Succeeded"] * len(runs), "".join(run.said() for run in runs)


def chain(kind: str, *calls: dict[str, Any]) -> Template:
    """The template `main`: calls a, b, c … one after the other, as `steps` or as tasks of a `dag`."""
    if kind == "steps":
        return in_a_row(*calls)
    letters = "abcdef"[: len(calls)]
    tasks = [
        {"name": letter} | call | ({"depends": before} if before else {})
        for letter, before, call in zip(letters, ("", *letters), calls, strict=False)
    ]
    return {"name": "main", "dag": {"tasks": tasks}}


def exported(run: Run) -> dict[str, str]:
    """The parameters that the workflow gives to the outside."""
    return {one["name"]: one["value"] for one in run.workflow["status"]["outputs"]["parameters"]}


def test_each_call_exports_the_answer_under_its_own_global_name(ns: Namespace) -> None:
    """Each call of a step exports a hit's output under its own `globalName`, which an input gives."""
    step = container(
        inputs={"parameters": [{"name": "name"}]},
        outputs={"parameters": [parameter() | {"globalName": "{{inputs.parameters.name}}"}]},
    )
    shown = "{{workflow.outputs.parameters.left}} {{workflow.outputs.parameters.right}}"
    main = in_a_row(
        {"template": "step", "arguments": arguments(name="left")},
        {"template": "step", "arguments": arguments(name="right")},
        {"template": "use", "arguments": arguments(x=shown)},
    )
    first, second = ns.runs(main, step, use(), entrypoint="main")
    succeeded(first, second)
    assert [first.executions(), second.executions()] == [2, 1], first.said() + second.said()
    value = first.output()
    for run in (first, second):
        assert exported(run) == {"left": value, "right": value}, run.said()
        assert run.output("seen", "use") == f"{value} {value}", run.said()


def test_a_global_name_that_is_added_later_is_exported(ns: Namespace) -> None:
    first = ns.run(container())
    named = {"parameters": [parameter() | {"globalName": "later"}]}
    second = ns.run(container(outputs=named))
    succeeded(first, second)
    assert second.executions() == 0, second.said()
    assert exported(second) == {"later": first.output()}


def test_a_global_artifact_is_exported_on_a_hit(ns: Namespace) -> None:
    artifact = {"name": "a", "path": "/tmp/a", "globalName": "shared"}
    main = in_a_row(
        {"template": "step"},
        {
            "template": "read",
            "arguments": {"artifacts": [{"name": "a", "from": "{{workflow.outputs.artifacts.shared}}"}]},
        },
    )
    read = {
        "name": "read",
        "inputs": {"artifacts": [{"name": "a", "path": "/tmp/a"}]},
        "outputs": {"parameters": [parameter("seen", "/tmp/a")]},
        "container": shell("true"),
    }
    step = container(f"{RANDOM} > /tmp/a", outputs={"artifacts": [artifact]})
    first, second = ns.runs(main, step, read, entrypoint="main")
    succeeded(first, second)
    assert [first.executions(), second.executions()] == [2, 1], first.said() + second.said()
    assert first.output("seen", "read") == second.output("seen", "read")


@pytest.mark.parametrize("kind", ["steps", "dag"])
def test_a_result_that_nobody_asked_for_is_not_in_a_loop(ns: Namespace, kind: str) -> None:
    """Hits in a loop report a result only if it is used: Argo reads each one there as JSON."""
    step = script("echo {{inputs.parameters.x}} world", inputs={"parameters": [{"name": "x"}]})
    step |= {"memoize": memo("say-{{inputs.parameters.x}}")}
    result = "{{steps.a.outputs.result}}" if kind == "steps" else "{{tasks.a.outputs.result}}"
    main = chain(
        kind,
        {"template": "step", "arguments": arguments(x="hello")},
        {"template": "use", "arguments": arguments(x=result)},
        {"template": "step", "arguments": arguments(x="{{item}}"), "withItems": ["hello", "goodbye"]},
        {"template": "use", "arguments": arguments(x="done")},
    )
    first, second = ns.runs(main, step, use(), entrypoint="main")
    succeeded(first, second)
    assert [first.executions(), second.executions()] == [4, 2], first.said() + second.said()
    for run in (first, second):
        assert [answer.get("result") for answer in run.answers()] == ["hello world", None, None], run.said()


def node_of(kind: str, form: str) -> str:
    """A reference to the node of `a`."""
    of = "steps" if kind == "steps" else "tasks"
    forms = {
        "simple": "{{%s.a.hostNodeName}}",
        "expression": "{{=%s.a.hostNodeName}}",
        "index": "{{=%s['a'].hostNodeName}}",
    }
    return forms[form] % of


@pytest.mark.parametrize("kind", ["steps", "dag"])
@pytest.mark.parametrize("form", ["simple", "expression", "index"])
def test_a_hit_whose_node_is_asked_for_has_one(ns: Namespace, kind: str, form: str) -> None:
    """A hit whose `hostNodeName` is asked for is looked up in its Pod, which has a node."""
    pinned = use() | {"nodeSelector": {"kubernetes.io/hostname": "{{inputs.parameters.x}}"}}
    main = chain(
        kind, {"template": "step"}, {"template": "use", "arguments": arguments(x=node_of(kind, form))}
    )
    spec: dict[str, Any] = {"entrypoint": "main"}
    runs = ns.runs(main, container(), pinned, **spec)
    succeeded(*runs)
    assert [run.executions() for run in runs] == [2, 1], "".join(run.said() for run in runs)
    assert runs[0].answers() == runs[1].answers()
    (pod,) = runs[1].memoized_pods()
    assert [memoization.result for memoization in runs[1].memoizations()] == ["hit"], runs[1].said()
    assert runs[1].output("seen", "use") == pod["spec"]["nodeName"]
    if server.access() == server.SERVICE:
        warnings = ns.warnings(workflow(main, container(), pinned, **spec))
        assert any("hostNodeName" in warning for warning in warnings), warnings


def test_a_template_says_by_hand_that_it_wants_a_node(ns: Namespace) -> None:
    """A template of a library says by `stepmemo.dev/gate: "false"` that its hits want a node."""
    server.needs(server.SERVICE)
    metadata = opted_in(**{"stepmemo.dev/gate": "false"})
    library = argo("WorkflowTemplate", {"name": "library"}, {"templates": [container(metadata=metadata)]})
    ns.create(library)
    main = in_a_row(
        {"templateRef": {"name": "library", "template": "step"}},
        {"template": "use", "arguments": arguments(x="{{steps.a.hostNodeName}}")},
    )
    first, second = ns.runs(main, use(), entrypoint="main")
    succeeded(first, second)
    assert [first.executions(), second.executions()] == [2, 1], first.said() + second.said()
    (pod,) = second.memoized_pods()
    assert second.output("seen", "use") == pod["spec"]["nodeName"]


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_the_outputs_of_many_hits_reach_their_next_steps(ns: Namespace, attempt: int) -> None:
    """Of many hits at once each hands its outputs to a next step, time after time."""
    many = MANY if server.access() == server.SERVICE else MANY_PODS
    # The controller sees a result and the end of its Pod apart. It waits for declared outputs from 3.6.11 and
    # 3.7.1 on, for results in no version; so what is lost is lost by chance.
    answers = {
        f"k{number}": entry(
            {
                "parameters": [{"name": "out", "value": f"v{number}"}],
                "result": f"r{number}",
                "exitCode": "0",
            }
        )
        for number in range(many)
    }
    ns.config_map(ns.cache, answers, {argo_names.CONFIGMAP_TYPE: "Cache"})
    each = {"inputs": {"parameters": [{"name": "number"}]}}
    first = script("echo of a run; echo of a run > /tmp/out", outputs={"parameters": [parameter()]})
    first |= each | {"memoize": memo("k{{inputs.parameters.number}}")}
    seen = arguments(x="{{steps.a.outputs.parameters.out}} {{steps.a.outputs.result}}")
    number = arguments(number="{{inputs.parameters.number}}")
    pair = in_a_row({"template": "step", "arguments": number}, {"template": "look", "arguments": seen})
    pair |= each | {"name": "pair"}
    fan = {
        "template": "pair",
        "arguments": arguments(number="{{item}}"),
        "withSequence": {"count": str(many)},
    }
    run = ns.run(in_a_row(fan), pair, first, look(), entrypoint="main")
    succeeded(run)
    looks = [one for one in run.workflow["status"]["nodes"].values() if one["type"] == "Suspend"]
    seen_values = {one["inputs"]["parameters"][0]["value"] for one in looks}
    assert seen_values == {f"v{number} r{number}" for number in range(many)}
    assert {one.result for one in run.memoizations()} == {"hit"}


def owned(how: str) -> dict[str, Any]:
    """A `resource` that makes a ConfigMap which goes with its workflow."""
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
    if how == "setOwnerReference":
        return {"action": "create", "setOwnerReference": True, "manifest": json.dumps(made)}
    owner = {
        "apiVersion": argo_names.API_VERSION,
        "kind": "Workflow",
        "name": "{{workflow.name}}",
        "uid": "{{workflow.uid}}",
    }
    made["metadata"]["ownerReferences"] = [owner]
    return {"action": "create", "manifest": json.dumps(made)}


@pytest.mark.parametrize("how", ["setOwnerReference", "workflow.uid"])
def test_what_goes_with_its_workflow_is_made_anew(ns: Namespace, how: str) -> None:
    """A resource that goes with its workflow is not stored, and the submit says so."""
    grant(ns.name, "resource", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}])
    outputs = {"parameters": [{"name": "out", "valueFrom": {"jsonPath": "{.metadata.name}"}}]}
    step = memoized(resource=owned(how), outputs=outputs)
    mounted = {
        "volumes": [{"name": "made", "configMap": {"name": "{{inputs.parameters.x}}"}}],
        "container": shell("true", volumeMounts=[{"name": "made", "mountPath": "/made"}]),
    }
    reader = {"name": "use", "inputs": {"parameters": [{"name": "x"}]}} | mounted
    call = {"template": "use", "arguments": arguments(x="{{steps.a.outputs.parameters.out}}")}
    main = in_a_row({"template": "step"}, call)
    first = ns.run(main, step, reader, entrypoint="main")
    (pod,) = first.memoized_pods()
    assert has_none_of_ours(pod)
    kubectl("-n", ns.name, "delete", "workflow", first.name)
    gone = ("-n", ns.name, "get", "configmap", first.output(), "--ignore-not-found")
    wait_for("end of what the workflow owned", lambda: not kubectl(*gone).stdout or None)
    second = ns.run(main, step, reader, entrypoint="main")
    succeeded(first, second)
    assert first.output() != second.output()
    assert ns.entries() == {}
    warnings = ns.warnings(workflow(main, step, reader, entrypoint="main"))
    assert any("goes with its workflow" in warning for warning in warnings), warnings


def measure() -> Template:
    """A step of a library with a block of its own."""
    return {
        "name": "measure",
        "inputs": {"parameters": [{"name": "what"}]},
        "memoize": memo("measure-{{inputs.parameters.what}}", max_age="1h"),
        "outputs": {"parameters": [parameter()]},
        "container": shell("echo -n measured {{inputs.parameters.what}} > /tmp/out"),
    }


def of_the_day(ns: Namespace) -> dict[str, Any]:
    """A workflow that calls the library's step twice and has a default block for its own steps."""
    opted = opted_in()
    library = {"name": "library"} | opted
    kubectl(
        *("-n", ns.name, "apply", "--server-side", "-f", "-"),
        stdin=argo("WorkflowTemplate", library, {"templates": [measure()]}),
    )
    reference = {"templateRef": {"name": "library", "template": "measure"}}
    main = in_a_row(
        reference | {"arguments": arguments(what="apples")},
        reference | {"arguments": arguments(what="pears")},
        {"template": "note", "arguments": arguments(x="{{steps.b.outputs.parameters.out}}")},
        {"template": "note", "arguments": arguments(x="the same key")},
    )
    note = use("note")
    return {
        "templates": [main, note],
        "templateDefaults": {"memoize": memo("of-the-day", cache=ns.name, max_age="1h")},
    }


def test_a_librarys_block_wins_over_the_defaults_of_who_calls_it(ns: Namespace) -> None:
    """A step of a library keeps its key where the workflow that calls it has a default block."""
    spec = of_the_day(ns)
    templates = spec.pop("templates")
    runs = ns.runs(*templates, entrypoint="main", **opted_in(), **spec)
    succeeded(*runs)
    for run in runs:
        assert [answer["out"] for answer in run.answers("measure")] == ["measured apples", "measured pears"]
        assert {answer["seen"] for answer in run.answers("note")} == {"measured pears"}, run.said()
    assert [run.executions() for run in runs] == [3, 0], "".join(run.said() for run in runs)


def test_a_caller_whose_defaults_win_over_a_librarys_block_is_warned(ns: Namespace) -> None:
    """A workflow with a default block that calls a library's step and has not opted in is warned."""
    spec = of_the_day(ns)
    templates = spec.pop("templates")
    warnings = ns.warnings(workflow(*templates, entrypoint="main", **spec))
    assert any("templateDefaults.memoize" in warning for warning in warnings), warnings
