"""Every kind of template that has a Pod."""

import json

import pytest

from tests.e2e.cluster import Namespace, grant
from tests.e2e.kube import get
from tests.e2e.run import Run, twice
from tests.e2e.steps import RANDOM, arguments, container, in_a_row, memoized, parameter, script, shell, use


def test_container_outputs_are_stored_then_served(ns: Namespace) -> None:
    first, second = ns.runs(container())
    twice(first, second)
    assert second.nodes()[0]["outputs"]["exitCode"] == "0"


def test_a_scripts_result_reaches_the_next_step_on_a_hit(ns: Namespace) -> None:
    """A script's result reaches the next step on a hit."""
    main = in_a_row(
        {"template": "step"}, {"template": "use", "arguments": arguments(x="{{steps.a.outputs.result}}")}
    )
    first, second = ns.runs(main, script(), use(), entrypoint="main")
    twice(first, second, ran=(2, 1))
    assert first.result() == second.result() == second.output("seen", "use") == first.output("seen", "use")


def test_a_step_without_outputs_is_a_hit_too(ns: Namespace) -> None:
    twice(*ns.runs(container("true", outputs={})))


def test_a_container_set_with_outputs(ns: Namespace) -> None:
    containers = [
        {"name": "a"} | shell("echo a"),
        {"name": "main", "dependencies": ["a"]} | shell(f"{RANDOM} > /tmp/out"),
    ]
    outputs = {"parameters": [parameter()]}
    twice(*ns.runs(memoized(outputs=outputs, containerSet={"containers": containers})))


def test_a_container_set_without_a_main_whose_first_container_is_retried(ns: Namespace) -> None:
    once = "test -e /tmp/tried || { touch /tmp/tried; exit 1; }"
    containers = [
        {"name": "a"} | shell(once),
        {"name": "b", "dependencies": ["a"]} | shell("true"),
    ]
    strategy = {"retries": "2", "duration": "1s"}
    twice(*ns.runs(memoized(containerSet={"containers": containers, "retryStrategy": strategy})))


def test_a_resource_with_outputs_is_made_once(ns: Namespace) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]
    grant(ns.name, "resource", rules)
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"generateName": "made-", "labels": {"made-by": "step"}},
        "data": {"state": "ready"},
    }
    resource = {
        "action": "create",
        "successCondition": "data.state == ready",
        "manifest": json.dumps(manifest),
    }
    outputs = {"parameters": [{"name": "out", "valueFrom": {"jsonPath": "{.metadata.name}"}}]}
    runs = ns.runs(memoized(resource=resource, outputs=outputs))
    twice(*runs, ran=(0, 0))  # no container of the user's
    (made,) = get(ns.name, "configmaps", "-l", "made-by=step")["items"]
    assert runs[1].output() == made["metadata"]["name"]


def test_a_data_template_lists_a_bucket_once(ns: Namespace) -> None:
    """A data template lists a bucket once: an object that comes later is not in the hit."""
    folder = f"stepmemo-e2e/{ns.name}"

    def put(name: str, key: str) -> Run:
        where = {"name": "a", "path": "/tmp/a", "archive": {"none": {}}, "s3": {"key": f"{folder}/{name}"}}
        made = ns.run(container("echo x > /tmp/a", outputs={"artifacts": [where]}) | memoized(key))
        assert made.phase == "Succeeded", made.said()
        return made

    put("one.txt", "one")
    (stored,) = (a for a in ns.entries()["one"]["outputs"]["artifacts"] if a["name"] == "a")
    source = {"artifactPaths": {"name": "files", "s3": stored["s3"] | {"key": folder}}}
    expression = 'filter(data, {# endsWith ".txt"})'
    data = {"source": source, "transformation": [{"expression": expression}]}
    argument = arguments(x="{{steps.a.outputs.result}}")
    main = in_a_row({"template": "step"}, {"template": "use", "arguments": argument})
    first = ns.run(main, memoized(data=data), use(), entrypoint="main")
    put("two.txt", "two")
    second = ns.run(main, memoized(data=data), use(), entrypoint="main")
    twice(first, second, ran=(1, 1))  # the step that uses it
    assert first.result() == second.result() == second.output("seen", "use")
    assert json.loads(second.result()) == [f"{folder}/one.txt"]


def test_retries_store_one_entry_when_the_last_one_succeeds(ns: Namespace) -> None:
    failing_twice = f"{RANDOM} > /tmp/out; test '{{{{retries}}}}' = 2"
    first, second = ns.runs(container(failing_twice, retryStrategy={"limit": "3"}))
    said = first.said() + second.said()
    assert (first.phase, second.phase) == ("Succeeded", "Succeeded"), said
    assert (first.executions(), second.executions()) == (3, 0), said
    assert list(ns.entries()) == ["k"]
    assert second.output() == first.output()


@pytest.mark.parametrize("kind", ["initContainers", "sidecars"])
def test_what_the_template_declares_beside_main_does_not_run_on_a_hit(ns: Namespace, kind: str) -> None:
    """Sidecars and init containers that the template declares do not run on a hit either."""
    beside = {
        "initContainers": {"name": "prepare"} | shell(f"{RANDOM} > /shared/value"),
        "sidecars": {"name": "db"} | shell(f"{RANDOM} > /shared/value; sleep 600"),
    }
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    wait = "while ! test -s /shared/value; do sleep 0.1; done; cp /shared/value /tmp/out"
    template = container(
        container=shell(wait, volumeMounts=mounts),
        volumes=[{"name": "shared", "emptyDir": {}}],
        **{kind: [beside[kind] | {"volumeMounts": mounts}]},
    )
    twice(*ns.runs(template))
