"""Pods that wait behind a scheduling gate: what may be said of them, how they are released and completed."""

import pytest

from memoize import names
from tests.cluster import STRATEGIC, Cluster, Object

pytestmark = pytest.mark.contract

OURS = {"name": names.SCHEDULING_GATE}
THEIRS = {"name": "other.dev/gate"}
TIME = "2026-01-01T00:00:00Z"
NO_ADDITION = "Forbidden: only deletion is allowed, but found new scheduling gate"


def gated(cluster: Cluster, *gates: Object) -> str:
    """A Pod `p` with these gates in a fresh namespace, whose name is returned."""
    namespace = cluster.namespace()
    status, body = cluster.create(pod(namespace, schedulingGates=list(gates)))
    assert status == 201, body
    return namespace


def pod(namespace: str, **spec: object) -> Object:
    containers = [{"name": "main", "image": "x", "command": ["true"]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"restartPolicy": "Never", "containers": containers, **spec},
    }


def release(index: int = 0) -> list[Object]:
    """Our gate taken away, on condition that it is ours."""
    path = f"/spec/schedulingGates/{index}"
    return [{"op": "test", "path": f"{path}/name", "value": OURS["name"]}, {"op": "remove", "path": path}]


def completion() -> Object:
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": TIME, "finishedAt": TIME}
    main = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Succeeded",
        "reason": "Memoized",
        "message": "from w",
        "startTime": TIME,
        "containerStatuses": [{**main, "state": {"terminated": terminated}}],
    }


def complete(cluster: Cluster, namespace: str, **metadata: object) -> tuple[int, Object]:
    patch = {"metadata": metadata, "status": completion()}
    return cluster.patch("Pod", namespace, "p", patch, subresource="status")


def get(cluster: Cluster, namespace: str) -> Object:
    found: Object = cluster.get("Pod", namespace, "p")[1]
    return found


def bind(cluster: Cluster, namespace: str, node: str = "n1") -> tuple[int, Object]:
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": node}}
    return cluster.request("POST", cluster.path("Pod", namespace, "p", "binding"), binding)[:2]


def causes(body: Object) -> list[tuple[str, str, str]]:
    return [(cause["field"], cause["reason"], cause["message"]) for cause in body["details"]["causes"]]


def test_a_gated_pod_is_pending_and_says_why(cluster: Cluster) -> None:
    found = get(cluster, gated(cluster, OURS))
    assert found["spec"]["schedulingGates"] == [OURS]
    assert found["status"]["phase"] == "Pending"
    (condition,) = found["status"]["conditions"]
    assert condition.pop("lastTransitionTime")
    assert condition == {
        "type": "PodScheduled",
        "status": "False",
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": None,
    }


def test_a_pod_without_gates_has_no_condition_yet(cluster: Cluster) -> None:
    assert "conditions" not in get(cluster, gated(cluster))["status"]


@pytest.mark.parametrize(
    ("gates", "reasons"),
    [
        ([OURS, OURS], [("spec.schedulingGates[1]", "FieldValueDuplicate")]),
        ([{"name": "a b"}], [("spec.schedulingGates[0]", "FieldValueInvalid")]),
        ([{}], [("spec.schedulingGates[0]", "FieldValueInvalid")] * 2),
    ],
)
def test_a_gate_that_cannot_be_is_422(
    cluster: Cluster, gates: list[Object], reasons: list[tuple[str, str]]
) -> None:
    status, body = cluster.create(pod(cluster.namespace(), schedulingGates=gates))
    assert status == 422
    assert [(field, reason) for field, reason, _ in causes(body)] == reasons


def test_a_gated_pod_has_no_node(cluster: Cluster) -> None:
    status, body = cluster.create(pod(cluster.namespace(), schedulingGates=[OURS], nodeName="n"))
    assert status == 422
    why = "Forbidden: cannot be set until all schedulingGates have been cleared"
    assert causes(body) == [("spec.nodeName", "FieldValueForbidden", why)]


def test_one_gate_is_taken_away_and_the_other_stays(cluster: Cluster) -> None:
    namespace = gated(cluster, THEIRS, OURS)
    status, body = cluster.patch("Pod", namespace, "p", release(1))
    assert (status, body["spec"]["schedulingGates"]) == (200, [THEIRS])


