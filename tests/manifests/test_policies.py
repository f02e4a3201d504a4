"""What each account of ours may write, on a real API server: RBAC allows these accounts everything here.

That all the product does passes is shown where it does it: on the real API server every test of the keeper
runs as the keeper's account, under these policies.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from argo import names as argo
from memoize import names
from tests.cluster import JSON_PATCH, MERGE, Cluster, wait_for
from tests.control_plane import EVERYTHING
from tests.keeper.site import CACHE, Site
from tests.manifests.rendering import BASE, POLICIES, render

Json = dict[str, Any]
STRATEGIC = "application/strategic-merge-patch+json"
RESULT = names.RESULT.replace("/", "~1")
POSTED = {"annotations": {names.POSTED_FOR: "uid"}}
EVENT = {"reason": "x", "message": "y", "type": "Normal", "reportingComponent": "x", "reportingInstance": "y"}


class Accounts:
    """One Namespace with a cache, a Workflow, Pods; and the tokens of both accounts in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.site = cluster, Site.new(cluster)
        self.namespace = self.site.namespace
        self.keeper = cluster.service_account(self.namespace, "stepmemo-keeper", EVERYTHING)
        self.webhook = cluster.service_account(self.namespace, "stepmemo-webhook", EVERYTHING)
        self.site.put({})

    def status(self, method: str, kind: str, name: str = "", body: object = None, **options: Any) -> int:
        """The answer to a request of the keeper's, or of `token`; a dry run, so nothing is changed."""
        options.setdefault("token", self.keeper)
        path = self.cluster.path(kind, self.namespace, name, options.pop("subresource", ""))
        answer = self.cluster.request(method, path, body, query={"dryRun": "All"}, **options)
        if answer.status == 403:
            assert "ValidatingAdmissionPolicy" in answer.body["message"], "somebody else refused it"
        return answer.status

    def patch(self, kind: str, name: str, body: object, **options: Any) -> int:
        options.setdefault("content_type", JSON_PATCH if isinstance(body, list) else MERGE)
        return self.status("PATCH", kind, name, body, **options)

    def configmap(self, name: str, **metadata: Any) -> str:
        made = {"kind": "ConfigMap", "metadata": {"name": name, "namespace": self.namespace, **metadata}}
        assert self.cluster.create(made)[0] == 201
        return name

    def result(self, name: str, **metadata: Any) -> str:
        made = _result(name, self.namespace, **metadata)
        assert self.cluster.create(made)[0] == 201
        return name


@pytest.fixture(scope="module")
def accounts(kube_apiserver: Cluster) -> Accounts:
    return Accounts(kube_apiserver)


def _result(name: str, namespace: str, **metadata: Any) -> Json:
    return {
        "apiVersion": argo.API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": {"name": name, "namespace": namespace, **metadata},
    }


def _named(kind: str, name: str, namespace: str, **fields: Any) -> Json:
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace}, **fields}


# --- Caches ------------------------------------------------------------------------------------------


def test_the_keeper_writes_the_data_of_caches_and_nothing_else_of_them(accounts: Accounts) -> None:
    assert accounts.patch("ConfigMap", CACHE, {"data": {"k": "v"}}) == 200
    assert accounts.patch("ConfigMap", CACHE, {"data": {"k": "v", "old": None}}) == 200, "makes room"
    assert accounts.patch("ConfigMap", CACHE, {"data": {"old": None}}) == 200, "cleans up"
    for change in (
        {"metadata": {"labels": {argo.CONFIGMAP_TYPE: None}}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"annotations": {"x": "y"}}},
        {"metadata": {"annotations": {names.MAX_BYTES: "1Mi"}}},
        {"metadata": {"finalizers": ["x.test/y"]}},
        {"binaryData": {"k": "eA=="}},
        {"immutable": True},
    ):
        assert accounts.patch("ConfigMap", CACHE, change) == 403, change


