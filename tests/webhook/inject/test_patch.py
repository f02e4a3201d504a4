import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from memoize import names
from memoize.step import Step
from tests.webhook.pods import judged
from webhook.inject import qos
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.patch import inject
from webhook.pods.decision import Inject

Json = dict[str, Any]
SETTINGS = InjectSettings(image="registry.test/stepmemo:1", pull_secrets=("ours",))
LIMITED = {"cpu": "500m", "memory": "100Mi"}


def decided(pod: Json) -> Inject:
    decision = judged.decide(pod, "default", {}, {})
    assert isinstance(decision, Inject), decision
    return decision


def mutate(pod: Json, chosen: InjectSettings = SETTINGS) -> Json:
    before = deepcopy(pod)
    ops = inject(pod, decided(pod).plan, chosen)
    assert pod == before, "inject must leave its argument alone"
    mutated: Json = jsonpatch.apply_patch(pod, json.loads(json.dumps(ops)))
    return mutated


def container(pod: Json, name: str) -> Json:
    everything = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next(c for c in everything if c["name"] == name)


def option(command: list[str], letter: str) -> list[str]:
    ours = command[: command.index("--")]
    return [ours[i + 1] for i, word in enumerate(ours) if word == letter]


def env(target: Json, name: str) -> Json:
    return next(e for e in target["env"] if e["name"] == name)


# --- The containers ----------------------------------------------------------------------------------


