"""Pods: what the server adds before a webhook sees them, their status, and every injected Pod we recorded."""

import json

import pytest

from memoize import names
from tests.cluster import Answer, Cluster, Object
from tests.contract.webhook import Webhook, patching
from tests.recordedpods import PODS

pytestmark = pytest.mark.contract

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
RECORDED = PODS
GOLDEN = sorted(str(path.relative_to(RECORDED)) for path in RECORDED.glob("*/*.golden.json"))
OURS = {names.CHECK_CONTAINER, names.CAPTURE_CONTAINER}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pod(namespace: str, name: str = "p", **spec: object) -> Object:
    containers = [{"name": "main", "image": "x", "command": ["true"]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": containers, **spec},
    }


def token_mounts(container: Object) -> list[Object]:
    return [mount for mount in container.get("volumeMounts", []) if mount["mountPath"] == TOKEN_PATH]


def test_a_webhook_sees_the_pod_with_its_account_and_token(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    with webhook.installed(cluster, namespace):
        cluster.create(pod(namespace))
    seen = webhook.requests[0]["object"]["spec"]
    assert (seen["serviceAccountName"], seen["restartPolicy"]) == ("default", "Always")
    (volume,) = seen["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
    mount = {"name": volume["name"], "readOnly": True, "mountPath": TOKEN_PATH}
    assert token_mounts(seen["containers"][0]) == [mount]


def test_a_container_that_a_webhook_adds_gets_the_token_too(cluster: Cluster, webhook: Webhook) -> None:
    namespace = cluster.namespace()
    added = {"name": "added", "image": "x"}
    webhook.answers["/"] = patching({"op": "add", "path": "/spec/containers/-", "value": added})
    with webhook.installed(cluster, namespace):
        status, created = cluster.create(pod(namespace))
    assert status == 201
    main, other = created["spec"]["containers"]
    assert token_mounts(other) == token_mounts(main) != []
    assert len(created["spec"]["volumes"]) == 1


def test_a_pod_can_do_without_a_token(cluster: Cluster) -> None:
    _, created = cluster.create(pod(cluster.namespace(), automountServiceAccountToken=False))
    assert "volumes" not in created["spec"]
    assert "volumeMounts" not in created["spec"]["containers"][0]


def test_an_account_that_is_not_there_is_403(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    status, body = cluster.create(pod(namespace, serviceAccountName="nobody"))
    assert status == 403
    assert body["message"] == (
        f'pods "p" is forbidden: error looking up service account {namespace}/nobody: '
        'serviceaccount "nobody" not found'
    )


def test_a_pod_begins_pending_whatever_its_maker_says(cluster: Cluster) -> None:
    obj = pod(cluster.namespace()) | {"status": {"phase": "Succeeded"}}
    _, created = cluster.create(obj)
    assert created["status"]["phase"] == "Pending"


def test_the_status_is_written_through_its_subresource_alone(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, created = cluster.create(pod(namespace))
    _, through_main = cluster.patch("Pod", namespace, "p", {"status": {"phase": "Running"}})
    assert through_main["status"]["phase"] == "Pending"
    patch = {"status": {"phase": "Succeeded"}, "spec": {"containers": []}}
    status, body = cluster.patch("Pod", namespace, "p", patch, subresource="status")
    assert (status, body["status"]["phase"]) == (200, "Succeeded")
    assert body["spec"] == created["spec"]


def test_labels_can_be_patched(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(pod(namespace))
    patch = {"metadata": {"labels": {names.DOMAIN + "/result": "hit"}}}
    status, body = cluster.patch("Pod", namespace, "p", patch)
    assert (status, body["metadata"]["labels"]) == (200, {names.DOMAIN + "/result": "hit"})


@pytest.mark.parametrize(
    ("containers", "field", "reason"),
    [
        ([], "spec.containers", "FieldValueRequired"),
        (
            [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}],
            "spec.containers[1].name",
            "FieldValueDuplicate",
        ),
        (
            [{"name": "a", "image": "x", "volumeMounts": [{"name": "none", "mountPath": "/x"}]}],
            "spec.containers[0].volumeMounts[0].name",
            "FieldValueNotFound",
        ),
    ],
)
def test_a_pod_that_cannot_be_is_422(
    cluster: Cluster, containers: list[Object], field: str, reason: str
) -> None:
    namespace = cluster.namespace()
    status, body = cluster.create(pod(namespace, containers=containers))
    assert status == 422
    causes = [(cause["field"], cause["reason"]) for cause in body["details"]["causes"]]
    assert causes == [(field, reason)]


def submitted(cluster: Cluster, recorded: Object, labels: dict[str, str] | None = None) -> Answer:
    """A dry-run create of a recorded Pod, in a fresh namespace, that tolerates no unknown field."""
    namespace = cluster.namespace(labels)
    recorded["metadata"]["namespace"] = namespace
    account = recorded["spec"].get("serviceAccountName", "default")
    cluster.create({"kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}})
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return cluster.request("POST", cluster.path("Pod", namespace), recorded, query=query)


def load(case: str) -> Object:
    found: Object = json.loads((RECORDED / case).read_text())
    return found


@pytest.mark.parametrize("case", GOLDEN)
def test_the_real_server_accepts_an_injected_pod(kube_apiserver: Cluster, case: str) -> None:
    status, body, _ = submitted(kube_apiserver, load(case))
    assert status == 201, body


@pytest.mark.parametrize("case", GOLDEN)
def test_what_is_injected_satisfies_the_restricted_standard(kube_apiserver: Cluster, case: str) -> None:
    """Argo's and the author's containers are made to satisfy it; ours have to of themselves."""
    injected = load(case)
    spec = injected["spec"]
    spec["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        if container["name"] not in OURS:
            container["securityContext"] = {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    status, body, _ = submitted(kube_apiserver, injected, RESTRICTED)
    assert status == 201, body


def test_the_standard_would_refuse_a_container_that_does_not_satisfy_it(kube_apiserver: Cluster) -> None:
    status, body, _ = submitted(kube_apiserver, load(GOLDEN[0]), RESTRICTED)
    assert status == 403
    assert "violates PodSecurity" in body["message"]


def test_there_are_injected_pods_to_look_at() -> None:
    assert len(GOLDEN) >= 40
