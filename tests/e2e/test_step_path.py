"""The main job on a real cluster: what is captured, what is answered, what is left alone."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.e2e.cluster import Namespace, Run, direct_role, fresh_namespace, grant, kubectl, prepare, wait_for
from tests.e2e.steps import RANDOM, container, memo, opted_in, script, shell

NOWHERE = {
    "endpoint": "127.0.0.1:1",
    "insecure": True,
    "bucket": "no-such-bucket",
    "key": "x",
    "accessKeySecret": {"name": "my-minio-cred", "key": "accesskey"},
    "secretKeySecret": {"name": "my-minio-cred", "key": "secretkey"},
}
"""A location in whole, so that Argo does not fill it in from its artifact repository."""


HALF = "trap 'echo half > /tmp/out; exit 0' TERM; while :; do sleep 0.1; done"
"""Ends with 0 when it is told to stop, its work half done."""


def test_container_outputs_are_captured_then_answered(ns: Namespace) -> None:
    first, second = ns.run(container()), ns.run(container())
    assert (first.phase, second.phase) == ("Succeeded", "Succeeded")
    assert (first.executions(), second.executions()) == (1, 0), first.said() + second.said()
    assert second.output() == first.output()
    assert second.nodes()[0]["outputs"]["exitCode"] == "0"


def test_script_result_reaches_the_next_step_on_a_hit(ns: Namespace) -> None:
    use = {
        "name": "use",
        "inputs": {"parameters": [{"name": "x"}]},
        "outputs": {"parameters": [{"name": "seen", "valueFrom": {"path": "/tmp/seen"}}]},
        "container": shell("echo -n '{{inputs.parameters.x}}' > /tmp/seen"),
    }
    argument = {"parameters": [{"name": "x", "value": "{{steps.a.outputs.result}}"}]}
    main = {
        "name": "main",
        "steps": [
            [{"name": "a", "template": "step"}],
            [{"name": "b", "template": "use", "arguments": argument}],
        ],
    }
    runs = [ns.run(main, script(), use, entrypoint="main") for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2
    assert [run.executions() for run in runs] == [2, 1], runs[1].said()
    assert (
        runs[0].result() == runs[1].result() == runs[1].output("seen", "use") == runs[0].output("seen", "use")
    )


def test_a_step_without_outputs_is_answered_too(ns: Namespace) -> None:
    runs = [ns.run(container("true", outputs={})) for _ in range(2)]
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()
    assert [run.phase for run in runs] == ["Succeeded"] * 2


def test_a_container_set_is_captured_and_answered(ns: Namespace) -> None:
    containers = [
        {"name": "a"} | shell("echo a"),
        {"name": "main", "dependencies": ["a"]} | shell(f"{RANDOM} > /tmp/out"),
    ]
    template = container(containerSet={"containers": containers})
    del template["container"]
    runs = [ns.run(template) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()
    assert runs[0].output() == runs[1].output()


def test_retries_store_one_entry_when_the_last_one_succeeds(ns: Namespace) -> None:
    failing_twice = f"{RANDOM} > /tmp/out; test '{{{{retries}}}}' = 2"
    template = container(failing_twice, retryStrategy={"limit": "3"})
    first, second = ns.run(template), ns.run(template)
    assert (first.phase, second.phase) == ("Succeeded", "Succeeded")
    assert (first.executions(), second.executions()) == (3, 0), second.said()
    assert list(ns.entries()) == ["k"]
    assert second.output() == first.output()


def test_an_artifact_is_stored_by_its_full_location_and_read_by_the_next_step(ns: Namespace) -> None:
    make = container(
        f"{RANDOM} > /tmp/a",
        outputs={"artifacts": [{"name": "a", "path": "/tmp/a", "archive": {"none": {}}}]},
    )
    read = {
        "name": "read",
        "inputs": {"artifacts": [{"name": "a", "path": "/tmp/in"}]},
        "outputs": {"parameters": [{"name": "seen", "valueFrom": {"path": "/tmp/in"}}]},
        "container": shell("cat /tmp/in"),
    }
    argument = {"artifacts": [{"name": "a", "from": "{{steps.a.outputs.artifacts.a}}"}]}
    main = {
        "name": "main",
        "steps": [
            [{"name": "a", "template": "step"}],
            [{"name": "b", "template": "read", "arguments": argument}],
        ],
    }
    runs = [ns.run(main, make, read, entrypoint="main") for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2, runs[1].said()
    assert [run.executions() for run in runs] == [2, 1], runs[1].said()
    assert runs[0].output("seen", "read") == runs[1].output("seen", "read")
    (artifact,) = (a for a in ns.entries()["k"]["outputs"]["artifacts"] if a["name"] == "a")
    assert artifact["s3"]["bucket"]
    assert artifact["s3"]["endpoint"]
    assert artifact["artifactGC"] == {"strategy": "Never"}


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(container(f"{RANDOM} > /tmp/out; exit 3"), id="main fails"),
        pytest.param(
            container(
                "echo x > /tmp/a",
                outputs={"artifacts": [{"name": "a", "path": "/tmp/a", "s3": NOWHERE}]},
            ),
            id="artifact upload fails",
        ),
        pytest.param(
            container(archiveLocation={"archiveLogs": True, "s3": NOWHERE}),
            id="log upload fails",
        ),
        pytest.param(
            container(
                "dd if=/dev/zero of=/tmp/a bs=1M count=50; (while :; do echo x >> /tmp/a; done) & sleep 1",
                outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]},
            ),
            id="artifact changes while it is packed",
        ),
        pytest.param(
            container(f"{RANDOM} > /tmp/out; sleep 2", sidecars=[{"name": "db"} | shell("exit 3")]),
            id="sidecar fails",
        ),
        pytest.param(container(HALF, activeDeadlineSeconds=8), id="template deadline"),
        pytest.param(container(HALF, timeout="8s"), id="template timeout"),
    ],
)
def test_a_step_that_did_not_succeed_as_a_whole_leaves_no_entry(ns: Namespace, template: dict) -> None:
    run = ns.run(template)
    assert run.phase in ("Failed", "Error"), run.said()
    assert ns.entries() == {}, run.said()


@pytest.mark.parametrize("how", ["Stop", "Terminate"])
def test_a_step_that_is_stopped_and_ends_with_0_leaves_no_entry(ns: Namespace, how: str) -> None:
    name = ns.submit(container(HALF))
    begun = Run(ns.name, {"metadata": {"name": name}})
    wait_for("start of main", lambda: begun.executions() or None)
    kubectl(
        "-n", ns.name, "patch", "workflow", name, "--type=merge", "-p", f'{{"spec": {{"shutdown": "{how}"}}}}'
    )
    run = ns.finished(name)
    wait_for("end of the Pod", lambda: run.pods_are_over() or None)
    assert ns.entries() == {}, run.said()


def test_a_killed_main_ends_the_pod_and_leaves_no_entry(ns: Namespace) -> None:
    """Only where the node's processes are ours to kill: the lab, kind."""
    mark = f"sleep-{time.time_ns()}"
    name = ns.submit(container(f": {mark}; while :; do sleep 1; done"))

    def emissary() -> list[str] | None:
        found = subprocess.run(["pgrep", "-f", f"emissary.*{mark}"], capture_output=True, text=True)
        return found.stdout.split() or None

    try:
        pids = wait_for("emissary on this machine", emissary, 30)
    except AssertionError:
        pytest.skip("the node's processes are not visible from here")
    subprocess.run(["kill", "-9", *pids], check=True)
    run = ns.finished(name, 40)
    assert run.phase in ("Failed", "Error")

    wait_for("end of the Pod", lambda: run.pods_are_over() or None, 40)
    assert ns.entries() == {}, run.said()


