"""A second pass over a Pod of which another webhook left only a part of what we put in."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings

from memoize import names
from memoize.reasons import Reason
from tests.recordedpods import PODS
from tests.webhook.keeperstatus import READY
from tests.webhook.pods import judged
from tests.webhook.pods.steppods import step_pods
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.patch import inject
from webhook.pods import gating, traces
from webhook.pods.decision import MemoizedStep, Skip
from webhook.pods.delivery import Delivery

pytestmark = pytest.mark.slow

Json = dict[str, Any]

SETTINGS = InjectSettings(image="registry.test/stepmemo:1")
SERVICE = CacheServiceAddress("https://stepmemo.test", "the PEM")
CHOSEN = [
    replace(SETTINGS, injection=injection, service=service)
    for injection in Delivery
    for service in (None, SERVICE)
]
GOLDEN = sorted(str(p.relative_to(PODS).with_suffix("")) for p in PODS.glob("*/*golden.json"))
KINDS = ("initContainers", "containers")


def injected(pod: Json, chosen: InjectSettings) -> Json | None:
    decision = judged.decide(pod, "default", {}, {}, chosen.injection)
    if isinstance(decision, Skip):
        return None
    after: Json = jsonpatch.apply_patch(pod, inject(pod, decision.plan, chosen))
    return after


def held(pod: Json) -> Json:
    wanted = judged.classify(pod, "default", {}, {})
    assert isinstance(wanted, MemoizedStep)
    decision = gating.decide_gating(wanted, READY, datetime.now(UTC))
    assert isinstance(decision, gating.Gate)
    after: Json = jsonpatch.apply_patch(pod, gating.ops(pod, decision))
    return after


def cleared(pod: Json) -> Json:
    """The Pod before us, as the operations make it and as it is returned."""
    before = copy.deepcopy(pod)
    changed, ops = traces.cleared(pod)
    assert pod == before
    assert changed == jsonpatch.apply_patch(pod, json.loads(json.dumps(ops)))
    return dict(changed)


def bare(pod: Json) -> Json:
    """Without lists that may be empty or not there."""
    spec = {name: value for name, value in pod["spec"].items() if value != []}
    return {**pod, "spec": spec}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_pod_that_still_has_all_is_left_alone(case: str, load: Callable[[str], Json]) -> None:
    assert traces.cleared(load(case))[1] == []


def test_a_pod_that_we_never_saw_is_left_alone(pod: Json) -> None:
    for each in (pod, {}, {"metadata": None, "spec": None}):
        assert traces.cleared(each) == (each, [])


def test_a_container_that_bears_our_name_by_chance_is_its_authors(pod: Json) -> None:
    pod["spec"]["containers"].append({"name": "stepmemo", "image": "x", "command": ["run"]})
    assert traces.cleared(pod)[1] == []


def test_a_held_pod_is_left_alone_while_gate_plan_and_label_agree(pod: Json) -> None:
    assert traces.cleared(held(pod))[1] == []


@pytest.mark.parametrize("gone", ["plan", "label"])
def test_a_gate_that_no_keeper_would_take_away_is_taken_away(pod: Json, gone: str) -> None:
    """A keeper finds its Pods by the label, and decides them by the plan."""
    after = held(pod)
    after["spec"]["schedulingGates"].insert(0, {"name": "others"})
    if gone == "plan":
        del after["metadata"]["annotations"][names.PLAN]
    else:
        del after["metadata"]["labels"][names.RESULT]
    pod["spec"]["schedulingGates"] = [{"name": "others"}]
    assert cleared(after) == pod


def test_what_a_replica_of_another_release_decided_is_left_alone(pod: Json) -> None:
    """In a rollout the second pass may be another replica's, with a plan that we cannot read."""
    after = held(pod)
    after["metadata"]["annotations"][names.PLAN] = '{"version":2,"entry":"memo/k"}'
    assert traces.cleared(after)[1] == []
    assert judged.classify(after, "default", {}, {}) == Skip(Reason.ALREADY_INJECTED)


