"""What a Pod's review costs grows with the Pod, up to as many containers as are looked at."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from argo import names as argo
from argo.steppod import StepPod
from memoize import names
from tests.work import grows
from webhook.inject.containers import InjectSettings
from webhook.inject.patch import inject
from webhook.pods import room, traces
from webhook.pods.decision import Inject, Skip, classify_pod, plan_injection
from webhook.pods.delivery import Delivery

Json = dict[str, Any]
TOKEN = {"name": "token", "mountPath": argo.SERVICEACCOUNT_DIR}
ARGO = {"name": "argo", "mountPath": argo.DIR}


def managed(name: str, **fields: Any) -> Json:
    env = [{"name": argo.ENV_CONTAINER_NAME, "value": name}]
    return {"name": name, "command": ["x"], "env": env, "volumeMounts": [TOKEN, ARGO], **fields}


def pod(template: Json) -> Json:
    init = managed("init")
    init["env"].append({"name": argo.ENV_TEMPLATE, "value": json.dumps(template)})
    return {
        "metadata": {
            "name": "p",
            "labels": {argo.WORKFLOW_LABEL: "w"},
            "annotations": {names.KEY: "k", names.CACHE: "c"},
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1",
                    "kind": "Workflow",
                    "name": "w",
                    "uid": "u",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [init],
            "containers": [managed("wait"), managed("main")],
            "volumes": [],
        },
    }


def with_containers(size: int) -> Json:
    whole = pod({"container": {}})
    whole["spec"]["containers"] += [managed(f"c{number}") for number in range(size)]
    return whole


def with_mains(size: int) -> Json:
    mains = [{"name": f"c{number}"} for number in range(size)] + [{"name": "main"}]
    whole = pod({"containerSet": {"containers": mains}})
    whole["spec"]["containers"] += [managed(f"c{number}") for number in range(size)]
    return whole


def with_inits(size: int) -> Json:
    inits = [{"name": f"i{number}"} for number in range(size)]
    whole = pod({"container": {}, "initContainers": inits})
    whole["spec"]["initContainers"] += [managed(init["name"]) for init in inits]
    return whole


def with_mounts_and_variables(size: int) -> Json:
    whole = with_containers(4)
    for container in whole["spec"]["containers"]:
        container["volumeMounts"] += [{"name": "v", "mountPath": f"/v{n}"} for n in range(size)]
        container["env"] += [{"name": f"V{n}", "value": "x"} for n in range(size)]
    whole["spec"]["volumes"] += [{"name": f"v{n}"} for n in range(size)]
    return whole


def with_outputs(size: int) -> Json:
    named = [{"name": f"o{number}", "valueFrom": {"path": "/x"}} for number in range(size)]
    return pod({"container": {}, "outputs": {"parameters": named, "artifacts": named}})


def with_traces(size: int) -> Json:
    whole = with_containers(size)
    for container in whole["spec"]["containers"]:
        container["command"] = [names.ENTRYPOINT, "-r", "x", "--", "x"]
        container["volumeMounts"] = [*container["volumeMounts"], {"name": names.VOLUME, "mountPath": "/s"}]
    whole["spec"]["volumes"] = [{"name": names.VOLUME}] * size
    whole["spec"]["schedulingGates"] = [{"name": names.SCHEDULING_GATE}] * size
    return whole


def with_a_deep_annotation(size: int) -> Json:
    whole = pod({"container": {}})
    inner: Json = {}
    for _ in range(size):
        inner = {"f": inner, "g": {}}
    whole["spec"]["affinity"] = inner
    return whole


@pytest.mark.parametrize("injection", Delivery)
@pytest.mark.parametrize(
    "made",
    [
        with_containers,
        with_mains,
        with_inits,
        with_mounts_and_variables,
        with_outputs,
        with_traces,
        with_a_deep_annotation,
    ],
)
def test_a_review_takes_work_that_grows_with_the_pod(
    made: Callable[[int], Json], injection: Delivery
) -> None:
    settings = InjectSettings(image="x", injection=injection)

    def review(whole: Json) -> None:
        cleared, _ = traces.cleared(whole)
        step = classify_pod(StepPod.parse(cleared, "n"), {}, {})
        assert not isinstance(step, Skip), step
        decision = plan_injection(step, injection)
        assert isinstance(decision, Inject), decision
        assert not room.too_large(cleared, inject(cleared, decision.plan, settings))

    assert grows(review, made, 25) <= 2.3


def test_a_pod_has_no_more_containers_than_are_looked_at() -> None:
    most = {"spec": {"initContainers": [{}], "containers": [{}] * (room.CONTAINERS - 1)}}
    assert not room.too_many_containers(most)
    most["spec"]["containers"].append({})
    assert room.too_many_containers(most)
    assert not room.too_many_containers({"spec": {"containers": "many"}})