def lacking(verb: str, resource: str) -> list[dict]:
    """The direct component's rules without one verb on one resource."""
    rules = [
        rule | {"verbs": [v for v in rule["verbs"] if v != verb]} if resource in rule["resources"] else rule
        for rule in direct_role()
    ]
    return [rule for rule in rules if rule["verbs"]]


RIGHTS = [(verb, name) for rule in direct_role() for name in rule["resources"] for verb in rule["verbs"]]


@pytest.mark.parametrize(("verb", "resource"), [*RIGHTS, ("*", "*")], ids=lambda part: part)
def test_a_missing_right_never_fails_a_step(ns: Namespace, verb: str, resource: str) -> None:
    grant(ns.name, "stepmemo", [] if verb == "*" else lacking(verb, resource))
    runs = [ns.run(container()) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2, "".join(run.said() for run in runs)
    assert all(run.output() for run in runs)


def test_a_configmap_without_the_cache_label_is_refused(ns: Namespace) -> None:
    ns.put("other", "{}", label=None)
    run = ns.run(container())
    assert run.phase == "Succeeded"
    assert list(ns.entries()) == ["other"], run.said()
    assert "NotACache" in run.said()


def entry(outputs: object, **fields: object) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole = {"nodeID": "by-hand", "outputs": outputs, "creationTimestamp": now, "lastHitTimestamp": now}
    return json.dumps(whole | fields)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{not json", id="garbage"),
        pytest.param(entry({"parameters": [{"name": "other", "value": "1"}]}), id="incomplete"),
        pytest.param(entry(None), id="null outputs"),
        pytest.param(entry([]), id="outputs of the wrong type"),
    ],
)
def test_an_entry_that_cannot_answer_is_a_miss_and_is_replaced(ns: Namespace, text: str) -> None:
    ns.put("k", text)
    run = ns.run(container())
    assert run.phase == "Succeeded"
    assert run.executions() == 1, run.said()
    assert ns.run(container()).output() == run.output()


