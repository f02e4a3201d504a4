import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from argo.steppod import NotAStep, Owner, StepPod
from memoize import names
from memoize.key import data_key
from memoize.reasons import Reason
from tests.webhook.pods import judged
from webhook.pods.decision import Inject, InjectionPlan, Skip, screen

Json = dict[str, Any]
NAMESPACE = "cap-v412-legacy"


def decide(
    pod: Json, workflow: Mapping[str, Any] | None = None, namespace: Mapping[str, str] | None = None
) -> Skip | Inject:
    return judged.decide(pod, NAMESPACE, workflow or {}, namespace or {})


def plan(pod: Json, workflow: Mapping[str, Any] | None = None) -> InjectionPlan:
    decision = decide(pod, workflow)
    assert isinstance(decision, Inject), decision
    return decision.plan


def container(pod: Json, name: str) -> Json:
    everything = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next(c for c in everything if c["name"] == name)


def annotate(pod: Json, **words: str | None) -> Json:
    for name, word in words.items():
        full = f"stepmemo.dev/{name.replace('_', '-')}"
        pod["metadata"]["annotations"].pop(full, None)
        if word is not None:
            pod["metadata"]["annotations"][full] = word
    return pod


def edit_template(pod: Json, **changes: Any) -> Json:
    variable = next(e for e in container(pod, "init")["env"] if e["name"] == "ARGO_TEMPLATE")
    variable["value"] = json.dumps(json.loads(variable["value"]) | changes)
    return pod


# --- What the sidecar is told ------------------------------------------------------------------------


def test_an_ordinary_step_gets_check_and_capture(pod: Json) -> None:
    decision = decide(pod)
    assert isinstance(decision, Inject)
    assert decision.reason == Reason.INJECTED
    assert decision.detail == ""
    assert (decision.plan.check, decision.plan.capture) == (True, True)
    assert decision.plan.mains == ("main",)


def test_the_step_says_all_that_pod_and_workflow_say(pod: Json) -> None:
    annotate(pod, max_age="1h")
    pod["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] = "blue"
    step = plan(pod, {"finalizers": ["workflows.argoproj.io/artifact-gc"]}).step
    assert (step.key, step.cache, step.max_age) == ("42", "memo", "1h")
    assert (step.node_id, step.workflow) == ("container-kpr47", "container-kpr47")
    assert step.workflow_uid == "97cc533f-7d1c-4640-9e06-4bedb72ca564"
    assert (step.instance_id, step.gc, step.include_result) == ("blue", True, False)
    assert step.declared is not None
    assert step.declared.parameters == ({"name": "out", "valueFrom": {"path": "/tmp/out"}},)


@pytest.mark.parametrize(
    ("argos", "ours"),
    [("0001-01-01T00:00:00Z", ""), ("2026-11-22T18:00:00+01:00", "2026-11-22T18:00:00+01:00")],
)
def test_the_step_says_when_argo_ends_it(pod: Json, argos: str, ours: str) -> None:
    for c in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        for variable in c["env"]:
            if variable["name"] == "ARGO_DEADLINE":
                variable["value"] = argos
    assert plan(pod).step.deadline == ours


def test_a_script_whose_result_is_used_declares_it(load: Callable[[str], Json]) -> None:
    pod = load("v4.1.2-legacy/script-result")
    for variable in container(pod, "wait")["env"]:
        if variable["name"] == "ARGO_INCLUDE_SCRIPT_OUTPUT":
            variable["value"] = "true"
    step = plan(pod).step
    assert step.include_result
    assert step.declared is not None
    assert step.declared.result


def test_without_the_annotation_the_node_id_is_the_pods_name(pod: Json) -> None:
    del pod["metadata"]["annotations"]["workflows.argoproj.io/node-id"]
    pod["metadata"]["name"] = "the-pod"
    assert plan(pod).step.node_id == "the-pod"


def test_mains_are_all_containers_of_a_container_set_but_no_sidecars(load: Callable[[str], Json]) -> None:
    assert plan(load("v4.1.2-legacy/container-set")).mains == ("a", "main")
    assert plan(load("v4.1.2-legacy/sidecars-and-init")).mains == ("main",)


def test_an_offloaded_template_is_left_to_the_sidecar(load: Callable[[str], Json]) -> None:
    for case in (
        "v3.6.19-legacy/large-template",
        "v4.1.2-legacy/large-template",
        "v4.1.2-initless/large-template",
    ):
        made = plan(load(case))
        assert made.step.declared is None, case
        assert made.mains == ("main",), case


def test_of_an_offloaded_template_main_is_main_and_without_one_every_worker_counts(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    for name in ("init", "prep"):
        for variable in container(pod, name)["env"]:
            if variable["name"] == "ARGO_TEMPLATE":
                variable["value"] = "offloaded"
    assert plan(pod).mains == ("main",)
    container(pod, "main")["name"] = "a"
    assert plan(pod).mains == ("a", "db")


# --- What is no step ---------------------------------------------------------------------------------


def skipped(decision: Skip | Inject | None) -> Reason:
    assert isinstance(decision, Skip), decision
    return decision.reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("controller", False),
        ("kind", "WorkflowTaskSet"),
        ("apiVersion", "batch/v1"),
        ("apiVersion", "argoproj.io.example/v1"),
        ("name", "another-workflow"),
        ("uid", ""),
    ],
)
def test_a_pod_that_no_workflow_controls_is_not_a_step(pod: Json, field: str, value: object) -> None:
    pod["metadata"]["ownerReferences"][0][field] = value
    assert isinstance(StepPod.parse(pod, NAMESPACE), NotAStep)
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_a_pod_without_argos_label_is_not_a_step(pod: Json) -> None:
    del pod["metadata"]["labels"]["workflows.argoproj.io/workflow"]
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_the_owner_may_have_another_version_of_argos_api(pod: Json) -> None:
    pod["metadata"]["ownerReferences"].insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"})
    pod["metadata"]["ownerReferences"][1]["apiVersion"] = "argoproj.io/v2"
    found = StepPod.parse(pod, NAMESPACE)
    assert isinstance(found, StepPod)
    assert found.owner == Owner(NAMESPACE, "container-kpr47", "97cc533f-7d1c-4640-9e06-4bedb72ca564")


