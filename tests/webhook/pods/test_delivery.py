"""Which way the entrypoint gets into which Pod."""

from collections.abc import Callable
from typing import Any

import pytest

from memoize import names
from memoize.reasons import Reason
from tests.webhook.pods import judged
from webhook.pods.decision import Inject
from webhook.pods.delivery import Delivery

Json = dict[str, Any]
WITH_INITS = "v4.1.2-legacy/sidecars-and-init"


def decide(pod: Json, injection: Delivery, mode: str = "use") -> Inject:
    pod["metadata"]["annotations"][names.MODE] = mode
    decision = judged.decide(pod, "default", {}, {}, injection)
    assert isinstance(decision, Inject), decision
    return decision


def container(pod: Json, name: str) -> Json:
    everything = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next(c for c in everything if c["name"] == name)


def wrapped(decision: Inject) -> list[str]:
    return [place.name for place in decision.plan.wrapped]


@pytest.mark.parametrize("injection", Delivery)
def test_a_pod_without_init_containers_of_its_template_gets_what_the_server_was_told(
    pod: Json, injection: Delivery
) -> None:
    decision = decide(pod, injection)
    assert decision.plan.delivery is injection
    assert (decision.reason, decision.detail) == (Reason.INJECTED, "")


def test_with_the_image_volume_argos_own_init_containers_run_on_a_hit_too(pod: Json) -> None:
    plugin = container(pod, "init") | {"name": "init-artifact-mine"}
    pod["spec"]["initContainers"].append(plugin)
    assert wrapped(decide(pod, Delivery.IMAGE_VOLUME)) == ["wait", "main"]
    assert wrapped(decide(pod, Delivery.INIT_CONTAINER)) == ["init", "init-artifact-mine", "wait", "main"]


def test_init_containers_of_the_template_must_not_run_on_a_hit_so_the_check_comes_before_them(
    load: Callable[[str], Json],
) -> None:
    decision = decide(load(WITH_INITS), Delivery.IMAGE_VOLUME)
    assert decision.plan.delivery is Delivery.INIT_CONTAINER
    assert decision.reason == Reason.INJECTED
    assert decision.detail == "init-container: the template has init containers"
    assert wrapped(decision) == ["init", "prep", "wait", "main", "db"]


def test_a_pod_whose_containers_are_started_again_gets_the_init_container(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/container")
    pod["spec"]["restartPolicy"] = "OnFailure"
    decision = decide(pod, Delivery.IMAGE_VOLUME)
    assert decision.plan.delivery is Delivery.INIT_CONTAINER
    assert decision.detail == "init-container: the Pod's restartPolicy is not Never"


def test_a_readonly_step_with_init_containers_says_both(load: Callable[[str], Json]) -> None:
    decision = decide(load(WITH_INITS), Delivery.IMAGE_VOLUME, "readonly")
    assert decision.plan.delivery is Delivery.INIT_CONTAINER
    assert decision.detail == "mode readonly, init-container: the template has init containers"


def test_what_is_only_captured_has_nothing_to_decide_before_init_containers(
    load: Callable[[str], Json],
) -> None:
    decision = decide(load(WITH_INITS), Delivery.IMAGE_VOLUME, "refresh")
    assert decision.plan.delivery is Delivery.IMAGE_VOLUME
    assert wrapped(decision) == ["wait", "main", "db"]


def test_an_init_container_that_cannot_be_wrapped_is_no_obstacle_to_the_image_volume(pod: Json) -> None:
    container(pod, "init")["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    assert decide(pod, Delivery.IMAGE_VOLUME).reason == Reason.INJECTED
    assert decide(pod, Delivery.INIT_CONTAINER).reason == Reason.INJECTED_CAPTURE


def test_a_main_container_that_cannot_be_wrapped_is_one_to_both(pod: Json) -> None:
    container(pod, "main")["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    for injection in Delivery:
        decision = decide(pod, injection)
        assert (decision.reason, decision.plan.delivery) == (Reason.INJECTED_CAPTURE, injection)


def test_an_offloaded_template_that_has_init_containers_shows_them_by_argos_variable(
    load: Callable[[str], Json],
) -> None:
    pod = load("v4.1.2-legacy/large-template")
    assert decide(pod, Delivery.IMAGE_VOLUME).plan.delivery is Delivery.IMAGE_VOLUME
    prep = {"name": "prep", "command": ["x"], "env": [{"name": "ARGO_CONTAINER_NAME", "value": "prep"}]}
    pod["spec"]["initContainers"].append(prep)
    assert decide(pod, Delivery.IMAGE_VOLUME).plan.delivery is Delivery.INIT_CONTAINER
