"""Every recorded Pod against its golden twin, and what injection must not change in any of them."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from memoize import names
from memoize.reasons import Reason
from tests.recordedpods import PODS
from tests.webhook.pods import judged
from webhook.inject import qos
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.patch import inject
from webhook.pods.decision import Inject, Skip
from webhook.pods.delivery import Delivery

Json = dict[str, Any]

RECORDED = sorted(
    str(path.relative_to(PODS).with_suffix(""))
    for path in PODS.glob("*/*.json")
    if not path.name.endswith(".golden.json")
)
LEFT_ALONE = {case: Reason.UNSUPPORTED_TEMPLATE for case in RECORDED if case.endswith("/daemon")}
INJECTED = [case for case in RECORDED if case not in LEFT_ALONE]


TWINS = [(case, injection) for case in INJECTED for injection in Delivery]
SERVED = [
    (case, injection)
    for case in ("v3.5.15-legacy/container", "v4.1.2-legacy/large-template", "v4.1.2-initless/container")
    for injection in Delivery
]
"""Cases that have twins for `--access service` too."""
SERVICE = CacheServiceAddress(
    "https://stepmemo.stepmemo.svc", "-----BEGIN CERTIFICATE-----\ngolden\n-----END CERTIFICATE-----\n"
)
SUFFIXES = {Delivery.INIT_CONTAINER: "golden", Delivery.IMAGE_VOLUME: "image-volume.golden"}
ENTRYPOINTS = {
    names.ENTRYPOINT: [
        {"name": "stepmemo", "mountPath": "/stepmemo"},
        {"name": "stepmemo-bin", "mountPath": "/stepmemo-bin", "readOnly": True},
    ],
    names.VOLUME_ENTRYPOINT: [
        {"name": "stepmemo", "mountPath": "/stepmemo"},
        {"name": "stepmemo-image", "mountPath": "/stepmemo-image", "readOnly": True},
    ],
}


def decided(pod: Json, injection: Delivery) -> Inject | Skip:
    return judged.decide(pod, pod["metadata"]["namespace"], {}, {}, injection)


def injected(pod: Json, settings: InjectSettings) -> Json:
    decision = decided(pod, settings.injection)
    assert isinstance(decision, Inject), decision
    mutated: Json = jsonpatch.apply_patch(deepcopy(pod), inject(pod, decision.plan, settings))
    return mutated


def twin(case: str, injection: Delivery) -> str:
    return f"{case}.{SUFFIXES[injection]}"


def served_twin(case: str, injection: Delivery) -> str:
    return f"{case}.service.{SUFFIXES[injection]}"


def test_every_version_and_layout_is_recorded() -> None:
    assert {case.split("/")[0] for case in RECORDED} == {
        "v3.5.15-legacy",
        "v3.6.19-legacy",
        "v4.1.2-legacy",
        "v4.1.2-initless",
    }
    assert len(RECORDED) > 50


@pytest.mark.parametrize(("case", "injection"), TWINS)
def test_a_recorded_pod_becomes_its_golden_twin(
    case: str, injection: Delivery, load: Callable[[str], Json], settings: InjectSettings
) -> None:
    is_golden(injected(load(case), replace(settings, injection=injection)), twin(case, injection))


@pytest.mark.parametrize(("case", "injection"), SERVED)
def test_a_recorded_pod_becomes_its_golden_twin_for_the_service(
    case: str, injection: Delivery, load: Callable[[str], Json], settings: InjectSettings
) -> None:
    is_golden(
        injected(load(case), replace(settings, injection=injection, service=SERVICE)),
        served_twin(case, injection),
    )


@pytest.mark.parametrize(("case", "injection"), SERVED)
def test_the_service_adds_a_label_and_a_token_and_where_to_reach_it_and_nothing_else(
    case: str, injection: Delivery, load: Callable[[str], Json]
) -> None:
    served, spec = load(served_twin(case, injection)), load(twin(case, injection))["spec"]
    assert served["metadata"]["labels"].pop(names.RESULT) == names.RESULT_IN_POD
    token = [v for v in served["spec"]["volumes"] if v["name"] == names.TOKEN_VOLUME]
    assert len(token) == 1
    served["spec"]["volumes"].remove(token[0])
    for container in [*served["spec"].get("initContainers", ()), *served["spec"]["containers"]]:
        if container["name"] in names.CONTAINERS:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            told = {e["name"]: e.get("value") for e in container["env"]}
            assert told[names.ENV_SERVICE] == SERVICE.url
            assert told[names.ENV_SERVICE_CA] == SERVICE.ca
            container["env"] = [e for e in container["env"] if not e["name"].startswith(names.ENV_SERVICE)]
            container["volumeMounts"].remove(mounts[names.TOKEN_DIR])
    assert served["spec"] == spec
    assert served["metadata"] == load(case)["metadata"]


def is_golden(mutated: Json, twin: str) -> None:
    golden = PODS / f"{twin}.json"
    if os.environ.get("STEPMEMO_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(mutated, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert mutated == json.loads(golden.read_text(encoding="utf-8"))


@pytest.mark.parametrize("injection", Delivery)
@pytest.mark.parametrize("case", LEFT_ALONE)
def test_a_recorded_pod_that_is_left_alone_has_no_twin(
    case: str, injection: Delivery, load: Callable[[str], Json]
) -> None:
    decision = decided(load(case), injection)
    assert isinstance(decision, Skip)
    assert decision.reason == LEFT_ALONE[case]
    assert not (PODS / f"{twin(case, injection)}.json").exists()


@pytest.mark.parametrize("now", Delivery)
@pytest.mark.parametrize(("case", "then"), TWINS)
def test_a_second_pass_leaves_a_golden_twin_alone_whatever_the_server_is_told_by_then(
    case: str, then: Delivery, now: Delivery, load: Callable[[str], Json]
) -> None:
    decision = decided(load(twin(case, then)), now)
    assert isinstance(decision, Skip)
    assert decision.reason == Reason.ALREADY_INJECTED


@pytest.mark.parametrize(("case", "injection"), TWINS)
def test_what_was_put_in_can_be_taken_out_and_leaves_the_recorded_pod(
    case: str, injection: Delivery, load: Callable[[str], Json]
) -> None:
    assert without_ours(load(twin(case, injection))) == load(case)


@pytest.mark.parametrize(("case", "injection"), TWINS)
def test_the_qos_class_stays(case: str, injection: Delivery, load: Callable[[str], Json]) -> None:
    assert qos.qos_class(load(case)["spec"]) == qos.qos_class(load(twin(case, injection))["spec"])


@pytest.mark.parametrize(("case", "injection"), TWINS)
def test_every_mount_of_ours_has_its_volume(
    case: str, injection: Delivery, load: Callable[[str], Json]
) -> None:
    spec = load(twin(case, injection))["spec"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    everything = [*spec.get("initContainers", ()), *spec["containers"]]
    ours = [c for c in everything if c["name"] in names.CONTAINERS]
    wrapped = [c for c in everything if c["command"][0] in ENTRYPOINTS]
    assert ours
    assert wrapped
    for container in [*ours, *wrapped]:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("case", INJECTED)
def test_with_the_image_volume_no_init_container_is_ours_unless_the_template_has_some(
    case: str, load: Callable[[str], Json]
) -> None:
    spec, before = load(twin(case, Delivery.IMAGE_VOLUME))["spec"], load(case)["spec"]
    if case.endswith("/sidecars-and-init"):
        assert load(twin(case, Delivery.IMAGE_VOLUME)) == load(twin(case, Delivery.INIT_CONTAINER))
        return
    assert spec.get("initContainers") == before.get("initContainers")
    assert [c["name"] for c in spec["containers"]] == ["stepmemo", *(c["name"] for c in before["containers"])]


def without_ours(pod: Json) -> Json:
    """The inverse of injection, written without its code."""
    spec = pod["spec"]
    spec["volumes"] = [
        v for v in spec["volumes"] if v["name"] not in ("stepmemo", "stepmemo-bin", "stepmemo-image")
    ]
    for kind in ("initContainers", "containers"):
        spec[kind] = [c for c in spec.get(kind, ()) if c["name"] not in ("stepmemo", "stepmemo-check")]
        for container in spec[kind]:
            command = container["command"]
            if (mounts := ENTRYPOINTS.get(command[0])) is not None:
                container["command"] = command[command.index("--") + 1 :]
                assert container["volumeMounts"][-len(mounts) :] == mounts
                del container["volumeMounts"][-len(mounts) :]
    if not spec["initContainers"]:
        del spec["initContainers"]  # the init-less layout has none
    return pod