@pytest.mark.parametrize("pod", [{}, {"metadata": None}, {"metadata": {"name": "x"}, "spec": {}}])
def test_a_bare_pod_is_not_a_step(pod: Json) -> None:
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_an_agent_pod_is_unsupported_and_a_garbage_collection_pod_is_not_a_step(pod: Json) -> None:
    pod["metadata"]["labels"]["workflows.argoproj.io/component"] = "agent"
    assert skipped(decide(pod)) == Reason.UNSUPPORTED_TEMPLATE
    pod["metadata"]["labels"]["workflows.argoproj.io/component"] = "artifact-gc"
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_a_pod_without_a_readable_template_is_not_a_step(pod: Json) -> None:
    container(pod, "init")["env"] = [{"name": "ARGO_CONTAINER_NAME", "value": "init"}]
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_a_pod_whose_template_declares_outputs_of_a_wrong_type_is_not_a_step(pod: Json) -> None:
    """They would be posted, and Argo's controller could not read any result of the cluster after that."""
    edit_template(pod, outputs={"parameters": [{"name": "out", "globalName": 1}]})
    decision = decide(pod)
    assert skipped(decision) == Reason.NOT_A_STEP
    assert "outputs.parameters[0].globalName" in decision.detail


def test_a_pod_that_lacks_a_main_container_of_its_template_is_not_a_step(pod: Json) -> None:
    edit_template(pod, containerSet={"containers": [{"name": "main"}, {"name": "gone"}]})
    assert skipped(decide(pod)) == Reason.NOT_A_STEP


def test_a_step_whose_template_still_has_its_block_is_argos(pod: Json) -> None:
    """Its key may be that of a caller's templateDefaults, which merge under every template that is called."""
    edit_template(pod, memoize={"key": "other", "cache": {"configMap": {"name": "c"}}})
    assert skipped(decide(pod)) == Reason.OPTED_OUT


