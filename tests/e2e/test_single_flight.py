"""Equal steps at the same time: one runs, the others wait for its outputs, and nothing waits for ever."""

import pytest

from argo import names as argo
from memoize import names
from tests.e2e import server
from tests.e2e.cluster import Namespace
from tests.e2e.kube import kubectl, patch, wait_for
from tests.e2e.outcome import is_held, is_unscheduled_hit
from tests.e2e.probe import Setting
from tests.e2e.run import Run
from tests.e2e.steps import RANDOM, Template, container, in_a_row, opted_in, shell

SLOW = f"sleep 6; {RANDOM} > /tmp/out"
STUCK = "trap 'exit 1' TERM; while :; do sleep 0.1; done"
QUICK_END = '{"terminationGracePeriodSeconds": 1}'
KEEPS_FAILING = f"sleep 3; {RANDOM} > /tmp/out; exit 3"


@pytest.fixture(autouse=True)
def _service() -> None:
    server.needs(server.SERVICE)


def fan_out(count: int) -> Template:
    return in_a_row({"template": "step", "withSequence": {"count": str(count)}})


def started(ns: Namespace, name: str) -> Run:
    """The workflow, once a step of it runs."""
    wait_for(f"start of {name}", lambda: ns.workflow(name).executions() or None)
    return ns.workflow(name)


def waiting(ns: Namespace, name: str) -> None:
    """Returns once every memoized Pod of the workflow is held, of which there is at least one."""

    def held() -> bool | None:
        pods = ns.workflow(name).memoized_pods()
        return (pods and all(is_held(pod) for pod in pods)) or None

    wait_for(f"hold of {name}", held)


def test_twenty_equal_steps_at_once_run_once(ns: Namespace) -> None:
    """Of twenty equal steps at once one is executed; the others get its outputs without a node."""
    run = ns.run(fan_out(20), container(SLOW), entrypoint="main").settled()
    assert run.phase == "Succeeded", run.said()
    assert run.executions() == 1, run.said()
    assert len(run.answers()) == 20
    assert len({answer["out"] for answer in run.answers()}) == 1
    assert sum(is_unscheduled_hit(pod) for pod in run.memoized_pods()) == 19, run.said()
    assert list(ns.entries()) == ["k"]


def test_equal_steps_of_several_workflows_run_once(ns: Namespace) -> None:
    submitted = [ns.submit(container(SLOW)) for _ in range(4)]
    runs = [ns.finished(name) for name in submitted]
    assert [run.phase for run in runs] == ["Succeeded"] * 4, [run.said() for run in runs]
    assert sum(run.executions() for run in runs) == 1
    assert len({run.output() for run in runs}) == 1


def test_who_waited_for_a_step_that_failed_runs_beside_the_others(ns: Namespace) -> None:
    """When the step that the others wait for fails, all of them run, at once and not one after another."""
    name = ns.submit(fan_out(6), container(KEEPS_FAILING), entrypoint="main")
    run = ns.finished(name).settled()
    assert run.phase == "Failed", run.said()
    assert run.executions() == 6, run.said()
    assert ns.entries() == {}
    first, *others = sorted(_ran(pod) for pod in run.memoized_pods())
    assert all(began < ended for began, _ in others for _, ended in others), (first, others)


def _ran(pod: dict) -> tuple[str, str]:
    """From when to when its main container ran."""
    (main,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == argo.MAIN_CONTAINER)
    ended = main["state"]["terminated"]
    return ended["startedAt"], ended["finishedAt"]


@pytest.mark.parametrize("how", ["its Pod is deleted", "its Pod is evicted", "Stop", "Terminate"])
def test_who_waits_for_a_step_that_is_taken_away_runs(ns: Namespace, how: str) -> None:
    ns.config_map("world", {"stuck": "yes"})
    stuck = {"name": "STUCK", "valueFrom": {"configMapKeyRef": {"name": "world", "key": "stuck"}}}
    command = f'if test "$STUCK" = yes; then {STUCK}; fi; {RANDOM} > /tmp/out'
    step = container(container=shell(command, env=[stuck]), podSpecPatch=QUICK_END)
    leader = started(ns, ns.submit(step))
    follower = ns.submit(step)
    waiting(ns, follower)
    ns.config_map("world", {"stuck": "no"})
    (pod,) = (pod["metadata"]["name"] for pod in leader.pods())
    if how == "its Pod is deleted":
        kubectl("-n", ns.name, "delete", "pod", pod, "--wait=false")
    elif how == "its Pod is evicted":
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{ns.name}/pods/{pod}/eviction"
        kubectl("create", "--raw", path, "-f", "-", stdin=eviction)
    else:
        patch(ns.name, "workflow", leader.name, {"spec": {"shutdown": how}})
    run = ns.finished(follower).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()
    if how in ("Stop", "Terminate"):  # Argo may make the Pod of the others anew
        assert ns.finished(leader.name).phase in ("Failed", "Error")
    assert list(ns.entries()) == ["k"], run.said()


def test_nobody_waits_longer_than_a_fifth_of_his_deadline(ns: Namespace) -> None:
    """A runner that finds no node makes no waiter wait for longer than a fifth of the waiter's deadline."""
    nowhere = container(nodeSelector={"stepmemo.dev/e2e": "no-such-node"})
    leader = ns.submit(nowhere)
    wait_for("Pod of the leader", lambda: ns.workflow(leader).memoized_pods() or None)
    follower = ns.submit(container(activeDeadlineSeconds=50))
    run = ns.finished(follower, 45).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()
    patch(ns.name, "workflow", leader, {"spec": {"shutdown": "Terminate"}})


def test_a_template_may_refuse_to_share(ns: Namespace) -> None:
    alone = opted_in(**{names.SINGLE_FLIGHT: "false"})
    run = ns.run(fan_out(3), container(SLOW, metadata=alone), entrypoint="main").settled()
    assert (run.phase, run.executions()) == ("Succeeded", 3), run.said()


def test_runs_that_refresh_do_not_wait_for_each_other(ns: Namespace) -> None:
    labels = {names.MODE: "refresh"}
    run = ns.run(fan_out(2), container(SLOW), entrypoint="main", labels=labels).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 2), run.said()


@pytest.mark.parametrize("limit", ["parallelism", "mutex", "quota"])
def test_limits_and_waiting_do_not_lock_each_other_up(ns: Namespace, setting: Setting, limit: str) -> None:
    """Gated steps under Argo's parallelism, a mutex of theirs or a quota of Pods all come to an end."""
    step, spec = container(SLOW), {}
    if limit == "parallelism":
        spec = {"parallelism": 2}
    elif limit == "mutex":
        mutex = {"name": "one-at-a-time"}
        lock = {"mutex": mutex} if setting.is_before(3, 6) else {"mutexes": [mutex]}
        step |= {"synchronization": lock}
    else:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
        hard = {"hard": {"pods": "2"}}
        kubectl("-n", ns.name, "create", "-f", "-", stdin=quota | {"spec": hard})
    run = ns.run(fan_out(4), step, entrypoint="main", **spec).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()


def test_held_pods_are_freed_by_hand(ns: Namespace) -> None:
    """`stepmemo release` releases a namespace's gated Pods, and they run."""
    leader = ns.submit(container(STUCK, podSpecPatch=QUICK_END))
    started(ns, leader)
    follower = ns.submit(container())
    waiting(ns, follower)
    server.command("release", "-n", ns.name)
    run = ns.finished(follower).settled()
    assert (run.phase, run.executions()) == ("Succeeded", 1), run.said()
    patch(ns.name, "workflow", leader, {"spec": {"shutdown": "Terminate"}})