def test_an_entry_edited_with_kubectl_is_served(ns: Namespace) -> None:
    ns.put("k", entry({"parameters": [{"name": "out", "value": "written by hand"}], "exitCode": "0"}))
    run = ns.run(container())
    assert run.executions() == 0, run.said()
    assert run.output() == "written by hand"


def test_an_expired_entry_is_a_miss(ns: Namespace) -> None:
    old = entry({"parameters": [{"name": "out", "value": "old"}]}, creationTimestamp="2020-01-01T00:00:00Z")
    ns.put("k", old)
    run = ns.run(container(memoize=memo(max_age="1h")))
    assert run.executions() == 1, run.said()
    assert run.output() != "old"


def test_a_long_key_of_any_characters_hits(ns: Namespace) -> None:
    key = "ümlaut \"double\" 'single'\nnew line\t$(STEPMEMO_POD_NAME) \\ {json: [1]} " + "x" * 5000
    runs = [ns.run(container(memoize=memo(key))) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()
    assert runs[0].output() == runs[1].output()


def test_a_key_from_an_input_tells_inputs_apart(ns: Namespace) -> None:
    template = container(inputs={"parameters": [{"name": "x"}]}, memoize=memo("in-{{inputs.parameters.x}}"))

    def run(x: str):
        return ns.run(template, arguments={"parameters": [{"name": "x", "value": x}]})

    one, two, again = run("1"), run("2"), run("1")
    assert (one.executions(), two.executions(), again.executions()) == (1, 1, 0)
    assert one.output() == again.output() != two.output()


def test_a_namespace_that_enforces_restricted_pods_works(restricted: Namespace) -> None:
    secure = {
        "runAsNonRoot": True,
        "runAsUser": 8737,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    step_secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    executor = {"podSpecPatch": json.dumps({
        "initContainers": [{"name": "init", "securityContext": step_secure}],
        "containers": [{"name": "wait", "securityContext": step_secure}],
    })}  # fmt: skip
    template = container(container=shell(f"{RANDOM} > /tmp/out", securityContext=step_secure))
    runs = [restricted.run(template, securityContext=secure, **executor) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2, [run.workflow["status"] for run in runs]
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()


def test_a_pod_that_runs_as_root_works(ns: Namespace) -> None:
    runs = [ns.run(container(), securityContext={"runAsUser": 0}) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()


def instance() -> str | None:
    """The instanceID of a second controller, where the cluster has one."""
    return os.environ.get("STEPMEMO_E2E_INSTANCE_ID")


@pytest.mark.skipif(not instance(), reason="STEPMEMO_E2E_INSTANCE_ID names no controller")
def test_a_controller_with_an_instance_id_sees_the_answer(ns: Namespace) -> None:
    labels = {"workflows.argoproj.io/controller-instanceid": instance()}
    runs = [ns.run(container(), labels=labels) for _ in range(2)]
    assert [run.phase for run in runs] == ["Succeeded"] * 2
    assert [run.executions() for run in runs] == [1, 0], runs[1].said()
    assert runs[0].output() == runs[1].output()


@pytest.fixture
def home() -> Iterator[Namespace]:
    """The controller's own namespace, the only one where Argo's memoization keeps its caches."""
    namespace = Namespace("argo", cache=f"e2e-{time.time_ns()}")
    prepare("argo")
    yield namespace
    kubectl("-n", "argo", "delete", "configmap", namespace.cache, check=False)


@pytest.mark.parametrize("argo_first", [True, False], ids=["Argo's entry, our hit", "our entry, Argo's hit"])
def test_entries_are_shared_with_argos_own_memoization(home: Namespace, argo_first: bool) -> None:
    block = memo(cache=home.cache)
    native = container(memoize=block, metadata={"annotations": {"stepmemo.dev/memoize": "false"}})
    ours = container(memoize=block, metadata=opted_in())
    order = [native, ours] if argo_first else [ours, native]
    first, second = (home.run(template, serviceAccountName="default") for template in order)
    assert (first.phase, second.phase) == ("Succeeded", "Succeeded"), second.said()
    assert (first.executions(), second.executions()) == (1, 0), first.said() + second.said()
    node = second.workflow["status"]["nodes"][second.name]
    value = next(p["value"] for p in node["outputs"]["parameters"] if p["name"] == "out")
    assert value == first.output()
    if not argo_first:
        assert node["memoizationStatus"]["hit"] is True


def test_modes_of_one_run(ns: Namespace) -> None:
    mode = "stepmemo.dev/mode"
    first = ns.run(container())
    off = ns.run(container(), labels={mode: "off"})
    assert off.output() != first.output()
    assert ns.run(container()).output() == first.output()
    refreshed = ns.run(container(), labels={mode: "refresh"})
    assert refreshed.executions() == 1, refreshed.said()
    assert ns.run(container()).output() == refreshed.output() != first.output()
    read_only = ns.run(container(memoize=memo("other")), annotations={mode: "readonly"})
    assert read_only.executions() == 1
    assert list(ns.entries()) == ["k"]


def test_a_broken_block_is_denied_at_submit(ns: Namespace) -> None:
    with pytest.raises(AssertionError) as refused:
        ns.submit(
            container(memoize={"key": " ", "maxage": "1d", "cache": {"configMap": {"name": "Upper_Case"}}})
        )
    for field in ("memoize.key", "memoize.maxage", "memoize.cache.configMap.name"):
        assert f"spec.templates[0].{field}" in str(refused.value)


def test_a_namespace_label_opts_in() -> None:
    with fresh_namespace({"stepmemo.dev/memoize": "true"}) as namespace:
        template = container(metadata={})
        runs = [namespace.run(template) for _ in range(2)]
        assert [run.executions() for run in runs] == [1, 0], runs[1].said()