@pytest.mark.parametrize("resource", [{"setOwnerReference": True}, {"manifest": "uid: {uid}"}])
def test_a_resource_that_goes_with_its_workflow_is_left_alone(pod: Json, resource: Json) -> None:
    uid = pod["metadata"]["ownerReferences"][0]["uid"]
    edit_template(pod, resource={k: v.format(uid=uid) if k == "manifest" else v for k, v in resource.items()})
    assert skipped(decide(pod)) == Reason.OWNED_BY_WORKFLOW


# --- What its author, its run or its namespace do not want -------------------------------------------


def test_a_step_without_a_key_is_left_alone(pod: Json) -> None:
    assert skipped(decide(annotate(pod, key=None, memoize="true"))) == Reason.NO_KEY


TRUE, FALSE = {names.MEMOIZE: "true"}, {names.MEMOIZE: "false"}


@pytest.mark.parametrize(
    ("template", "workflow", "namespace", "out"),
    [
        (None, {}, {}, False),
        (None, {}, FALSE, True),
        (None, {}, {names.MEMOIZE: "no"}, False),
        (None, {"annotations": FALSE}, {}, True),
        (None, {"labels": FALSE}, TRUE, True),
        (None, {"annotations": TRUE, "labels": FALSE}, {}, False),
        (None, {"annotations": TRUE}, FALSE, False),
        (None, {"labels": TRUE}, FALSE, False),
        ("false", {"annotations": TRUE}, TRUE, True),
        ("true", {"annotations": FALSE}, FALSE, False),
    ],
)
def test_the_nearest_word_decides_on_opting_out(
    pod: Json, template: str | None, workflow: Json, namespace: Json, out: bool
) -> None:
    decision = decide(annotate(pod, memoize=template), workflow, namespace)
    assert decision.reason == (Reason.OPTED_OUT if out else Reason.INJECTED)


@pytest.mark.parametrize(
    ("template", "workflow", "expected"),
    [
        (None, {}, Reason.INJECTED),
        ("use", {}, Reason.INJECTED),
        ("refresh", {}, Reason.INJECTED_CAPTURE),
        ("readonly", {}, Reason.INJECTED_CHECK),
        ("off", {}, Reason.MODE_OFF),
        ("of", {}, Reason.MODE_UNKNOWN),
        ("", {}, Reason.MODE_UNKNOWN),
        ("{{inputs.parameters.mode}}", {}, Reason.MODE_UNKNOWN),
        ("off", {"annotations": {names.MODE: "use"}}, Reason.INJECTED),
        ("use", {"labels": {names.MODE: "off"}}, Reason.MODE_OFF),
        (
            "use",
            {"annotations": {names.MODE: "refresh"}, "labels": {names.MODE: "off"}},
            Reason.INJECTED_CAPTURE,
        ),
        ("use", {"labels": {names.MODE: "Refresh"}}, Reason.MODE_UNKNOWN),
    ],
)
def test_the_runs_mode_beats_the_templates(
    pod: Json, template: str | None, workflow: Json, expected: Reason
) -> None:
    assert decide(annotate(pod, mode=template), workflow).reason == expected


def test_what_each_mode_injects(pod: Json) -> None:
    for mode, expected in {"use": (True, True), "refresh": (False, True), "readonly": (True, False)}.items():
        made = plan(annotate(pod, mode=mode))
        assert (made.check, made.capture) == expected, mode


def test_a_workflow_that_cannot_be_read_leaves_the_mode_unknown(pod: Json) -> None:
    assert skipped(judged.decide(pod, NAMESPACE, None, {})) == Reason.MODE_UNKNOWN


def test_another_workflow_of_the_same_name_is_not_the_owner(pod: Json) -> None:
    assert skipped(decide(pod, {"uid": "another"})) == Reason.MODE_UNKNOWN
    assert decide(pod, {"uid": "97cc533f-7d1c-4640-9e06-4bedb72ca564"}).reason == Reason.INJECTED


def test_a_namespace_that_cannot_be_read_matters_only_where_nothing_nearer_speaks(pod: Json) -> None:
    assert skipped(judged.decide(pod, NAMESPACE, {}, None)) == Reason.API_UNAVAILABLE
    assert judged.decide(pod, NAMESPACE, {"labels": TRUE}, None).reason == Reason.INJECTED
    assert judged.decide(annotate(pod, memoize="true"), NAMESPACE, {}, None).reason == Reason.INJECTED


