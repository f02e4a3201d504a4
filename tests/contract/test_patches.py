"""Patches as stepmemo writes them: one key of a cache behind a `test` of its label, retractions, markers."""

import pytest

from tests.cluster import JSON_PATCH, MERGE, Cluster, Object

pytestmark = pytest.mark.contract

TYPE = "workflows.argoproj.io/configmap-type"
IS_CACHE = {"op": "test", "path": "/metadata/labels/workflows.argoproj.io~1configmap-type", "value": "Cache"}
FAILED = "the server rejected our request due to an error in our request"


def cache(cluster: Cluster, data: dict[str, str] | None = None, *, labels: bool = True) -> str:
    """A cache named `cache` in a fresh namespace, whose name is returned."""
    namespace = cluster.namespace()
    metadata: Object = {"name": "cache", "namespace": namespace}
    if labels:
        metadata["labels"] = {TYPE: "Cache"}
    status, body = cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data or {}})
    assert status == 201, body
    return namespace


def set_key(key: str, value: str) -> Object:
    return {"op": "add", "path": f"/data/{key}", "value": value}


def assert_patch_failed(answer: tuple[int, Object]) -> None:
    """The server does not tell which operation failed, nor that it was a `test`."""
    status, body = answer
    assert (status, body["reason"], body["message"], body["details"]) == (422, "Invalid", FAILED, {})


def test_one_key_is_set_and_the_others_stay(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1", "b": "2"})
    status, body = cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, set_key("b", "3")])
    assert status == 200
    assert body["data"] == {"a": "1", "b": "3"}


def test_without_the_label_nothing_is_written(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"}, labels=False)
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, set_key("b", "3")]))
    assert cluster.get("ConfigMap", namespace, "cache")[1]["data"] == {"a": "1"}


def test_with_another_label_value_nothing_is_written(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    cluster.patch("ConfigMap", namespace, "cache", {"metadata": {"labels": {TYPE: "Parameter"}}})
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, set_key("b", "3")]))


def test_a_key_cannot_be_set_where_there_is_no_data(cluster: Cluster) -> None:
    namespace = cache(cluster)
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, set_key("a", "1")]))


def test_the_last_key_takes_data_with_it(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    _, body = cluster.patch("ConfigMap", namespace, "cache", [{"op": "remove", "path": "/data/a"}])
    assert "data" not in body
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [set_key("a", "1")]))


def test_data_can_be_made_on_condition_that_it_is_absent(cluster: Cluster) -> None:
    namespace = cache(cluster)
    absent = {"op": "test", "path": "/data", "value": None}
    make = {"op": "add", "path": "/data", "value": {"a": "1"}}
    status, body = cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, absent, make])
    assert status == 200
    assert body["data"] == {"a": "1"}
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE, absent, make]))


def test_a_stale_version_in_a_test_is_422_and_in_a_write_409(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    stale = {"path": "/metadata/resourceVersion", "value": "1"}
    make = {"op": "add", "path": "/data", "value": {"b": "2"}}
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [{"op": "test", **stale}, make]))
    status, body = cluster.patch("ConfigMap", namespace, "cache", [{"op": "replace", **stale}, make])
    assert (status, body["reason"]) == (409, "Conflict")
    status, body = cluster.patch("ConfigMap", namespace, "cache", [{"op": "add", **stale}, make])
    assert (status, body["reason"]) == (409, "Conflict")
    patch = {"metadata": {"resourceVersion": "1"}, "data": {"b": "2"}}
    status, body = cluster.patch("ConfigMap", namespace, "cache", patch)
    assert (status, body["reason"]) == (409, "Conflict")
    assert cluster.get("ConfigMap", namespace, "cache")[1]["data"] == {"a": "1"}


def test_the_newest_version_passes(cluster: Cluster) -> None:
    namespace = cache(cluster)
    _, found = cluster.get("ConfigMap", namespace, "cache")
    version = found["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"a": "1"}}
    status, body = cluster.patch("ConfigMap", namespace, "cache", patch)
    assert (status, body["data"]) == (200, {"a": "1"})


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/metadata/labels/none", "value": "x"},
        {"op": "test", "path": "/metadata/annotations/none", "value": "x"},
        {"op": "test", "path": "/metadata/uid", "value": "other"},
        {"op": "remove", "path": "/data/none"},
        {"op": "add", "path": "/binaryData/x", "value": "eA=="},
        {"op": "replace", "path": "/binaryData/x", "value": "eA=="},
        {"op": "frobnicate", "path": "/data/a"},
    ],
)
def test_an_operation_that_does_not_fit_is_422(cluster: Cluster, operation: Object) -> None:
    namespace = cache(cluster, {"a": "1"})
    assert_patch_failed(cluster.patch("ConfigMap", namespace, "cache", [operation]))


