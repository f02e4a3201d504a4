import gc
import json
import tracemalloc
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo import names as argo
from argo.steppod import Owner
from keeper.steppods import GatedStep, InjectedPod, InvalidStep, Key, Phase, read
from memoize import names
from memoize.key import data_key
from memoize.outcome import Outcome
from memoize.plan import Plan
from memoize.reasons import Reason
from tests.keeper.gatedsteps import GATE, held, recorded

Json = dict[str, Any]


def parsed(pod: Json) -> GatedStep:
    found = read(pod)
    assert isinstance(found, GatedStep), found
    return found


def stray(pod: Json) -> Reason:
    found = read(pod)
    assert isinstance(found, InvalidStep), found
    return found.outcome.reason


def test_all_comes_from_the_pod() -> None:
    found = parsed(held(gc=True))
    assert (found.uid, found.namespace, found.name) == ("pod-uid", "cap-v412-legacy", "container-kpr47")
    assert (found.version, found.phase, found.deleting) == ("7", Phase.GATED, False)
    assert found.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.until == datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    assert found.owner == Owner(found.namespace, "container-kpr47", "97cc533f-7d1c-4640-9e06-4bedb72ca564")
    assert found.key == Key(found.namespace, "memo", "42")
    assert found.step.gc
    assert found.declared.parameters == ({"name": "out", "valueFrom": {"path": "/tmp/out"}},)
    assert found.containers == (("wait", "quay.io/argoproj/argoexec:v4.1.2"), ("main", "busybox"))


@pytest.mark.parametrize("word", [names.RESULT_GATED, names.RESULT_IN_POD])
def test_a_uid_that_no_api_server_makes_is_not_kept(word: str) -> None:
    """An Event that waits would keep it."""
    pod = held()
    pod["metadata"]["labels"][names.RESULT] = word
    pod["metadata"]["ownerReferences"][0]["uid"] = "u" * 100_000
    found = read(pod)
    assert isinstance(found, InvalidStep | InjectedPod)
    assert found.owner is None


def test_pods_without_a_word_of_ours_and_those_that_are_done_are_not_reconciled() -> None:
    pod = recorded("v4.1.2-legacy/container")
    assert read(pod) is None
    for word in (names.RESULT_HIT, names.RESULT_STORED, names.RESULT_SKIPPED, "other"):
        pod["metadata"]["labels"][names.RESULT] = word
        assert read(pod) is None
    assert read({}) is None


@pytest.mark.parametrize("word", [names.RESULT_GATED, names.RESULT_MISS])
@pytest.mark.parametrize(
    ("gates", "status", "phase"),
    [
        ([GATE], "Pending", Phase.GATED),
        ([{"name": "other"}, GATE], "Pending", Phase.GATED),
        ([{"name": "other"}], "Pending", Phase.RUNNING),
        ([], "Pending", Phase.RUNNING),
        ([], "Running", Phase.RUNNING),
        ([], "Unknown", Phase.RUNNING),
        ([], "Succeeded", Phase.OVER),
        ([], "Failed", Phase.OVER),
        ([GATE], "Failed", Phase.OVER),
    ],
)
def test_gate_and_status_say_where_a_pod_stands_whatever_the_label_says(
    word: str, gates: list[Json], status: str, phase: Phase
) -> None:
    pod = held()
    pod["metadata"]["labels"][names.RESULT] = word
    pod["spec"]["schedulingGates"] = gates
    pod["status"]["phase"] = status
    assert parsed(pod).phase is phase


def test_a_held_pod_whose_label_says_that_it_runs_was_told_to() -> None:
    pod = held()
    assert parsed(pod).release_reason is None
    pod["metadata"]["labels"][names.RESULT] = names.RESULT_MISS
    assert parsed(pod).release_reason == Outcome(Reason.UNDECIDED, "it was to run already")
    pod["metadata"]["annotations"][names.REASON] = "Expired: older than 1h"
    assert parsed(pod).release_reason == Outcome(Reason.EXPIRED, "older than 1h")
    del pod["metadata"]["annotations"][names.REASON], pod["spec"]["schedulingGates"]
    assert parsed(pod).release_reason is None


def test_a_pod_with_the_digest_of_its_key_is_the_same_step() -> None:
    whole = held()
    whole["metadata"]["annotations"] |= {names.KEY: "a b", names.PLAN: plan(whole, data_key("a b"))}
    short = deepcopy(whole)
    del short["metadata"]["annotations"][names.KEY]
    short["metadata"]["annotations"][names.KEY_DIGEST] = data_key("a b")
    assert parsed(short).key == parsed(whole).key
    short["metadata"]["annotations"][names.KEY_DIGEST] = data_key("a  b")
    assert stray(short) is Reason.INVALID_ANNOTATIONS


