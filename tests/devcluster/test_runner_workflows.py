"""What a Workflow means to the devcluster's runner: names, substitution, inputs, and the Pods it makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from argo import names as argo
from devcluster import pods, workflows
from devcluster.api.pods import admit
from devcluster.workflows import WorkflowError
from memoize import names
from tests.recordedpods import PODS
from tests.webhook.pods.judged import decide
from webhook.pods.decision import Inject

RECORDED = PODS / "v4.1.2-legacy"
STORE = Path("/store")


def recorded(case: str) -> Any:
    """A Pod that the controller of Argo 4.1.2 made."""
    return json.loads((RECORDED / f"{case}.json").read_text())


def template_of(pod: Any) -> Any:
    """The resolved template that the controller wrote into its Pod."""
    [init, *_] = pod["spec"]["initContainers"]
    [text] = [entry["value"] for entry in init["env"] if entry["name"] == argo.ENV_TEMPLATE]
    return json.loads(text)


def rebuilt(case: str) -> tuple[Any, Any]:
    """A recorded Pod, and the one that our runner makes of the same template."""
    pod = recorded(case)
    [owner] = pod["metadata"]["ownerReferences"]
    metadata = {"name": owner["name"], "namespace": pod["metadata"]["namespace"], "uid": owner["uid"]}
    template = template_of(pod)
    template.pop("archiveLocation")
    annotations = pod["metadata"]["annotations"]
    ours = pods.build(
        {"metadata": metadata, "spec": {}},
        template,
        name=pod["metadata"]["name"],
        node_id=annotations[argo.NODE_ID],
        node_name=annotations[argo.NODE_NAME],
        include_result=False,
        store=STORE,
    )
    return pod, admit(ours, lambda _: {})


CASES = ["container", "container-no-outputs", "script-result", "artifacts-in-out", "special-characters"]


@pytest.mark.parametrize("case", CASES)
def test_a_pod_has_the_containers_and_metadata_of_argos(case: str) -> None:
    theirs, ours = rebuilt(case)

    added = {"workflows.argoproj.io/trace-id", "workflows.argoproj.io/span-id"}
    for kind in ("annotations", "labels", "ownerReferences"):
        expected = theirs["metadata"][kind]
        if kind == "annotations":
            expected = {name: value for name, value in expected.items() if name not in added}
        assert ours["metadata"][kind] == expected
    for kind in ("initContainers", "containers"):
        for their, our in zip(theirs["spec"][kind], ours["spec"][kind], strict=True):
            assert our["name"] == their["name"]
            own_mounts = {(m["mountPath"], m.get("subPath")) for m in our["volumeMounts"]}
            their_mounts = {(m["mountPath"], m.get("subPath")) for m in their["volumeMounts"]}
            assert own_mounts - their_mounts <= {(pods.ARTIFACTS_DIR, None)}
            assert {entry["name"] for entry in our["env"]} <= {entry["name"] for entry in their["env"]}
            assert (our.get("args") or []) == (their.get("args") or [])


@pytest.mark.parametrize("case", CASES)
def test_the_webhook_decides_the_same_for_our_pod_as_for_argos(case: str) -> None:
    theirs, ours = rebuilt(case)

    namespace = theirs["metadata"]["namespace"]
    decisions = [decide(pod, namespace, {}, {}) for pod in (theirs, ours)]

    assert all(isinstance(decision, Inject) for decision in decisions)
    plans = [decision.plan for decision in decisions if isinstance(decision, Inject)]
    assert (plans[0].mains, plans[0].check, plans[0].capture) == (
        plans[1].mains,
        plans[1].check,
        plans[1].capture,
    )
    assert plans[0].step.key == plans[1].step.key


def test_nodes_and_pods_are_named_as_argo_names_them() -> None:
    retry = recorded("retry")["metadata"]
    workflow = retry["labels"][argo.WORKFLOW_LABEL]
    node = retry["annotations"][argo.NODE_NAME]

    assert workflows.node_id(workflow, node) == retry["annotations"][argo.NODE_ID]
    assert workflows.pod_name(workflow, node, "step") == retry["name"]
    assert workflows.node_id("w", "w") == workflows.pod_name("w", "w", "step") == "w"


def test_known_tags_are_replaced_wherever_they_stand_and_others_stay() -> None:
    value = {"a": ["{{x}} {{ x }}", {"b": "{{y}} {{=x}} {{x"}], "n": 1, "{{x}}": None}

    assert workflows.substitute(value, {"x": "1"}) == {
        "a": ["1 1", {"b": "{{y}} {{=x}} {{x"}],
        "n": 1,
        "{{x}}": None,
    }


def test_a_value_that_looks_like_a_tag_is_not_replaced_again() -> None:
    assert workflows.substitute("{{a}}", {"a": "{{b}}", "b": "no"}) == "{{b}}"


def test_inputs_come_from_arguments_then_from_the_template() -> None:
    template = {
        "name": "t",
        "inputs": {"parameters": [{"name": "a"}, {"name": "b", "value": 2}, {"name": "c", "default": "3"}]},
        "metadata": {"annotations": {names.KEY: "{{inputs.parameters.a}}-{{workflow.name}}-{{nothing}}"}},
        "container": {"args": ["{{inputs.parameters.a}}{{inputs.parameters.b}}{{inputs.parameters.c}}"]},
    }
    arguments = {"parameters": [{"name": "a", "value": 1}]}

    filled = workflows.with_inputs(template, arguments, {"workflow.name": "w"})

    assert filled["container"]["args"] == ["123"]
    assert filled["metadata"]["annotations"][names.KEY] == "1-w-{{nothing}}"
    assert filled["inputs"]["parameters"][0] == {"name": "a", "value": "1"}


@pytest.mark.parametrize(
    "inputs", [{"parameters": [{"name": "a"}]}, {"artifacts": [{"name": "a", "path": "/a"}]}]
)
def test_an_input_without_a_value_is_an_error(inputs: Any) -> None:
    with pytest.raises(WorkflowError, match=r"inputs\.(parameters|artifacts)\.a was not supplied"):
        workflows.with_inputs({"name": "t", "inputs": inputs}, {}, {})


def test_the_artifact_of_another_step_becomes_its_location() -> None:
    location = {"s3": {"bucket": "b", "key": "k"}}
    tags = workflows.tags_of("steps.a", {"artifacts": [{"name": "y", **location}]})
    step = {"arguments": {"artifacts": [{"name": "in", "from": "{{steps.a.outputs.artifacts.y}}"}]}}

    assert workflows.arguments_of(step, tags) == {"artifacts": [{"name": "in", **location}]}


def test_a_result_is_asked_for_only_where_some_step_uses_it() -> None:
    template = {"steps": [[{"name": "b", "arguments": {"x": "{{steps.a.outputs.result}}"}}]]}

    assert workflows.uses_result("a", template)
    assert not workflows.uses_result("b", template)


def test_with_items_makes_a_step_of_each_item() -> None:
    argument = {"parameters": [{"name": "x", "value": "{{item}}-{{inputs.parameters.y}}"}]}
    step = {"name": "s", "template": "t", "arguments": argument, "withItems": ["a", 2]}

    made = workflows.expanded(step)

    assert [name for name, _ in made] == ["s(0:a)", "s(1:2)"]
    values = [each["arguments"]["parameters"][0]["value"] for _, each in made]
    assert values == ["a-{{inputs.parameters.y}}", "2-{{inputs.parameters.y}}"]
    assert workflows.expanded({"name": "s"}) == [("s", {"name": "s"})]
    with pytest.raises(WorkflowError, match="strings and numbers"):
        workflows.expanded({"name": "s", "withItems": [{"a": 1}]})


def test_the_steps_of_with_items_put_out_lists() -> None:
    every = [{"result": text, "parameters": [{"name": "p", "value": text}]} for text in ("1", "b")]

    assert workflows.tags_of_all("steps.s", every) == {
        "steps.s.outputs.result": '["1", "b"]',
        "steps.s.outputs.parameters.p": '["1", "b"]',
    }
    assert workflows.tags_of_all("steps.s", []) == {}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"templates": [], "hooks": {}}, "spec: .* hooks"),
        ({"templates": [{"name": "t", "dag": {}}]}, "template 't': .* dag"),
        ({"templates": [{"name": "t"}]}, "exactly one of"),
        (
            {"templates": [{"name": "t", "steps": [[{"name": "s", "withParam": "[]"}]]}]},
            "step 's': .* withParam",
        ),
    ],
)
def test_what_the_runner_does_not_know_is_refused_by_name(spec: Any, why: str) -> None:
    with pytest.raises(WorkflowError, match=why):
        workflows.check_supported(spec)


def status(phase: str, **containers: int) -> Any:
    states = [
        {"name": name, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}
        for name, code in containers.items()
    ]
    init = [each for each in states if each["name"] == "init"]
    return {
        "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": states[len(init) :]}
    }


@pytest.mark.parametrize(
    ("pod", "verdict"),
    [
        (status("Running"), ("Running", "")),
        (status("Succeeded", main=0), ("Succeeded", "")),
        (status("Failed", wait=64, main=1), ("Failed", "main: Error (exit code 1)")),
        (status("Failed", wait=64, main=0), ("Error", "wait: Error (exit code 64)")),
        (status("Failed", init=64), ("Error", "init: Error (exit code 64)")),
        (status("Failed", wait=0, main=0, other=137), ("Failed", "other: Error (exit code 137)")),
        ({"status": {"phase": "Failed", "message": "evicted"}}, ("Failed", "evicted")),
    ],
)
def test_a_node_takes_its_phase_from_the_pod_in_argos_order(pod: Any, verdict: tuple[str, str]) -> None:
    assert pods.verdict(pod) == verdict