def test_replace_sets_a_key_that_is_absent_unlike_the_rfc(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    operation = {"op": "replace", "path": "/data/b", "value": "2"}
    status, body = cluster.patch("ConfigMap", namespace, "cache", [operation])
    assert (status, body["data"]) == (200, {"a": "1", "b": "2"})


def test_move_and_copy(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    operations = [
        {"op": "copy", "from": "/data/a", "path": "/data/b"},
        {"op": "move", "from": "/data/a", "path": "/data/c"},
    ]
    _, body = cluster.patch("ConfigMap", namespace, "cache", operations)
    assert body["data"] == {"b": "1", "c": "1"}


def test_lists_take_insertions_at_an_index_and_at_the_end(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    outputs = {"parameters": ["b"]}
    obj = {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResult", "outputs": outputs}
    cluster.create({**obj, "metadata": {"name": "n", "namespace": namespace}})
    operations = [
        {"op": "add", "path": "/outputs/parameters/0", "value": "a"},
        {"op": "add", "path": "/outputs/parameters/-", "value": "c"},
    ]
    _, body = cluster.patch("WorkflowTaskResult", namespace, "n", operations)
    assert body["outputs"]["parameters"] == ["a", "b", "c"]
    beyond = [{"op": "add", "path": "/outputs/parameters/9", "value": "d"}]
    assert_patch_failed(cluster.patch("WorkflowTaskResult", namespace, "n", beyond))


def test_keys_with_slash_and_tilde_are_escaped(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    operation = {"op": "add", "path": "/metadata/annotations", "value": {"x.dev/a": "1"}}
    cluster.patch("ConfigMap", namespace, "cache", [operation])
    operation = {"op": "test", "path": "/metadata/annotations/x.dev~1a", "value": "1"}
    assert cluster.patch("ConfigMap", namespace, "cache", [operation])[0] == 200


def test_a_patch_that_changes_nothing_keeps_the_version(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    _, before = cluster.get("ConfigMap", namespace, "cache")
    assert cluster.patch("ConfigMap", namespace, "cache", [IS_CACHE])[1] == before
    assert cluster.patch("ConfigMap", namespace, "cache", {"data": {"a": "1"}})[1] == before


def test_a_merge_patch_of_null_removes_and_of_absent_keys_is_nothing(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1", "b": "2"})
    patch = {"data": {"a": None, "none": None}, "metadata": {"labels": {TYPE: None}}}
    status, body = cluster.patch("ConfigMap", namespace, "cache", patch)
    assert status == 200
    assert body["data"] == {"b": "2"}
    assert "labels" not in body["metadata"]


def test_identity_cannot_be_patched(cluster: Cluster) -> None:
    namespace = cache(cluster, {"a": "1"})
    rename = [{"op": "replace", "path": "/metadata/name", "value": "other"}]
    status, body = cluster.patch("ConfigMap", namespace, "cache", rename)
    assert status == 400
    assert body["message"] == "the name of the object (other) does not match the name on the URL (cache)"
    status, body = cluster.patch("ConfigMap", namespace, "cache", {"metadata": {"uid": "other"}})
    assert status == 422
    assert 'metadata.uid: Invalid value: "other": field is immutable' in body["message"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (JSON_PATCH, b"{}", "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        (MERGE, b"[1]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (MERGE, b"[1", ""),
    ],
)
def test_a_body_that_is_no_patch_is_400(
    cluster: Cluster, content_type: str, body: bytes, message: str
) -> None:
    path = cluster.path("ConfigMap", cache(cluster), "cache")
    status, answer, _ = cluster.request("PATCH", path, body, content_type=content_type)
    assert status == 400
    assert answer["message"].startswith(f"error decoding patch: {message}")


def test_custom_resources_take_no_strategic_merge_patch(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    obj = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}
    cluster.create({**obj, "metadata": {"name": "w", "namespace": namespace}})
    path = cluster.path("Workflow", namespace, "w")
    content_type = "application/strategic-merge-patch+json"
    status, body, _ = cluster.request("PATCH", path, {}, content_type=content_type)
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")
