"""Who may what: tokens, Roles, and the rights that a step's service account has."""

import pytest

from tests.cluster import Cluster, Object, wait_for

pytestmark = pytest.mark.contract

ARGO = "argoproj.io"
CREATE_AND_PATCH_RESULTS = {
    "apiGroups": [ARGO],
    "resources": ["workflowtaskresults"],
    "verbs": ["create", "patch"],
}
"""What Argo's executor is given, and all of it."""


def posted(namespace: str) -> Object:
    labels = {"workflows.argoproj.io/report-outputs-completed": "true", "workflows.argoproj.io/workflow": "w"}
    annotations = {"stepmemo.dev/posted-for": "uid"}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": "node-1",
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "outputs": {"parameters": [{"name": "x", "value": "1"}]},
    }


def config_maps(*verbs: str, names: tuple[str, ...] = ()) -> Object:
    rule: Object = {"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


def assert_forbidden(answer: tuple[int, Object], subject: str, user: str, what: str) -> None:
    status, body = answer
    assert status == 403, body
    assert body["reason"] == "Forbidden"
    assert body["message"] == f'{subject} is forbidden: User "{user}" cannot {what}'


def test_a_merge_patch_of_nothing_reads_a_result_without_the_right_to_get(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [CREATE_AND_PATCH_RESULTS])
    status, created = cluster.create(posted(namespace), token=token)
    assert status == 201
    user = f"system:serviceaccount:{namespace}:step"
    what = f'get resource "workflowtaskresults" in API group "{ARGO}" in the namespace "{namespace}"'
    answer = cluster.get("WorkflowTaskResult", namespace, "node-1", token=token)
    assert_forbidden(answer, f'workflowtaskresults.{ARGO} "node-1"', user, what)
    assert answer[1]["details"] == {"name": "node-1", "group": ARGO, "kind": "workflowtaskresults"}
    assert cluster.patch("WorkflowTaskResult", namespace, "node-1", {}, token=token) == (200, created)


def test_a_result_is_retracted_by_nulls(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [CREATE_AND_PATCH_RESULTS])
    cluster.create(posted(namespace), token=token)
    completed = "workflows.argoproj.io/report-outputs-completed"
    patch = {
        "metadata": {"labels": {completed: "false"}, "annotations": {"stepmemo.dev/posted-for": None}},
        "outputs": None,
    }
    status, body = cluster.patch("WorkflowTaskResult", namespace, "node-1", patch, token=token)
    assert status == 200
    assert body["metadata"]["labels"] == {completed: "false", "workflows.argoproj.io/workflow": "w"}
    assert "annotations" not in body["metadata"]
    assert "outputs" not in body


def test_patching_a_result_that_is_not_there_is_404_for_an_account_that_may(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [CREATE_AND_PATCH_RESULTS])
    assert cluster.patch("WorkflowTaskResult", namespace, "node-1", {}, token=token)[0] == 404


def test_resource_names_narrow_a_right(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("get", "patch", names=("mine",))])
    user = f"system:serviceaccount:{namespace}:step"
    assert cluster.get("ConfigMap", namespace, "mine", token=token)[0] == 404
    what = f'get resource "configmaps" in API group "" in the namespace "{namespace}"'
    answer = cluster.get("ConfigMap", namespace, "other", token=token)
    assert_forbidden(answer, 'configmaps "other"', user, what)
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 403


@pytest.mark.parametrize("watch", [{}, {"watch": "1", "timeoutSeconds": "1"}])
def test_one_object_may_be_listed_by_its_name(cluster: Cluster, watch: dict[str, str]) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("list", "watch", names=("mine",))])
    path = cluster.path("ConfigMap", namespace)
    for name, status in (("mine", 200), ("other", 403)):
        query = {"fieldSelector": f"metadata.name={name}", **watch}
        assert cluster.request("GET", path, token=token, query=query).status == status


def test_resource_names_never_allow_a_create(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("create", names=("mine",))])
    obj = {"kind": "ConfigMap", "metadata": {"name": "mine", "namespace": namespace}}
    what = f'create resource "configmaps" in API group "" in the namespace "{namespace}"'
    user = f"system:serviceaccount:{namespace}:step"
    assert_forbidden(cluster.create(obj, token=token), "configmaps", user, what)
    cluster.set_rules(namespace, "step", [config_maps("create")])
    assert cluster.create(obj, token=token)[0] == 201


@pytest.mark.parametrize("verb", ["get", "list", "create", "update", "patch", "delete"])
def test_each_verb_is_a_right_of_its_own(cluster: Cluster, verb: str) -> None:
    namespace = cluster.namespace()
    obj = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    fresh = {"kind": "ConfigMap", "metadata": {"name": "b", "namespace": namespace}}
    cluster.create(obj)
    token = cluster.service_account(namespace, "step", [config_maps(verb)])
    statuses = {
        "get": cluster.get("ConfigMap", namespace, "a", token=token)[0],
        "list": cluster.list("ConfigMap", namespace, token=token)[0],
        "create": cluster.create(fresh, token=token)[0],
        "update": cluster.update(obj, token=token)[0],
        "patch": cluster.patch("ConfigMap", namespace, "a", {}, token=token)[0],
        "delete": cluster.delete("ConfigMap", namespace, "a", token=token)[0],
    }
    assert {name for name, status in statuses.items() if status < 300} == {verb}


