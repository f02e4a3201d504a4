"""Every recorded Pod against its golden twin, and what injection must not change in any of them."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from memoize import names
from memoize.reasons import Reason
from webhook import pods, qos
from webhook.inject import InjectSettings, inject

Json = dict[str, Any]

PODS = Path(__file__).parents[1] / "data" / "pods"
RECORDED = sorted(
    str(path.relative_to(PODS).with_suffix(""))
    for path in PODS.glob("*/*.json")
    if not path.name.endswith(".golden.json")
)
LEFT_ALONE = {case: Reason.UNSUPPORTED_TEMPLATE for case in RECORDED if case.endswith("/daemon")}
INJECTED = [case for case in RECORDED if case not in LEFT_ALONE]


def decided(pod: Json) -> pods.Inject | pods.Skip:
    return pods.decide(pod, pod["metadata"]["namespace"], {}, {})


def injected(pod: Json, settings: InjectSettings) -> Json:
    decision = decided(pod)
    assert isinstance(decision, pods.Inject), decision
    mutated: Json = jsonpatch.apply_patch(deepcopy(pod), inject(pod, decision.plan, settings))
    return mutated


def test_every_version_and_layout_is_recorded() -> None:
    assert {case.split("/")[0] for case in RECORDED} == {
        "v3.5.15-legacy",
        "v3.6.19-legacy",
        "v4.1.2-legacy",
        "v4.1.2-initless",
    }
    assert len(RECORDED) > 50


@pytest.mark.parametrize("case", INJECTED)
def test_a_recorded_pod_becomes_its_golden_twin(
    case: str, load: Callable[[str], Json], settings: InjectSettings
) -> None:
    mutated = injected(load(case), settings)
    golden = PODS / f"{case}.golden.json"
    if os.environ.get("STEPMEMO_UPDATE_GOLDEN"):
        golden.write_text(json.dumps(mutated, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert mutated == json.loads(golden.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_a_recorded_pod_that_is_left_alone_has_no_twin(case: str, load: Callable[[str], Json]) -> None:
    decision = decided(load(case))
    assert isinstance(decision, pods.Skip)
    assert decision.reason == LEFT_ALONE[case]
    assert not (PODS / f"{case}.golden.json").exists()


@pytest.mark.parametrize("case", INJECTED)
def test_a_second_pass_leaves_a_golden_twin_alone(case: str, load: Callable[[str], Json]) -> None:
    decision = decided(load(f"{case}.golden"))
    assert isinstance(decision, pods.Skip)
    assert decision.reason == Reason.ALREADY_INJECTED


@pytest.mark.parametrize("case", INJECTED)
def test_what_was_put_in_can_be_taken_out_and_leaves_the_recorded_pod(
    case: str, load: Callable[[str], Json]
) -> None:
    assert without_ours(load(f"{case}.golden")) == load(case)


@pytest.mark.parametrize("case", INJECTED)
def test_the_qos_class_stays(case: str, load: Callable[[str], Json]) -> None:
    assert qos.qos_class(load(case)["spec"]) == qos.qos_class(load(f"{case}.golden")["spec"])


@pytest.mark.parametrize("case", INJECTED)
def test_every_mount_of_ours_has_its_volume(case: str, load: Callable[[str], Json]) -> None:
    spec = load(f"{case}.golden")["spec"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    ours = [spec["initContainers"][0], spec["containers"][-1]]
    assert [c["name"] for c in ours] == [names.CHECK_CONTAINER, names.CAPTURE_CONTAINER]
    for container in ours:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def without_ours(pod: Json) -> Json:
    """The inverse of injection, written without its code."""
    spec = pod["spec"]
    spec["volumes"] = [v for v in spec["volumes"] if v["name"] != "stepmemo"]
    for kind in ("initContainers", "containers"):
        spec[kind] = [c for c in spec[kind] if c["name"] not in ("stepmemo", "stepmemo-check")]
        for container in spec[kind]:
            command = container["command"]
            if command[0] == "/stepmemo/gate":
                container["command"] = command[command.index("--") + 1 :]
                assert container["volumeMounts"].pop() == {"name": "stepmemo", "mountPath": "/stepmemo"}
    if not spec["initContainers"]:
        del spec["initContainers"]  # the init-less layout has none
    return pod