def test_the_last_gate_takes_the_list_with_it(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    status, body = cluster.patch("Pod", namespace, "p", release())
    assert status == 200
    assert "schedulingGates" not in body["spec"]
    assert body["status"]["phase"] == "Pending"


def test_a_gate_is_not_taken_away_twice(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS, THEIRS)
    cluster.patch("Pod", namespace, "p", release())
    assert cluster.patch("Pod", namespace, "p", release())[0] == 422
    assert get(cluster, namespace)["spec"]["schedulingGates"] == [THEIRS]


def let_go(cluster: Cluster, namespace: str) -> tuple[int, Object]:
    """Our gate taken away wherever in the list it is, by its name alone."""
    patch = {"spec": {"schedulingGates": [{**OURS, "$patch": "delete"}]}}
    path = cluster.path("Pod", namespace, "p")
    status, body, _ = cluster.request("PATCH", path, patch, content_type=STRATEGIC)
    return status, body


@pytest.mark.parametrize("others", [[], [THEIRS], [THEIRS, {"name": "third.dev/gate"}]])
def test_a_strategic_merge_patch_takes_a_gate_away_by_name(cluster: Cluster, others: list[Object]) -> None:
    namespace = gated(cluster, *others[:1], OURS, *others[1:])
    status, body = let_go(cluster, namespace)
    assert status == 200
    assert body["spec"].get("schedulingGates", []) == others
    assert body == get(cluster, namespace)


def test_a_gate_that_is_gone_is_taken_away_again_where_others_are_left(cluster: Cluster) -> None:
    namespace = gated(cluster, THEIRS)
    assert let_go(cluster, namespace) == (200, get(cluster, namespace))


def test_a_gate_that_was_the_last_is_not_taken_away_again(cluster: Cluster) -> None:
    namespace = gated(cluster)
    status, body = let_go(cluster, namespace)
    assert (status, body) == (200, get(cluster, namespace))


def test_a_gate_goes_by_its_name_alone_and_as_often_as_that_is_asked(cluster: Cluster) -> None:
    """A strategic merge patch, as a keeper sends it that knows a Pod by its metadata."""
    namespace = gated(cluster, THEIRS, OURS)
    path, before = cluster.path("Pod", namespace, "p"), get(cluster, namespace)
    ours_goes = {"spec": {"schedulingGates": [{**OURS, "$patch": "delete"}]}}
    for _ in range(2):
        status, body, _ = cluster.request("PATCH", path, ours_goes, content_type=STRATEGIC)
        assert (status, body["spec"]["schedulingGates"]) == (200, [THEIRS])
    assert before["spec"].keys() == body["spec"].keys()
    another = {**ours_goes, "metadata": {"uid": "another"}}
    assert cluster.request("PATCH", path, another, content_type=STRATEGIC).status == 422
    labelled = {"metadata": {"uid": before["metadata"]["uid"], "labels": {"a": "b"}}}
    assert cluster.request("PATCH", path, labelled, content_type=STRATEGIC).body["metadata"]["labels"] == {
        "a": "b"
    }


def test_gate_label_and_annotation_go_in_one_patch(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    cluster.patch("Pod", namespace, "p", {"metadata": {"labels": {names.RESULT: names.RESULT_GATED}}})
    uid = get(cluster, namespace)["metadata"]["uid"]
    operations = [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        *release(),
        {"op": "replace", "path": "/metadata/labels/stepmemo.dev~1result", "value": names.RESULT_MISS},
        {"op": "add", "path": "/metadata/annotations", "value": {names.REASON: "Expired"}},
    ]
    status, body = cluster.patch("Pod", namespace, "p", operations)
    assert status == 200
    assert body["metadata"]["labels"][names.RESULT] == names.RESULT_MISS
    assert body["metadata"]["annotations"] == {names.REASON: "Expired"}
    operations[0] = {"op": "test", "path": "/metadata/uid", "value": "another"}
    assert cluster.patch("Pod", namespace, "p", operations)[0] == 422


@pytest.mark.parametrize(
    ("before", "after", "index"), [([], [OURS], 0), ([OURS], [OURS, THEIRS], 1), ([OURS], [THEIRS], 0)]
)
def test_a_gate_cannot_be_added_later(
    cluster: Cluster, before: list[Object], after: list[Object], index: int
) -> None:
    namespace = gated(cluster, *before)
    status, body = cluster.patch("Pod", namespace, "p", {"spec": {"schedulingGates": after}})
    assert status == 422
    why = f"{NO_ADDITION} '{after[index]['name']}'"
    assert causes(body) == [(f"spec.schedulingGates[{index}].name", "FieldValueForbidden", why)]


def test_a_released_pod_cannot_be_held_again(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    cluster.patch("Pod", namespace, "p", release())
    status, body = cluster.patch("Pod", namespace, "p", {"spec": {"schedulingGates": [OURS]}})
    assert status == 422
    assert NO_ADDITION in body["message"]


def test_what_a_pod_runs_cannot_be_changed_but_for_its_image(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    command = [{"op": "replace", "path": "/spec/containers/0/command", "value": ["false"]}]
    status, body = cluster.patch("Pod", namespace, "p", command)
    assert status == 422
    ((field, reason, message),) = causes(body)
    assert (field, reason) == ("spec", "FieldValueForbidden")
    assert message.startswith("Forbidden: pod updates may not change fields other than `spec.containers[*].")
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "y"}]
    assert cluster.patch("Pod", namespace, "p", image)[0] == 200


def test_a_gated_pod_is_completed_by_its_status_and_meets_no_node(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    status, body = complete(cluster, namespace)
    assert status == 200
    assert body == get(cluster, namespace)
    assert "nodeName" not in body["spec"]
    assert body["spec"]["schedulingGates"] == [OURS]
    told = body["status"]
    assert (told["phase"], told["reason"], told["message"]) == ("Succeeded", "Memoized", "from w")
    assert told["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_labels_and_annotations_go_with_a_status(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    labels, annotations = {names.RESULT: names.RESULT_HIT}, {names.REASON: "Hit"}
    status, body = complete(cluster, namespace, labels=labels, annotations=annotations)
    assert (status, body["metadata"]["labels"], body["metadata"]["annotations"]) == (200, labels, annotations)


def test_owners_and_spec_do_not_go_with_a_status(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "q", "uid": "u"}
    patch = {"metadata": {"ownerReferences": [owner]}, "spec": {"schedulingGates": []}}
    status, body = cluster.patch("Pod", namespace, "p", patch, subresource="status")
    assert status == 200
    assert "ownerReferences" not in body["metadata"]
    assert body["spec"]["schedulingGates"] == [OURS]


def test_a_status_holds_for_one_version_and_one_pod(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    metadata = get(cluster, namespace)["metadata"]
    assert complete(cluster, namespace, resourceVersion="1")[0] == 409
    status, body = complete(cluster, namespace, uid="another")
    assert status == 422
    assert 'metadata.uid: Invalid value: "another": field is immutable' in body["message"]
    exact = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
    assert complete(cluster, namespace, **exact)[0] == 200
    assert complete(cluster, namespace, **exact)[0] == 409, "the version is another now"


def test_the_rights_to_a_status_are_its_own(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    rule = {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}
    token = cluster.service_account(namespace, "keeper", [rule])
    patch = {"status": completion()}
    assert cluster.patch("Pod", namespace, "p", release(), token=token)[0] == 403
    assert cluster.patch("Pod", namespace, "p", patch, subresource="status", token=token)[0] == 200


def test_a_scheduler_gives_a_pod_its_node_once_it_is_released(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    status, body = bind(cluster, namespace)
    assert (status, body["reason"]) == (409, "Conflict")
    assert body["message"].endswith('"p": pod p has non-empty .spec.schedulingGates')
    cluster.patch("Pod", namespace, "p", release())
    assert bind(cluster, namespace)[0] == 201
    found = get(cluster, namespace)
    assert found["spec"]["nodeName"] == "n1"
    assert [(each["type"], each["status"]) for each in found["status"]["conditions"]] == [
        ("PodScheduled", "True")
    ]
    status, body = bind(cluster, namespace, "n2")
    assert status == 409
    assert body["message"].endswith('pod p is already assigned to node "n1"')


def test_pods_are_found_by_any_of_several_results(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    for result in ("gated", "miss", "hit", ""):
        labels = {names.RESULT: result} if result else {}
        obj = pod(namespace)
        obj["metadata"] |= {"name": f"p-{result or 'none'}", "labels": labels}
        assert cluster.create(obj)[0] == 201
    _, body = cluster.list("Pod", namespace, f"{names.RESULT} in (gated,miss,in-pod)")
    assert [item["metadata"]["name"] for item in body["items"]] == ["p-gated", "p-miss"]
    query = {
        "watch": "1",
        "timeoutSeconds": "1",
        "labelSelector": f"{names.RESULT} in (gated,miss,in-pod)",
        "resourceVersion": body["metadata"]["resourceVersion"],
    }
    for result in ("miss", "stored"):
        cluster.patch("Pod", namespace, "p-gated", {"metadata": {"labels": {names.RESULT: result}}})
    events = cluster.request("GET", cluster.path("Pod", namespace), query=query).body
    types = [line.partition('"type":"')[2].partition('"')[0] for line in events.splitlines()]
    assert types == ["MODIFIED", "DELETED"], "a Pod that leaves the selection is told as deleted"


BY_NAME = {"spec": {"schedulingGates": [{**OURS, "$patch": "delete"}]}}


def strategically(cluster: Cluster, namespace: str, patch: Object) -> tuple[int, Object]:
    path = cluster.path("Pod", namespace, "p")
    status, body, _ = cluster.request("PATCH", path, patch, content_type=STRATEGIC)
    return status, body


@pytest.mark.parametrize("others", [[], [THEIRS]])
def test_a_gate_is_taken_away_by_its_name_and_others_stay(cluster: Cluster, others: list[Object]) -> None:
    for gates in ([OURS, *others], [*others, OURS]):
        namespace = gated(cluster, *gates)
        before = get(cluster, namespace)["metadata"]
        patch = {**BY_NAME, "metadata": {"uid": before["uid"]}}
        for _ in range(2):
            status, body = strategically(cluster, namespace, patch)
            assert status == 200, body
            found = get(cluster, namespace)
            assert found["spec"].get("schedulingGates", []) == others
            assert found["metadata"].get("labels") == before.get("labels")


def test_a_gate_is_taken_by_its_name_from_that_pod_alone(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    status, body = strategically(cluster, namespace, {**BY_NAME, "metadata": {"uid": "another"}})
    assert (status, body["reason"]) == (422, "Invalid")
    assert get(cluster, namespace)["spec"]["schedulingGates"] == [OURS]


def test_no_gate_is_added_by_its_name(cluster: Cluster) -> None:
    namespace = gated(cluster, OURS)
    status, body = strategically(cluster, namespace, {"spec": {"schedulingGates": [THEIRS]}})
    assert status == 422
    assert NO_ADDITION in body["message"]
