import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings

from argo import names as argo
from memoize import names
from memoize.keeper_status import Known
from memoize.plan import Plan
from memoize.reasons import Reason
from tests.recordedpods import PODS
from tests.webhook.pods import judged
from tests.webhook.pods.steppods import step_pods
from webhook.pods import gating
from webhook.pods.decision import MemoizedStep, Skip
from webhook.pods.gating import Gate, RunAndCapture

Json = dict[str, Any]
RECORDED = PODS / "v4.1.2-legacy" / "container.json"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FOLLOW = timedelta(minutes=10)


def step_pod(**template: Any) -> Json:
    """The recorded Pod, with these members in its template."""
    pod: Json = json.loads(RECORDED.read_text(encoding="utf-8"))
    for kind in ("initContainers", "containers"):
        for container in pod["spec"][kind]:
            for variable in container.get("env", ()):
                if variable["name"] == argo.ENV_TEMPLATE:
                    variable["value"] = json.dumps({**json.loads(variable["value"]), **template})
    return pod


def decide(
    pod: Json, known: Known, mode: str = "use", follow: timedelta = FOLLOW
) -> Gate | RunAndCapture | None:
    workflow = {"annotations": {names.MODE: mode}}
    wanted = judged.classify(pod, "default", workflow, {})
    assert isinstance(wanted, MemoizedStep)
    return gating.decide_gating(wanted, known, NOW, follow)


def held(decision: object) -> Plan:
    assert isinstance(decision, Gate)
    return decision.plan


def watched(decision: object) -> RunAndCapture:
    assert isinstance(decision, RunAndCapture)
    return decision


def test_a_step_whose_entry_is_there_is_held_and_names_it() -> None:
    plan = held(decide(step_pod(), Known.FRESH))
    assert (plan.share, plan.capture) == (True, True)
    annotations = step_pod()["metadata"]["annotations"]
    assert plan.cache == annotations[names.CACHE]


def test_a_step_without_an_entry_is_held_for_an_equal_one() -> None:
    plan = held(decide(step_pod(), Known.ABSENT))
    assert plan.share
    assert plan.wait_seconds == FOLLOW.total_seconds()


@pytest.mark.parametrize("mode", ["use", "refresh", "readonly"])
def test_what_the_view_does_not_know_is_left_to_the_pod(mode: str) -> None:
    assert decide(step_pod(), Known.UNKNOWN, mode=mode) is None


def test_a_refresh_runs_whatever_there_is_and_is_stored() -> None:
    for known in (Known.FRESH, Known.ABSENT):
        plan = watched(decide(step_pod(), known, mode="refresh")).plan
        assert plan.capture
        assert not plan.share


def test_readonly_is_answered_and_never_stored() -> None:
    assert not held(decide(step_pod(), Known.FRESH, mode="readonly")).capture


def test_readonly_that_cannot_be_held_runs_and_is_nobodys_business() -> None:
    pod = step_pod()
    pod["spec"]["nodeName"] = "here"
    decision = watched(decide(pod, Known.ABSENT, mode="readonly"))
    after = jsonpatch.apply_patch(copy.deepcopy(pod), gating.ops(pod, decision))
    assert after["metadata"]["labels"][names.RESULT] == names.RESULT_SKIPPED


def test_an_offloaded_template_is_left_to_the_pod() -> None:
    pod = step_pod()
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        for variable in container.get("env", ()):
            if variable["name"] == argo.ENV_TEMPLATE:
                variable["value"] = argo.TEMPLATE_OFFLOADED
    assert decide(pod, Known.FRESH) is None


@pytest.mark.parametrize(
    "change",
    [
        {"nodeName": "here"},
        {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]},
    ],
)
def test_a_pod_that_cannot_be_held_is_watched_or_left_to_itself(change: Json) -> None:
    pod = step_pod()
    pod["spec"] |= change
    assert decide(pod, Known.FRESH) is None
    assert not watched(decide(pod, Known.ABSENT)).plan.share


def test_a_volume_made_for_the_workflow_is_an_obstacle() -> None:
    pod = step_pod()
    workflow = pod["metadata"]["labels"][argo.WORKFLOW_LABEL]
    claim = {"name": "work", "persistentVolumeClaim": {"claimName": f"{workflow}-work"}}
    pod["spec"]["volumes"].append(claim)
    assert decide(pod, Known.FRESH) is None
    claim["persistentVolumeClaim"]["claimName"] = "shared"
    assert held(decide(pod, Known.FRESH))


@pytest.mark.parametrize("template", [{"resource": {"action": "get"}}, {"synchronization": {"mutex": {}}}])
def test_what_changes_the_cluster_or_holds_a_lock_waits_for_nobody(template: Json) -> None:
    assert not watched(decide(step_pod(**template), Known.ABSENT)).plan.share
    assert not held(decide(step_pod(**template), Known.FRESH)).share


