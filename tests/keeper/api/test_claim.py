from typing import Any

import pytest

from argo import names as argo
from keeper.api import claim as reading
from keeper.api.auth import Caller
from keeper.api.claim import claim
from keeper.api.errors import Refusal
from keeper.api.request import Claim
from tests.cluster import Cluster
from tests.keeper.api.steps import annotations
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.webhook.serving import api_client

CALLER = Caller("ns", "default", "wf-a-123", "uid-1")


def pod(**metadata: Any) -> dict[str, Any]:
    made = {"uid": "uid-1", "labels": {argo.WORKFLOW_LABEL: "wf"}, "annotations": annotations()}
    return {"metadata": {**made, **metadata}, "status": {"phase": "Running"}}


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
        {"annotations": None},
        {"annotations": {}},
        {"annotations": annotations(key=" ")},
        {"annotations": annotations(key="{{x}}")},
        {"annotations": annotations(cache="../x")},
        {"annotations": annotations(max_age="soon")},
    ],
)
def test_a_pod_without_a_claim_is_refused(metadata: dict[str, Any]) -> None:
    refusal = claim(pod(**metadata), CALLER)
    assert isinstance(refusal, Refusal)
    assert refusal.code == 403


@pytest.mark.parametrize("answer", [hang, overloaded, broken, gibberish])
async def test_an_api_server_in_trouble_is_not_the_callers_fault(
    cluster: Cluster, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TIMEOUT", 0.1)
    async with answering(answer) as url, api_client(cluster, url=url) as api:
        refusal = await reading.read(api, CALLER)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.headers) == (503, {"Retry-After": "1"})
