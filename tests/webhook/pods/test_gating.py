import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings

from argo import names as argo
from memoize import names
from memoize.keeper_status import KeeperStatus, Namespaces
from memoize.plan import LONGEST_WAIT, VERSION, Plan
from memoize.reasons import Reason
from tests.recordedpods import PODS
from tests.webhook.keeperstatus import FROZEN, GONE, READY
from tests.webhook.pods import judged
from tests.webhook.pods.steppods import step_pods
from webhook.pods import gating
from webhook.pods.decision import MemoizedStep, Skip
from webhook.pods.gating import Gate, RunAndCapture

Json = dict[str, Any]
RECORDED = PODS / "v4.1.2-legacy" / "container.json"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Decision = Gate | RunAndCapture | Skip | None


def step_pod(**template: Any) -> Json:
    """The recorded Pod, with these members in its template."""
    pod: Json = json.loads(RECORDED.read_text(encoding="utf-8"))
    for kind in ("initContainers", "containers"):
        for container in pod["spec"][kind]:
            for variable in container.get("env", ()):
                if variable["name"] == argo.ENV_TEMPLATE:
                    variable["value"] = json.dumps({**json.loads(variable["value"]), **template})
    return pod


def decide(pod: Json, status: KeeperStatus | None = READY, mode: str = "use") -> Decision:
    workflow = {"annotations": {names.MODE: mode}}
    wanted = judged.classify(pod, "default", workflow, {})
    assert isinstance(wanted, MemoizedStep)
    return gating.decide_gating(wanted, status, NOW)


def gated(decision: Decision) -> Plan:
    assert isinstance(decision, Gate)
    return decision.plan


def runs(decision: Decision) -> RunAndCapture:
    assert isinstance(decision, RunAndCapture)
    return decision


def offloaded() -> Json:
    pod = step_pod()
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        for variable in container.get("env", ()):
            if variable["name"] == argo.ENV_TEMPLATE:
                variable["value"] = argo.TEMPLATE_OFFLOADED
    return pod


def with_spec(**change: Any) -> Json:
    pod = step_pod()
    pod["spec"] |= change
    return pod


def with_claim(name: str) -> Json:
    pod = step_pod()
    pod["spec"]["volumes"].append({"name": "work", "persistentVolumeClaim": {"claimName": name}})
    return pod


def with_annotation(name: str, value: str) -> Json:
    pod = step_pod()
    pod["metadata"]["annotations"][name] = value
    return pod


def with_deadline(left: timedelta) -> Json:
    pod = step_pod()
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        kept = [v for v in container.get("env", ()) if v["name"] != argo.ENV_DEADLINE]
        container["env"] = [*kept, {"name": argo.ENV_DEADLINE, "value": (NOW + left).isoformat()}]
    return pod


def of_kueue() -> Json:
    pod = step_pod()
    pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "queue"
    return pod


WORKFLOW = step_pod()["metadata"]["labels"][argo.WORKFLOW_LABEL]
SHARED = {
    "as recorded": step_pod(),
    "a claim of its author's": with_claim("shared"),
    "a claim of its author's whose name begins as its workflow's": with_claim(f"{WORKFLOW}s"),
    "thirty seconds": step_pod(timeout="30s"),
    "asks for no node": with_annotation(names.GATED, "true"),
}
UNSHARED = {
    "declines to": with_annotation(names.SINGLE_FLIGHT, "false"),
    "changes the cluster": step_pod(resource={"action": "get"}),
    "holds a lock": step_pod(synchronization={"mutex": {}}),
    "is admitted by Kueue": of_kueue(),
    "has another gate": with_spec(schedulingGates=[{"name": "kueue.x-k8s.io/admission"}]),
}
"""Pods that neither wait for an equal step nor are waited for."""
NOT_GATED = {
    "names its node": with_spec(nodeName="here"),
    "a volume of its own": with_spec(volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]),
    "a volume of its workflow's": with_claim(f"{WORKFLOW}-work"),
    "asks for a node": with_annotation(names.GATED, "false"),
    "less than thirty seconds": step_pod(timeout="29s"),
    "a deadline that is near": with_deadline(timedelta(seconds=29)),
    "a deadline that is over": with_deadline(timedelta(seconds=-1)),
    "a limit that is none": step_pod(timeout="soon"),
}
IN_THE_POD = {**SHARED, **UNSHARED, **NOT_GATED}
"""Those that hold their template."""
EVERY_POD = {**IN_THE_POD, "offloaded": offloaded()}
BUSY = {
    "not in sync": replace(READY, ready=False),
    "backlogged": replace(READY, backlogged=Namespaces.of(["default"])),
    "reads no plan of ours": replace(READY, plans=frozenset({VERSION + 1})),
}


@pytest.mark.parametrize("pod", [*SHARED.values(), *UNSHARED.values()], ids=[*SHARED, *UNSHARED])
@pytest.mark.parametrize("mode", ["use", "readonly"])
def test_whatever_may_hit_or_share_is_gated_by_a_keeper_that_is_ready(pod: Json, mode: str) -> None:
    plan = gated(decide(pod, mode=mode))
    assert (plan.cache, plan.capture) == (pod["metadata"]["annotations"][names.CACHE], mode == "use")


