import asyncio
from typing import Any

import pytest

from argo import names as argo
from cli.__main__ import main
from keeper import gated
from kube import client, pages
from memoize import names
from tests.cluster import Cluster
from tests.webhook.serving import api_client

Json = dict[str, Any]
OTHER_GATE = "example.com/other"


@pytest.fixture
def release(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command against the cluster: exit code, standard output, standard error."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))

    def run(*args: str) -> tuple[int, str, str]:
        code = main(["release", *args])
        return code, *capsys.readouterr()

    return run


def gate(
    cluster: Cluster,
    namespace: str,
    name: str,
    *,
    gates: tuple[str, ...] = (names.SCHEDULING_GATE,),
    **labels: str,
) -> Json:
    """A gated Pod."""
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.RESULT: names.RESULT_GATED, **labels},
            "annotations": {argo.NODE_ID: f"node-{name}"},
        },
        "spec": {
            "schedulingGates": [{"name": gate} for gate in gates],
            "containers": [{"name": "main", "image": "busybox"}],
        },
    }
    status, found = cluster.create(made)
    assert status == 201, found
    return found


def post(cluster: Cluster, pod: Json, posted_for: str) -> None:
    """An answer for the Pod's node."""
    made = {
        "apiVersion": argo.API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": pod["metadata"]["annotations"][argo.NODE_ID],
            "namespace": pod["metadata"]["namespace"],
            "annotations": {names.POSTED_FOR: posted_for},
        },
    }
    status, found = cluster.create(made)
    assert status == 201, found


