"""Our own server behind an API server: what somebody with kubectl or a controller gets to see."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from argo import names as argo
from devcluster.installation import ACCESS_DIRECT
from memoize import names
from memoize.key import data_key
from server.smoke_test import smoke_test
from tests.cluster import Answer, Cluster, Object, wait_for
from tests.contract.stepmemo import Stepmemo, installed
from tests.recordedpods import PODS
from tests.webhook.serving import api_client

pytestmark = pytest.mark.contract

RECORDED = PODS


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
    return {"apiVersion": argo.API_VERSION, "kind": "Workflow", "metadata": metadata, "spec": spec}


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


async def test_a_smoke_test_sees_that_the_webhook_is_asked(
    cluster: Cluster, stepmemo: Stepmemo, tmp_path: Path
) -> None:
    async with api_client(cluster) as api:
        await smoke_test(api, [], tmp_path / "unused", 60)


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


def test_a_step_pod_is_injected_where_each_step_reaches_its_caches(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    golden = recording("container.golden")
    with installed(cluster, tmp_path_factory.mktemp("stepmemo"), ACCESS_DIRECT) as direct:
        created = created_step(cluster, direct)
    for field in ("initContainers", "containers"):
        assert commands(created, field) == commands(golden, field)
    assert [v["name"] for v in created["spec"]["volumes"]] == [v["name"] for v in golden["spec"]["volumes"]]


def test_a_step_pod_is_injected_with_our_image_as_a_volume(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    golden = recording("container.image-volume.golden")
    components = "image-volume", ACCESS_DIRECT
    with installed(cluster, tmp_path_factory.mktemp("stepmemo"), *components) as direct:
        created = created_step(cluster, direct)
    for field in ("initContainers", "containers"):
        assert commands(created, field) == commands(golden, field)
    assert created["spec"]["volumes"] == golden["spec"]["volumes"]
    assert created["spec"]["containers"][0]["restartPolicyRules"]


def test_a_step_pod_with_an_answer_is_completed_under_the_manifests_rights(
    cluster: Cluster, stepmemo: Stepmemo
) -> None:
    namespace = stepmemo.namespace({names.MEMOIZE: "true"})
    annotations = recording("container")["metadata"]["annotations"]
    cache = {
        "kind": "ConfigMap",
        "metadata": {
            "name": annotations[names.CACHE],
            "namespace": namespace,
            "labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE},
        },
        "data": {data_key(annotations[names.KEY]): entry()},
    }
    assert cluster.create(cache)[0] == 201

    pod = wait_until_decided(cluster, created_step(cluster, stepmemo, namespace))

    assert (pod["status"]["phase"], pod["status"].get("reason")) == ("Succeeded", "Memoized")
    assert pod["metadata"]["labels"][names.RESULT] == names.RESULT_HIT
    assert "nodeName" not in pod["spec"]
    result = cluster.get("WorkflowTaskResult", namespace, pod["metadata"]["annotations"][argo.NODE_ID])[1]
    assert result["outputs"]["parameters"][0]["value"] == "from the cache"


def test_a_step_pod_without_an_answer_is_released_under_the_manifests_rights(
    cluster: Cluster, stepmemo: Stepmemo
) -> None:
    recorded = recording("container")["spec"]

    pod = wait_until_decided(cluster, created_step(cluster, stepmemo))

    assert pod["metadata"]["labels"][names.RESULT] == names.RESULT_MISS
    assert "schedulingGates" not in pod["spec"]
    for field in ("initContainers", "containers"):
        assert [each["name"] for each in pod["spec"][field]] == [each["name"] for each in recorded[field]]


def entry() -> str:
    """What another step of the recorded template left, as Argo writes it."""
    (wait,) = [each for each in recording("container")["spec"]["initContainers"] if each["name"] == "init"]
    (template,) = [each["value"] for each in wait["env"] if each["name"] == argo.ENV_TEMPLATE]
    declared = json.loads(template).get("outputs", {})
    parameters = [{**each, "value": "from the cache"} for each in declared.get("parameters", [])]
    outputs = {"parameters": parameters, "result": "x", "exitCode": "0"}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {"nodeID": "other", "outputs": outputs, "creationTimestamp": now, "lastHitTimestamp": now}
    )


def wait_until_decided(cluster: Cluster, created: Object) -> Object:
    """The Pod, which was held, once it is no longer."""
    assert created["spec"]["schedulingGates"] == [{"name": names.SCHEDULING_GATE}]
    assert created["metadata"]["labels"][names.RESULT] == names.RESULT_GATED
    metadata = created["metadata"]
    seen: list[Object] = []

    def decided() -> bool:
        seen.append(cluster.get("Pod", metadata["namespace"], metadata["name"])[1])
        return seen[-1]["metadata"]["labels"][names.RESULT] != names.RESULT_GATED

    wait_for(decided)
    return seen[-1]


def recording(case: str) -> Object:
    found: Object = json.loads((RECORDED / "v4.1.2-legacy" / f"{case}.json").read_text(encoding="utf-8"))
    return found


def created_step(cluster: Cluster, stepmemo: Stepmemo, namespace: str = "") -> Object:
    """The recorded Pod of a step, created for a Workflow in a namespace of the installation."""
    namespace = namespace or stepmemo.namespace({names.MEMOIZE: "true"})
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
        "apiVersion": argo.API_VERSION,
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


def test_a_template_that_is_applied_again_as_it_was_written_is_no_change(
    cluster: Cluster, stepmemo: Stepmemo
) -> None:
    """As Flux compares, and Argo CD where it is told to: by a server-side apply that webhooks see."""
    if cluster.services is not None:
        pytest.skip("the devcluster knows no server-side apply")
    namespace = stepmemo.namespace({names.MEMOIZE: "true"})
    template = {**workflow(namespace, memoized()), "kind": "WorkflowTemplate"}
    path = f"{cluster.path('WorkflowTemplate', namespace, 'w')}?fieldManager=flux"

    def apply(dry_run: str = "") -> Object:
        body = json.dumps(template).encode()
        answer = cluster.request("PATCH", path + dry_run, body, content_type="application/apply-patch+yaml")
        assert answer.status in (200, 201), answer.body
        return answer.body

    made = apply()
    assert "memoize" not in made["spec"]["templates"][0]
    for again in (apply("&dryRun=All"), apply()):  # what only the API server writes is not compared
        assert again["spec"] == made["spec"]
        assert again["metadata"].get("annotations") == made["metadata"].get("annotations")
