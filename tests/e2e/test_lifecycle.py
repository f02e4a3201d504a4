"""What happens to a workflow on its way: suspended, stopped, retried, resubmitted, held back by limits."""

import json

import pytest

from tests.e2e.argo import formulate_retry, resubmission
from tests.e2e.cluster import Namespace
from tests.e2e.kube import kubectl, patch, wait_for
from tests.e2e.probe import Setting
from tests.e2e.run import twice
from tests.e2e.steps import answer, arguments, container, in_a_row, memo, shell

STEP = {"template": "step"}


def test_a_workflow_suspended_between_two_hits_is_resumed(ns: Namespace) -> None:
    ns.put("k", answer("by hand"))
    main = in_a_row(STEP, {"template": "pause"}, STEP)
    name = ns.submit(main, container(), {"name": "pause", "suspend": {}}, entrypoint="main")

    def paused() -> str | None:
        nodes = ns.workflow(name).workflow.get("status", {}).get("nodes", {}).values()
        return next((n["id"] for n in nodes if n["type"] == "Suspend" and n["phase"] == "Running"), None)

    node = wait_for("pause", paused)
    # As `argo resume` does.
    patch(ns.name, "workflow", name, {"status": {"nodes": {node: {"phase": "Succeeded"}}}})
    run = ns.finished(name)
    twice(run, ran=(0,))
    assert run.answers() == [{"out": "by hand"}] * 2


@pytest.mark.parametrize("how", ["Stop", "Terminate"])
def test_a_workflow_stopped_after_a_hit_keeps_its_outputs(ns: Namespace, how: str) -> None:
    ns.put("k", answer("by hand"))
    quick = {"terminationGracePeriodSeconds": 1}
    long = {"name": "long", "container": shell("trap 'exit 1' TERM; while :; do sleep 0.1; done")}
    main = in_a_row(STEP, {"template": "long"})
    name = ns.submit(main, container(), long, entrypoint="main", podSpecPatch=json.dumps(quick))
    wait_for("start of the long step", lambda: ns.workflow(name).executions() or None)
    patch(ns.name, "workflow", name, {"spec": {"shutdown": how}})
    run = ns.finished(name)
    assert run.phase == "Failed", run.said()
    assert run.answers() == [{"out": "by hand"}], run.said()
    assert ns.entries()["k"]["nodeID"] == "by-hand"


def test_a_failed_workflow_is_resubmitted_and_retried_with_its_hit(ns: Namespace) -> None:
    """A failed workflow is resubmitted, and the new one retried, with the hit in it."""
    ns.config_map("world", {"works": "no"})
    works = {"configMapKeyRef": {"name": "world", "key": "works"}}
    check = {
        "name": "check",
        "container": shell('test "$WORKS" = yes', env=[{"name": "WORKS", "valueFrom": works}]),
    }
    main = in_a_row(STEP, {"template": "check"})
    first = ns.run(main, container(), check, entrypoint="main")
    assert (first.phase, first.executions()) == ("Failed", 2), first.said()

    second = ns.finished(ns.create_workflow(resubmission(first.workflow)))
    assert (second.phase, second.executions()) == ("Failed", 1), second.said()

    ns.config_map("world", {"works": "yes"})
    retried, pods = formulate_retry(second.workflow)
    kubectl("-n", ns.name, "delete", "pod", *pods)
    kubectl("-n", ns.name, "replace", "-f", "-", stdin=retried)
    third = ns.finished(second.name)
    assert (third.phase, third.executions()) == ("Succeeded", 1), third.said()
    assert first.answers() == second.answers() == third.answers()


def test_mutex_parallelism_and_time_limits(ns: Namespace, setting: Setting) -> None:
    """Hits under a mutex, a parallelism of 1, a deadline and a timeout pass them on as steps that ran do."""
    mutex = {"name": "one-at-a-time"}
    lock = {"mutex": mutex} if setting.is_before(3, 6) else {"mutexes": [mutex]}
    template = container(
        inputs={"parameters": [{"name": "x"}]},
        memoize=memo("in-{{inputs.parameters.x}}"),
        synchronization=lock,
        timeout="100s",
        activeDeadlineSeconds=100,
    )
    fan = STEP | {"withItems": ["1", "2"], "arguments": arguments(x="{{item}}")}
    runs = ns.runs(in_a_row(fan), template, entrypoint="main", parallelism=1, activeDeadlineSeconds=200)
    twice(*runs, ran=(2, 0))
