import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import names as argo
from argo.steppod import NotAStep, StepPod
from keeper import identity
from tests.keeper.gatedsteps import RECORDED

Json = dict[str, Any]
CASES = sorted(path for path in RECORDED.glob("*/*.json") if ".golden." not in path.name)
RETRY = RECORDED / "v4.1.2-legacy" / "retry.json"


def wrong(pod: Json) -> str | None:
    parsed = StepPod.parse(pod, pod["metadata"]["namespace"])
    return parsed.reason if isinstance(parsed, NotAStep) else identity.mismatch(parsed)


def test_every_recorded_pod_is_what_it_says() -> None:
    found = {str(path): wrong(json.loads(path.read_text())) for path in CASES}
    assert set(found.values()) == {None}


def retry() -> Json:
    pod: Json = json.loads(RETRY.read_text())
    return pod


def named(pod: Json, **annotations: str) -> Json:
    known = {"node_id": argo.NODE_ID, "node_name": argo.NODE_NAME}
    pod["metadata"]["annotations"].update({known[name]: value for name, value in annotations.items()})
    return pod


@pytest.mark.parametrize(
    ("node_name", "node_id"),
    [
        ("hello", "hello"),
        ("hello[0].step", "hello-2955383849"),
        ("hello.task(0:a)", "hello-755857594"),
        ("hello.onExit", "hello-3061418610"),
        ("hello.hooks.running", "hello-2874907540"),
        ("hello.größe", "hello-962617448"),
    ],
)
def test_a_node_id_is_the_workflows_name_and_a_hash_of_the_nodes(node_name: str, node_id: str) -> None:
    assert identity.node_id("hello", node_name) == node_id  # as Go's hash/fnv says


@pytest.mark.parametrize("template", ["", "step", "a-longer-name"])
@pytest.mark.parametrize("node", ["[0].a", ".a", "(1)", ".onExit", ".hooks.h", ".a.hooks.h(0)"])
def test_pods_are_named_after_the_node_in_two_ways(node: str, template: str) -> None:
    pod = retry()
    workflow = pod["metadata"]["labels"][argo.WORKFLOW_LABEL]
    node_id = identity.node_id(workflow, workflow + node)
    named(pod, node_name=workflow + node, node_id=node_id)
    hashed = node_id.rpartition("-")[2]
    pod["metadata"]["name"] = "-".join(part for part in (workflow, template, hashed) if part)
    assert wrong(pod) is None


def test_a_long_pod_name_is_cut_before_its_hash() -> None:
    pod = retry()
    workflow = "w" * 250
    pod["metadata"]["labels"][argo.WORKFLOW_LABEL] = workflow
    pod["metadata"]["ownerReferences"][0]["name"] = workflow
    node_id = identity.node_id(workflow, f"{workflow}.a")
    named(pod, node_name=f"{workflow}.a", node_id=node_id)
    pod["metadata"]["name"] = f"{'w' * 242}-{node_id.rpartition('-')[2]}"
    assert wrong(pod) is None


def claims_the_node_of_another_workflow(pod: Json) -> None:
    named(pod, node_name="victim[0].a", node_id=identity.node_id("victim", "victim[0].a"))


def claims_the_id_of_another_workflows_node(pod: Json) -> None:
    named(pod, node_id=identity.node_id("victim", "victim[0].a"))


def claims_another_workflow_whole(pod: Json) -> None:
    named(pod, node_name="victim", node_id="victim")


def claims_a_node_whose_name_only_begins_like_its_workflow(pod: Json) -> None:
    workflow = pod["metadata"]["labels"][argo.WORKFLOW_LABEL]
    named(pod, node_name=f"{workflow}-2", node_id=identity.node_id(workflow, f"{workflow}-2"))


def claims_another_node_of_its_workflow(pod: Json) -> None:
    workflow = pod["metadata"]["labels"][argo.WORKFLOW_LABEL]
    named(pod, node_name=f"{workflow}(9)", node_id=identity.node_id(workflow, f"{workflow}(9)"))


def names_no_node(pod: Json) -> None:
    del pod["metadata"]["annotations"][argo.NODE_NAME]


def gives_no_id(pod: Json) -> None:
    del pod["metadata"]["annotations"][argo.NODE_ID]


def is_labelled_for_another_workflow(pod: Json) -> None:
    pod["metadata"]["labels"][argo.WORKFLOW_LABEL] = "victim"


def belongs_to_nobody(pod: Json) -> None:
    del pod["metadata"]["ownerReferences"]


def is_not_controlled_by_its_owner(pod: Json) -> None:
    pod["metadata"]["ownerReferences"][0]["controller"] = False


def belongs_to_another_kind(pod: Json) -> None:
    pod["metadata"]["ownerReferences"][0]["kind"] = "CronWorkflow"


def is_named_as_argo_names_none(pod: Json) -> None:
    pod["metadata"]["name"] = "mine"


@pytest.mark.parametrize(
    "forge",
    [
        claims_the_node_of_another_workflow,
        claims_the_id_of_another_workflows_node,
        claims_another_workflow_whole,
        claims_a_node_whose_name_only_begins_like_its_workflow,
        claims_another_node_of_its_workflow,
        names_no_node,
        gives_no_id,
        is_labelled_for_another_workflow,
        belongs_to_nobody,
        is_not_controlled_by_its_owner,
        belongs_to_another_kind,
        is_named_as_argo_names_none,
    ],
)
def test_a_pod_that_claims_what_it_is_not_is_told(forge: Any) -> None:
    pod = retry()
    forge(pod)
    assert wrong(pod)


@given(name=st.text(), node_id=st.text(), node_name=st.text())
def test_no_pod_of_one_workflow_passes_for_a_node_of_another(name: str, node_id: str, node_name: str) -> None:
    pod = copy.deepcopy(retry())
    workflow = pod["metadata"]["labels"][argo.WORKFLOW_LABEL]
    pod["metadata"]["name"] = name
    named(pod, node_id=node_id, node_name=node_name)
    if wrong(pod) is None:
        assert node_id == identity.node_id(workflow, node_name)
