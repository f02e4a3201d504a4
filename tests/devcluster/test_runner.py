"""The devcluster's runner at work: steps, outputs, failures, in Workflows that nobody memoizes."""

import re
from typing import Any

import pytest

from devcluster.client import PODS, TASK_RESULTS, WORKFLOWS, Object
from tests.devcluster.playground import Space, container, outputs, phase, steps

pytestmark = pytest.mark.asyncio(loop_scope="module")


def echo(name: str, text: str, **template: Any) -> Object:
    """A container template that puts `text` out."""
    return {
        "name": name,
        "container": {"image": "busybox", "command": ["sh", "-c", f"echo {text} > /tmp/out"]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
    } | template


def call(name: str, template: str, **parameters: str) -> Object:
    arguments = [{"name": key, "value": value} for key, value in parameters.items()]
    return {"name": name, "template": template, "arguments": {"parameters": arguments}}


def value(workflow: Object, node: str = "") -> str:
    found: str = outputs(workflow, node)["parameters"][0]["value"]
    return found


async def test_outputs_flow_from_step_to_step_and_out_of_the_template(any_space: Space) -> None:
    main = steps(
        [call("a", "add", to="{{workflow.parameters.start}}"), call("b", "add", to="x")],
        [call("c", "add", to="{{steps.a.outputs.parameters.out}}{{steps.b.outputs.parameters.out}}")],
        outputs={
            "parameters": [{"name": "all", "valueFrom": {"parameter": "{{steps.c.outputs.parameters.out}}"}}]
        },
    )
    add = echo("add", "{{inputs.parameters.to}}1", inputs={"parameters": [{"name": "to"}]})

    run = await any_space.run(main, add, parameters={"start": "s"})

    assert (phase(run), value(run)) == ("Succeeded", "s1x11")
    names = {node["name"].partition(run["metadata"]["name"])[2] for node in run["status"]["nodes"].values()}
    assert names == {"", "[0].a", "[0].b", "[1].c"}


async def test_a_script_runs_and_its_result_is_there_for_whoever_uses_it(any_space: Space) -> None:
    make = {
        "name": "make",
        "script": {"image": "x", "command": ["sh"], "source": "echo one; printf 'two\\n'"},
    }
    main = steps(
        [call("used", "make"), call("unused", "make")],
        [call("use", "show", text="{{steps.used.outputs.result}}")],
    )
    show = echo("show", "'{{inputs.parameters.text}}'", inputs={"parameters": [{"name": "text"}]})

    run = await any_space.run(main, make, show)

    assert value(run, "use") == "one\ntwo"
    assert "result" not in outputs(run, "unused")


async def test_a_raw_artifact_is_where_the_template_says(any_space: Space) -> None:
    inputs = {"artifacts": [{"name": "in", "path": "/tmp/in", "raw": {"data": "raw data"}}]}

    run = await any_space.run(echo("step", "$(cat {{inputs.artifacts.in.path}})", inputs=inputs))

    assert value(run) == "raw data"


async def test_an_output_without_a_file_takes_its_default(any_space: Space) -> None:
    missing = {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/none", "default": "d"}}]}

    run = await any_space.run(echo("step", "x", outputs=missing))

    assert value(run) == "d"


async def test_the_exit_code_is_an_output_and_a_failed_step_ends_its_template(space: Space) -> None:
    fail = {"name": "fail", "container": {"image": "x", "command": ["sh", "-c", "exit 3"]}}

    run = await space.run(steps([call("a", "fail")], [call("b", "fail")]), fail)

    assert phase(run) == "Failed"
    assert outputs(run, "a") == {"exitCode": "3"}
    assert len(run["status"]["nodes"]) == 2, "b never started"


@pytest.mark.parametrize(
    ("templates", "why"),
    [
        ([steps([call("a", "none")])], "child 'run-.*' failed"),
        ([{"name": "main", "dag": {}}], "does not know dag"),
        ([echo("step", "x", inputs={"parameters": [{"name": "p"}]})], "inputs.parameters.p was not supplied"),
    ],
)
async def test_a_workflow_that_cannot_run_ends_as_an_error(
    space: Space, templates: list[Object], why: str
) -> None:
    run = await space.run(*templates)

    assert phase(run) == "Error"
    assert re.search(why, run["status"]["message"])


async def test_a_pod_that_somebody_deletes_is_an_error(space: Space) -> None:
    submitted = await space.submit(container("sleep 600", memoize=None))
    await space.until_ran(1)

    await space.client.delete(PODS, space.name, submitted["metadata"]["name"])

    run = await space.cluster.finished(submitted)
    assert (phase(run), run["status"]["message"]) == ("Error", "pod deleted")


async def test_a_deleted_workflow_takes_its_pods_along(space: Space) -> None:
    submitted = await space.submit(container("sleep 600", memoize=None))
    await space.until_ran(1)

    await space.client.delete(WORKFLOWS, space.name, submitted["metadata"]["name"])

    assert (await space.client.list(PODS, space.name))["items"] == []
    after = await space.run(echo("step", "x"))
    assert phase(after) == "Succeeded", "the runner goes on"


async def test_results_are_gone_when_the_workflow_is_over(space: Space) -> None:
    await space.run(steps([call("a", "step"), call("b", "step")]), echo("step", "x"))

    assert (await space.client.list(TASK_RESULTS, space.name))["items"] == []
