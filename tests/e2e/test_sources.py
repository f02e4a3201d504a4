"""Where a step comes from: loops, templates of other objects, schedules, hooks."""

import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Namespace
from tests.e2e.kube import argo, get, kubectl, wait_for
from tests.e2e.probe import Setting
from tests.e2e.run import twice
from tests.e2e.steps import RANDOM, arguments, container, in_a_row, memo, use


def test_a_fan_out_over_items_with_keys_of_their_own(ns: Namespace) -> None:
    each = container(inputs={"parameters": [{"name": "x"}]}, memoize=memo("in-{{inputs.parameters.x}}"))
    fan = {"template": "step", "withItems": ["1", "2"], "arguments": arguments(x="{{item}}")}
    collected = {"template": "use", "arguments": arguments(x="{{steps.a.outputs.parameters}}")}
    runs = ns.runs(in_a_row(fan, collected), each, use(), entrypoint="main")
    twice(*runs, ran=(3, 1))
    assert len({value["out"] for value in runs[1].answers()}) == 2
    assert all(value["out"] in runs[1].output("seen", "use") for value in runs[0].answers())


def test_a_fan_out_over_items_that_share_a_key(ns: Namespace) -> None:
    fan = {"template": "step", "withItems": ["1", "2"]}
    first, second = ns.runs(in_a_row(fan), container(), entrypoint="main")
    assert [first.phase, second.phase] == ["Succeeded"] * 2, second.said()
    assert first.executions() >= 1
    assert second.executions() == 0, second.said()
    assert second.answers()[0] == second.answers()[1]
    assert second.answers()[0] in first.answers()


def test_an_equal_task_later_in_the_same_dag_is_a_hit(ns: Namespace) -> None:
    tasks = [{"name": "a", "template": "step"}, {"name": "b", "template": "step", "depends": "a"}]
    run = ns.run({"name": "main", "dag": {"tasks": tasks}}, container(), entrypoint="main")
    twice(run, ran=(1,))
    first, second = run.answers()
    assert first == second


@pytest.fixture(params=["WorkflowTemplate", "ClusterWorkflowTemplate"])
def shelf(request: pytest.FixtureRequest, ns: Namespace) -> Iterator[tuple[str, bool]]:
    """A template object with a memoized `step`; its name and whether it is the cluster's."""
    name = f"stepmemo-e2e-{uuid.uuid4().hex[:8]}"
    ns.create(argo(request.param, {"name": name}, {"entrypoint": "step", "templates": [container()]}))
    yield name, request.param == "ClusterWorkflowTemplate"
    kubectl("-n", ns.name, "delete", request.param, name)


def test_a_workflow_template_by_either_reference(ns: Namespace, shelf: tuple[str, bool]) -> None:
    """A `workflowTemplateRef` and a `templateRef` to the same template share its entries."""
    name, cluster_wide = shelf
    whole = {"workflowTemplateRef": {"name": name, "clusterScope": cluster_wide}}
    first = ns.finished(ns.create_workflow(argo("Workflow", {"generateName": "e2e-"}, whole)))
    reference = {"name": name, "template": "step", "clusterScope": cluster_wide}
    second = ns.run(in_a_row({"templateRef": reference}), entrypoint="main")
    twice(first, second)


def test_a_cron_workflow_by_hand_and_by_its_clock(ns: Namespace, setting: Setting) -> None:
    """A CronWorkflow, submitted by hand (`argo submit --from`) and by its clock."""
    schedule = {"schedule": "@every 5s"} if setting.is_before(3, 6) else {"schedules": ["@every 5s"]}
    template = container(memoize=memo(max_age="1h"))  # it stays, and full CRDs require a maxAge
    workflow = {"entrypoint": "step", "templates": [template]}
    limits = {"concurrencyPolicy": "Forbid", "suspend": True}
    made = ns.create(argo("CronWorkflow", {"name": "c"}, schedule | limits | {"workflowSpec": workflow}))
    stored = made["spec"]["workflowSpec"]
    first = ns.finished(ns.create_workflow(argo("Workflow", {"generateName": "c-"}, stored)))
    kubectl("-n", ns.name, "patch", "cronworkflow", "c", "--type=merge", "-p", '{"spec": {"suspend": false}}')

    def scheduled() -> str | None:
        found = get(ns.name, "workflows", "-l", "workflows.argoproj.io/cron-workflow=c")["items"]
        return found[0]["metadata"]["name"] if found else None

    name = wait_for("workflow made by the clock", scheduled)
    kubectl("-n", ns.name, "delete", "cronworkflow", "c", "--cascade=orphan")
    twice(first, ns.finished(name))


def test_exit_handlers_and_hooks_are_hits(ns: Namespace) -> None:
    def hook(name: str) -> dict:
        return container(f"{RANDOM} > /tmp/out", name=name, memoize=memo(name))

    hooks = {
        "exit": {"template": "after-step"},
        "succeeded": {"template": "on-success", "expression": 'steps.a.status == "Succeeded"'},
    }
    plain = use("plain")
    main = in_a_row({"template": "plain", "arguments": arguments(x="x"), "hooks": hooks})
    handlers = [hook(name) for name in ("after-step", "on-success", "after-workflow")]
    runs = ns.runs(main, plain, *handlers, entrypoint="main", onExit="after-workflow")
    twice(*runs, ran=(4, 1), template="plain")
    for name in ("after-step", "on-success", "after-workflow"):
        assert runs[0].answers(name) == runs[1].answers(name) != [], runs[1].said()
