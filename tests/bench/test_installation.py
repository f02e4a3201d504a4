import shutil
from typing import Any

import pytest

from bench import installation
from bench.installation import Deployment, lookup_of, rolled_out
from bench.kube import KubeError, connected
from tests.cluster import Cluster


@pytest.mark.parametrize(
    ("container", "lookup"),
    [
        ({}, "service"),
        ({"env": [{"name": "STEPMEMO_IMAGE", "value": "x"}]}, "service"),
        ({"args": ["--injection=image-volume"]}, "service"),
        ({"args": ["--access=direct"]}, "init-container"),
        ({"args": ["--access", "direct", "--injection", "image-volume"]}, "image-volume"),
        (
            {"args": ["--access=direct"], "env": [{"name": "STEPMEMO_INJECTION", "value": "image-volume"}]},
            "image-volume",
        ),
        ({"args": ["--access=service"], "env": [{"name": "STEPMEMO_ACCESS", "value": "direct"}]}, "service"),
    ],
)
def test_the_way_of_the_look_up_is_read_as_the_server_reads_it(
    container: dict[str, Any], lookup: str
) -> None:
    assert lookup_of(container) == lookup


def deployment(**status: int) -> dict[str, Any]:
    full = {"observedGeneration": 2, "updatedReplicas": 2, "readyReplicas": 2}
    return {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {**full, **status}}


def test_a_roll_out_is_over_when_no_pod_of_before_is_left() -> None:
    assert rolled_out(deployment(), pods=2)
    assert not rolled_out(deployment(), pods=3)
    assert not rolled_out(deployment(observedGeneration=1), pods=2)
    assert not rolled_out(deployment(updatedReplicas=1), pods=2)
    assert not rolled_out(deployment(readyReplicas=1), pods=2)
    assert not rolled_out({**deployment(), "status": {}}, pods=2)


def from_secret(name: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_variables_of_one_container_are_set_and_set_back(
    kube_apiserver: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube_apiserver.kubeconfig))
    monkeypatch.setattr(installation, "_ROLLOUT_SECONDS", 0.0)  # nothing rolls Deployments out here
    namespace, labels = kube_apiserver.namespace(), {"app": "x"}
    before = [
        {"name": "a", "image": "x", "env": [{"name": "KEPT", "value": "1"}, from_secret("T")]},
        {"name": "b", "image": "x", "env": [{"name": "T", "value": "other"}]},
    ]
    template = {"metadata": {"labels": labels}, "spec": {"containers": before}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    assert kube_apiserver.request("POST", path, {"metadata": {"name": "x"}, "spec": spec}).status == 201
    with connected() as kube:
        deployment = Deployment(kube, namespace, "x")

        def after(**entries: dict[str, Any] | None) -> dict[str, list[Any]]:
            with pytest.raises(KubeError, match="the Deployment x does not roll out"):
                deployment.set_variables("a", entries)
            return {one["name"]: one.get("env", []) for one in deployment.containers()}

        kept = {"name": "KEPT", "value": "1"}
        untouched = before[1]["env"]
        assert after(T={"name": "T", "value": "100ms"}) == {
            "a": [kept, {"name": "T", "value": "100ms"}],
            "b": untouched,
        }
        assert after(T=from_secret("T")) == {"a": [kept, from_secret("T")], "b": untouched}
        assert after(T=None) == {"a": [kept], "b": untouched}