def test_the_keeper_touches_no_configmap_that_is_not_a_cache(accounts: Accounts) -> None:
    other = accounts.configmap("other")
    label = {"metadata": {"labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}}}
    assert accounts.patch("ConfigMap", other, {"data": {"k": "v"}}) == 403
    assert accounts.patch("ConfigMap", other, label) == 403, "it would make one a cache first"
    assert accounts.status("DELETE", "ConfigMap", CACHE) == 403
    plain = _named("ConfigMap", "new", accounts.namespace)
    assert accounts.status("POST", "ConfigMap", body=plain) == 403
    plain["metadata"] |= label["metadata"]
    assert accounts.status("POST", "ConfigMap", body=plain) == 201


# --- Pods --------------------------------------------------------------------------------------------


def test_the_keeper_takes_away_its_gate_and_no_other(accounts: Accounts) -> None:
    gates = [{"name": "theirs.test/gate"}, {"name": names.SCHEDULING_GATE}]
    spec = {"containers": [{"name": "main", "image": "busybox"}], "schedulingGates": gates}
    assert accounts.cluster.create(_named("Pod", "two-gates", accounts.namespace, spec=spec))[0] == 201
    for gate, status in ((names.SCHEDULING_GATE, 200), ("theirs.test/gate", 403)):
        off = {"spec": {"schedulingGates": [{"name": gate, "$patch": "delete"}]}}
        assert accounts.patch("Pod", "two-gates", off, content_type=STRATEGIC) == status


def test_the_keeper_frees_a_gated_pod_that_lost_its_label(accounts: Accounts) -> None:
    pod = accounts.site.pod(2)
    unlabelled = [{"op": "remove", "path": f"/metadata/labels/{RESULT}"}]
    assert accounts.cluster.patch("Pod", accounts.namespace, pod, unlabelled)[0] == 200
    ours_off = {"spec": {"schedulingGates": [{"name": names.SCHEDULING_GATE, "$patch": "delete"}]}}
    assert accounts.patch("Pod", pod, ours_off, content_type=STRATEGIC) == 200


def test_the_keeper_changes_of_a_pod_its_own_marks_alone(accounts: Accounts) -> None:
    pod = accounts.site.pod(1)
    assert accounts.patch("Pod", pod, {"metadata": {"labels": {names.RESULT: "miss"}}}) == 200
    assert accounts.patch("Pod", pod, {"metadata": {"annotations": {names.REASON: "Miss"}}}) == 200
    for change in (
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"annotations": {"x": "y"}}},
        {"metadata": {"finalizers": ["x.test/y"]}},
        {"metadata": {"ownerReferences": []}},
        {"spec": {"activeDeadlineSeconds": 1}},
        {"spec": {"nodeSelector": {"x": "y"}}},
    ):
        assert accounts.patch("Pod", pod, change) == 403, change


def test_the_keeper_touches_no_pod_that_is_not_stepmemos(accounts: Accounts) -> None:
    pod = _named(
        "Pod", "theirs", accounts.namespace, spec={"containers": [{"name": "main", "image": "busybox"}]}
    )
    assert accounts.cluster.create(pod)[0] == 201
    assert accounts.patch("Pod", "theirs", {"metadata": {"labels": {names.RESULT: "miss"}}}) == 403
    body = {"status": {"phase": "Succeeded"}}
    assert accounts.patch("Pod", "theirs", body, subresource="status") == 403
    assert accounts.status("DELETE", "Pod", "theirs") == 403
    assert accounts.status("POST", "Pod", body=pod) == 403
    eviction = {**_named("Eviction", "theirs", accounts.namespace), "apiVersion": "policy/v1"}
    assert accounts.status("POST", "Pod", "theirs", eviction, subresource="eviction") == 403


