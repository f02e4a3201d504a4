"""Mutating webhooks: what they are asked, and what clients see of their answers and failures."""

import base64
import threading

import pytest

from tests.cluster import Answer, Cluster, Object
from tests.contract.webhook import Webhook, allow, patching

pytestmark = pytest.mark.contract

NAME = "hook.test.stepmemo.dev"


def config_map(namespace: str, name: str = "a", **content: object) -> Object:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, **content}


def workflow(namespace: str, **metadata: object) -> Object:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"namespace": namespace, **metadata},
        "spec": {"entrypoint": "main"},
    }


def post(cluster: Cluster, obj: Object) -> Answer:
    return cluster.request("POST", cluster.path(obj["kind"], obj["metadata"]["namespace"]), obj)


def test_a_webhook_is_asked_about_a_create(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["create"]}
    token = cluster.service_account(namespace, "submitter", [rule])
    with webhook.installed(cluster, namespace):
        status, _ = cluster.create(workflow(namespace, name="w"), token=token)
    assert status == 201
    (request,) = webhook.requests
    assert request["kind"] == {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow"}
    assert request["resource"] == {"group": "argoproj.io", "version": "v1alpha1", "resource": "workflows"}
    assert (request["operation"], request["name"], request["namespace"]) == ("CREATE", "w", namespace)
    assert request["userInfo"]["username"] == f"system:serviceaccount:{namespace}:submitter"
    assert {f"system:serviceaccounts:{namespace}", "system:authenticated"} <= set(
        request["userInfo"]["groups"]
    )
    assert request["dryRun"] is False
    assert request["object"]["spec"] == {"entrypoint": "main"}
    assert request["oldObject"] is None
    assert request["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
    assert request["query"] == "timeout=10s"


def test_a_generated_name_is_not_there_yet(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    obj = {"kind": "ConfigMap", "metadata": {"generateName": "g-", "namespace": namespace}}
    with webhook.installed(cluster, namespace):
        _, created = cluster.create(obj)
    (request,) = webhook.requests
    assert "name" not in request
    assert "name" not in request["object"]["metadata"]
    assert request["object"]["metadata"]["generateName"] == "g-"
    assert request["object"]["metadata"]["namespace"] == namespace
    assert created["metadata"]["name"].startswith("g-")


def test_a_patch_is_applied_before_the_object_is_stored(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = patching({"op": "add", "path": "/spec/hooked", "value": True})
    with webhook.installed(cluster, namespace):
        status, created = cluster.create(workflow(namespace, name="w"))
    assert status == 201
    assert created["spec"] == {"entrypoint": "main", "hooked": True}
    assert cluster.get("Workflow", namespace, "w")[1] == created


def test_an_update_comes_with_the_old_object(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    cluster.create(workflow(namespace, name="w"))
    with webhook.installed(cluster, namespace):
        cluster.patch("Workflow", namespace, "w", {"spec": {"entrypoint": "other"}})
    (request,) = webhook.requests
    assert (request["operation"], request["name"]) == ("UPDATE", "w")
    assert request["object"]["spec"] == {"entrypoint": "other"}
    assert request["oldObject"]["spec"] == {"entrypoint": "main"}
    assert request["object"]["metadata"]["uid"] == request["oldObject"]["metadata"]["uid"]


def test_what_is_written_while_a_webhook_thinks_is_not_lost(cluster: Cluster, webhook: Webhook) -> None:
    """A patch starts again from the newest object, and the webhook with it."""
    namespace = cluster.namespace()
    cluster.create(config_map(namespace, data={"a": "1"}))

    def write_another_key_first(request: Object) -> Object:
        webhook.answers["/"] = allow
        assert cluster.patch("ConfigMap", namespace, "a", {"data": {"between": "2"}})[0] == 200
        return {"allowed": True}

    webhook.answers["/"] = write_another_key_first
    with webhook.installed(cluster, namespace):
        status, body = cluster.patch("ConfigMap", namespace, "a", {"data": {"patched": "3"}})
    assert (status, body["data"]) == (200, {"a": "1", "between": "2", "patched": "3"})
    assert len(webhook.requests) == 3
    assert webhook.requests[2]["oldObject"]["data"] == {"a": "1", "between": "2"}


def test_a_delete_comes_with_the_old_object_alone(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    cluster.create(config_map(namespace, data={"a": "b"}))
    with webhook.installed(cluster, namespace):
        cluster.delete("ConfigMap", namespace, "a")
    (request,) = webhook.requests
    assert (request["operation"], request["name"], request["object"]) == ("DELETE", "a", None)
    assert request["oldObject"]["data"] == {"a": "b"}


def test_a_dry_run_asks_too_and_says_so(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = patching({"op": "add", "path": "/data", "value": {"a": "b"}})
    with webhook.installed(cluster, namespace):
        status, body = cluster.create(config_map(namespace), dry_run=True)
    assert (status, body["data"]) == (201, {"a": "b"})
    assert webhook.requests[0]["dryRun"] is True
    assert webhook.requests[0]["options"]["dryRun"] == ["All"]
    assert cluster.get("ConfigMap", namespace, "a")[0] == 404


def test_warnings_become_headers(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    texts = ["spec.x: careful", 'a "quoted" word and a \\', "unicode: é"]
    webhook.answers["/"] = lambda request: {"allowed": True, "warnings": texts}
    with webhook.installed(cluster, namespace):
        answer = post(cluster, config_map(namespace))
    assert answer.status == 201
    expected = ['299 - "spec.x: careful"', '299 - "a \\"quoted\\" word and a \\\\"', '299 - "unicode: é"']
    assert [text.encode("latin-1").decode() for text in answer.warnings] == expected


@pytest.mark.parametrize(
    ("status", "code", "reason", "message"),
    [
        (None, 400, "", "without explanation"),
        ({"message": "no way"}, 400, "", ": no way"),
        ({"message": "no way", "code": 403, "reason": "Forbidden"}, 403, "Forbidden", ": no way"),
        ({"reason": "Forbidden"}, 400, "Forbidden", ": Forbidden"),
    ],
)
def test_a_denial_names_the_webhook(
    cluster: Cluster, webhook: Webhook, status: Object | None, code: int, reason: str, message: str
) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = lambda request: {"allowed": False, "status": status}
    with webhook.installed(cluster, namespace):
        answer = post(cluster, config_map(namespace))
    assert (answer.status, answer.body.get("reason", "")) == (code, reason)
    glue = "" if message.startswith(":") else " "
    assert answer.body["message"] == f'admission webhook "{NAME}" denied the request{glue}{message}'


def test_a_denial_of_many_causes_arrives_whole_and_with_its_warnings(
    cluster: Cluster, webhook: Webhook
) -> None:
    namespace = cluster.namespace()
    causes = [
        {"reason": "FieldValueInvalid", "message": "one", "field": "spec.templates[0].memoize.key"},
        {"reason": "FieldValueRequired", "message": "two", "field": "spec.templates[1].memoize.cache"},
    ]
    details = {"name": "w", "group": "argoproj.io", "kind": "Workflow", "causes": causes}
    status = {"message": "one\ntwo", "code": 422, "reason": "Invalid", "details": details}
    webhook.answers["/"] = lambda request: {"allowed": False, "status": status, "warnings": ["three"]}
    with webhook.installed(cluster, namespace):
        answer = post(cluster, workflow(namespace, name="w"))
    assert (answer.status, answer.body["reason"], answer.body["details"]) == (422, "Invalid", details)
    assert answer.body["message"] == f'admission webhook "{NAME}" denied the request: one\ntwo'
    assert answer.warnings == ['299 - "three"']
    assert cluster.get("Workflow", namespace, "w")[0] == 404


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            (500, "oops"),
            'failed to call webhook: an error on the server ("unknown") has prevented '
            "the request from succeeding",
        ),
        (
            (400, "{}"),
            "failed to call webhook: the server rejected our request for an unknown reason",
        ),
        (
            {"allowed": True, "uid": "other"},
            'received invalid webhook response: expected response.uid="',
        ),
        (
            {"allowed": True, "patch": "W10="},
            "received invalid webhook response: webhook returned response.patch but not response.patchType",
        ),
        ((200, "oops"), "failed to call webhook: couldn't get version/kind; "),
    ],
)
def test_a_webhook_that_fails_fails_the_request_unless_it_is_to_be_ignored(
    cluster: Cluster, webhook: Webhook, answer: object, why: str
) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = lambda request: answer
    with webhook.installed(cluster, namespace):
        failed = post(cluster, config_map(namespace))
    assert (failed.status, failed.body["reason"]) == (500, "InternalError")
    expected = f'Internal error occurred: failed calling webhook "{NAME}": {why}'
    assert failed.body["message"].startswith(expected)
    other = cluster.namespace()
    with webhook.installed(cluster, other, webhook.definition(failurePolicy="Ignore")):
        assert post(cluster, config_map(other)).status == 201
    assert webhook.paths() == ["/"]


def test_a_webhook_that_takes_too_long_is_left(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    answered = threading.Event()

    def late(request: Object) -> Object:
        answered.wait(10)
        return {"allowed": False}

    webhook.answers["/"] = late
    patient = webhook.definition(failurePolicy="Fail", timeoutSeconds=1)
    with webhook.installed(cluster, namespace, patient):
        failed = post(cluster, config_map(namespace))
    answered.set()
    assert failed.status == 500
    url = f"{webhook.url}/?timeout=1s"
    assert failed.body["message"] == (
        f'Internal error occurred: failed calling webhook "{NAME}": failed to call webhook: '
        f'Post "{url}": context deadline exceeded'
    )


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_a_webhook_that_is_not_there_fails_alike(cluster: Cluster, webhook: Webhook, policy: str) -> None:
    namespace = cluster.namespace()
    client = {"url": "https://127.0.0.1:1/", "caBundle": webhook.ca_bundle}
    gone = webhook.definition(failurePolicy=policy, clientConfig=client)
    with webhook.installed(cluster, namespace, gone):
        answer = post(cluster, config_map(namespace))
    assert answer.status == (500 if policy == "Fail" else 201)


def test_the_api_server_counts_what_passed_without_an_answer(
    kube_apiserver: Cluster, webhook: Webhook
) -> None:
    """As the alert StepmemoAdmissionFailsOpen reads it; the devcluster shows no such metric."""
    namespace = kube_apiserver.namespace()
    client = {"url": "https://127.0.0.1:1/", "caBundle": webhook.ca_bundle}
    gone = webhook.definition(failurePolicy="Ignore", clientConfig=client)
    with webhook.installed(kube_apiserver, namespace, gone):
        assert post(kube_apiserver, config_map(namespace)).status == 201
    _, text, _ = kube_apiserver.request("GET", "/metrics")
    counted = f'\napiserver_admission_webhook_fail_open_count{{name="{NAME}",type="admit"}} '
    assert counted in text


def test_a_webhook_that_another_authority_vouches_for_fails(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    other = base64.b64encode(cluster.ca_file.read_bytes()).decode()
    client = {"url": f"{webhook.url}/", "caBundle": other}
    with webhook.installed(cluster, namespace, webhook.definition(clientConfig=client)):
        answer = post(cluster, config_map(namespace))
    assert answer.status == 500
    assert "failed to call webhook" in answer.body["message"]
    assert webhook.requests == []


def test_a_patch_that_does_not_fit_is_an_internal_error(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = patching({"op": "remove", "path": "/data/none"})
    with webhook.installed(cluster, namespace):
        answer = post(cluster, config_map(namespace))
    assert (answer.status, answer.body["reason"]) == (500, "InternalError")


def test_what_a_patch_makes_is_validated(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    webhook.answers["/"] = patching({"op": "add", "path": "/data", "value": {"a b": "c"}})
    with webhook.installed(cluster, namespace):
        answer = post(cluster, config_map(namespace))
    assert answer.status == 422
    assert answer.body["message"].startswith('ConfigMap "a" is invalid: data[a b]: Invalid value:')


def rule(**changes: object) -> Object:
    plain = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"rules": [rule()]}, True),
        ({"rules": [rule(operations=["UPDATE"])]}, False),
        ({"rules": [rule(operations=["UPDATE"]), rule(operations=["*"])]}, True),
        ({"rules": [rule(apiGroups=["argoproj.io"])]}, False),
        ({"rules": [rule(apiGroups=["*"], resources=["*"])]}, True),
        ({"rules": [rule(resources=["configmaps/status"])]}, False),
        ({"rules": [rule(scope="Cluster")]}, False),
        ({"rules": [rule(scope="Namespaced")]}, True),
        ({"objectSelector": {"matchLabels": {"l": "1"}}}, True),
        ({"objectSelector": {"matchExpressions": [{"key": "l", "operator": "DoesNotExist"}]}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "opted", "operator": "Exists"}]}}, True),
        (
            {
                "namespaceSelector": {
                    "matchExpressions": [{"key": "opted", "operator": "NotIn", "values": ["yes"]}],
                    "matchLabels": {"test": "only"},
                }
            },
            False,
        ),
    ],
)
def test_rules_and_selectors_choose_what_is_asked_about(
    cluster: Cluster, webhook: Webhook, options: Object, asked: bool
) -> None:
    namespace = cluster.namespace({"opted": "yes", "test": "only"})
    obj = config_map(namespace)
    obj["metadata"]["labels"] = {"l": "1"}
    with webhook.installed(cluster, namespace, webhook.definition(**options)):
        assert cluster.create(obj)[0] == 201
    assert webhook.paths() == (["/"] if asked else [])


def test_a_status_is_asked_about_only_where_a_rule_names_it(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    container = {"name": "main", "image": "x"}
    pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": namespace}}
    status, body = cluster.create({**pod, "spec": {"containers": [container]}})
    assert status == 201, body
    named = webhook.definition("/status", rules=[rule(resources=["pods/status"], operations=["UPDATE"])])
    with webhook.installed(cluster, namespace, webhook.definition(), named):
        cluster.patch("Pod", namespace, "p", {"status": {"phase": "Running"}}, subresource="status")
    assert webhook.paths() == ["/status"]
    assert webhook.requests[0]["subResource"] == "status"


def test_a_webhook_is_asked_again_when_a_later_one_changed_the_object(
    cluster: Cluster, webhook: Webhook
) -> None:
    namespace = cluster.namespace()
    webhook.answers["/second"] = patching({"op": "add", "path": "/data", "value": {"by": "second"}})
    again = webhook.definition("/first", reinvocationPolicy="IfNeeded")
    once = webhook.definition("/once")
    with webhook.installed(cluster, namespace, again, once, webhook.definition("/second")):
        cluster.create(config_map(namespace))
    assert webhook.paths() == ["/first", "/once", "/second", "/first"]
    assert webhook.requests[3]["object"]["data"] == {"by": "second"}


def test_a_webhook_is_not_asked_again_about_its_own_change(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    webhook.answers["/only"] = patching({"op": "add", "path": "/data", "value": {"by": "only"}})
    only = webhook.definition("/only", reinvocationPolicy="IfNeeded")
    with webhook.installed(cluster, namespace, only):
        cluster.create(config_map(namespace))
    assert webhook.paths() == ["/only"]
