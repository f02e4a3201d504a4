import json
from pathlib import Path
from typing import Any

import pytest

from keeper.api import claim as reading
from keeper.api.auth import Caller
from keeper.api.claim import claim
from keeper.api.errors import ErrorAnswer
from keeper.api.request import Claim
from memoize import names
from tests.cluster import Cluster
from tests.keeper.api.steps import CONTAINERS, LABELS, annotations, container
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.webhook.serving import api_client

GOLDEN = Path(__file__).parents[2] / "data" / "pods" / "v4.1.2-legacy"
DELIVERS = {"name": names.CHECK_CONTAINER, "command": [names.IMAGE_ENTRYPOINT, "check"]}
CALLER = Caller("ns", "default", "wf-a-123", "uid-1")


def pod(**metadata: Any) -> dict[str, Any]:
    made = {"uid": "uid-1", "labels": LABELS, "annotations": annotations()}
    spec = {"containers": [{"name": "main"}, *CONTAINERS]}
    return {"metadata": {**made, **metadata}, "spec": spec, "status": {"phase": "Running"}}


def test_a_claim_is_what_the_pod_carries() -> None:
    found = claim(pod(annotations=annotations(key="a b", max_age="1h")), CALLER)
    assert isinstance(found, Claim)
    assert (found.memo.key, found.memo.cache, found.memo.max_age) == ("a b", "my-cache", "1h")
    assert found.data_key.startswith("sha256-")
    assert (found.node_id, found.workflow) == ("wf-123", "wf")


@pytest.mark.parametrize(
    "metadata",
    [
        {"uid": "uid-2"},
        {"uid": None},
        {"deletionTimestamp": "2026-07-31T12:00:00Z"},
        {"labels": None},
        {"labels": {**LABELS, names.RESULT: names.RESULT_MISS}},
        {"annotations": None},
        {"annotations": {}},
        {"annotations": annotations(key=" ")},
        {"annotations": annotations(key="{{x}}")},
        {"annotations": annotations(key="auto")},
        {"annotations": annotations(cache="../x")},
        {"annotations": annotations(max_age="soon")},
    ],
)
def test_a_pod_without_a_claim_is_refused(metadata: dict[str, Any]) -> None:
    refusal = claim(pod(**metadata), CALLER)
    assert isinstance(refusal, ErrorAnswer)
    assert refusal.code == 403


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_is_refused(phase: str) -> None:
    refusal = claim({**pod(), "status": {"phase": phase}}, CALLER)
    assert isinstance(refusal, ErrorAnswer)
    assert (refusal.code, refusal.message) == (403, "the Pod is over")


@pytest.mark.parametrize(
    "ours",
    [
        [],
        [{"name": names.CAPTURE_CONTAINER, "image": "x"}],
        [{"name": names.CAPTURE_CONTAINER, "command": "sh"}],
        [{"name": names.CAPTURE_CONTAINER, "command": ["sh", "-t", "1"]}],
        [{"name": "other", "command": [names.IMAGE_ENTRYPOINT, "capture", "-t", "1"]}],
    ],
)
def test_a_pod_that_only_says_that_it_was_injected_is_refused(ours: list[dict[str, Any]]) -> None:
    found = pod()
    found["spec"]["containers"] = [{"name": "main"}, *ours]
    refusal = claim(found, CALLER)
    assert isinstance(refusal, ErrorAnswer)
    assert (refusal.code, refusal.message) == (403, "nothing was injected into the Pod")


@pytest.mark.parametrize(
    ("golden", "looks_up", "stores"),
    [
        ("large-template.service.golden", True, True),
        ("large-template.service.image-volume.golden", True, True),
        ("container-set.golden", True, True),
    ],
)
def test_what_admission_injected_says_what_the_pod_may_do(golden: str, looks_up: bool, stores: bool) -> None:
    found = pod()
    found["spec"] = json.loads((GOLDEN / f"{golden}.json").read_text(encoding="utf-8"))["spec"]
    allowed = claim(found, CALLER)
    assert isinstance(allowed, Claim)
    assert (allowed.looks_up, allowed.stores) == (looks_up, stores)


@pytest.mark.parametrize(
    ("ours", "looks_up", "stores"),
    [
        ([container("-t", "9")], False, True),
        ([container("-c", "9")], True, False),
        ([container("-t", "9", name=names.CHECK_CONTAINER)], True, False),
        ([DELIVERS, container("-t", "9", "-w", "wait")], False, True),
    ],
)
def test_a_mode_that_asks_for_one_of_them_allows_no_more(
    ours: list[dict[str, Any]], looks_up: bool, stores: bool
) -> None:
    found = pod()
    found["spec"] = {"initContainers": ours, "containers": [{"name": "main"}]}
    allowed = claim(found, CALLER)
    assert isinstance(allowed, Claim)
    assert (allowed.looks_up, allowed.stores) == (looks_up, stores)


@pytest.mark.parametrize("answer", [hang, overloaded, broken, gibberish])
async def test_an_api_server_in_trouble_is_not_the_callers_fault(
    cluster: Cluster, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TIMEOUT", 0.1)
    async with answering(answer) as url, api_client(cluster, url=url) as api:
        refusal = await reading.read(api, CALLER)
    assert isinstance(refusal, ErrorAnswer)
    assert (refusal.code, refusal.headers) == (503, {"Retry-After": "1"})
