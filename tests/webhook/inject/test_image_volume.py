from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from memoize import names
from memoize.step import Step
from tests.webhook.pods import judged
from webhook.inject import image_volume
from webhook.inject.containers import InjectSettings
from webhook.inject.patch import inject
from webhook.pods.decision import Inject
from webhook.pods.delivery import Delivery

Json = dict[str, Any]
SETTINGS = InjectSettings(
    image="registry.test/stepmemo:1",
    image_pull_policy="Always",
    pull_secrets=("ours",),
    injection=Delivery.IMAGE_VOLUME,
)
LIMITED = {"cpu": "500m", "memory": "100Mi"}


ENTRYPOINT = "/stepmemo-image/opt/stepmemo/entrypoint"


def mutate(pod: Json, mode: str = "use", chosen: InjectSettings = SETTINGS) -> Json:
    pod["metadata"]["annotations"][names.MODE] = mode
    decision = judged.decide(pod, "default", {}, {}, chosen.injection)
    assert isinstance(decision, Inject), decision
    spec: Json = jsonpatch.apply_patch(pod, inject(pod, decision.plan, chosen))["spec"]
    return spec


def container(spec: Json, name: str) -> Json:
    everything = [*spec.get("initContainers", []), *spec["containers"]]
    return next(c for c in everything if c["name"] == name)


def ours(spec: Json) -> list[str]:
    """The words of our sidecar's entrypoint, without the Python that it starts."""
    command: list[str] = container(spec, "stepmemo")["command"]
    assert command[command.index("--") + 1 :] == list(names.SIDECAR_COMMAND)
    return command[: command.index("--")]


def entrypoint(spec: Json, name: str) -> list[str]:
    command: list[str] = container(spec, name)["command"]
    return command[: command.index("--")]


def test_one_container_is_added_and_it_comes_first(pod: Json) -> None:
    spec = mutate(pod)
    assert [c["name"] for c in spec["containers"]] == ["stepmemo", "wait", "main"]
    assert spec["initContainers"] == pod["spec"]["initContainers"]


def test_the_image_is_a_volume_pulled_as_the_container_is(pod: Json) -> None:
    spec = mutate(pod)
    assert spec["volumes"][-2:] == [
        {"name": "stepmemo", "emptyDir": {"sizeLimit": "16Mi"}},
        {
            "name": "stepmemo-image",
            "image": {"reference": "registry.test/stepmemo:1", "pullPolicy": "Always"},
        },
    ]
    assert container(spec, "stepmemo")["imagePullPolicy"] == "Always"
    assert spec["imagePullSecrets"] == [{"name": "ours"}]


def test_the_entrypoints_come_from_the_volume_and_wait_for_the_look_up(pod: Json) -> None:
    spec = mutate(pod, chosen=replace(SETTINGS, check_timeout_ms=1500))
    for name in ("wait", "main"):
        before = next(c for c in pod["spec"]["containers"] if c["name"] == name)
        after = container(spec, name)
        assert after["command"] == [ENTRYPOINT, "-t", "1500", "-r", name, "--", *before["command"]]
        assert after["volumeMounts"] == [
            *before["volumeMounts"],
            {"name": "stepmemo", "mountPath": "/stepmemo"},
            {"name": "stepmemo-image", "mountPath": "/stepmemo-image", "readOnly": True},
        ]


def test_the_sidecar_looks_up_first_and_then_captures(pod: Json) -> None:
    chosen = replace(SETTINGS, check_timeout_ms=1500, capture_timeout_ms=7000, limits=LIMITED)
    assert ours(mutate(pod, chosen=chosen)) == [
        *[names.IMAGE_ENTRYPOINT, "capture", "-c", "1500", "-t", "7000", "-m", "75"],
        *["-w", "wait", "-M", "main"],
    ]


def test_for_capture_alone_nothing_is_looked_up_and_no_entrypoint_waits(pod: Json) -> None:
    spec = mutate(pod, "refresh")
    assert "-c" not in ours(spec)
    assert entrypoint(spec, "main") == [ENTRYPOINT, "-r", "main"]
    assert entrypoint(spec, "wait") == [ENTRYPOINT, "-r", "wait"]


def test_for_check_alone_nothing_is_awaited_or_recorded(pod: Json) -> None:
    spec = mutate(pod, "readonly")
    assert ours(spec) == [names.IMAGE_ENTRYPOINT, "capture", "-c", "2000", "-m", "48"]
    assert entrypoint(spec, "main") == entrypoint(spec, "wait") == [ENTRYPOINT, "-t", "2000"]


@pytest.mark.parametrize(("mode", "again"), [("use", True), ("readonly", True), ("refresh", False)])
def test_a_look_up_that_the_kernel_kills_is_started_again_to_take_its_claim_back(
    pod: Json, mode: str, again: bool
) -> None:
    sidecar = container(mutate(pod, mode), "stepmemo")
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [137]}}
    assert sidecar.get("restartPolicyRules") == ([rule] if again else None)
    assert sidecar.get("restartPolicy") == ("Never" if again else None)


def test_the_sidecar_is_told_the_step_and_the_pod(pod: Json) -> None:
    sidecar = container(mutate(pod), "stepmemo")
    env = {entry["name"]: entry for entry in sidecar["env"]}
    assert Step.from_json(env["STEPMEMO_STEP"]["value"]).key == "42"
    assert env["STEPMEMO_POD_UID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_the_sidecar_has_the_mounts_of_check_and_capture(load: Callable[[str], Json]) -> None:
    sidecar = container(mutate(load("v4.1.2-initless/large-template")), "stepmemo")
    mounts = {mount["mountPath"]: mount for mount in sidecar["volumeMounts"]}
    theirs = {argo.SERVICEACCOUNT_DIR, argo.DIR, argo.BIN_DIR, argo.CONFIG_DIR}
    assert set(mounts) == {"/stepmemo", *theirs}
    assert all(mounts[path]["readOnly"] for path in theirs)


def test_the_specimen_has_every_field_that_a_pod_gets_besides_those_of_the_other_delivery(pod: Json) -> None:
    spec, specimen = mutate(pod), image_volume.specimen(SETTINGS)
    assert specimen["volumes"] == spec["volumes"][-1:]
    sidecar, wrapped = specimen["containers"]
    assert (
        sidecar.items() <= {k: v for k, v in container(spec, "stepmemo").items() if k != "resources"}.items()
    )
    assert wrapped["volumeMounts"] == container(spec, "main")["volumeMounts"][-1:]
    pod_of_the_other = mutate(pod, chosen=replace(SETTINGS, injection=Delivery.INIT_CONTAINER))
    more = container(spec, "stepmemo").keys() - container(pod_of_the_other, "stepmemo").keys()
    assert more == {"restartPolicy", "restartPolicyRules"} <= sidecar.keys()