@pytest.mark.parametrize("pod", NOT_GATED.values(), ids=NOT_GATED)
@pytest.mark.parametrize("mode", ["use", "readonly"])
def test_what_cannot_be_gated_is_injected_beside_a_keeper_that_is_ready(pod: Json, mode: str) -> None:
    assert decide(pod, mode=mode) is None


@pytest.mark.parametrize("pod", EVERY_POD.values(), ids=EVERY_POD)
@pytest.mark.parametrize("status", BUSY.values(), ids=BUSY)
@pytest.mark.parametrize("mode", ["use", "refresh", "readonly"])
def test_every_pod_is_injected_while_the_keeper_is_busy(pod: Json, status: KeeperStatus, mode: str) -> None:
    assert decide(pod, status, mode) is None


@pytest.mark.parametrize("pod", EVERY_POD.values(), ids=EVERY_POD)
@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("mode", ["use", "refresh", "readonly"])
def test_every_pod_is_left_alone_where_the_keeper_neither_decides_nor_answers(
    pod: Json, ready: bool, mode: str
) -> None:
    elsewhere = replace(READY, ready=ready, keeps=Namespaces.of(["other"]))
    assert decide(pod, elsewhere, mode) == Skip(Reason.NAMESPACE_NOT_KEPT)


@pytest.mark.parametrize("pod", IN_THE_POD.values(), ids=IN_THE_POD)
def test_without_a_keeper_a_pod_runs_and_is_stored_by_one_that_comes_back(pod: Json) -> None:
    decision = runs(decide(pod, GONE))
    assert decision.plan.capture
    assert decision.detail == "no keeper renews its Lease"
    beside_a_keeper = decide(pod)
    if isinstance(beside_a_keeper, Gate):
        assert decision.plan.share is beside_a_keeper.plan.share, "who runs it is the same to equal steps"


def test_a_step_that_stores_nothing_is_left_alone_without_a_keeper() -> None:
    detail = "no keeper renews its Lease, and mode is readonly"
    assert decide(step_pod(), GONE, "readonly") == Skip(Reason.KEEPER_UNAVAILABLE, detail)


@pytest.mark.parametrize("pod", IN_THE_POD.values(), ids=IN_THE_POD)
@pytest.mark.parametrize("status", [READY, GONE], ids=["ready", "gone"])
def test_a_refresh_runs_and_is_stored_whatever_it_is(pod: Json, status: KeeperStatus | None) -> None:
    plan = runs(decide(pod, status, "refresh")).plan
    assert (plan.capture, plan.share) == (True, False)


@pytest.mark.parametrize("mode", ["use", "refresh", "readonly"])
def test_a_template_that_is_not_in_the_pod_is_never_decided_outside_of_it(mode: str) -> None:
    assert decide(offloaded(), READY, mode) is None
    left = decide(offloaded(), GONE, mode)
    assert isinstance(left, Skip)
    assert left.reason is Reason.KEEPER_UNAVAILABLE


@pytest.mark.parametrize("pod", SHARED.values(), ids=SHARED)
def test_a_step_waits_for_an_equal_one_as_long_as_the_keeper_says(pod: Json) -> None:
    decision = decide(pod)
    assert isinstance(decision, Gate)
    assert (decision.plan.share, decision.detail) == (True, "")
    assert decision.plan.wait_seconds <= 600
    assert gated(decide(step_pod())).wait_seconds == 600
    assert gated(decide(step_pod(), replace(READY, wait_seconds=10**30))).wait_seconds == LONGEST_WAIT


@pytest.mark.parametrize("pod", UNSHARED.values(), ids=UNSHARED)
def test_a_step_that_waits_for_nobody_says_why(pod: Json) -> None:
    decision = decide(pod)
    assert isinstance(decision, Gate)
    assert not decision.plan.share
    assert decision.detail


def test_a_keeper_that_lets_no_step_wait_is_obeyed() -> None:
    for seconds in (0, 1):
        assert not gated(decide(step_pod(), replace(READY, wait_seconds=seconds))).share


@pytest.mark.parametrize("limit", ["timeout", "pendingTimeout", "activeDeadlineSeconds", "pod", "deadline"])
def test_a_pod_waits_for_an_equal_step_a_fifth_of_its_time_limit_at_most(limit: str) -> None:
    pod = step_pod(**({limit: "100s"} if limit in ("timeout", "pendingTimeout") else {}))
    match limit:
        case "activeDeadlineSeconds":
            pod = step_pod(activeDeadlineSeconds="100")
        case "pod":
            pod["spec"]["activeDeadlineSeconds"] = 100
        case "deadline":
            pod = with_deadline(timedelta(seconds=100))
    assert gated(decide(pod)).wait_seconds == 20


