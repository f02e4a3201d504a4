"""Our own server behind an API server: what somebody with kubectl or a controller gets to see."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoize import names
from tests.cluster import Answer, Cluster, Object, wait_for
from tests.contract.stepmemo import Stepmemo, installed

pytestmark = pytest.mark.contract

RECORDED = Path(__file__).parent.parent / "data" / "pods"


@pytest.fixture(scope="module")
def stepmemo(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepmemo]:
    with installed(cluster, tmp_path_factory.mktemp("stepmemo")) as running:
        yield running


def memoized(key: str = "{{inputs.parameters.n}}") -> Object:
    return {
        "name": "main",
        "inputs": {"parameters": [{"name": "n", "value": "1"}]},
        "memoize": {"key": key, "maxAge": "1h", "cache": {"configMap": {"name": "memo"}}},
        "container": {"image": "x"},
    }


def workflow(namespace: str, *templates: Object, **annotations: str) -> Object:
    metadata = {"name": "w", "namespace": namespace, "annotations": annotations}
    spec = {"entrypoint": "main", "templates": list(templates)}
    return {"apiVersion": names.ARGO_API_VERSION, "kind": "Workflow", "metadata": metadata, "spec": spec}


def post(cluster: Cluster, obj: Object) -> Answer:
    return cluster.request("POST", cluster.path(obj["kind"], obj["metadata"]["namespace"]), obj)


def test_a_broken_workflow_is_denied_with_every_error(cluster: Cluster, stepmemo: Stepmemo) -> None:
    namespace = stepmemo.namespace()
    template = memoized("")
    template["memoize"]["maxAge"] = "1 hour"
    answer = post(cluster, workflow(namespace, template))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    fields = {cause["field"] for cause in answer.body["details"]["causes"]}
    assert fields == {"spec.templates[0].memoize.key", "spec.templates[0].memoize.maxAge"}
    message = answer.body["message"]
    assert message.startswith('admission webhook "workflows.stepmemo.dev" denied the request: ')
    assert all(field in message for field in fields)
    assert cluster.get("Workflow", namespace, "w")[0] == 404


def test_an_opted_in_template_is_taken_over(cluster: Cluster, stepmemo: Stepmemo) -> None:
    namespace = stepmemo.namespace({names.MEMOIZE: "true"})
    status, created, _ = post(cluster, workflow(namespace, memoized()))
    assert status == 201, created
    (template,) = created["spec"]["templates"]
    assert "memoize" not in template
    annotations = template["metadata"]["annotations"]
    assert annotations[names.KEY] == "{{inputs.parameters.n}}"
    assert (annotations[names.CACHE], annotations[names.MAX_AGE]) == ("memo", "1h")
    assert cluster.get("Workflow", namespace, "w")[1]["spec"] == created["spec"]


def test_what_is_doubtful_is_warned_of(cluster: Cluster, stepmemo: Stepmemo) -> None:
    answer = post(cluster, workflow(stepmemo.namespace(), memoized("constant")))
    assert answer.status == 201
    assert answer.warnings
    assert all(text.startswith('299 - "spec.templates[0].memoize') for text in answer.warnings)


def test_a_namespace_can_ask_for_warnings_instead(cluster: Cluster, stepmemo: Stepmemo) -> None:
    namespace = stepmemo.namespace({names.VALIDATE: "warn"})
    answer = post(cluster, workflow(namespace, memoized("")))
    assert answer.status == 201
    assert any("memoize.key" in text for text in answer.warnings)


def test_a_step_pod_is_injected(cluster: Cluster, stepmemo: Stepmemo) -> None:
    golden = recording("container.golden")
    created = created_step(cluster, stepmemo)
    for field in ("initContainers", "containers"):
        assert commands(created, field) == commands(golden, field)
    assert [v["name"] for v in created["spec"]["volumes"]] == [v["name"] for v in golden["spec"]["volumes"]]


def test_a_step_pod_is_injected_with_our_image_as_a_volume(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    golden = recording("container.image-volume.golden")
    with installed(cluster, tmp_path_factory.mktemp("stepmemo"), "image-volume") as stepmemo:
        created = created_step(cluster, stepmemo)
    for field in ("initContainers", "containers"):
        assert commands(created, field) == commands(golden, field)
    assert created["spec"]["volumes"] == golden["spec"]["volumes"]
    assert created["spec"]["containers"][0]["restartPolicyRules"]


def recording(case: str) -> Object:
    found: Object = json.loads((RECORDED / "v4.1.2-legacy" / f"{case}.json").read_text(encoding="utf-8"))
    return found


def created_step(cluster: Cluster, stepmemo: Stepmemo) -> Object:
    """The recorded Pod of a step, created for a Workflow in a namespace of the installation."""
    namespace = stepmemo.namespace({names.MEMOIZE: "true"})
    recorded = recording("container")
    recorded["metadata"]["namespace"] = namespace
    (owner,) = recorded["metadata"]["ownerReferences"]
    owning = workflow(namespace) | {"metadata": {"name": owner["name"], "namespace": namespace}}
    _, owning = cluster.create(owning)
    owner["uid"] = owning["metadata"]["uid"]
    account = recorded["spec"].get("serviceAccountName", "default")
    cluster.create({"kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}})
    status, created = cluster.create(recorded)
    assert status == 201, created
    pod: Object = created
    return pod


def commands(pod: Object, field: str) -> dict[str, list[str]]:
    return {container["name"]: container.get("command", []) for container in pod["spec"][field]}


def test_a_pod_of_nobody_concerned_is_left_alone(cluster: Cluster, stepmemo: Stepmemo) -> None:
    metadata = {"name": "p", "namespace": stepmemo.namespace({names.MEMOIZE: "true"})}
    spec = {"containers": [{"name": "main", "image": "x"}]}
    _, created = cluster.create({"kind": "Pod", "metadata": metadata, "spec": spec})
    assert [container["name"] for container in created["spec"]["containers"]] == ["main"]
    assert "initContainers" not in created["spec"]


def test_a_broken_cron_workflow_from_before_runs_on_until_its_workflow_is_edited(
    cluster: Cluster, stepmemo: Stepmemo
) -> None:
    """Its controller's own writes are updates of the whole object."""
    namespace = cluster.namespace()
    cron = {
        "apiVersion": names.ARGO_API_VERSION,
        "kind": "CronWorkflow",
        "metadata": {"name": "c", "namespace": namespace},
        "spec": {"schedules": ["0 0 * * *"], "workflowSpec": workflow(namespace, memoized(""))["spec"]},
    }
    assert cluster.create(cron)[0] == 201
    cluster.patch("Namespace", "", namespace, {"metadata": {"labels": stepmemo.label}})
    edits = ({"spec": {"workflowSpec": {"priority": number}}} for number in itertools.count())
    wait_for(lambda: cluster.patch("CronWorkflow", namespace, "c", next(edits))[0] == 422)
    scheduled = {"status": {"lastScheduledTime": "2026-01-01T00:00:00Z"}, "metadata": {"labels": {"x": "y"}}}
    assert cluster.patch("CronWorkflow", namespace, "c", scheduled)[0] == 200