def test_the_keeper_completes_gated_pods_and_gives_them_no_other_status(accounts: Accounts) -> None:
    gated, runs = accounts.site.pod(3), accounts.site.pod(4, held=False)
    succeeded = {"status": {"phase": "Succeeded"}}
    assert accounts.patch("Pod", gated, succeeded, subresource="status") == 200
    for change in ({"status": {"phase": "Failed"}}, {"status": {"phase": "Running"}}):
        assert accounts.patch("Pod", gated, change, subresource="status") == 403, change
    forged = {"status": {"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}]}}
    assert accounts.patch("Pod", gated, forged, subresource="status") == 403
    assert accounts.patch("Pod", runs, succeeded, subresource="status") == 403


def test_the_keeper_deletes_pods_that_hang_in_containers_of_its_own(accounts: Accounts) -> None:
    pod = accounts.site.pod(5, held=False)
    assert accounts.status("DELETE", "Pod", pod) == 403
    inside = {"metadata": {"labels": {names.RESULT: names.RESULT_IN_POD}}}
    assert accounts.cluster.patch("Pod", accounts.namespace, pod, inside)[0] == 200
    assert accounts.status("DELETE", "Pod", pod) == 200
    started = {"status": {"phase": "Running"}}
    assert accounts.cluster.patch("Pod", accounts.namespace, pod, started, subresource="status")[0] == 200
    assert accounts.status("DELETE", "Pod", pod) == 403


# --- Results -----------------------------------------------------------------------------------------


def test_the_keeper_forges_no_result_of_a_step(accounts: Accounts) -> None:
    theirs, ours = accounts.result("theirs"), accounts.result("ours", **POSTED)
    change = {"metadata": {"labels": {argo.OUTPUTS_COMPLETED: "true"}}}
    mark = {"metadata": POSTED}
    assert accounts.patch("WorkflowTaskResult", theirs, change) == 403
    assert accounts.patch("WorkflowTaskResult", theirs, mark) == 403, "it would make it its own first"
    assert accounts.status("DELETE", "WorkflowTaskResult", theirs) == 403
    assert accounts.patch("WorkflowTaskResult", ours, change) == 200
    assert accounts.status("DELETE", "WorkflowTaskResult", ours) == 200
    plain = _result("new", accounts.namespace)
    assert accounts.status("POST", "WorkflowTaskResult", body=plain) == 403
    assert (
        accounts.status("POST", "WorkflowTaskResult", body=_result("new", accounts.namespace, **POSTED))
        == 201
    )


# --- Workflows ----------------------------------------------------------------------------------------


def test_the_keeper_marks_workflows_that_run_and_changes_nothing_else_of_any(accounts: Accounts) -> None:
    mark = {"metadata": {"annotations": {names.NUDGED: "2026-01-01T00:00:00.000+00:00"}}}
    assert accounts.patch("Workflow", "wf", mark) == 403, "it does not run"
    running = {
        "metadata": {"labels": {argo.PHASE: argo.RUNNING}, "annotations": {"x": "y"}},
        "spec": {"entrypoint": "a"},
        "status": {"phase": "Running"},
    }
    assert accounts.cluster.patch("Workflow", accounts.namespace, "wf", running)[0] == 200
    assert accounts.patch("Workflow", "wf", mark) == 200
    for change in (
        {"metadata": {"annotations": {"x": "z"}}},
        {"metadata": {"annotations": {"x": None}}},
        {"metadata": {"annotations": {"workflows.argoproj.io/x": "y"}}},
        {"metadata": {"annotations": {names.NUDGED: "x" * 65}}},
        {"metadata": {"labels": {argo.PHASE: "Succeeded"}}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"finalizers": ["x.test/y"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}},
        {"spec": {"shutdown": "Stop"}},
        {"spec": None},
        {"status": {"phase": "Failed"}},
        {"status": None},
    ):
        assert accounts.patch("Workflow", "wf", change) == 403, change
    assert accounts.status("DELETE", "Workflow", "wf") == 403
    made = {**_named("Workflow", "new", accounts.namespace, spec={}), "apiVersion": argo.API_VERSION}
    assert accounts.status("POST", "Workflow", body=made) == 403


# --- What RBAC cannot ask a name of --------------------------------------------------------------------


@pytest.mark.parametrize("account", ["keeper", "webhook"])
def test_neither_account_makes_what_is_not_stepmemos(accounts: Accounts, account: str) -> None:
    token, namespace = getattr(accounts, account), accounts.namespace
    about = {"kind": "Pod", "apiVersion": "v1", "name": "p", "namespace": namespace}
    workflow = {"kind": "Workflow", "apiVersion": argo.API_VERSION, "name": "w", "namespace": namespace}
    cache = {"kind": "ConfigMap", "apiVersion": "v1", "name": CACHE, "namespace": namespace}
    mine = {"kubernetes.io/service-account.name": "default"}
    stolen = _named("Secret", "token", namespace, type="kubernetes.io/service-account-token")
    stolen["metadata"]["annotations"] = mine
    renamed = deepcopy(stolen)
    renamed["metadata"]["name"] = "stepmemo-certs"
    wanted = {
        403: [
            stolen,
            renamed,
            _named("Secret", "other", namespace, type="Opaque"),
            _named("Lease", "other", namespace, spec={}),
            _named("Event", "e", namespace, involvedObject=about, **EVENT),
        ],
        201: [
            _named("Secret", "stepmemo-certs", namespace, type="Opaque"),
            _named("Lease", "stepmemo-keeper", namespace, spec={}),
            _named("Event", "e", namespace, involvedObject=workflow, **EVENT),
        ],
    }
    wanted[201 if account == "keeper" else 403] += [
        _named("Event", "e", namespace, involvedObject=cache, **EVENT)
    ]
    for status, bodies in wanted.items():
        for body in bodies:
            assert accounts.status("POST", body["kind"], body=body, token=token) == status, body


# --- The webhook's configuration -----------------------------------------------------------------------


def _configuration(cluster: Cluster, accounts: Accounts) -> tuple[str, Json]:
    """One named like ours. It calls nobody: it is of Namespaces that are not there."""
    (ours,) = (d for d in render(BASE) if d["kind"] == "MutatingWebhookConfiguration")
    for webhook in ours["webhooks"]:
        webhook["namespaceSelector"] = {"matchLabels": {"test.stepmemo.dev/none": accounts.namespace}}
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    cluster.request("DELETE", f"{path}/{ours['metadata']['name']}")
    status, made, _ = cluster.request("POST", path, ours)
    assert status == 201, made
    return f"{path}/{ours['metadata']['name']}", made


@pytest.fixture
def change_configuration(kube_apiserver: Cluster, accounts: Accounts) -> Any:
    path, made = _configuration(kube_apiserver, accounts)
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    token = _cluster_wide(kube_apiserver, accounts, rules)

    def change(edit: Callable[[Json], object]) -> int:
        changed = deepcopy(made)
        edit(changed)
        return kube_apiserver.request("PUT", path, changed, token=token, query={"dryRun": "All"}).status

    yield change
    kube_apiserver.request("DELETE", path)


def _cluster_wide(cluster: Cluster, accounts: Accounts, rules: list[Json]) -> str:
    """Let the webhook's account do all of it everywhere; its token."""
    group = "/apis/rbac.authorization.k8s.io/v1"
    name = f"everything-{accounts.namespace}"
    role = {"metadata": {"name": name}, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": "stepmemo-webhook", "namespace": accounts.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    for kind, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        assert cluster.request("POST", f"{group}/{kind}", body).status in (201, 409)
    asked = {"verb": "update", "group": "admissionregistration.k8s.io", "resource": "anything"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{accounts.namespace}:stepmemo-webhook",
            "resourceAttributes": asked,
        },
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    wait_for(lambda: cluster.request("POST", path, review).body["status"]["allowed"])
    return accounts.webhook


def test_the_webhook_writes_the_cabundle_of_its_configuration_and_nothing_else(
    change_configuration: Callable[[Callable[[Json], object]], int],
) -> None:
    def hook(configuration: Json) -> Json:
        first: Json = configuration["webhooks"][0]
        return first

    assert change_configuration(lambda c: hook(c)["clientConfig"].update(caBundle="eA==")) in (200, 422)
    for edit in (
        lambda c: hook(c).update(failurePolicy="Fail"),
        lambda c: hook(c).update(namespaceSelector={}),
        lambda c: hook(c)["clientConfig"]["service"].update(namespace="theirs"),
        lambda c: hook(c)["rules"][0].update(resources=["*"]),
        lambda c: c["webhooks"].pop(),
    ):
        assert change_configuration(edit) == 403


# --- Their text ----------------------------------------------------------------------------------------


def test_every_policy_is_bound_refuses_with_403_and_concerns_our_two_accounts_alone() -> None:
    policies = {d["metadata"]["name"]: d for d in render(BASE) if d["kind"] == POLICIES[0]}
    bindings = [d["spec"] for d in render(BASE) if d["kind"] == POLICIES[1]]
    assert {b["policyName"] for b in bindings} == set(policies)
    assert all(b["validationActions"] == ["Deny"] and "matchResources" not in b for b in bindings)
    for policy in policies.values():
        assert {v["reason"] for v in policy["spec"]["validations"]} == {"Forbidden"}
        (condition,) = policy["spec"]["matchConditions"]
        assert "userInfo.username.matches('^system:serviceaccount:[^:]+:stepmemo-" in condition["expression"]


def test_they_are_the_same_in_any_namespace() -> None:
    def texts(namespace: str) -> list[Json]:
        return [d for d in render(BASE, namespace) if d["kind"] in POLICIES]

    assert texts("elsewhere") == texts("stepmemo")
