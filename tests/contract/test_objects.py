"""Objects one by one: creating, reading, replacing and deleting them, and the words of every refusal."""

import base64
import json
import re
from collections.abc import Callable

import pytest

from tests.cluster import Cluster, Object

pytestmark = pytest.mark.contract

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
MIB = 1024 * 1024


def config_map(namespace: str, name: str = "a", **content: object) -> Object:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, **content}


def task_result(namespace: str, name: str = "node-1", **content: object) -> Object:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {"name": name, "namespace": namespace},
        **content,
    }


def refusal(body: Object) -> tuple[str, str, Object]:
    """The parts of a Status that callers look at, once its constant parts are checked."""
    assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure")
    return body.get("reason", ""), body["message"], body.get("details")


def test_a_created_object_comes_back_with_what_the_server_gives(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, created = cluster.create(config_map(namespace, data={"k": "v"}))
    assert status == 201
    assert (created["kind"], created["apiVersion"], created["data"]) == ("ConfigMap", "v1", {"k": "v"})
    metadata = created["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert int(metadata["resourceVersion"]) > 0
    assert cluster.get("ConfigMap", namespace, "a") == (200, created)


def test_a_name_is_made_from_generate_name(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    obj = {"kind": "ConfigMap", "metadata": {"generateName": "made-", "namespace": namespace}}
    names = {cluster.create(obj)[1]["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"made-[a-z0-9]{5}", name) for name in names)


@pytest.mark.parametrize(
    ("kind", "resource", "group"),
    [
        ("ConfigMap", "configmaps", ""),
        ("WorkflowTaskResult", "workflowtaskresults.argoproj.io", "argoproj.io"),
    ],
)
def test_what_is_not_there_is_404(cluster: Cluster, kind: str, resource: str, group: str) -> None:
    namespace = cluster.namespace()
    details = {"name": "nope", "kind": resource.partition(".")[0]} | ({"group": group} if group else {})
    expected = ("NotFound", f'{resource} "nope" not found', details)
    for status, body in (
        cluster.get(kind, namespace, "nope"),
        cluster.patch(kind, namespace, "nope", {}),
        cluster.delete(kind, namespace, "nope"),
    ):
        assert (status, refusal(body)) == (404, expected)


def test_creating_in_a_namespace_that_is_not_there_is_404(cluster: Cluster) -> None:
    status, body = cluster.create(config_map("not-there"))
    assert status == 404
    details = {"name": "not-there", "kind": "namespaces"}
    assert refusal(body) == ("NotFound", 'namespaces "not-there" not found', details)


def test_creating_twice_is_409(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(task_result(namespace))
    status, body = cluster.create(task_result(namespace))
    assert status == 409
    details = {"name": "node-1", "group": "argoproj.io", "kind": "workflowtaskresults"}
    message = 'workflowtaskresults.argoproj.io "node-1" already exists'
    assert refusal(body) == ("AlreadyExists", message, details)


@pytest.mark.parametrize("make", [config_map, task_result])
def test_a_bad_name_is_422_with_its_field(cluster: Cluster, make: Callable[..., Object]) -> None:
    obj = make(cluster.namespace(), "A_b")
    status, body = cluster.create(obj)
    assert status == 422
    reason, message, details = refusal(body)
    kind = obj["kind"] if obj["kind"] == "ConfigMap" else "WorkflowTaskResult.argoproj.io"
    assert reason == "Invalid"
    assert message == f'{kind} "A_b" is invalid: metadata.name: Invalid value: "A_b": {SUBDOMAIN}'
    cause = {"reason": "FieldValueInvalid", "message": f'Invalid value: "A_b": {SUBDOMAIN}'}
    assert details is not None
    assert details["causes"] == [{**cause, "field": "metadata.name"}]
    assert details["kind"] == obj["kind"]


def test_a_name_has_at_most_253_characters(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    assert cluster.create(config_map(namespace, "x" * 253))[0] == 201
    status, body = cluster.create(config_map(namespace, "x" * 254))
    assert status == 422
    assert body["details"]["causes"][0]["message"].endswith(": must be no more than 253 characters")


def test_a_role_may_be_named_almost_anything(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    role = {"kind": "Role", "metadata": {"name": "A:b", "namespace": namespace}, "rules": []}
    assert cluster.create(role)[0] == 201
    role["metadata"]["name"] = "a%b"
    status, body = cluster.create(role)
    assert status == 422
    assert body["details"]["causes"][0]["message"] == "Invalid value: \"a%b\": may not contain '%'"


def test_a_name_is_required(cluster: Cluster) -> None:
    status, body = cluster.create({"kind": "ConfigMap", "metadata": {"namespace": cluster.namespace()}})
    assert status == 422
    cause = "metadata.name: Required value: name or generateName is required"
    assert body["message"] == f'ConfigMap "" is invalid: {cause}'


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (
            "b c",
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
            "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        ("x" * 64, "must be no more than 63 bytes"),
    ],
)
def test_a_label_value_that_cannot_be_is_422(cluster: Cluster, value: str, why: str) -> None:
    obj = task_result(cluster.namespace())
    obj["metadata"]["labels"] = {"workflows.argoproj.io/workflow": value}
    status, body = cluster.create(obj)
    assert status == 422
    expected = {"reason": "FieldValueInvalid", "message": f'Invalid value: "{value}": {why}'}
    assert body["details"]["causes"] == [{**expected, "field": "metadata.labels"}]


def test_annotations_are_limited_in_total(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    obj = task_result(namespace)
    obj["metadata"]["annotations"] = {"a": "x" * (256 * 1024)}
    status, body = cluster.create(obj)
    assert status == 422
    why = "metadata.annotations: Too long: may not be more than 262144 bytes"
    assert body["message"] == f'WorkflowTaskResult.argoproj.io "node-1" is invalid: {why}'


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (
            "a b",
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  "
            "or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        ("x" * 254, "must be no more than 253 characters"),
    ],
)
def test_a_config_map_key_that_cannot_be_is_422(cluster: Cluster, key: str, why: str) -> None:
    status, body = cluster.create(config_map(cluster.namespace(), data={key: "v"}))
    assert status == 422
    assert body["message"] == f'ConfigMap "a" is invalid: data[{key}]: Invalid value: "{key}": {why}'


def test_a_config_map_holds_one_mebibyte_of_values_and_not_a_byte_more(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    assert cluster.create(config_map(namespace, data={"long-key": "x" * MIB}))[0] == 201
    status, body = cluster.create(config_map(namespace, "b", data={"a": "x" * MIB, "b": "y"}))
    assert status == 422
    why = "Too long: may not be more than 1048576 bytes"
    details = {
        "name": "b",
        "kind": "ConfigMap",
        "causes": [{"reason": "FieldValueTooLong", "message": why, "field": "[]"}],
    }
    assert refusal(body) == ("Invalid", f'ConfigMap "b" is invalid: []: {why}', details)


@pytest.mark.parametrize("patch", [{"data": {"b": "x"}}, [{"op": "add", "path": "/data/b", "value": "x"}]])
def test_a_patch_that_overfills_a_config_map_is_refused_alike(cluster: Cluster, patch: object) -> None:
    namespace = cluster.namespace()
    cluster.create(config_map(namespace, data={"a": "x" * MIB}))
    status, body = cluster.patch("ConfigMap", namespace, "a", patch)
    assert status == 422
    assert body["message"] == 'ConfigMap "a" is invalid: []: Too long: may not be more than 1048576 bytes'


def test_the_limit_counts_bytes_not_characters(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    obj = config_map(namespace, data={"a": "é" * (MIB // 2 + 1)})
    body = json.dumps(obj, ensure_ascii=False).encode()
    assert cluster.request("POST", cluster.path("ConfigMap", namespace), body).status == 422


def test_a_body_of_more_than_three_mebibytes_is_413(cluster: Cluster) -> None:
    status, body = cluster.create(config_map(cluster.namespace(), data={"a": "x" * (3 * MIB)}))
    assert status == 413
    assert refusal(body)[:2] == ("RequestEntityTooLarge", "Request entity too large: limit is 3145728")


def test_values_must_be_strings(cluster: Cluster) -> None:
    status, body = cluster.create(config_map(cluster.namespace(), data={"a": 42}))
    assert status == 400
    assert body["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
        "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
    )


def test_a_body_that_is_not_json_is_400(cluster: Cluster) -> None:
    path = cluster.path("ConfigMap", cluster.namespace())
    status, body, _ = cluster.request("POST", path, b'{"a":')
    assert status == 400
    assert refusal(body)[0] == "BadRequest"


def test_a_custom_resource_must_say_its_kind(cluster: Cluster) -> None:
    path = cluster.path("WorkflowTaskResult", cluster.namespace())
    status, body, _ = cluster.request("POST", path, {"metadata": {"name": "a"}})
    assert status == 400
    assert body["message"].startswith(
        "the object provided is unrecognized (must be of type WorkflowTaskResult): Object 'Kind' is missing"
    )


def test_the_object_must_fit_its_path(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    path = cluster.path("ConfigMap", namespace)
    status, body, _ = cluster.request("POST", path, config_map("other"))
    assert status == 400
    assert body["message"] == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    cluster.create(config_map(namespace))
    status, body, _ = cluster.request("PUT", f"{path}/a", config_map(namespace, "b"))
    assert status == 400
    assert body["message"] == "the name of the object (b) does not match the name on the URL (a)"


def test_an_update_from_an_old_version_is_409(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, first = cluster.create(config_map(namespace, data={"a": "1"}))
    status, second = cluster.update({**first, "data": {"a": "2"}})
    assert status == 200
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    status, body = cluster.update({**first, "data": {"a": "3"}})
    assert status == 409
    message = (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert refusal(body) == ("Conflict", message, {"name": "a", "kind": "configmaps"})
    assert cluster.get("ConfigMap", namespace, "a")[1]["data"] == {"a": "2"}


def test_only_custom_resources_need_a_version_to_be_updated(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(config_map(namespace))
    assert cluster.update(config_map(namespace, data={"a": "1"}))[0] == 200
    cluster.create(task_result(namespace))
    status, body = cluster.update(task_result(namespace, outputs={}))
    assert status == 422
    assert body["message"] == (
        'workflowtaskresults.argoproj.io "node-1" is invalid: metadata.resourceVersion: '
        "Invalid value: 0: must be specified for an update"
    )


def test_an_update_that_changes_nothing_keeps_the_version(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(config_map(namespace, data={"a": "1"}))
    assert cluster.update(created) == (200, created)


def test_what_the_server_gave_survives_an_update(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(config_map(namespace))
    _, updated = cluster.update(config_map(namespace, data={"a": "1"}))
    for field in ("uid", "creationTimestamp"):
        assert updated["metadata"][field] == created["metadata"][field]


def test_empty_maps_are_dropped(cluster: Cluster) -> None:
    obj = config_map(cluster.namespace(), data={})
    obj["metadata"]["labels"] = {}
    _, created = cluster.create(obj)
    assert "data" not in created
    assert "labels" not in created["metadata"]


def test_a_custom_resource_counts_its_generations(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(task_result(namespace))
    assert created["metadata"]["generation"] == 1
    _, labelled = cluster.patch(
        "WorkflowTaskResult", namespace, "node-1", {"metadata": {"labels": {"a": "b"}}}
    )
    assert labelled["metadata"]["generation"] == 1
    _, changed = cluster.patch("WorkflowTaskResult", namespace, "node-1", {"message": "x"})
    assert changed["metadata"]["generation"] == 2


def test_deleting_tells_what_is_gone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(config_map(namespace))
    status, body = cluster.delete("ConfigMap", namespace, "a")
    assert status == 200
    details = {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]}
    assert (body["kind"], body["status"], body["details"]) == ("Status", "Success", details)
    assert cluster.get("ConfigMap", namespace, "a")[0] == 404


def test_a_delete_can_name_the_uid_it_means(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(task_result(namespace))
    path = cluster.path("WorkflowTaskResult", namespace, "node-1")
    status, body, _ = cluster.request("DELETE", path, {"preconditions": {"uid": "other"}})
    assert status == 409
    uid = created["metadata"]["uid"]
    assert body["message"] == (
        'Operation cannot be fulfilled on WorkflowTaskResult.argoproj.io "node-1": '
        f"the UID in the precondition (other) does not match the UID in record ({uid}). "
        "The object might have been deleted and then recreated"
    )
    assert cluster.request("DELETE", path, {"preconditions": {"uid": uid}}).status == 200


def test_a_finalizer_holds_an_object_until_it_goes(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    obj = task_result(namespace)
    obj["metadata"]["finalizers"] = ["test.stepmemo.dev/hold"]
    cluster.create(obj)
    assert cluster.delete("WorkflowTaskResult", namespace, "node-1")[0] == 200
    status, held = cluster.get("WorkflowTaskResult", namespace, "node-1")
    assert status == 200
    assert "deletionTimestamp" in held["metadata"]
    gone = {"metadata": {"finalizers": None}}
    assert cluster.patch("WorkflowTaskResult", namespace, "node-1", gone)[0] == 200
    assert cluster.get("WorkflowTaskResult", namespace, "node-1")[0] == 404


def test_a_collection_can_be_deleted_by_label(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    for name, label in (("a", "x"), ("b", "y")):
        obj = task_result(namespace, name)
        obj["metadata"]["labels"] = {"l": label}
        cluster.create(obj)
    path = cluster.path("WorkflowTaskResult", namespace)
    assert cluster.request("DELETE", path, query={"labelSelector": "l=x"}).status == 200
    _, left = cluster.list("WorkflowTaskResult", namespace)
    assert [item["metadata"]["name"] for item in left["items"]] == ["b"]


def test_a_dry_run_answers_and_stores_nothing(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, body = cluster.create(config_map(namespace, data={"a": "b"}), dry_run=True)
    assert status == 201
    assert body["data"] == {"a": "b"}
    assert cluster.get("ConfigMap", namespace, "a")[0] == 404
    status, _ = cluster.create(config_map(namespace, data={"a b": "c"}), dry_run=True)
    assert status == 422


def test_an_unknown_dry_run_is_refused(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    path = cluster.path("ConfigMap", namespace)
    status, body, _ = cluster.request("POST", path, config_map(namespace), query={"dryRun": "Some"})
    assert status == 422
    assert body["message"] == (
        'CreateOptions.meta.k8s.io "" is invalid: dryRun: '
        'Unsupported value: ["Some"]: supported values: "All"'
    )


def test_paths_and_methods_that_are_not_served(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, body, _ = cluster.request("GET", "/api/v1/nones")
    assert status == 404
    assert body["message"] == "the server could not find the requested resource"
    status, body, _ = cluster.request("POST", cluster.path("ConfigMap", namespace, "a"), {})
    assert status == 405
    expected = "the server does not allow this method on the requested resource"
    assert refusal(body) == ("MethodNotAllowed", expected, {})


def test_a_secret_encodes_its_string_data(cluster: Cluster) -> None:
    secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": cluster.namespace()}}
    _, created = cluster.create({**secret, "stringData": {"a": "b"}})
    assert created["data"] == {"a": base64.b64encode(b"b").decode()}
    assert created["type"] == "Opaque"
    assert "stringData" not in created


def test_a_secret_holds_base64_and_one_mebibyte_of_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    status, body = cluster.create({**secret, "data": {"a": "???"}})
    assert status == 400
    wrong = 'Secret in version "v1" cannot be handled as a Secret: illegal base64 data'
    assert body["message"].startswith(wrong)
    encoded = base64.b64encode(b"x" * (MIB + 1)).decode()
    status, body = cluster.create({**secret, "data": {"a": encoded}})
    assert status == 422
    assert body["message"] == 'Secret "s" is invalid: data: Too long: may not be more than 1048576 bytes'


def test_binary_data_counts_too(cluster: Cluster) -> None:
    encoded = base64.b64encode(b"x" * MIB).decode()
    namespace = cluster.namespace()
    assert cluster.create(config_map(namespace, binaryData={"a": encoded}))[0] == 201
    status, _ = cluster.create(config_map(namespace, "b", binaryData={"a": encoded}, data={"b": "x"}))
    assert status == 422


def test_an_event_belongs_into_the_namespace_of_its_object(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    event = {
        "kind": "Event",
        "metadata": {"generateName": "e.", "namespace": namespace},
        "involvedObject": {"kind": "Workflow", "namespace": namespace, "name": "w"},
        "reason": "Hit",
        "message": "m",
        "type": "Normal",
    }
    assert cluster.create(event)[0] == 201
    event["involvedObject"] = {"kind": "Workflow", "namespace": "other", "name": "w"}
    status, body = cluster.create(event)
    assert status == 422
    assert body["details"]["causes"][0]["field"] == "involvedObject.namespace"


def test_a_namespace_is_labelled_with_its_name(cluster: Cluster) -> None:
    name = cluster.namespace({"stepmemo.dev/memoize": "true"})
    _, found = cluster.get("Namespace", "", name)
    expected = {"stepmemo.dev/memoize": "true", "kubernetes.io/metadata.name": name}
    assert found["metadata"]["labels"] == expected
    assert found["status"]["phase"] == "Active"
    _, patched = cluster.patch("Namespace", "", name, {"metadata": {"labels": None}})
    assert patched["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.b", "must not contain dots"),
        (
            "A",
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
            "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
            "regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
    ],
)
def test_a_namespace_name_is_one_label(cluster: Cluster, name: str, why: str) -> None:
    status, body = cluster.create({"kind": "Namespace", "metadata": {"name": name}})
    assert status == 422
    assert body["details"]["causes"][0]["message"] == f'Invalid value: "{name}": {why}'
