"""What there is room for in a Pod: the limits that nothing of ours may break."""

import copy
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from keeper.steppods import GatedStep, read
from kube.jsonpatch import Op, add
from memoize import names
from memoize.keeper_status import KeeperStatus
from memoize.key import data_key
from memoize.reasons import Reason
from tests.recordedpods import PODS
from tests.webhook.keeperstatus import GONE, READY
from tests.webhook.pods import judged
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.patch import inject
from webhook.pods import gating, room
from webhook.pods.decision import Inject, MemoizedStep, Skip, plan_injection
from webhook.pods.delivery import Delivery

pytestmark = pytest.mark.slow

Json = dict[str, Any]

RECORDED = sorted(
    str(path.relative_to(PODS).with_suffix(""))
    for path in PODS.glob("*/*.json")
    if "golden" not in path.name and path.stem != "daemon"
)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SETTINGS = [
    InjectSettings(image="registry.test/stepmemo:1", injection=injection, service=service)
    for injection in Delivery
    for service in (None, CacheServiceAddress("https://stepmemo.test", "PEM " * 400))
]
FULL = room.ANNOTATIONS


def used(annotations: Mapping[str, str]) -> int:
    return sum(len(f"{name}{text}".encode()) for name, text in annotations.items())


def grown(pod: Json, free: int, *, by_key: bool) -> Json:
    """The Pod with annotations that leave so many bytes free; they are its key's, or somebody else's."""
    name = names.KEY if by_key else "a"
    annotations = {**pod["metadata"]["annotations"], name: ""}
    annotations[name] = "x" * (FULL - used(annotations) - free)
    assert used(annotations) == FULL - free
    return {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}


def made(pod: Json, *statuses: KeeperStatus | None) -> list[dict[str, str] | str]:
    """What admission makes of the Pod's annotations in every way there is, or why it leaves it alone."""
    wanted = judged.classify(pod, "default", {}, {})
    assert isinstance(wanted, MemoizedStep), wanted
    results: list[list[Op] | str] = []
    plans = {injection: plan_injection(wanted, injection) for injection in Delivery}
    for status in statuses:
        decision = gating.decide_gating(wanted, status, NOW)
        if isinstance(decision, gating.Gate | gating.RunAndCapture):
            results.append(room.fitted(pod, gating.ops(pod, decision), gating.written(decision)))
    for settings in SETTINGS:
        inside = plans[settings.injection]
        if isinstance(inside, Skip):
            assert inside.reason is Reason.NO_ROOM, inside
            results.append(inside.detail)
        else:
            results.append(room.fitted(pod, inject(pod, inside.plan, settings), {}))
    return [ops if isinstance(ops, str) else annotations_after(pod, ops) for ops in results]


def annotations_after(pod: Json, ops: list[Op]) -> dict[str, str]:
    """Those of the Pod after these operations, of which some may be of its spec."""
    of_metadata = [op for op in ops if op["path"].startswith("/metadata/")]
    after: Json = jsonpatch.apply_patch({"metadata": pod["metadata"]}, of_metadata)
    annotations: dict[str, str] = after["metadata"]["annotations"]
    return annotations


@pytest.mark.parametrize("case", RECORDED)
def test_no_pod_has_more_annotations_than_it_may_have_for_what_is_ours(
    case: str, load: Callable[[str], Json]
) -> None:
    later, recorded = len(names.REASON) + names.LONGEST_REASON, load(case)
    for free, by_key in itertools.product((-100_000, -1, 0, 1, 100, 1000, 2000), (True, False)):
        pod = grown(recorded, free, by_key=by_key)
        for after in made(pod, READY, GONE):
            if isinstance(after, str):
                assert not by_key, f"{free}: a key gives way"
                assert after == "its annotations leave none for ours"
                continue
            assert used(after) + (later if names.PLAN in after else 0) <= FULL, (free, by_key)
            if by_key and free < 0:
                assert after[names.KEY_DIGEST] == data_key(pod["metadata"]["annotations"][names.KEY])
                assert names.KEY not in after