def test_what_kueue_admits_waits_for_nobody() -> None:
    pod = step_pod()
    pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "queue"
    assert not watched(decide(pod, Known.ABSENT)).plan.share
    pod = step_pod()
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    assert not watched(decide(pod, Known.ABSENT)).plan.share


def test_the_template_can_decline_to_wait() -> None:
    pod = step_pod()
    pod["metadata"]["annotations"][names.SINGLE_FLIGHT] = "false"
    assert names.SINGLE_FLIGHT in watched(decide(pod, Known.ABSENT)).detail


def test_no_time_to_follow_means_that_none_waits() -> None:
    assert not watched(decide(step_pod(), Known.ABSENT, follow=timedelta())).plan.share


@pytest.mark.parametrize("limit", ["timeout", "pendingTimeout", "activeDeadlineSeconds", "pod", "deadline"])
def test_a_pod_waits_for_an_equal_step_a_fifth_of_its_time_limit_at_most(limit: str) -> None:
    pod = step_pod(**({limit: "100s"} if limit in ("timeout", "pendingTimeout") else {}))
    match limit:
        case "activeDeadlineSeconds":
            pod = step_pod(activeDeadlineSeconds="100")
        case "pod":
            pod["spec"]["activeDeadlineSeconds"] = 100
        case "deadline":
            end = (NOW + timedelta(seconds=100)).isoformat()
            for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
                kept = [v for v in container.get("env", ()) if v["name"] != argo.ENV_DEADLINE]
                container["env"] = [*kept, {"name": argo.ENV_DEADLINE, "value": end}]
    plan = held(decide(pod, Known.ABSENT))
    assert plan.wait_seconds == 20


def test_a_limit_that_is_none_or_over_means_no_waiting() -> None:
    for text in ("soon", "5s", "-1h", "1ns"):
        assert not watched(decide(step_pod(timeout=text), Known.ABSENT)).plan.share


@pytest.mark.parametrize("word", ["false", "False", "no", "", "{{x}}", "f" * 1000])
def test_a_template_that_asks_for_a_node_is_never_held(word: str) -> None:
    pod = step_pod()
    pod["metadata"]["annotations"][names.GATED] = word
    assert decide(pod, Known.FRESH) is None, "the look-up is done inside the Pod"
    decision = watched(decide(pod, Known.ABSENT))
    assert decision.plan.capture
    assert not decision.plan.share
    assert decision.detail.startswith(names.GATED)
    assert len(decision.detail) < 100


def test_true_is_as_no_word_at_all() -> None:
    pod = step_pod()
    pod["metadata"]["annotations"][names.GATED] = "true"
    assert decide(pod, Known.FRESH) == decide(step_pod(), Known.FRESH)


def test_a_held_pod_gets_a_gate_a_label_and_a_note_and_nothing_else() -> None:
    pod = step_pod()
    decision = decide(pod, Known.FRESH)
    assert isinstance(decision, Gate)
    after = jsonpatch.apply_patch(copy.deepcopy(pod), gating.ops(pod, decision))
    assert after["spec"].pop("schedulingGates") == [{"name": names.SCHEDULING_GATE}]
    assert after["metadata"]["labels"].pop(names.RESULT) == names.RESULT_GATED
    assert Plan.from_json(after["metadata"]["annotations"].pop(names.PLAN)) == decision.plan
    assert after == pod


def test_gates_of_others_stay() -> None:
    pod = step_pod()
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    decision = decide(pod, Known.FRESH)
    assert isinstance(decision, Gate)
    after = jsonpatch.apply_patch(copy.deepcopy(pod), gating.ops(pod, decision))
    assert [gate["name"] for gate in after["spec"]["schedulingGates"]] == [
        "kueue.x-k8s.io/admission",
        names.SCHEDULING_GATE,
    ]


@settings(max_examples=60)
@given(pod=step_pods())
def test_no_pod_is_decided_twice_and_none_gets_a_container(pod: Json) -> None:
    wanted = judged.classify(pod, "default", {}, {})
    assert isinstance(wanted, MemoizedStep)
    decision = gating.decide_gating(wanted, Known.ABSENT, NOW, FOLLOW)
    if decision is None:
        assert wanted.step.declared is None
        return
    before = copy.deepcopy(pod["spec"])
    after = jsonpatch.apply_patch(copy.deepcopy(pod), gating.ops(pod, decision))
    assert judged.classify(after, "default", {}, {}) == Skip(Reason.ALREADY_INJECTED)
    after["spec"].pop("schedulingGates", None)
    assert after["spec"] == before