def test_an_opt_in_decided_at_submit_is_not_decided_again_by_words_farther_from_the_template(
    pod: Json,
) -> None:
    managed = annotate(pod, managed="digest")
    decided = judged.decide(managed, NAMESPACE, {"labels": FALSE}, FALSE)
    assert decided.reason == Reason.INJECTED


@pytest.mark.parametrize("name", ["key", "cache", "max-age"])
def test_a_tag_that_argo_left_is_a_reason_to_leave_the_pod_alone(pod: Json, name: str) -> None:
    pod["metadata"]["annotations"][f"stepmemo.dev/{name}"] = "a-{{inputs.parameters.x}}"
    decision = decide(pod)
    assert decision == Skip(Reason.UNRESOLVED_TAG, f"stepmemo.dev/{name}")


@pytest.mark.parametrize(
    "words",
    [{"key": " "}, {"cache": None}, {"cache": "Not_A_Name"}, {"max_age": "1 hour"}, {"max_age": "90"}],
)
def test_annotations_that_cannot_work_are_named_but_not_repeated(
    pod: Json, words: dict[str, str | None]
) -> None:
    decision = decide(annotate(pod, **words))
    assert skipped(decision) == Reason.INVALID_ANNOTATIONS
    for name, value in words.items():
        assert f"[stepmemo.dev/{name.replace('_', '-')}]" in decision.detail
        assert not value or not value.strip() or value not in decision.detail


def test_a_key_that_no_container_could_be_started_with_is_handed_on_by_its_digest(pod: Json) -> None:
    for key, digested in (("x" * 100_000, False), ("x" * 131_072, True), ("ü" * 30_000, True)):
        step = plan(annotate(pod, key=key)).step
        assert (step.key == "", bool(step.digest)) == (digested, digested)
        assert step.data_key == data_key(key)


# --- What must not be touched ------------------------------------------------------------------------


def test_a_daemon_is_unsupported(pod: Json) -> None:
    assert skipped(decide(edit_template(pod, daemon=True))) == Reason.UNSUPPORTED_TEMPLATE
    assert decide(edit_template(pod, daemon=False)).reason == Reason.INJECTED