def test_the_keeper_knows_a_step_by_the_digest_that_took_its_keys_place(pod: Json) -> None:
    pod["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    found = []
    for each in (grown(pod, 100_000, by_key=True), grown(pod, -50_000, by_key=True)):
        wanted = judged.classify(each, pod["metadata"]["namespace"], {}, {})
        assert isinstance(wanted, MemoizedStep)
        decision = gating.decide_gating(wanted, READY, NOW)
        assert isinstance(decision, gating.Gate)
        ops = room.fitted(each, gating.ops(each, decision), gating.written(decision))
        assert isinstance(ops, list)
        read_again = read(jsonpatch.apply_patch(each, ops))
        assert isinstance(read_again, GatedStep)
        assert read_again.key.data_key == wanted.step.data_key
        found.append(read_again.step)
    assert [bool(step.digest) for step in found] == [False, True]


def test_annotations_may_take_all_the_room_there_is_and_no_key_gives_way_before(pod: Json) -> None:
    annotations = pod["metadata"]["annotations"]
    annotations |= {names.KEY: "x" * 300, "a": ""}
    annotations["a"] = "x" * (room.ANNOTATIONS - sum(len(one + said) for one, said in annotations.items()))
    assert room.shortened(pod, {}) == []
    annotations["a"] += "x"
    assert room.shortened(pod, {})


def test_a_short_key_does_not_give_way_since_its_entry_lies_under_itself(pod: Json) -> None:
    pod = grown(pod, 0, by_key=False)
    pod["metadata"]["annotations"]["b"] = "over"
    assert room.shortened(pod, {}) is None


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_key_too_long_for_a_variable_is_handed_on_by_its_digest(
    settings: InjectSettings, pod: Json
) -> None:
    for length, digested in ((100_000, False), (room.VARIABLE, True), (200_000, True)):
        pod["metadata"]["annotations"][names.KEY] = "x" * length
        decision = judged.decide(pod, "default", {}, {}, settings.injection)
        assert isinstance(decision, Inject)
        assert bool(decision.plan.step.digest) is digested
        assert decision.plan.step.data_key == data_key("x" * length)
        ops = room.fitted(pod, inject(pod, decision.plan, settings), {})
        assert isinstance(ops, list)
        after = jsonpatch.apply_patch(pod, ops)
        for container in (*after["spec"]["initContainers"], *after["spec"]["containers"]):
            if container["name"] in names.CONTAINERS:
                for variable in container.get("env", ()):
                    assert not room.is_too_long(variable["name"], variable.get("value", ""))


def test_a_template_too_large_for_a_variable_leaves_its_pod_alone(pod: Json) -> None:
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        for variable in container.get("env", ()):
            if variable["name"] == argo.ENV_TEMPLATE:
                template = json.loads(variable["value"])
                template["outputs"] = {"parameters": [{"name": "x" * 140_000}]}
                variable["value"] = json.dumps(template)
    decision = judged.decide(pod, "default", {}, {})
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.NO_ROOM


def with_bytes(pod: Json, size: int) -> Json:
    """The Pod, so many bytes large as JSON, by a variable of its main container."""
    pod = copy.deepcopy(pod)
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    filling = {"name": "FILLING", "value": ""}
    main["env"].append(filling)
    filling["value"] = "x" * (size - len(json.dumps(pod, separators=(",", ":"))))
    return pod


@pytest.mark.parametrize("case", RECORDED)
def test_a_pod_that_leaves_no_room_in_storage_is_left_alone_and_one_that_does_is_not(
    case: str, load: Callable[[str], Json]
) -> None:
    for size, fits in ((1_000_000, True), (room.OBJECT - 1000, False), (room.OBJECT, False)):
        results = made(with_bytes(load(case), size), READY)
        assert [isinstance(result, str) for result in results] == [not fits] * len(results)


def test_many_small_fields_count_for_what_managed_fields_say_of_them(pod: Json) -> None:
    """Two Pods of one size: who owns which field takes more than the fields themselves, if they are small."""
    main = next(c for c in pod["spec"]["containers"] if c["name"] == "main")
    main["env"] += [{"name": f"V{number}"} for number in range(30_000)]
    size = len(json.dumps(pod, separators=(",", ":")))
    assert size < 600_000
    assert room.too_large(pod, [])
    main["env"] = []
    assert not room.too_large(with_bytes(pod, size), [])


def test_what_is_added_counts_for_what_managed_fields_say_of_it(pod: Json) -> None:
    """Of two values of one size."""
    full = with_bytes(pod, 700_000)
    many = {f"V{number}": "" for number in range(30_000)}
    one = {"V": "x" * (len(json.dumps(many, separators=(",", ":"))) - len('{"V":""}'))}
    assert room.too_large(full, [add(("spec", "x"), many)])
    assert not room.too_large(full, [add(("spec", "x"), one)])


def test_a_pod_that_is_known_to_be_small_is_not_measured(pod: Json) -> None:
    pod["spec"]["unmeasurable"] = pod  # whoever measures it never ends
    assert not room.too_large(pod, [], most=room.OBJECT // 16)
    with pytest.raises(ValueError, match="Circular"):
        room.too_large(pod, [], most=room.OBJECT // 2)


def test_whoever_writes_a_service_ca_of_any_length_breaks_nothing(pod: Json) -> None:
    settings = replace(SETTINGS[1], service=CacheServiceAddress("https://x", "x" * 2_000_000))
    decision = judged.decide(pod, "default", {}, {}, settings.injection)
    assert isinstance(decision, Inject)
    assert isinstance(room.fitted(pod, inject(pod, decision.plan, settings), {}), str)