@pytest.mark.parametrize("limit", ["timeout", "pendingTimeout", "activeDeadlineSeconds", "pod", "deadline"])
def test_a_pod_with_little_time_is_not_gated_since_the_next_keeper_may_take_some(limit: str) -> None:
    for seconds, gates in ((29, False), (30, True)):
        pod = step_pod(**({limit: f"{seconds}s"} if limit in ("timeout", "pendingTimeout") else {}))
        match limit:
            case "activeDeadlineSeconds":
                pod = step_pod(activeDeadlineSeconds=str(seconds))
            case "pod":
                pod["spec"]["activeDeadlineSeconds"] = seconds
            case "deadline":
                pod = with_deadline(timedelta(seconds=seconds))
        assert isinstance(decide(pod), Gate) is gates


def test_a_limit_that_is_none_or_over_means_no_gate() -> None:
    for text in ("soon", "5s", "-1h", "1ns"):
        assert decide(step_pod(timeout=text)) is None


@pytest.mark.parametrize("limit", ["²", "9" * 5000, "1e3", "{{x}}", None, {}, -1])
def test_a_deadline_that_is_no_number_of_seconds_limits_nothing(limit: Any) -> None:
    assert gated(decide(step_pod(activeDeadlineSeconds=limit))).wait_seconds == READY.wait_seconds


@pytest.mark.parametrize("word", ["false", "False", "no", "", "{{x}}", "f" * 1000])
def test_a_template_that_asks_for_a_node_is_never_gated(word: str) -> None:
    pod = with_annotation(names.GATED, word)
    assert decide(pod) is None, "the look-up is done inside the Pod"


def test_true_is_as_no_word_at_all() -> None:
    assert decide(with_annotation(names.GATED, "true")) == decide(step_pod())


def test_a_readonly_step_over_the_limit_of_its_namespace_is_nobodys_business() -> None:
    pod = step_pod()
    run = RunAndCapture(gated(decide(pod, mode="readonly")), "too many")
    after = jsonpatch.apply_patch(pod, gating.ops(pod, run))
    assert after["metadata"]["labels"][names.RESULT] == names.RESULT_SKIPPED


@pytest.mark.parametrize("field", ["version", "shards", *json.loads(FROZEN)])
def test_with_a_keeper_of_another_release_no_step_is_lost_and_none_waits_for_ever(field: str) -> None:
    """Whatever its status has more or less: a gated Pod is kept by it, and its plan can be read by it.

    Without a word on the Namespaces it keeps, it keeps none.
    """
    fields = json.loads(FROZEN)
    fields = {**fields, field: 2} if field in ("version", "shards") else {**fields, field: None}
    status = KeeperStatus.from_json(json.dumps(fields))
    decision = decide(step_pod(), status)
    if isinstance(decision, Gate):
        assert status is not None
        assert status.ready
        assert "default" in status.keeps
        assert VERSION in status.plans
        assert decision.plan.wait_seconds <= status.wait_seconds
    elif field == "keeps":
        assert decision == Skip(Reason.NAMESPACE_NOT_KEPT)
    else:
        assert decision is None or runs(decision).plan.capture


def test_a_gated_pod_gets_a_gate_a_label_and_a_plan_and_nothing_else() -> None:
    pod = step_pod()
    decision = decide(pod)
    assert isinstance(decision, Gate)
    after = jsonpatch.apply_patch(pod, gating.ops(pod, decision))
    assert after["spec"].pop("schedulingGates") == [{"name": names.SCHEDULING_GATE}]
    assert after["metadata"]["labels"].pop(names.RESULT) == names.RESULT_GATED
    assert Plan.from_json(after["metadata"]["annotations"].pop(names.PLAN)) == decision.plan
    assert after == pod


def test_gates_of_others_stay() -> None:
    pod = step_pod()
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    decision = decide(pod)
    assert isinstance(decision, Gate)
    after = jsonpatch.apply_patch(pod, gating.ops(pod, decision))
    assert [gate["name"] for gate in after["spec"]["schedulingGates"]] == [
        "kueue.x-k8s.io/admission",
        names.SCHEDULING_GATE,
    ]


@settings(max_examples=60)
@given(pod=step_pods())
def test_no_pod_is_decided_twice_and_none_gets_a_container(pod: Json) -> None:
    wanted = judged.classify(pod, "default", {}, {})
    assert isinstance(wanted, MemoizedStep)
    decision = gating.decide_gating(wanted, READY, NOW)
    if not isinstance(decision, Gate | RunAndCapture):
        decision = gating.decide_gating(wanted, GONE, NOW)
    if isinstance(decision, Skip):
        assert decision.reason is Reason.KEEPER_UNAVAILABLE
        return
    assert decision is not None
    before = copy.deepcopy(pod["spec"])
    after = jsonpatch.apply_patch(pod, gating.ops(pod, decision))
    assert judged.classify(after, "default", {}, {}) == Skip(Reason.ALREADY_INJECTED)
    after["spec"].pop("schedulingGates", None)
    assert after["spec"] == before