def test_a_plan_that_an_author_wrote_into_his_template_is_no_earlier_pass(pod: Json) -> None:
    forged = copy.deepcopy(pod)
    forged["metadata"]["annotations"][names.PLAN] = "x"
    assert cleared(forged) == pod


def without(containers: list[Json] | None, name: str) -> list[Json]:
    return [container for container in containers or () if container["name"] != name]


def spoilt(pod: Json, what: str) -> Json:
    """What another webhook may do; the Pod as it is where there is nothing of the kind."""
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    every = [container for kind in KINDS for container in spec.get(kind) or ()]
    wrapped = [
        c for c in every if (c.get("command") or [""])[0] in (names.ENTRYPOINT, names.VOLUME_ENTRYPOINT)
    ]
    match what:
        case "check gone":
            spec["initContainers"] = without(spec.get("initContainers"), "stepmemo-check")
        case "check beside":
            spec["containers"] += (
                c for c in spec.get("initContainers") or () if c["name"] == "stepmemo-check"
            )
            return spoilt(pod, "check gone")
        case "capture gone":
            spec["containers"] = without(spec["containers"], "stepmemo")
        case "both gone":
            return spoilt(spoilt(pod, "check gone"), "capture gone")
        case "check last":
            inits = spec.get("initContainers") or []
            if any(container in wrapped for container in inits):
                inits.sort(key=lambda container: container["name"] == "stepmemo-check")
        case "volume gone":
            spec["volumes"] = without(spec["volumes"], "stepmemo")
        case "program gone":
            spec["volumes"] = without(spec["volumes"], "stepmemo-bin")
        case "image gone":
            spec["volumes"] = without(spec["volumes"], "stepmemo-image")
        case "mount gone":
            wrapped[0]["volumeMounts"] = without(wrapped[0]["volumeMounts"], "stepmemo")
        case "command anew":
            wrapped[-1]["command"] = wrapped[-1]["command"][wrapped[-1]["command"].index("--") + 1 :]
        case "ours changed":
            for container in every:
                if container["name"] in names.CONTAINERS:
                    container["command"] = ["theirs", *container["command"]]
    return pod


WAYS = [
    "check gone",
    "check beside",
    "capture gone",
    "both gone",
    "check last",
    "volume gone",
    "program gone",
    "image gone",
    "mount gone",
    "command anew",
    "ours changed",
]


@pytest.mark.parametrize(
    "chosen", CHOSEN, ids=lambda c: f"{c.injection}-{'service' if c.service else 'direct'}"
)
def test_an_entrypoint_that_another_webhook_starts_by_its_own_program_stays_with_all_that_it_needs(
    pod: Json, chosen: InjectSettings
) -> None:
    """Bank-Vaults' webhook makes `/vault/vault-env` the command, and what was the command its arguments."""
    after = injected(pod, chosen)
    assert after is not None
    [main] = [container for container in after["spec"]["containers"] if container["name"] == "main"]
    main["args"] = [*main["command"], *main.get("args", [])]
    main["command"] = ["/vault/vault-env"]
    assert traces.cleared(after) == (after, [])


@pytest.mark.parametrize(
    "chosen", CHOSEN, ids=lambda c: f"{c.injection}-{'service' if c.service else 'direct'}"
)
@given(pod=step_pods())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_pod_is_whole_or_made_what_it_was_and_decided_anew(pod: Json, chosen: InjectSettings) -> None:
    whole = injected(pod, chosen)
    if whole is None:
        return
    assert traces.cleared(whole)[1] == []
    for what in WAYS:
        left = spoilt(whole, what)
        if bare(left) == bare(whole):
            continue
        again = cleared(left)
        kept = {name: again["spec"][name] for name in ("imagePullSecrets",) if name in again["spec"]}
        assert bare(again) == bare({**pod, "spec": {**pod["spec"], **kept}}), what
        decision = judged.decide(again, "default", {}, {}, chosen.injection)
        assert decision.reason is not Reason.ALREADY_INJECTED, what
        assert injected(again, chosen) is not None, what
