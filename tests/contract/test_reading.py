"""Lists, selectors, metadata alone, and watches that are resumed or come too late."""

import threading

import pytest

from tests.cluster import PARTIAL, Cluster, Object

pytestmark = pytest.mark.contract

RESULT = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResult"}


def result(namespace: str, name: str, labels: dict[str, str] | None = None, **content: object) -> Object:
    return {**RESULT, "metadata": {"name": name, "namespace": namespace, "labels": labels or {}}, **content}


def three(cluster: Cluster) -> str:
    """A fresh namespace with results a, b and c, labelled with their own name and, but for c, with `l`."""
    namespace = cluster.namespace()
    for name, labels in (("b", {"n": "b", "l": "1"}), ("a", {"n": "a", "l": "2"}), ("c", {"n": "c"})):
        cluster.create(result(namespace, name, labels))
    return namespace


def names(body: Object) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


def test_a_list_is_ordered_by_name_and_says_its_version(cluster: Cluster) -> None:
    status, body = cluster.list("WorkflowTaskResult", three(cluster))
    assert status == 200
    assert names(body) == ["a", "b", "c"]
    assert (body["kind"], body["apiVersion"]) == ("WorkflowTaskResultList", "argoproj.io/v1alpha1")
    newest = max(int(item["metadata"]["resourceVersion"]) for item in body["items"])
    assert int(body["metadata"]["resourceVersion"]) >= newest


def test_an_empty_list_is_a_list(cluster: Cluster) -> None:
    status, body = cluster.list("WorkflowTaskResult", cluster.namespace())
    assert (status, body["items"]) == (200, [])


def test_items_of_built_in_lists_do_not_repeat_their_kind(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}})
    _, body = cluster.list("ConfigMap", namespace)
    assert all("kind" not in item for item in body["items"])
    cluster.create(result(namespace, "a"))
    _, body = cluster.list("WorkflowTaskResult", namespace)
    assert all(item["kind"] == "WorkflowTaskResult" for item in body["items"])


def test_a_list_without_a_namespace_spans_all(cluster: Cluster) -> None:
    namespaces = {three(cluster), three(cluster)}
    _, body = cluster.list("WorkflowTaskResult", selector="n=a")
    assert namespaces <= {item["metadata"]["namespace"] for item in body["items"]}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("l=1", ["b"]),
        ("l==1", ["b"]),
        ("l!=1", ["a", "c"]),
        ("l", ["a", "b"]),
        ("!l", ["c"]),
        ("n in (a,c)", ["a", "c"]),
        ("n notin (a,c)", ["b"]),
        ("l,n=a", ["a"]),
    ],
)
def test_label_selectors(cluster: Cluster, selector: str, expected: list[str]) -> None:
    _, body = cluster.list("WorkflowTaskResult", three(cluster), selector)
    assert names(body) == expected


def test_a_selector_that_is_none_is_400(cluster: Cluster) -> None:
    status, body = cluster.list("WorkflowTaskResult", cluster.namespace(), "l===1")
    assert (status, body["reason"]) == (400, "BadRequest")
    assert body["message"].startswith("unable to parse requirement: found '")


def test_objects_can_be_listed_by_name(cluster: Cluster) -> None:
    path = cluster.path("WorkflowTaskResult", three(cluster))
    _, body, _ = cluster.request("GET", path, query={"fieldSelector": "metadata.name=b"})
    assert names(body) == ["b"]


def test_only_few_fields_can_be_selected(cluster: Cluster) -> None:
    path = cluster.path("ConfigMap", cluster.namespace())
    status, body, _ = cluster.request("GET", path, query={"fieldSelector": "x=y"})
    assert status == 400
    known = 'only "metadata.name", "metadata.namespace"'
    assert body["message"] == f'"x" is not a known field selector: {known}'