@pytest.mark.parametrize(
    "where",
    [
        {"os": {"name": "windows"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"nodeSelector": {"kubernetes.io/arch": "s390x"}},
    ],
)
def test_a_pod_for_nodes_that_our_image_does_not_run_on_is_unsupported(pod: Json, where: Json) -> None:
    pod["spec"].update(where)
    assert skipped(decide(pod)) == Reason.UNSUPPORTED_TEMPLATE


def test_a_pod_for_nodes_that_our_image_runs_on_is_injected(pod: Json) -> None:
    pod["spec"].update(
        os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    )
    assert decide(pod).reason == Reason.INJECTED


@pytest.mark.parametrize("name", [names.CHECK_CONTAINER, names.CAPTURE_CONTAINER])
@pytest.mark.parametrize("kind", ["initContainers", "containers"])
def test_a_container_with_one_of_our_names_is_a_clash(pod: Json, name: str, kind: str) -> None:
    pod["spec"][kind].append({"name": name, "image": "theirs", "command": ["sh"]})
    assert decide(pod) == Skip(Reason.NAME_CLASH, f"container {name}")


@pytest.mark.parametrize("name", ["stepmemo", "stepmemo-image"])
def test_a_volume_with_one_of_our_names_is_a_clash(pod: Json, name: str) -> None:
    pod["spec"]["volumes"].append({"name": name, "emptyDir": {}})
    assert decide(pod) == Skip(Reason.NAME_CLASH, f"volume {name}")


@pytest.mark.parametrize(
    "path",
    ["/stepmemo", "/stepmemo/", "/stepmemo/data", "/x/../stepmemo", "/stepmemo-bin", "/stepmemo-image/opt"],
)
def test_a_mount_at_our_place_or_below_is_a_clash(pod: Json, path: str) -> None:
    container(pod, "main")["volumeMounts"].append({"name": "tmp-dir-argo", "mountPath": path})
    assert skipped(decide(pod)) == Reason.NAME_CLASH


@pytest.mark.parametrize("path", ["/stepmemory", "/data/stepmemo", "/stepmemo-images"])
def test_a_mount_with_a_similar_path_is_none(pod: Json, path: str) -> None:
    container(pod, "main")["volumeMounts"].append({"name": "tmp-dir-argo", "mountPath": path})
    assert decide(pod).reason == Reason.INJECTED


def take_the_token_away(pod: Json) -> None:
    for c in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        c["volumeMounts"] = [m for m in c["volumeMounts"] if not m["name"].startswith("kube-api-access")]


def take_argos_files_away(pod: Json) -> None:
    for c in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        c["volumeMounts"] = [m for m in c["volumeMounts"] if m["name"] != "var-run-argo"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pod: pod["spec"].update(shareProcessNamespace=True),
        lambda pod: pod["spec"].update(hostPID=True),
        lambda pod: pod["spec"].update(restartPolicy="Always"),
        lambda pod: pod["spec"].pop("restartPolicy"),
        take_the_token_away,
        take_argos_files_away,
        lambda pod: container(pod, "wait").pop("command"),
        lambda pod: container(pod, "main").pop("command"),
        lambda pod: container(pod, "main").update(command=[]),
        lambda pod: container(pod, "wait").update(lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
    ],
)
def test_a_pod_that_neither_check_nor_capture_fit_into_is_not_wrappable(
    pod: Json, spoil: Callable[[Json], None]
) -> None:
    spoil(pod)
    for mode in ("use", "refresh"):
        decision = decide(annotate(pod, mode=mode))
        assert skipped(decision) == Reason.CANNOT_WRAP_COMMAND
        assert decision.detail


@pytest.mark.parametrize(
    ("name", "change", "detail"),
    [
        (
            "main",
            {"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}},
            "container main has lifecycle hooks",
        ),
        ("init", {"command": None}, "container init has no command of its own"),
        ("init", {"command": []}, "container init has no command of its own"),
        ("prep", {"restartPolicy": "Always"}, "container prep has restartPolicy Always"),
        ("db", {"restartPolicy": "Always"}, "container db has restartPolicy Always"),
        ("main", {"restartPolicyRules": [{}]}, "container main has restartPolicyRules"),
        ("init", {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}, "container init has lifecycle hooks"),
    ],
)
def test_where_a_managed_container_cannot_be_wrapped_there_is_capture_alone(
    load: Callable[[str], Json], name: str, change: Json, detail: str
) -> None:
    pod = load("v4.1.2-legacy/sidecars-and-init")
    container(pod, name).update(change)
    decision = decide(pod)
    assert isinstance(decision, Inject)
    assert (decision.reason, decision.detail) == (Reason.INJECTED_CAPTURE, detail)
    assert (decision.plan.check, decision.plan.capture) == (False, True)


def test_a_readonly_step_that_cannot_be_wrapped_is_left_alone(pod: Json) -> None:
    container(pod, "main")["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    assert skipped(decide(annotate(pod, mode="readonly"))) == Reason.CANNOT_WRAP_COMMAND


def test_a_container_that_is_not_argos_may_have_hooks(pod: Json) -> None:
    pod["spec"]["containers"].append({"name": "istio-proxy", "lifecycle": {"preStop": {}}})
    assert decide(pod).reason == Reason.INJECTED


# --- What is looked up -------------------------------------------------------------------------------


def screened(pod: Json) -> Skip | None:
    step = StepPod.parse(pod, NAMESPACE)
    assert isinstance(step, StepPod)
    return screen(step)


def test_screening_lets_a_pod_through_that_may_be_injected(pod: Json) -> None:
    assert screened(pod) is None


def test_screening_ends_what_the_pod_alone_decides(pod: Json, load: Callable[[str], Json]) -> None:
    assert skipped(screened(load("v4.1.2-legacy/container.golden"))) == Reason.ALREADY_INJECTED
    assert skipped(screened(annotate(pod, memoize="false"))) == Reason.OPTED_OUT
    assert skipped(screened(annotate(pod, key=None))) == Reason.NO_KEY
