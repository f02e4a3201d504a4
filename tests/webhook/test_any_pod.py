"""What holds for every step Pod, however it looks and however the entrypoint gets into it."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jsonpatch
from hypothesis import given, settings

from memoize import names
from memoize.reasons import Reason
from tests.webhook.directly import mutated
from tests.webhook.pods import judged
from tests.webhook.pods.steppods import step_pods
from webhook.inject import qos
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.patch import inject
from webhook.pods.decision import Inject, Skip
from webhook.pods.delivery import Delivery

Json = dict[str, Any]
SETTINGS = InjectSettings(image="registry.test/stepmemo:1", pull_secrets=("ours",))

SERVICE = CacheServiceAddress("https://stepmemo.test", "the PEM")
CHOSEN = [
    replace(SETTINGS, injection=injection, service=service)
    for injection in Delivery
    for service in (None, SERVICE)
]
"""Each example is a Pod for all of them: to draw it takes longer than to inject it."""
quickly = settings(max_examples=min(40, settings.default.max_examples))


def decide(pod: Json, injection: Delivery) -> Inject | Skip:
    return judged.decide(pod, "default", {}, {}, injection)


def injected(pod: Json, chosen: InjectSettings) -> Json | None:
    """The Pod after the operations, as they travel; None where it is left alone."""
    decision = decide(pod, chosen.injection)
    if isinstance(decision, Skip):
        assert decision.reason == Reason.CANNOT_WRAP_COMMAND, decision
        return None
    before = deepcopy(pod)
    ops = inject(pod, decision.plan, chosen)
    assert pod == before, "inject must leave its argument alone"
    paths = [op["path"] for op in ops]
    nested = [path for at, path in enumerate(paths) if any(path.startswith(f"{p}/") for p in paths[:at])]
    assert nested == [], "the server's own check leaves the values out"
    changed: Json = jsonpatch.apply_patch(pod, json.loads(json.dumps(ops)))
    return changed


def all_injected(pod: Json) -> Iterator[tuple[InjectSettings, Json]]:
    """The Pod by each setting that it is not left alone by, in ever another copy."""
    for chosen in CHOSEN:
        after = injected(pod, chosen)
        if after is not None:
            yield chosen, after


@given(pod=step_pods())
@quickly
def test_the_operations_make_what_a_direct_change_makes(pod: Json) -> None:
    for chosen in CHOSEN:
        decision = decide(pod, chosen.injection)
        step = decision.plan.step.to_json() if isinstance(decision, Inject) else ""
        assert injected(pod, chosen) == mutated(pod, chosen, step), chosen


@given(pod=step_pods())
@quickly
def test_a_second_pass_changes_nothing(pod: Json) -> None:
    for chosen, after in all_injected(pod):
        for told in Delivery:
            assert decide(after, told) == Skip(Reason.ALREADY_INJECTED), chosen


@given(pod=step_pods())
@quickly
def test_the_pod_keeps_its_qos_class_and_everything_that_is_not_argos(pod: Json) -> None:
    touched = {"containers", "initContainers", "volumes", "imagePullSecrets"}
    for chosen, after in all_injected(pod):
        assert qos.qos_class(after["spec"]) == qos.qos_class(pod["spec"]), chosen
        assert foreign(after) == foreign(pod), chosen
        rest = [{k: v for k, v in p["spec"].items() if k not in touched} for p in (pod, after)]
        assert rest[0] == rest[1], chosen
        if chosen.service is not None:
            assert after["metadata"]["labels"].pop(names.RESULT) == names.RESULT_IN_POD
        assert after["metadata"] == pod["metadata"], chosen


def foreign(pod: Json) -> list[Json]:
    """Containers that neither Argo nor we manage, in their order, and the Pod's own volumes."""
    spec = pod["spec"]
    everything = [*(spec.get("initContainers") or ()), *spec["containers"]]
    ours = ("stepmemo", "stepmemo-check")
    volumes = [volume for volume in spec["volumes"] if not volume["name"].startswith("stepmemo")]
    return [*(c for c in everything if "env" not in c and c["name"] not in ours), *volumes]


@given(pod=step_pods())
@quickly
def test_the_result_is_a_pod_that_could_be(pod: Json) -> None:
    for chosen, after in all_injected(pod):
        spec = after["spec"]
        everything = [*(spec.get("initContainers") or ()), *spec["containers"]]
        assert len({c["name"] for c in everything}) == len(everything), chosen
        volumes = [volume["name"] for volume in spec["volumes"]]
        assert len(set(volumes)) == len(volumes), chosen
        for container in everything:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
            assert len(set(paths)) == len(paths), chosen
            if (container.get("command") or [""])[0].startswith("/stepmemo"):
                used = {m["name"] for m in container["volumeMounts"] if m["name"].startswith("stepmemo")}
                assert used, chosen
                assert used <= set(volumes), chosen