def test_a_right_taken_away_is_gone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("list")])
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 200
    cluster.set_rules(namespace, "step", [])
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 403


def test_a_role_does_not_reach_into_other_namespaces(cluster: Cluster) -> None:
    namespace, other = cluster.namespace(), cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("list")])
    assert cluster.list("ConfigMap", other, token=token)[0] == 403
    what = 'list resource "configmaps" in API group "" at the cluster scope'
    user = f"system:serviceaccount:{namespace}:step"
    assert_forbidden(cluster.list("ConfigMap", token=token), "configmaps", user, what)


def test_a_subresource_is_a_resource_of_its_own(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}
    token = cluster.service_account(namespace, "step", [rule])
    assert cluster.patch("Pod", namespace, "p", {}, token=token)[0] == 404
    answer = cluster.patch("Pod", namespace, "p", {}, subresource="status", token=token)
    what = f'patch resource "pods/status" in API group "" in the namespace "{namespace}"'
    assert_forbidden(answer, 'pods "p"', f"system:serviceaccount:{namespace}:step", what)


def test_a_cluster_role_reaches_where_its_binding_says(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [])
    rule = {"apiGroups": [ARGO], "resources": ["clusterworkflowtemplates"], "verbs": ["get"]}
    answer = cluster.get("ClusterWorkflowTemplate", "", "t", token=token)
    user = f"system:serviceaccount:{namespace}:step"
    what = f'get resource "clusterworkflowtemplates" in API group "{ARGO}" at the cluster scope'
    assert_forbidden(answer, f'clusterworkflowtemplates.{ARGO} "t"', user, what)
    metadata = {"name": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
    subject = {"kind": "ServiceAccount", "name": "step", "namespace": namespace}
    cluster.create({"kind": "ClusterRole", "metadata": metadata, "rules": [rule]})
    cluster.create(
        {"kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]}
    )
    cluster.set_rules(namespace, "step", [])
    assert cluster.get("ClusterWorkflowTemplate", "", "t", token=token)[0] == 404


@pytest.mark.parametrize("kind", ["Group", "User"])
def test_a_binding_may_name_an_account_as_a_user_or_by_its_group(cluster: Cluster, kind: str) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [])
    group = "rbac.authorization.k8s.io"
    name = {"Group": f"system:serviceaccounts:{namespace}", "User": f"system:serviceaccount:{namespace}:step"}
    metadata = {"name": "other", "namespace": namespace}
    reference = {"apiGroup": group, "kind": "Role", "name": "other"}
    subject = {"kind": kind, "name": name[kind], "apiGroup": group}
    cluster.create({"kind": "Role", "metadata": metadata, "rules": [config_maps("list")]})
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 403
    cluster.create({"kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]})
    cluster.set_rules(namespace, "step", [])
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 200


def test_nobody_is_known_without_a_token(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    what = f'list resource "configmaps" in API group "" in the namespace "{namespace}"'
    answer = cluster.list("ConfigMap", namespace, token="")
    assert_forbidden(answer, "configmaps", "system:anonymous", what)


def test_a_token_that_nobody_issued_is_401(cluster: Cluster) -> None:
    status, body = cluster.list("ConfigMap", "default", token="made-up")
    assert (status, body["message"], body["reason"]) == (401, "Unauthorized", "Unauthorized")


def test_a_token_ends_with_its_account(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    token = cluster.service_account(namespace, "step", [config_maps("list")])
    cluster.delete("ServiceAccount", namespace, "step")
    # The real API server's authenticator learns of accounts by a watch.
    wait_for(lambda: cluster.list("ConfigMap", namespace, token=token)[0] == 401)
    cluster.create({"kind": "ServiceAccount", "metadata": {"name": "step", "namespace": namespace}})
    assert cluster.list("ConfigMap", namespace, token=token)[0] == 401, "another account of that name"


def test_a_token_needs_an_account(cluster: Cluster) -> None:
    path = cluster.path("ServiceAccount", cluster.namespace(), "nobody", "token")
    status, body, _ = cluster.request("POST", path, {"spec": {}})
    assert (status, body["message"]) == (404, 'serviceaccounts "nobody" not found')


def test_any_account_may_ask_for_the_version(cluster: Cluster) -> None:
    token = cluster.service_account(cluster.namespace(), "step", [])
    status, body, _ = cluster.request("GET", "/version", token=token)
    assert (status, body["major"]) == (200, "1")


def answered(cluster: Cluster, *labels: str) -> float:
    """How many requests with these labels the server says that it has answered."""
    status, text, _ = cluster.request("GET", "/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


def test_the_admin_reads_how_many_requests_were_answered(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    labels = 'resource="configmaps"', 'verb="POST"', 'version="v1"'
    made, refused = (answered(cluster, *labels, f'code="{code}"') for code in (201, 409))
    config_map = {"kind": "ConfigMap", "metadata": {"name": "counted", "namespace": namespace}}
    assert [cluster.create(config_map)[0] for _ in range(3)] == [201, 409, 409]
    assert answered(cluster, *labels, 'code="201"') >= made + 1
    assert answered(cluster, *labels, 'code="409"') >= refused + 2


def test_nobody_else_reads_them(cluster: Cluster) -> None:
    status, body, _ = cluster.request("GET", "/metrics", token="")
    assert (status, body["reason"], body["details"]) == (403, "Forbidden", {})
    assert body["message"] == 'forbidden: User "system:anonymous" cannot get path "/metrics"'
