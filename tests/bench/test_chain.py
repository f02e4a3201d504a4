import json
from typing import Any

import pytest

from bench.chain import (
    HIT,
    IMAGE_VOLUME,
    INIT_CONTAINER,
    MISS,
    SERVICE,
    VARIANTS,
    Variant,
    delivery,
    outputs,
    workflow,
)
from bench.cluster import chosen, figures
from memoize import names
from tests.recordedpods import PODS
from webhook.submit.verdict import review_object


def variant(name: str) -> Variant:
    return next(one for one in VARIANTS if one.name == name)


def made(name: str) -> dict[str, Any]:
    return workflow(variant(name), "k", "cache", steps=2, seconds=1, image="busybox")


@pytest.mark.parametrize("name", [one.name for one in VARIANTS])
def test_only_what_is_ours_is_taken_over(name: str) -> None:
    verdict = review_object("Workflow", made(name), None, "CREATE", {}, "enforce")
    assert verdict.errors == []
    assert bool(verdict.ops) is (name in ("capture", "service", "init-container", "image-volume"))


def test_argo_gets_its_own_block_and_a_plain_run_none() -> None:
    assert "memoize" in made("native")["spec"]["templates"][1]
    assert "memoize" not in made("plain")["spec"]["templates"][1]


def test_capture_alone_runs_whatever_the_cache_holds() -> None:
    assert made("capture")["metadata"]["annotations"][names.MODE] == "refresh"
    assert variant("capture").runs == (MISS,)


def test_every_step_has_a_key_of_its_own() -> None:
    calls = [
        group[0]["arguments"]["parameters"][0]["value"]
        for group in made("init-container")["spec"]["templates"][0]["steps"]
    ]
    assert calls == ["k-0", "k-1"]


def test_outputs_come_in_the_order_of_the_steps() -> None:
    def node(name: str, template: str, *values: str) -> dict[str, Any]:
        parameters = [{"name": "out", "value": value} for value in values]
        return {"displayName": name, "templateName": template, "outputs": {"parameters": parameters}}

    nodes = {
        "1": node("step-1", "step", "b"),
        "0": node("step-0", "step", "a"),
        "x": node("all", "main", "c"),
    }
    assert outputs({"status": {"nodes": nodes}}) == ["a", "b"]


def test_a_recorded_golden_pod_has_the_init_delivery_and_a_plain_one_none() -> None:
    golden, plain = (
        json.loads((PODS / f"v4.1.2-legacy/container{kind}.json").read_text()) for kind in (".golden", "")
    )
    assert delivery([golden]) == {INIT_CONTAINER}
    assert delivery([plain]) == {""}
    assert delivery([{"spec": {"volumes": [{"name": names.IMAGE_VOLUME}]}}]) == {IMAGE_VOLUME}
    assert delivery([{"metadata": {"annotations": {names.PLAN: "{}"}}, "spec": {}}]) == {SERVICE}


def test_without_leave_to_switch_only_the_gate_that_is_set_is_measured() -> None:
    everything = ",".join(one.name for one in VARIANTS)
    left_out = {one.name for one in VARIANTS} - {one.name for one in chosen(everything, INIT_CONTAINER)}
    assert left_out == {"service", "image-volume"}
    assert [one.name for one in chosen("init-container", None)] == ["plain", "init-container"]
    with pytest.raises(SystemExit, match="no such variant: nonsense"):
        chosen("nonsense", None)


def test_every_variant_stands_beside_plain_argo() -> None:
    series = {f"{one.name} {kind}": [2.0, 4.0] for one in VARIANTS for kind in (MISS, HIT)}
    series["plain miss"] = [1.0, 2.0]
    found = figures(VARIANTS, series, 5)
    assert [one.what for one in found] == [
        "capture alone (mode refresh): 5 runs",
        "Argo's own memoization: 5 misses",
        "Argo's own memoization: 5 hits",
        "look-up and capture outside of the Pod: 5 misses",
        "look-up and capture outside of the Pod: 5 hits",
        "check and capture, init container: 5 misses",
        "check and capture, init container: 5 hits",
        "check and capture, image volume: 5 misses",
        "check and capture, image volume: 5 hits",
    ]
    assert {one.ratio.median for one in found} == {2}
