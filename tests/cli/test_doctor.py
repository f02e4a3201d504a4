"""`stepmemo doctor` on an installation of the real programs, in front of a real API server."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from argo import names as argo
from cli import checks, session
from memoize import names
from tests.cli.conftest import Stepmemo, kubeconfig, runner
from tests.cluster import Cluster
from tests.contract import webhook
from tests.contract.stepmemo import Stepmemo as Installation
from tests.contract.stepmemo import installed

Json = dict[str, Any]


@pytest.fixture
def stepmemo(
    kube_apiserver: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Stepmemo:
    """Runs a command against the real API server, by the clock that its certificates are of."""
    found = runner(kube_apiserver, monkeypatch, capsys)
    monkeypatch.setattr(session, "now", lambda: datetime.now(UTC))
    return found


@pytest.fixture(scope="module")
def installation(kube_apiserver: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Both programs, the objects of their Deployments, and one of Argo's controller."""
    with installed(kube_apiserver, tmp_path_factory.mktemp("doctor")) as found:
        home = found.label["test.stepmemo.dev/installation"]
        deploy(
            kube_apiserver,
            home,
            "stepmemo-webhook",
            f"--webhook-configuration={home}",
            image="stepmemo:golden",
        )
        deploy(kube_apiserver, home, "stepmemo-keeper", image="stepmemo:golden")
        image = "quay.io/argoproj/workflow-controller:v4.1.2"
        deploy(kube_apiserver, home, "workflow-controller", image=image)
        yield found


def deploy(cluster: Cluster, namespace: str, name: str, *args: str, image: str) -> None:
    """A Deployment whose one replica is ready."""
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": name, "image": image, "args": args}]},
    }
    body = {
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    assert cluster.request("POST", path, body).status == 201
    ready = {"status": {"replicas": 1, "readyReplicas": 1}}
    kind = "application/merge-patch+json"
    assert cluster.request("PATCH", f"{path}/{name}/status", ready, content_type=kind).status == 200


@pytest.fixture
def doctor(installation: Installation, stepmemo: Stepmemo) -> Any:
    """Runs it for a Namespace: exit code, and findings by what they are about."""
    home = installation.label["test.stepmemo.dev/installation"]

    def run(namespace: str, *args: str) -> tuple[int, dict[str, Json]]:
        where = ["--stepmemo-namespace", home, "--argo-namespace", home, "-n", namespace]
        code, out, err = stepmemo("doctor", *where, "-o", "json", *args)
        assert err == ""
        return code, {item["check"]: item for item in json.loads(out)["items"]}

    return run


def grant(cluster: Cluster, namespace: str, verbs: list[str]) -> None:
    rule = {"apiGroups": [argo.GROUP], "resources": ["workflowtaskresults"], "verbs": verbs}
    cluster.service_account(namespace, "default", [rule])


def test_a_sound_installation(kube_apiserver: Cluster, installation: Installation, doctor: Any) -> None:
    namespace = installation.namespace()
    grant(kube_apiserver, namespace, ["create", "patch"])
    code, found = doctor(namespace)
    levels = {check: item["level"] for check, item in found.items()}
    assert levels == {
        "kubernetes": "ok",
        "stepmemo-webhook": "ok",
        "webhook configuration": "ok",
        "certificate": "ok",
        "webhook": "ok",
        "stepmemo-keeper": "ok",
        "keeper": "ok",
        "policies": levels["policies"],
        "argo": "ok",
        "requeue time": "warn",
        "namespace": "ok",
        "account default": "ok",
        "containers": "ok",
    }
    assert code == 0
    assert "5 hits in a row take about 50s" in found["requeue time"]["said"]
    assert found["requeue time"]["cure"].endswith("DEFAULT_REQUEUE_TIME=1s")


def test_a_namespace_that_the_webhook_is_not_asked_about(
    kube_apiserver: Cluster, installation: Installation, doctor: Any
) -> None:
    code, found = doctor(kube_apiserver.namespace())
    assert (code, found["webhook"]["level"]) == (1, "fail")
    assert "not reached, not trusted, or not asked about this Namespace" in found["webhook"]["said"]
    assert found["account default"]["said"].startswith("may not create and patch workflowtaskresults")


def test_with_access_direct_the_accounts_of_steps_need_their_caches(
    kube_apiserver: Cluster, stepmemo: Stepmemo
) -> None:
    home, namespace = kube_apiserver.namespace(), kube_apiserver.namespace()
    deploy(kube_apiserver, home, "stepmemo-webhook", "--access=direct", image="stepmemo:golden")
    reporting = {
        "apiGroups": [argo.GROUP],
        "resources": ["workflowtaskresults"],
        "verbs": ["create", "patch"],
    }
    reading = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    writing = {**reading, "verbs": ["create", "patch"]}
    kube_apiserver.service_account(namespace, "default", [reporting, reading])

    def account() -> Json:
        _, out, _ = stepmemo("doctor", "--stepmemo-namespace", home, "-n", namespace, "-o", "json")
        (found,) = [item for item in json.loads(out)["items"] if item["check"] == "account default"]
        return dict(found)

    lacking = account()
    assert lacking["level"] == "fail"
    assert lacking["said"].startswith("may not create and patch configmaps, which with --access direct")
    assert f"kubectl -n {namespace} create role stepmemo-caches --verb=get,create,patch" in lacking["cure"]
    kube_apiserver.set_rules(namespace, "default", [reporting, reading, writing])
    assert account()["said"].endswith("workflowtaskresults, and get, create and patch configmaps")


def test_of_a_certificate_in_files_it_says_where_to_look(
    kube_apiserver: Cluster, installation: Installation, stepmemo: Stepmemo
) -> None:
    home, configured = kube_apiserver.namespace(), installation.label["test.stepmemo.dev/installation"]
    argv = ("--certs=files", f"--webhook-configuration={configured}")
    deploy(kube_apiserver, home, "stepmemo-webhook", *argv, image="stepmemo:golden")
    _, out, _ = stepmemo("doctor", "--stepmemo-namespace", home, "-n", installation.namespace(), "-o", "json")
    (found,) = [item for item in json.loads(out)["items"] if item["check"] == "certificate"]
    assert (found["level"], "it is in files (--certs files)" in found["said"]) == ("unknown", True)


def test_a_limit_range_that_refuses_our_containers(
    kube_apiserver: Cluster, installation: Installation, doctor: Any
) -> None:
    namespace = installation.namespace()
    limits = {"type": "Container", "max": {"memory": "20Mi"}, "default": {"memory": "16Mi"}}
    body = {"metadata": {"name": "small"}, "spec": {"limits": [limits]}}
    assert kube_apiserver.request("POST", f"/api/v1/namespaces/{namespace}/limitranges", body).status == 201
    code, found = doctor(namespace)
    assert (code, found["containers"]["level"]) == (1, "fail")
    assert "maximum memory usage per Container is 20Mi" in found["containers"]["said"]


def is_ours(request: Json) -> bool:
    spec = request["object"]["spec"]
    return any(
        one["name"] in names.CONTAINERS for one in (*spec.get("initContainers", ()), *spec["containers"])
    )


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        ({"allowed": False, "status": {"message": "bad image"}}, "fail", "denied the request: bad image"),
        ({"allowed": False}, "fail", "denied the request without explanation"),
        ((500, "broken"), "unknown", "cannot create pods by a dry run"),
    ],
)
def test_a_policys_webhook_that_refuses_our_containers_or_fails(
    answer: Any,
    level: str,
    said: str,
    kube_apiserver: Cluster,
    installation: Installation,
    doctor: Any,
    tmp_path: Path,
) -> None:
    namespace = installation.namespace()
    with webhook.serving(tmp_path) as policy:
        policy.answers["/"] = lambda request: answer if is_ours(request) else webhook.allow(request)
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        with policy.installed(kube_apiserver, namespace, policy.definition(rules=[rule])):
            _, found = doctor(namespace)
    assert found["containers"]["level"] == level
    assert said in found["containers"]["said"]


