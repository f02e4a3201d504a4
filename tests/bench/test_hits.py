import base64
import gzip
import json
from typing import Any

import pytest

from argo import names as argo
from bench import hits
from bench.hits import Side
from bench.kube import KubeError
from webhook.submit.verdict import review_object


def finished(answers: int, *, packed: bool = False) -> dict[str, Any]:
    nodes = {
        str(number): {
            "templateName": "step",
            "outputs": {"parameters": [{"name": "out", "value": f"answer {number}"}]},
        }
        for number in range(answers)
    }
    nodes["all"] = {"templateName": "main"}
    status: dict[str, Any] = {"nodes": nodes}
    if packed:
        text = json.dumps(nodes).encode()
        status = {"compressedNodes": base64.b64encode(gzip.compress(text)).decode()}
    return {"metadata": {"name": "wf"}, "status": status}


def pods(count: int, *, ran: bool) -> list[dict[str, Any]]:
    return [{"spec": {"nodeName": "node"} if ran else {}} for _ in range(count)]


def test_a_step_without_a_cache_is_plain() -> None:
    assert set(hits.step("", "busybox")) == {"name", "inputs", "container"}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("groups", [hits.in_a_row(2), hits.at_once(2)], ids=["row", "fan-out"])
def test_only_what_is_ours_is_taken_over(side: Side, groups: hits.Groups) -> None:
    cache = "" if side is Side.PLAIN else "memo"
    made = hits.workflow(groups, side, image="busybox", cache=cache, instance_id="id")
    assert made["metadata"]["labels"] == {argo.INSTANCE_ID: "id"}
    verdict = review_object("Workflow", made, None, "CREATE", {}, "enforce")
    assert verdict.errors == []
    assert bool(verdict.ops) is (side is Side.OURS)


def test_entries_have_the_keys_of_the_steps() -> None:
    calls = [group[0]["arguments"]["parameters"][0]["value"] for group in hits.in_a_row(3)]
    assert calls == list(hits.answers(3)) == ["0", "1", "2"]


@pytest.mark.parametrize("packed", [False, True])
def test_hits_are_proved_by_outputs_and_pods(packed: bool) -> None:
    hits.prove(finished(3, packed=packed), pods(3, ran=False), Side.OURS, 3)
    hits.prove(finished(3, packed=packed), [], Side.ARGOS, 3)
    hits.prove(finished(0, packed=packed), pods(3, ran=True), Side.PLAIN, 3)


@pytest.mark.parametrize(
    ("answers", "left", "side"),
    [
        (3, pods(3, ran=True), Side.OURS),
        (3, [], Side.OURS),
        (2, pods(3, ran=False), Side.OURS),
        (3, pods(3, ran=False), Side.ARGOS),
        (2, [], Side.ARGOS),
        (0, pods(2, ran=True), Side.PLAIN),
        (3, pods(3, ran=True), Side.PLAIN),
    ],
)
def test_what_is_not_what_it_is_called_is_an_error(
    answers: int, left: list[dict[str, Any]], side: Side
) -> None:
    with pytest.raises(KubeError, match="wf: not 3 steps of"):
        hits.prove(finished(answers), left, side, 3)