def plan(pod: Json, place: str) -> str:
    return Plan.from_json(pod["metadata"]["annotations"][names.PLAN])._replace(data_key=place).to_json()


def test_a_pod_that_decides_inside_of_itself_needs_no_plan() -> None:
    pod = recorded("v4.1.2-legacy/container")
    pod["metadata"]["labels"][names.RESULT] = names.RESULT_IN_POD
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:09Z"
    found = read(pod)
    assert isinstance(found, InjectedPod)
    assert (found.uid, found.phase, found.deleting) == ("pod-uid", Phase.RUNNING, True)


def test_what_claims_another_node_is_a_stray() -> None:
    pod = held()
    pod["metadata"]["annotations"][argo.NODE_ID] = "victim"
    assert stray(pod) is Reason.IDENTITY_MISMATCH


@pytest.mark.parametrize(
    "plan", ["", "{", "[]", "null", '{"cache":"memo"}', "[" * 100_000, held()["metadata"]["name"]]
)
def test_a_pod_without_a_plan_that_can_be_read_is_a_stray(plan: str) -> None:
    pod = held()
    pod["metadata"]["annotations"][names.PLAN] = plan
    assert stray(pod) is Reason.INVALID_ANNOTATIONS


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": "other"},
        {"data_key": "43"},
    ],
)
def test_a_plan_for_something_else_makes_a_stray(changes: Json) -> None:
    assert stray(held(**changes)) is Reason.INVALID_ANNOTATIONS


def test_a_template_that_was_made_to_break_the_reader_makes_a_stray() -> None:
    pod = held()
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        for variable in container.get("env", ()):
            if variable["name"] == argo.ENV_TEMPLATE:
                variable["value"] = "[" * 60_000
    assert stray(pod) is Reason.NOT_A_STEP


def test_a_pod_that_nobody_thought_of_makes_a_stray() -> None:
    pod = held()
    pod["spec"]["containers"][0]["env"] = ["no variable"]
    assert stray(pod) is Reason.INTERNAL_ERROR


def test_who_waits_behind_another_gate_leads_nobody() -> None:
    pod = held()
    assert parsed(pod).may_run_for_others
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    assert not parsed(pod).may_run_for_others


def test_a_pod_that_admission_would_not_have_left_to_us_is_a_stray() -> None:
    assert stray(held("v4.1.2-legacy/large-template")) is Reason.UNDECIDED
    assert stray(held("v4.1.2-legacy/daemon")) is Reason.UNSUPPORTED_TEMPLATE
    pod = held()
    pod["metadata"]["annotations"][names.CACHE] = "{{x}}"
    assert stray(pod) is Reason.UNRESOLVED_TAG


def test_a_stray_says_enough_to_be_released() -> None:
    pod = held()
    del pod["metadata"]["annotations"]
    found = read(pod)
    assert isinstance(found, InvalidStep)
    assert (found.phase, found.gates, found.has_annotations) == (Phase.GATED, (names.SCHEDULING_GATE,), False)


@pytest.mark.parametrize(
    ("share", "capture", "leads", "word"),
    [
        (True, True, True, names.RESULT_MISS),
        (False, True, False, names.RESULT_MISS),
        (True, False, False, names.RESULT_SKIPPED),
        (False, False, False, names.RESULT_SKIPPED),
    ],
)
def test_only_what_shares_and_is_stored_leads(share: bool, capture: bool, leads: bool, word: str) -> None:
    found = parsed(held(share=share, capture=capture))
    assert (found.may_run_for_others, found.label_when_released) == (leads, word)


def templated(case: str, outputs: Json | None, **changes: Any) -> Json:
    """The Pod, with these outputs in its template, and other fields of it."""
    pod = held(case)
    for kind in ("initContainers", "containers"):
        for container in pod["spec"].get(kind, ()):
            for variable in container.get("env", ()):
                if variable["name"] == argo.ENV_TEMPLATE:
                    template = {**json.loads(variable["value"]), "outputs": outputs, **changes}
                    variable["value"] = json.dumps(template)
    return pod


def with_result(pod: Json) -> Json:
    for container in pod["spec"]["containers"]:
        for variable in container["env"]:
            if variable["name"] == argo.ENV_INCLUDE_SCRIPT_OUTPUT:
                variable["value"] = "true"
    return pod


PARAMETER = {"parameters": [{"name": "out", "valueFrom": {"path": "/out"}}]}
OPTIONAL = {"artifacts": [{"name": "out", "path": "/out", "optional": True}]}
REQUIRED = {"artifacts": [{"name": "out", "path": "/out"}]}
GUARDED = ("v3.6.19-legacy/container", "v4.1.2-legacy/container", "v4.1.2-initless/container")
EVERY = ("v3.5.15-legacy/container", *GUARDED)