def test_the_strictest_pod_security_takes_our_containers(installation: Installation, doctor: Any) -> None:
    namespace = installation.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    _, found = doctor(namespace)
    assert found["containers"]["level"] == "ok"
    assert "Pod Security: restricted" in found["namespace"]["said"]


def test_where_nothing_is_installed_everything_has_a_cure(
    kube_apiserver: Cluster, stepmemo: Stepmemo
) -> None:
    namespace = kube_apiserver.namespace()
    code, out, _ = stepmemo("doctor", "--stepmemo-namespace", namespace, "-n", namespace, "-o", "json")
    failed = {item["check"]: item["cure"] for item in json.loads(out)["items"] if item["level"] == "fail"}
    assert code == 1
    assert failed.keys() >= {"webhook configuration", "stepmemo-webhook", "stepmemo-keeper", "keeper"}
    assert all(failed.values())


def test_without_rights_it_says_what_it_could_not_look_at(
    kube_apiserver: Cluster, installation: Installation, doctor: Any, tmp_path: Path
) -> None:
    namespace = installation.namespace()
    token = kube_apiserver.service_account(namespace, "person", [])
    code, found = doctor(namespace, "--kubeconfig", kubeconfig(kube_apiserver, token, tmp_path))
    assert {item["level"] for check, item in found.items() if check != "kubernetes"} == {"unknown"}
    assert code == 0
    said = " ".join(item["said"] for item in found.values())
    for right in (
        "mutatingwebhookconfigurations",
        "leases",
        "deployments",
        "subjectaccessreviews",
        "namespaces",
    ):
        assert f'resource "{right}"' in said


def test_nothing_is_left_behind(kube_apiserver: Cluster, installation: Installation, doctor: Any) -> None:
    namespace = installation.namespace()
    doctor(namespace)
    assert kube_apiserver.list("Pod", namespace)[1]["items"] == []
    assert kube_apiserver.list("WorkflowTemplate", namespace)[1]["items"] == []


def test_as_a_text(installation: Installation, stepmemo: Stepmemo) -> None:
    home = installation.label["test.stepmemo.dev/installation"]
    args = ["--stepmemo-namespace", home, "--argo-namespace", home, "-n", installation.namespace()]
    code, out, _ = stepmemo("doctor", *args)
    lines = out.splitlines()
    assert code == 1
    assert lines[0].startswith("ok       kubernetes             v1.")
    (at,) = (number for number, line in enumerate(lines) if line.startswith("fail     account default"))
    assert lines[at + 1].strip().startswith("cure: kubectl -n")
    assert checks.Level.FAIL in out
    assert names.KEEPER_STATUS not in out
