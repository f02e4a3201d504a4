import json

from argo.steppod import StepPod
from bench.api import ROOT
from bench.argo import node_id, result, step_pod, succeeded
from keeper.identity import mismatch


def test_a_pod_it_makes_is_the_step_that_it_says_it_is() -> None:
    pod = step_pod("ns", "wf", "uid", 7, key="k", cache="memo")
    parsed = StepPod.parse(pod, "ns")
    assert isinstance(parsed, StepPod)
    assert mismatch(parsed) is None
    assert pod["metadata"]["annotations"]["stepmemo.dev/key"] == "k"


def test_every_number_has_a_node_and_a_pod_of_its_own() -> None:
    pods = [step_pod("ns", "wf", "uid", number, key="k", cache="memo") for number in range(2000)]
    assert len({pod["metadata"]["name"] for pod in pods}) == len(pods)
    assert len({result(pod, "x")["metadata"]["name"] for pod in pods}) == len(pods)


def test_a_nodes_id_is_argos() -> None:
    recorded = ROOT / "tests/data/pods/v4.1.2-legacy/retry.json"
    metadata = json.loads(recorded.read_text(encoding="utf-8"))["metadata"]
    told = {name: metadata["annotations"][f"workflows.argoproj.io/node-{name}"] for name in ("id", "name")}
    assert node_id(metadata["labels"]["workflows.argoproj.io/workflow"], told["name"]) == told["id"]


def test_a_step_that_is_over_has_every_container_ended() -> None:
    pod = step_pod("ns", "wf", "uid", 0, key="k", cache="memo")
    status = succeeded(pod)
    ended = [one["name"] for kind in ("initContainerStatuses", "containerStatuses") for one in status[kind]]
    assert ended == ["init", "wait", "main"]