def test_metadata_alone_can_be_asked_for(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a", {"l": "1"}, outputs={"result": "secret"}))
    path = cluster.path("WorkflowTaskResult", namespace, "a")
    status, body, _ = cluster.request("GET", path, accept=PARTIAL)
    assert status == 200
    assert (body["kind"], body["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert body["metadata"]["labels"] == {"l": "1"}
    assert "outputs" not in body


def test_metadata_of_a_list_alone(cluster: Cluster) -> None:
    path = cluster.path("WorkflowTaskResult", three(cluster))
    accept = PARTIAL.replace("Metadata;", "MetadataList;")
    _, body, _ = cluster.request("GET", path, accept=accept)
    assert (body["kind"], body["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert names(body) == ["a", "b", "c"]
    assert {item["kind"] for item in body["items"]} == {"PartialObjectMetadata"}


def test_a_watch_tells_what_is_there_and_what_happens(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a"))
    seen = []
    for type_, obj in cluster.watch("WorkflowTaskResult", namespace):
        seen.append((type_, obj["metadata"]["name"], obj.get("message")))
        match len(seen):
            case 1:
                cluster.patch("WorkflowTaskResult", namespace, "a", {"message": "x"})
            case 2:
                cluster.delete("WorkflowTaskResult", namespace, "a")
            case 3:
                break
    assert seen == [("ADDED", "a", None), ("MODIFIED", "a", "x"), ("DELETED", "a", "x")]


def test_a_watch_resumes_after_a_version(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a"))
    _, listed = cluster.list("WorkflowTaskResult", namespace)
    cluster.create(result(namespace, "b"))
    cluster.delete("WorkflowTaskResult", namespace, "a")
    seen = []
    for type_, obj in cluster.watch("WorkflowTaskResult", namespace, listed["metadata"]["resourceVersion"]):
        seen.append((type_, obj["metadata"]["name"]))
        if len(seen) == 2:
            break
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


def test_every_event_of_a_watch_has_a_newer_version(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a"))
    versions = []
    for type_, obj in cluster.watch("WorkflowTaskResult", namespace):
        versions.append(int(obj["metadata"]["resourceVersion"]))
        if type_ == "ADDED":
            cluster.patch("WorkflowTaskResult", namespace, "a", {"message": "x"})
            cluster.delete("WorkflowTaskResult", namespace, "a")
        if type_ == "DELETED":
            break
    assert versions == sorted(set(versions))


def test_a_watch_from_too_old_a_version_is_told_to_list_again(cluster: Cluster) -> None:
    events = list(cluster.watch("WorkflowTaskResult", cluster.namespace(), "1", seconds=2))
    assert [type_ for type_, _ in events] == ["ERROR"]
    status = events[0][1]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")


def test_a_watch_from_no_version_at_all_is_refused(cluster: Cluster) -> None:
    path = cluster.path("WorkflowTaskResult", cluster.namespace())
    query = {"watch": "1", "resourceVersion": "x", "timeoutSeconds": "1"}
    status, body, _ = cluster.request("GET", path, query=query)
    assert status == 500
    why = 'strconv.ParseUint: parsing "x": invalid syntax'
    assert body["message"] == f'resourceVersion: Invalid value: "x": {why}'


def test_a_selective_watch_adds_and_deletes_what_enters_and_leaves(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a"))
    path = cluster.path("WorkflowTaskResult", namespace)
    _, listed = cluster.list("WorkflowTaskResult", namespace)
    for label in ("1", "2", None):
        cluster.patch("WorkflowTaskResult", namespace, "a", {"metadata": {"labels": {"l": label}}})
    query = {
        "watch": "1",
        "labelSelector": "l=1",
        "timeoutSeconds": "1",
        "resourceVersion": listed["metadata"]["resourceVersion"],
    }
    body = cluster.request("GET", path, query=query).body
    types = [line.partition('"type":"')[2].partition('"')[0] for line in body.splitlines()]
    assert types == ["ADDED", "DELETED"]


def test_a_watch_can_look_at_metadata_alone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(result(namespace, "a", outputs={"result": "secret"}))
    path = cluster.path("WorkflowTaskResult", namespace)
    query = {"watch": "1", "timeoutSeconds": "1"}
    event = cluster.request("GET", path, query=query, accept=PARTIAL).body
    assert event["object"]["kind"] == "PartialObjectMetadata"
    assert "outputs" not in event["object"]


def test_a_watch_sees_what_another_thread_writes(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    writer = threading.Thread(target=cluster.create, args=(result(namespace, "late"),))
    _, listed = cluster.list("WorkflowTaskResult", namespace)
    writer.start()
    watch = cluster.watch("WorkflowTaskResult", namespace, listed["metadata"]["resourceVersion"])
    type_, obj = next(watch)
    writer.join()
    watch.close()
    assert (type_, obj["metadata"]["name"]) == ("ADDED", "late")
