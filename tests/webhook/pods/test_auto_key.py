"""A key is computed at admission, once, and everybody after it goes by what is written on the Pod then."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from keeper import steppods
from keeper.steppods import GatedStep, InvalidStep
from memoize import names
from memoize.reasons import Reason
from memoize.report import new_entry
from memoize.step import Step
from tests.argopods import LAYOUTS, pod_of
from tests.recordedpods import PODS
from tests.webhook.keeperstatus import READY
from tests.webhook.pods import judged
from webhook.pods import gating, traces
from webhook.pods.decision import Inject, MemoizedStep, Skip

Json = dict[str, Any]
TEMPLATE: Json = {
    "name": "train",
    "container": {"image": "app:1", "command": ["app"], "env": [{"name": "MODE", "value": "fast"}]},
    "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/out"}}]},
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def classified(pod: Json) -> MemoizedStep | Skip:
    return judged.classify(pod, "n", {}, {})


def memoized(pod: Json) -> MemoizedStep:
    step = classified(pod)
    assert isinstance(step, MemoizedStep), step
    return step


def admitted(pod: Json) -> Json:
    """The Pod as it is when it is gated and created."""
    step = memoized(pod)
    gate = gating.decide_gating(step, READY, NOW)
    assert isinstance(gate, gating.Gate)
    after: Json = jsonpatch.apply_patch(pod, [*step.ops, *gating.ops(step.pod.pod, gate)])
    after["metadata"] |= {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return after


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_keeper_finds_the_key_its_parts_and_the_template_on_the_pod(layout: str):
    step = memoized(pod_of(TEMPLATE, layout=layout)).step
    assert step.key.startswith("auto-v1-")
    assert step.data_key == step.key
    assert step.template == "train"
    assert {"image", "command", "env/MODE", "output/parameter/out"} == step.parts.keys()
    found = steppods.read(admitted(pod_of(TEMPLATE, layout=layout)))
    assert isinstance(found, GatedStep), found
    assert found.step == step
    assert found.key.data_key == step.key


def test_the_sidecar_is_told_the_same():
    decision = judged.decide(pod_of(TEMPLATE), "n", {}, {})
    assert isinstance(decision, Inject)
    assert Step.from_json(decision.plan.variable) == memoized(pod_of(TEMPLATE)).step


def test_an_entry_says_the_template_and_the_parts():
    step = memoized(pod_of(TEMPLATE)).step
    assert step.declared is not None
    entry = new_entry(step, step.declared, {"parameters": [{"name": "out", "value": "1"}]}, NOW, "p")
    assert (entry.template, entry.parts, entry.key) == ("train", step.parts, "")  # type: ignore[union-attr]


def test_a_key_that_somebody_wrote_has_no_parts_whatever_stands_beside_it():
    pod = pod_of(TEMPLATE)
    pod["metadata"]["annotations"] |= {names.KEY: "mine", names.KEY_PARTS: '{"image":"01234567"}'}
    step = memoized(pod)
    assert (step.step.key, step.step.template, dict(step.step.parts), step.ops) == ("mine", "", {}, ())


@pytest.mark.parametrize(
    "text", ["", "x", "[]", '{"image":1}', '{"image":"0123"}', '{"a/b/c/d/e":"01234567"}', "x" * 2000]
)
def test_parts_that_we_did_not_write_are_none(text: str):
    pod = pod_of(TEMPLATE)
    pod["metadata"]["annotations"] |= {names.KEY: "auto-v1-" + "0" * 64, names.KEY_PARTS: text}
    assert dict(memoized(pod).step.parts) == {}


def test_parts_in_a_template_do_not_stay_beside_a_key_that_is_computed():
    pod = pod_of(TEMPLATE)
    pod["metadata"]["annotations"][names.KEY_PARTS] = '{"image":"01234567"}'
    assert memoized(pod).step == memoized(pod_of(TEMPLATE)).step
    assert admitted(pod)["metadata"]["annotations"] == admitted(pod_of(TEMPLATE))["metadata"]["annotations"]


def test_a_second_pass_keeps_the_key_though_the_pod_is_another_one_by_then():
    """One cluster's webhooks are asked in one order, so equal steps come to equal keys all the same."""
    pod = admitted(pod_of(TEMPLATE))
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    main["image"] = "mirror/app:1"
    assert classified(pod) == Skip(Reason.ALREADY_INJECTED)
    del pod["metadata"]["labels"][names.RESULT]
    anew, ops = traces.cleared(pod)
    assert ops
    assert memoized(dict(anew)).step.key == memoized(pod_of(TEMPLATE)).step.key


def test_a_template_that_is_not_in_the_pod_is_left_alone_and_says_why():
    pod = json.loads((PODS / "v4.1.2-legacy" / "large-template.json").read_text())
    pod["metadata"]["annotations"][names.KEY] = "auto"
    why = "its template takes more than 128 KiB and is not in the Pod"
    assert judged.classify(pod, "cap-v412-legacy", {}, {}) == Skip(Reason.NO_AUTO_KEY, why)


@pytest.mark.parametrize("name", [names.SALT, names.KEY_IGNORE])
def test_a_tag_that_was_lost_in_what_the_key_goes_by_is_no_key(name: str):
    pod = pod_of(TEMPLATE)
    pod["metadata"]["annotations"][name] = "{{inputs.parameters.gone}}"
    assert classified(pod) == Skip(Reason.UNRESOLVED_TAG, name)


def test_a_key_that_admission_did_not_compute_is_never_taken_at_its_word():
    """A webhook that knows no such keys, or none at all, and a Pod that bears our gate all the same."""
    pod = copy.deepcopy(admitted(pod_of(TEMPLATE)))
    pod["metadata"]["annotations"][names.KEY] = "auto"
    found = steppods.read(pod)
    assert isinstance(found, InvalidStep)
    assert found.outcome.reason is Reason.NO_AUTO_KEY
    assert argo.CACHE_KEY.fullmatch("auto")  # so it would be a key like any other
