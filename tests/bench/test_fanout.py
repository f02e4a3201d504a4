from argo import names as argo
from bench.fanout import _figures, _step
from memoize import names
from webhook.submit.verdict import review_object


def test_a_step_without_a_cache_is_plain() -> None:
    assert set(_step("", "busybox")) == {"name", "inputs", "container"}


def test_a_step_with_a_cache_is_one_that_both_can_answer() -> None:
    spec = {"entrypoint": "step", "templates": [_step("memo", "busybox")]}
    metadata = {"name": "x", "annotations": {names.MEMOIZE: "true"}}
    workflow = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "metadata": metadata, "spec": spec}
    verdict = review_object("Workflow", workflow, None, "CREATE", {}, "enforce")
    assert verdict.errors == []
    assert verdict.ops


def test_both_sides_stand_beside_each_other_in_both_caches() -> None:
    series = {f"ours {size}": [10.0] for size in ("small", "full")}
    series |= {"Argo's own small": [20.0], "Argo's own full": [40.0], "trivial": [3.0], "hit": [0.06]}
    found = [(one.ratio.median, one.target.met(one) if one.target else None) for one in _figures(series, 200)]
    assert found == [(0.5, True), (0.25, True), (1.0, True), (2.0, None), (50.0, True)]