def test_the_check_comes_first_and_the_capture_last(pod: Json) -> None:
    spec = mutate(pod)["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["stepmemo-check", "init"]
    assert [c["name"] for c in spec["containers"]] == ["wait", "main", "stepmemo"]


def test_each_command_is_wrapped_in_one_replace_operation(pod: Json) -> None:
    ops = inject(pod, decided(pod).plan, SETTINGS)
    assert [op["path"] for op in ops if op["op"] == "replace"] == [
        "/spec/initContainers/0/command",
        "/spec/containers/0/command",
        "/spec/containers/1/command",
    ]
    assert {op["op"] for op in ops} == {"add", "replace"}


def test_the_entrypoint_goes_before_the_original_command_and_arguments_stay(pod: Json) -> None:
    before, after = container(pod, "main"), container(mutate(pod), "main")
    assert after["command"] == ["/stepmemo-bin/entrypoint", "-r", "main", "--", *before["command"]]
    assert after["args"] == before["args"]


@pytest.mark.parametrize(("case", "name"), [("v4.1.2-legacy", "wait"), ("v4.1.2-initless", "supervisor")])
def test_the_entrypoint_of_the_auxiliary_container_records_how_it_ended(
    load: Callable[[str], Json], case: str, name: str
) -> None:
    pod = load(f"{case}/container")
    mutated = mutate(pod)
    original = container(pod, name)["command"]
    assert container(mutated, name)["command"] == ["/stepmemo-bin/entrypoint", "-r", name, "--", *original]
    assert option(container(mutated, "stepmemo")["command"], "-w") == [name]


def test_without_an_auxiliary_container_the_capture_awaits_main_alone(load: Callable[[str], Json]) -> None:
    command = container(mutate(load("v3.5.15-legacy/resource")), "stepmemo")["command"]
    assert option(command, "-M") == ["main"]
    assert option(command, "-w") == []


def test_the_capture_awaits_every_container_of_a_container_set(load: Callable[[str], Json]) -> None:
    assert option(container(mutate(load("v4.1.2-legacy/container-set")), "stepmemo")["command"], "-M") == [
        "a",
        "main",
    ]


def test_every_container_that_argo_judges_the_step_by_is_recorded_and_awaited(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    plugin = container(pod, "db") | {"name": "artifact-plugin-x"}
    pod["spec"]["containers"].append(plugin)
    mutated = mutate(pod)
    command = container(mutated, "stepmemo")["command"]
    assert [option(command, letter) for letter in ("-M", "-w", "-s")] == [["main"], ["wait"], ["db"]]
    recorded = [
        c["name"]
        for c in mutated["spec"]["containers"]
        if c["command"][:2] == ["/stepmemo-bin/entrypoint", "-r"]
    ]
    assert sorted(recorded) == ["db", "main", "wait"]


def test_time_outs_and_memory_come_from_the_settings(pod: Json) -> None:
    mutated = mutate(
        pod,
        replace(
            SETTINGS,
            check_timeout_ms=1500,
            capture_timeout_ms=7000,
            limits=LIMITED,
        ),
    )
    check, capture = (container(mutated, name)["command"] for name in ("stepmemo-check", "stepmemo"))
    assert (check[:2], capture[:2]) == (
        [names.IMAGE_ENTRYPOINT, "check"],
        [names.IMAGE_ENTRYPOINT, "capture"],
    )
    assert (option(check, "-t"), option(capture, "-t")) == (["1500"], ["7000"])
    assert option(check, "-m") == option(capture, "-m") == ["75"]
    assert check[check.index("--") + 1 :] == capture[capture.index("--") + 1 :] == list(names.SIDECAR_COMMAND)


def test_both_are_told_the_step_and_the_pod(pod: Json) -> None:
    mutated, step = mutate(pod), decided(pod).plan.step
    for name in ("stepmemo-check", "stepmemo"):
        ours = container(mutated, name)
        assert Step.from_json(env(ours, "STEPMEMO_STEP")["value"]) == step
        assert env(ours, "STEPMEMO_POD_UID")["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_a_key_does_not_meet_the_kubelets_expansion_of_variables(pod: Json) -> None:
    pod["metadata"]["annotations"][names.KEY] = "$(HOME) $$ ümlaut \n \" '"
    value = env(container(mutate(pod), "stepmemo-check"), "STEPMEMO_STEP")["value"]
    assert "$" not in value
    assert Step.from_json(value).key == "$(HOME) $$ ümlaut \n \" '"


def mounts(target: Json) -> dict[str, Json]:
    return {mount["mountPath"]: mount for mount in target["volumeMounts"]}


def test_the_check_gets_the_token_and_the_shared_files_alone(pod: Json) -> None:
    found = mounts(container(mutate(pod), "stepmemo-check"))
    assert set(found) == {"/stepmemo", "/stepmemo-bin", argo.SERVICEACCOUNT_DIR}
    assert found["/stepmemo"] == {"name": "stepmemo", "mountPath": "/stepmemo"}


def test_the_capture_reads_argos_files_besides(load: Callable[[str], Json]) -> None:
    found = mounts(container(mutate(load("v4.1.2-initless/container")), "stepmemo"))
    assert set(found) == {"/stepmemo", argo.SERVICEACCOUNT_DIR, "/var/run/argo", "/argo-bin"}
    assert all(mount["readOnly"] for path, mount in found.items() if path != "/stepmemo")


def test_an_offloaded_template_can_be_read_by_both(load: Callable[[str], Json]) -> None:
    mutated = mutate(load("v4.1.2-legacy/large-template"))
    for name in ("stepmemo-check", "stepmemo"):
        mount = mounts(container(mutated, name))["/argo/config"]
        assert mount == {"name": "argo-env-config", "mountPath": "/argo/config", "readOnly": True}


def test_the_token_is_the_executors_own_where_it_has_one(load: Callable[[str], Json]) -> None:
    mutated = mutate(load("v4.1.2-legacy/executor-service-account"))
    for name in ("stepmemo-check", "stepmemo"):
        assert mounts(container(mutated, name))[argo.SERVICEACCOUNT_DIR]["name"] == "exec-sa-token"


# --- Modes -------------------------------------------------------------------------------------------


def test_for_capture_alone_the_entrypoint_is_delivered_and_records_but_nothing_is_looked_up(
    pod: Json,
) -> None:
    pod["metadata"]["annotations"][names.MODE] = "refresh"
    mutated = mutate(pod)
    check = container(mutated, "stepmemo-check")
    assert check["command"] == [names.IMAGE_ENTRYPOINT, "check"]
    assert "env" not in check
    assert set(mounts(check)) == {"/stepmemo", "/stepmemo-bin"}
    assert container(mutated, "init") == container(pod, "init")
    for name in ("main", "wait"):
        assert container(mutated, name)["command"][:4] == ["/stepmemo-bin/entrypoint", "-r", name, "--"]
    assert container(mutated, "stepmemo")


def test_for_check_alone_nothing_is_captured_or_recorded(pod: Json) -> None:
    pod["metadata"]["annotations"][names.MODE] = "readonly"
    mutated = mutate(pod)
    assert [c["name"] for c in mutated["spec"]["containers"]] == ["wait", "main"]
    assert container(mutated, "wait")["command"][:2] == ["/stepmemo-bin/entrypoint", "--"]
    assert "--" in container(mutated, "stepmemo-check")["command"]


# --- The Pod's nature --------------------------------------------------------------------------------


def test_our_containers_satisfy_pod_security_restricted(pod: Json) -> None:
    for name in ("stepmemo-check", "stepmemo"):
        assert container(mutate(pod), name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


@pytest.mark.parametrize(("pods_user", "ours"), [(None, None), (8737, None), (0, 65532)])
def test_our_user_is_named_only_where_the_pod_would_make_us_root(
    pod: Json, pods_user: int | None, ours: int | None
) -> None:
    if pods_user is not None:
        pod["spec"]["securityContext"] = {"runAsUser": pods_user}
    for name in ("stepmemo-check", "stepmemo"):
        assert container(mutate(pod), name)["securityContext"].get("runAsUser") == ours


FULL = {"cpu": "1", "memory": "1Gi"}
REQUESTS, LIMITS = SETTINGS.requests, SETTINGS.limits


SMALL = {**LIMITS, "cpu": "50m"}


@pytest.mark.parametrize(
    ("theirs", "check", "capture"),
    [
        ({}, None, None),
        ({"requests": {"cpu": "1"}}, *[{"requests": REQUESTS, "limits": LIMITS}] * 2),
        (
            {"requests": FULL, "limits": FULL},
            {"requests": LIMITS, "limits": LIMITS},
            {"requests": SMALL, "limits": SMALL},
        ),
    ],
)
def test_our_resources_keep_the_pods_qos_class(
    pod: Json, theirs: Json, check: Json | None, capture: Json | None
) -> None:
    for kind in ("initContainers", "containers"):
        for c in pod["spec"][kind]:
            c["resources"] = theirs
    mutated = mutate(pod)
    assert container(mutated, "stepmemo-check").get("resources") == check
    assert container(mutated, "stepmemo").get("resources") == capture
    assert qos.qos_class(mutated["spec"]) == qos.qos_class(pod["spec"])


def test_under_resources_of_the_whole_pod_ours_ask_for_nothing(pod: Json) -> None:
    pod["spec"]["resources"] = {"requests": {"cpu": "1"}}
    for name in ("stepmemo-check", "stepmemo"):
        assert "resources" not in container(mutate(pod), name)


@pytest.mark.parametrize(
    ("theirs", "both"),
    [
        (None, [{"name": "ours"}]),
        ([{"name": "theirs"}], [{"name": "theirs"}, {"name": "ours"}]),
        ([{"name": "ours"}], [{"name": "ours"}]),
    ],
)
def test_our_pull_secret_is_added_once(pod: Json, theirs: list[Json] | None, both: list[Json]) -> None:
    if theirs is not None:
        pod["spec"]["imagePullSecrets"] = theirs
    assert mutate(pod)["spec"]["imagePullSecrets"] == both


def test_without_pull_secrets_of_ours_the_pods_stay_as_they_are(pod: Json) -> None:
    assert "imagePullSecrets" not in mutate(pod, replace(SETTINGS, pull_secrets=()))["spec"]


def test_lists_that_are_not_there_are_made(load: Callable[[str], Json]) -> None:
    pod = load("v4.1.2-initless/container")
    assert "initContainers" not in pod["spec"]
    container(pod, "main")["volumeMounts"] = None
    pod["spec"]["volumes"] = []
    spec = mutate(pod)["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["stepmemo-check"]
    assert container({"spec": spec}, "main")["volumeMounts"] == [
        {"name": "stepmemo", "mountPath": "/stepmemo"},
        {"name": "stepmemo-bin", "mountPath": "/stepmemo-bin", "readOnly": True},
    ]
    assert [volume["name"] for volume in spec["volumes"]] == ["stepmemo", "stepmemo-bin"]


@pytest.mark.parametrize("mode", ["use", "refresh", "readonly"])
def test_nothing_that_a_template_runs_can_write_the_program_that_argos_containers_start(
    pod: Json, mode: str
) -> None:
    pod["metadata"]["annotations"][names.MODE] = mode
    spec = mutate(pod)["spec"]
    writers = [
        c["name"]
        for c in [*spec["initContainers"], *spec["containers"]]
        if (mount := mounts(c).get("/stepmemo-bin")) and not mount.get("readOnly")
    ]
    assert writers == ["stepmemo-check"]


def test_volumes_of_ours_that_a_step_can_write_are_bounded(pod: Json) -> None:
    ours = [v for v in mutate(pod)["spec"]["volumes"] if v["name"] in ("stepmemo", "stepmemo-bin")]
    assert [volume["emptyDir"] for volume in ours] == [{"sizeLimit": "16Mi"}] * 2


# --- The cache service -------------------------------------------------------------------------------

SERVED = replace(SETTINGS, service=CacheServiceAddress("https://stepmemo.stepmemo.svc", "the PEM"))


def test_both_are_told_where_the_service_is_and_whom_to_trust(pod: Json) -> None:
    for name in ("stepmemo-check", "stepmemo"):
        ours = container(mutate(pod, SERVED), name)
        assert env(ours, names.ENV_SERVICE)["value"] == "https://stepmemo.stepmemo.svc"
        assert env(ours, names.ENV_SERVICE_CA)["value"] == "the PEM"


def test_a_token_for_the_service_alone_is_mounted_in_our_containers_alone(pod: Json) -> None:
    spec = mutate(pod, SERVED)["spec"]
    assert [v for v in spec["volumes"] if "projected" in v and v["name"].startswith("stepmemo")] == [
        {
            "name": "stepmemo-token",
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "audience": "stepmemo",
                            "expirationSeconds": 3600,
                            "path": "token",
                        }
                    }
                ]
            },
        }
    ]
    mounted = [
        c["name"] for c in [*spec["initContainers"], *spec["containers"]] if names.TOKEN_DIR in mounts(c)
    ]
    assert mounted == ["stepmemo-check", "stepmemo"]


def test_an_init_container_that_only_delivers_the_entrypoint_gets_no_token(pod: Json) -> None:
    pod["metadata"]["annotations"][names.MODE] = "refresh"
    mutated = mutate(pod, SERVED)
    assert set(mounts(container(mutated, "stepmemo-check"))) == {"/stepmemo", "/stepmemo-bin"}
    assert names.TOKEN_DIR in mounts(container(mutated, "stepmemo"))


def test_the_keeper_is_told_of_the_pod_by_a_label(pod: Json) -> None:
    labels = pod["metadata"]["labels"]
    assert mutate(pod, SERVED)["metadata"]["labels"] == labels | {names.RESULT: names.RESULT_IN_POD}


def test_without_a_service_there_is_no_keeper_to_tell(pod: Json) -> None:
    assert mutate(pod)["metadata"] == pod["metadata"]