def get(cluster: Cluster, pod: Json) -> Json:
    found: Json = cluster.get("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])[1]
    return found


def gates(pod: Json) -> list[str]:
    return [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]


def has_result(cluster: Cluster, pod: Json) -> bool:
    name = pod["metadata"]["annotations"][argo.NODE_ID]
    return cluster.get("WorkflowTaskResult", pod["metadata"]["namespace"], name)[0] == 200


@pytest.mark.contract
def test_every_gated_pod_of_a_namespace_loses_our_gate_and_no_other(cluster: Cluster, release: Any) -> None:
    namespace, elsewhere = cluster.namespace(), cluster.namespace()
    one = gate(cluster, namespace, "one")
    two = gate(cluster, namespace, "two", gates=(OTHER_GATE, names.SCHEDULING_GATE))
    foreign = gate(cluster, elsewhere, "one")
    code, out, err = release("-n", namespace)
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [f"{namespace}/one: released", f"{namespace}/two: released"]
    assert gates(get(cluster, one)) == []
    assert gates(get(cluster, two)) == [OTHER_GATE]
    assert gates(get(cluster, foreign)) == [names.SCHEDULING_GATE]
    metadata = get(cluster, one)["metadata"]
    assert metadata["labels"][names.RESULT] == names.RESULT_SKIPPED
    assert metadata["annotations"][names.REASON] == "Released"


@pytest.mark.contract
def test_a_gated_pod_that_lost_its_label_is_found_all_the_same(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    gate(cluster, namespace, "one")
    unlabelled = {"metadata": {"labels": {names.RESULT: None}}}
    assert cluster.patch("Pod", namespace, "one", unlabelled)[0] == 200
    assert release("-n", namespace)[0] == 0
    assert not cluster.get("Pod", namespace, "one")[1]["spec"].get("schedulingGates")


@pytest.mark.contract
def test_a_gated_pod_whose_annotations_are_full_is_released_without_a_reason(
    cluster: Cluster, release: Any
) -> None:
    pod = gate(cluster, cluster.namespace(), "one")
    annotations = pod["metadata"]["annotations"]
    free = 256 * 1024 - sum(len(f"{name}{text}") for name, text in annotations.items())
    filling = {"metadata": {"annotations": {"a": "x" * (free - 1)}}}
    assert cluster.patch("Pod", pod["metadata"]["namespace"], "one", filling)[0] == 200
    assert release("-n", pod["metadata"]["namespace"])[0] == 0
    assert gates(get(cluster, pod)) == []
    assert get(cluster, pod)["metadata"]["labels"][names.RESULT] == names.RESULT_SKIPPED


def test_all_namespaces(cluster: Cluster, release: Any) -> None:
    pods = [gate(cluster, cluster.namespace(), "one") for _ in range(2)]
    assert release("--all")[0] == 0
    assert [gates(get(cluster, pod)) for pod in pods] == [[], []]
    assert release("--all") == (0, "", "stepmemo release: no Pod is gated\n")


@pytest.mark.contract
def test_our_answer_for_this_very_pod_is_taken_back_and_no_other(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    ours, others = gate(cluster, namespace, "ours"), gate(cluster, namespace, "others")
    post(cluster, ours, ours["metadata"]["uid"])
    post(cluster, others, "another-pod")
    assert release("-n", namespace)[0] == 0
    assert [has_result(cluster, pod) for pod in (ours, others)] == [False, True]
    assert [gates(get(cluster, pod)) for pod in (ours, others)] == [[], []]


def test_only_the_named_pods(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    one, two = gate(cluster, namespace, "one"), gate(cluster, namespace, "two")
    code, out, err = release("-n", namespace, "two", "three")
    assert (code, out) == (1, f"{namespace}/two: released\n")
    assert err == f"stepmemo release: {namespace}/three: not found\n"
    assert gates(get(cluster, one)) == [names.SCHEDULING_GATE]
    assert gates(get(cluster, two)) == []
    assert release("-n", namespace, "two") == (0, f"{namespace}/two: not gated\n", "")


def test_a_named_pod_is_released_whatever_became_of_its_metadata(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    pod = gate(cluster, namespace, "one")
    bare = {"metadata": {"labels": None, "annotations": None}}
    assert cluster.patch("Pod", namespace, "one", bare)[0] == 200
    assert release("-n", namespace, "one")[0] == 0
    assert gates(get(cluster, pod)) == []


def test_a_pod_that_was_answered_meanwhile_is_left_alone(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    pod = gate(cluster, namespace, "one")
    post(cluster, pod, pod["metadata"]["uid"])
    done = {"metadata": {"labels": {names.RESULT: names.RESULT_HIT}}, "status": {"phase": "Succeeded"}}
    assert cluster.patch("Pod", namespace, "one", done, subresource="status")[0] == 200
    assert release("-n", namespace, "one") == (0, f"{namespace}/one: not gated\n", "")
    assert has_result(cluster, pod)


def test_what_an_interrupted_run_left_behind_is_found_again(cluster: Cluster, release: Any) -> None:
    namespace = cluster.namespace()
    pod = gate(cluster, namespace, "one", **{names.RESULT: names.RESULT_SKIPPED})
    gate(cluster, namespace, "ran", gates=(), **{names.RESULT: names.RESULT_SKIPPED})
    assert release("-n", namespace) == (0, f"{namespace}/one: released\n", "")
    assert gates(get(cluster, pod)) == []


@pytest.mark.contract
async def test_a_right_that_is_missing_leaves_the_pod_to_the_keeper(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    pod = gate(cluster, namespace, "one")
    post(cluster, pod, pod["metadata"]["uid"])
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["get"]},
    ]
    token = await asyncio.to_thread(cluster.service_account, namespace, "person", rules)
    async with api_client(cluster, token=token) as api:
        (found,) = await gated.find(api, namespace)
        (result,) = [result async for result in gated.release(api, [found])]
    assert (result.ending, result.why) == (gated.Ending.FAILED, "403 Forbidden")
    after = get(cluster, pod)
    assert gates(after) == [names.SCHEDULING_GATE]
    assert after["metadata"]["labels"][names.RESULT] == names.RESULT_GATED
    assert names.REASON not in after["metadata"]["annotations"]


async def test_more_pods_than_a_page_and_than_are_released_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gated, "PAGE", 5)
    namespace = cluster.namespace()
    for number in range(23):
        gate(cluster, namespace, f"p-{number}")
    async with api_client(cluster) as api:
        found = await gated.find(api, namespace)
        words = [result.ending async for result in gated.release(api, found)]
        assert await gated.find(api, namespace) == []
    assert words == [gated.Ending.RELEASED] * 23


async def test_pods_that_together_are_more_than_is_read_at_once_are_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 64 << 10)
    monkeypatch.setattr(pages, "MOST_PAGE_BYTES", 16 << 10)
    namespace = cluster.namespace()
    large = {"metadata": {"annotations": {"a": "x" * (8 << 10)}}}
    for number in range(12):
        gate(cluster, namespace, f"p-{number}")
        assert cluster.patch("Pod", namespace, f"p-{number}", large)[0] == 200
    async with api_client(cluster) as api:
        assert len(await gated.find(api, namespace)) == 12


async def test_a_completion_that_comes_between_is_not_undone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = cluster.namespace()
    pod = gate(cluster, namespace, "one")
    post(cluster, pod, pod["metadata"]["uid"])
    request = client.request

    async def racing(api: Any, method: str, path: str, **options: Any) -> Any:
        if method == "PATCH":
            done = {
                "metadata": {"labels": {names.RESULT: names.RESULT_HIT}},
                "status": {"phase": "Succeeded"},
            }
            cluster.patch("Pod", namespace, "one", done, subresource="status")
        return await request(api, method, path, **options)

    monkeypatch.setattr(client, "request", racing)
    async with api_client(cluster) as api:
        (result,) = [result async for result in gated.release(api, [gated.Pod(namespace, "one")])]
    assert result.ending is gated.Ending.NOT_GATED
    assert has_result(cluster, pod)


def test_names_and_all_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["release", "--all", "one"]) == 2
    assert capsys.readouterr().err == "stepmemo release: names go with -n, not with --all\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-n", "../nodes"], "-n/--namespace: '../nodes' is not a name of Kubernetes"),
        (["-n", "a.b"], "-n/--namespace: 'a.b' is not the name of a Namespace"),
        (["-n", "work", "a/b"], "NAME: 'a/b' is not a name of Kubernetes"),
    ],
)
def test_wrong_usage_is_told(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["release", *args])
    assert exited.value.code == 2
    assert capsys.readouterr().err.endswith(f"stepmemo release: error: argument {said}\n")


def test_without_a_cluster_it_says_so(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["release", "--all"]) == 2
    assert "no cluster to talk to" in capsys.readouterr().err