def of_executor(pod: Json, tag: str) -> Json:
    """The Pod as another controller would have made it: its executor's image has another tag, or digest."""
    for kind in ("initContainers", "containers"):
        for container in pod["spec"].get(kind) or ():
            if container["name"] in ("init", "wait", "supervisor"):
                container["image"] = f"quay.io/argoproj/argoexec{tag}"
    return pod


@pytest.mark.parametrize("case", EVERY)
def test_a_step_without_outputs_needs_no_pause(case: str) -> None:
    assert not parsed(templated(case, None)).needs_pause


@pytest.mark.parametrize("case", EVERY)
def test_what_argo_does_not_wait_for_needs_a_pause(case: str) -> None:
    assert parsed(templated(case, OPTIONAL)).needs_pause
    assert parsed(with_result(templated(case, None))).needs_pause


@pytest.mark.parametrize("outputs", [PARAMETER, REQUIRED, PARAMETER | OPTIONAL])
@pytest.mark.parametrize("tag", [":v3.6.11", ":v3.7.1", ":v4.0.0", ":v5.0.0"])
@pytest.mark.parametrize("case", GUARDED)
def test_outputs_that_argo_waits_for_need_no_pause(case: str, tag: str, outputs: Json) -> None:
    assert not parsed(of_executor(templated(case, outputs), tag)).needs_pause
    assert not parsed(of_executor(with_result(templated(case, outputs)), tag)).needs_pause


@pytest.mark.parametrize("outputs", [PARAMETER, REQUIRED, PARAMETER | OPTIONAL])
@pytest.mark.parametrize(
    "tag", [":v3.5.15", ":v3.6.0", ":v3.6.10", ":v3.7.0", ":latest", "", "@sha256:" + "0" * 64]
)
@pytest.mark.parametrize("case", EVERY)
def test_where_argo_does_not_wait_or_its_version_is_not_known_there_is_a_pause(
    case: str, tag: str, outputs: Json
) -> None:
    assert parsed(of_executor(templated(case, outputs), tag)).needs_pause


@pytest.mark.parametrize("tag", [":v3.6.19", ":v3.7.18", ":v4.1.2"])
def test_argo_does_not_look_for_outputs_where_no_main_container_ends(tag: str) -> None:
    pod = templated(
        "v4.1.2-legacy/container-set", PARAMETER, containerSet={"containers": [{"name": "a", "image": "x"}]}
    )
    pod["spec"]["containers"] = [c for c in pod["spec"]["containers"] if c["name"] != "main"]
    assert parsed(of_executor(pod, tag)).needs_pause


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    annotations=st.dictionaries(
        st.sampled_from([names.PLAN, names.KEY, names.CACHE, names.MAX_AGE, argo.NODE_ID, argo.NODE_NAME]),
        st.text(max_size=30) | _JSON.map(json.dumps),
        max_size=4,
    ),
    template=_JSON.map(json.dumps) | st.text(max_size=10),
)
def test_no_pod_that_an_api_server_takes_keeps_the_keeper_from_reading_it(
    annotations: dict[str, str], template: str
) -> None:
    pod = held()
    pod["metadata"]["annotations"].update(annotations)
    for container in pod["spec"]["initContainers"]:
        for variable in container["env"]:
            if variable["name"] == argo.ENV_TEMPLATE:
                variable["value"] = template
    assert isinstance(read(pod), GatedStep | InvalidStep)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [1, 5000])
def test_the_size_of_a_step_is_about_what_it_takes(parameters: int) -> None:
    """As text of many small objects is not: they take fifteen times as much."""
    pod = held()
    outputs = {"parameters": [{"name": f"{number}"} for number in range(parameters)]}
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        for variable in container.get("env", ()):
            if variable["name"] == argo.ENV_TEMPLATE:
                variable["value"] = json.dumps({**json.loads(variable["value"]), "outputs": outputs})
    text = json.dumps(pod)
    parsed(json.loads(text))  # what a first time keeps for later ones is not this Pod's
    tracemalloc.start()
    try:
        found = parsed(json.loads(text))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.declared.parameters) == parameters
    assert taken < 2 * found.size + 8000


@pytest.mark.parametrize(
    ("tag", "may"), [(":v3.6.16", False), (":v3.7.18", True), (":v4.0.0", False), (":latest", False)]
)
@pytest.mark.parametrize("case", EVERY)
def test_the_executors_version_says_whether_a_nudge_is_of_use(case: str, tag: str, may: bool) -> None:
    assert parsed(of_executor(templated(case, PARAMETER), tag)).may_nudge is may
