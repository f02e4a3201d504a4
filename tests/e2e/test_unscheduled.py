"""Hits that are answered before their Pod meets a node."""

import json
from typing import Any

import pytest

from argo import names as argo
from memoize import names
from tests.e2e import server
from tests.e2e.cluster import Namespace, grant
from tests.e2e.kube import kubectl, wait_for
from tests.e2e.outcome import Memoization, has_none_of_ours, is_unscheduled_hit
from tests.e2e.run import Run, twice
from tests.e2e.steps import (
    RANDOM,
    Template,
    arguments,
    container,
    entry,
    in_a_row,
    memo,
    memoized,
    parameter,
    script,
    shell,
    use,
)

WIDE = 200
"""Steps of the wide fan-out."""


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


def unscheduled(run: Run) -> None:
    """Asserts that no memoized step of the run was scheduled, and that each says so."""
    pods = run.memoized_pods()
    assert pods, run.said()
    scheduled = [pod["metadata"]["name"] for pod in pods if not is_unscheduled_hit(pod)]
    assert scheduled == [], run.said()


def located(outputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs with of each artifact its name and its key alone: an entry holds its whole location."""
    artifacts = {one["name"]: one["s3"]["key"] for one in outputs.get("artifacts", ())}
    return outputs | {"artifacts": artifacts}


def retried() -> Template:
    return container(f"{RANDOM} > /tmp/out; test '{{{{retries}}}}' = 1", retryStrategy={"limit": "2"})


def made() -> Template:
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
    outputs = {"parameters": [{"name": "out", "valueFrom": {"jsonPath": "{.metadata.name}"}}]}
    return memoized(resource={"action": "create", "manifest": json.dumps(made)}, outputs=outputs)


ARTIFACT = {"name": "a", "path": "/tmp/a"}
KINDS: dict[str, tuple[Template, int]] = {
    "container": (container(), 1),
    "script result": (script(), 1),
    "no outputs": (container("true", outputs={}), 1),
    "container set": (
        memoized(
            outputs={"parameters": [parameter()]},
            containerSet={
                "containers": [
                    {"name": "a"} | shell("echo a"),
                    {"name": "main", "dependencies": ["a"]} | shell(f"{RANDOM} > /tmp/out"),
                ]
            },
        ),
        1,
    ),
    "retry": (retried(), 2),
    "artifact": (container(f"{RANDOM} > /tmp/a", outputs={"artifacts": [ARTIFACT]}), 1),
    "sidecar and init container": (
        container(
            initContainers=[{"name": "prepare"} | shell("true")],
            sidecars=[{"name": "db"} | shell("sleep 600")],
        ),
        1,
    ),
    "resource": (made(), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_is_completed_without_a_node(ns: Namespace, kind: str) -> None:
    """A hit is completed without a node: equal outputs, and its Pod was never scheduled."""
    template, executions = KINDS[kind]
    if kind == "resource":
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}]
        grant(ns.name, "resource", rules)
    first = ns.run(template).settled()
    assert first.phase == "Succeeded", first.said()
    assert "Stored" in first.reasons(), first.said()
    second = ns.run(template)
    assert second.phase == "Succeeded", second.said()
    assert (first.executions(), second.executions()) == (executions, 0), first.said() + second.said()
    unscheduled(second)
    before, after = (run.nodes()[-1].get("outputs", {}) for run in (first, second))
    assert located(before) == located(after), second.said()


def test_five_hits_in_a_row_hand_their_outputs_on(ns: Namespace) -> None:
    step = container(
        f"{RANDOM} > /tmp/out",
        inputs={"parameters": [{"name": "x"}]},
        memoize=memo("after-{{inputs.parameters.x}}"),
    )
    letters = "abcde"
    given = ["nothing", *(f"{{{{steps.{letter}.outputs.parameters.out}}}}" for letter in letters)]
    main = in_a_row(*({"template": "step", "arguments": arguments(x=x)} for x in given[:-1]))
    runs = ns.runs(main, step, entrypoint="main")
    twice(*runs, ran=(5, 0))
    unscheduled(runs[1])


def test_the_pod_and_the_workflow_say_where_the_hit_came_from(ns: Namespace) -> None:
    first = ns.run(container(f"sleep 2; {RANDOM} > /tmp/out")).settled()
    second = ns.run(container(f"sleep 2; {RANDOM} > /tmp/out"))
    unscheduled(second)
    (pod,) = second.memoized_pods()
    assert pod["status"]["reason"] == "Memoized"
    assert first.name in pod["status"]["message"]
    assert second.memoizations() == [Memoization("hit", "Hit", second.memoizations()[0].detail)]
    (hit,) = wait_for("its Event", lambda: second.events("MemoizationHit") or None)  # told behind its back
    assert first.name in hit["message"]
    assert "saved" in hit["message"]
    assert [len(first.events(f"Memoization{word}")) for word in ("Stored", "Hit", "Skipped")] == [1, 0, 0]
    listed = kubectl("-n", ns.name, "get", "pods", "-L", names.RESULT).stdout
    assert sorted(line.split()[-1] for line in listed.splitlines()[1:]) == ["hit", "stored"]
    assert ns.entries()["k"]["stepmemo"]["tookSeconds"] >= 2


def test_a_miss_costs_its_pod_nothing(ns: Namespace) -> None:
    """A miss has neither a container nor a volume of ours, and its outputs are stored all the same."""
    run = ns.run(container()).settled()
    (pod,) = run.memoized_pods()
    assert has_none_of_ours(pod)
    assert run.reasons() == {"Stored"}
    assert list(ns.entries()) == ["k"]


def test_an_entry_that_cannot_be_served_lets_the_gated_pod_run(ns: Namespace) -> None:
    ns.put("k", entry({"parameters": [{"name": "other", "value": "1"}]}))
    first, second = ns.runs(container())
    twice(first, second)
    unscheduled(second)


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_wide_fan_out_of_hits_is_collected_without_a_miss(ns: Namespace, attempt: int) -> None:
    """A next step that uses the results of 200 hits at once gets every one of them, time after time."""
    # Argo joins results as JSON values, so a word that is none would not do.
    answers = {f"k{number}": str(1000 + number) for number in range(WIDE)}
    ns.config_map(
        ns.cache,
        {key: entry({"result": answer, "exitCode": "0"}) for key, answer in answers.items()},
        {argo.CONFIGMAP_TYPE: "Cache"},
    )
    each = script(inputs={"parameters": [{"name": "x"}]}, memoize=memo("k{{inputs.parameters.x}}"))
    fan: dict[str, Any] = {
        "template": "step",
        "withSequence": {"count": str(WIDE)},
        "arguments": arguments(x="{{item}}"),
    }
    collected = {"template": "use", "arguments": arguments(x="{{steps.a.outputs.result}}")}
    run = ns.run(in_a_row(fan, collected), each, use(), entrypoint="main")
    assert run.phase == "Succeeded", run.said()
    unscheduled(run)
    assert len(run.memoized_pods()) == WIDE
    assert sorted(json.loads(run.output("seen", "use"))) == sorted(map(int, answers.values()))
