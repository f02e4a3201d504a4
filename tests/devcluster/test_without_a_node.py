"""The default installation: hits meet no node, equal steps wait, and steps have no right to any cache."""

import asyncio

import pytest

from devcluster.client import EVENTS, PODS, ROLES, Object
from memoize import names
from tests.devcluster.playground import (
    RANDOM,
    Space,
    container,
    out,
    outputs,
    phase,
    result,
    script,
    steps,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def results(space: Space, workflow: Object) -> list[str]:
    return sorted(result(pod) for pod in await space.settled(workflow))


def on_a_node(pods: list[Object]) -> list[Object]:
    return [pod for pod in pods if "nodeName" in pod["spec"]]


def containers(pod: Object) -> set[str]:
    spec = pod["spec"]
    return {each["name"] for each in [*spec.get("initContainers", []), *spec["containers"]]}


async def test_the_second_run_is_answered_without_a_node(kept_space: Space) -> None:
    first, second = [await kept_space.run(container()) for _ in range(2)]

    [ran], [answered] = await kept_space.settled(first), await kept_space.settled(second)
    assert (result(ran), result(answered)) == ("stored", "hit")
    assert (on_a_node([ran]), on_a_node([answered])) == ([ran], [])
    assert (phase(second), outputs(second)) == ("Succeeded", outputs(first))
    assert (answered["status"]["phase"], answered["status"]["reason"]) == ("Succeeded", "Memoized")
    assert first["metadata"]["name"] in answered["status"]["message"]
    assert kept_space.times_ran() == 1


async def test_a_step_that_runs_gets_no_container_of_ours(kept_space: Space) -> None:
    [pod] = await kept_space.settled(await kept_space.run(container()))

    assert containers(pod) == {"init", "wait", "main"}


async def test_its_account_has_argos_rights_and_no_more(kept_space: Space) -> None:
    roles = (await kept_space.client.list(ROLES, kept_space.name))["items"]

    assert [(rule["resources"], rule["verbs"]) for role in roles for rule in role["rules"]] == [
        (["workflowtaskresults"], ["create", "patch"])
    ]


async def test_a_script_result_that_a_next_step_uses(kept_space: Space) -> None:
    use = script("echo got {{inputs.parameters.x}}", inputs={"parameters": [{"name": "x"}]})
    use = {name: value for name, value in use.items() if name != "memoize"} | {"name": "use"}
    argument = {"name": "x", "value": "{{steps.make.outputs.result}}"}
    main = steps(
        [{"name": "make", "template": "step"}],
        [{"name": "use", "template": "use", "arguments": {"parameters": [argument]}}],
    )

    first, second = [await kept_space.run(main, script(RANDOM), use) for _ in range(2)]

    assert phase(second) == "Succeeded"
    assert outputs(second, "make")["result"] == outputs(first, "make")["result"] != ""
    assert kept_space.times_ran() == 3, "make once, use twice"


async def test_a_step_without_outputs(kept_space: Space) -> None:
    runs = [await kept_space.run(container("true", outputs={})) for _ in range(2)]

    assert [await results(kept_space, run) for run in runs] == [["stored"], ["hit"]]
    assert kept_space.times_ran() == 1


async def test_an_artifact_comes_from_where_the_first_run_put_it(kept_space: Space) -> None:
    artifacts = {"artifacts": [{"name": "file", "path": "/tmp/out"}]}
    use = {
        "name": "use",
        "inputs": {"artifacts": [{"name": "in", "path": "/tmp/in"}]},
        "container": {"image": "busybox", "command": ["sh", "-c", "cp /tmp/in /tmp/out"]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
    }
    argument = {"name": "in", "from": "{{steps.make.outputs.artifacts.file}}"}
    main = steps(
        [{"name": "make", "template": "step"}],
        [{"name": "use", "template": "use", "arguments": {"artifacts": [argument]}}],
    )

    first, second = [await kept_space.run(main, container(outputs=artifacts), use) for _ in range(2)]

    assert phase(second) == "Succeeded", second["status"]
    assert outputs(second, "use") == outputs(first, "use")
    assert kept_space.times_ran() == 1


async def test_of_five_equal_steps_at_once_one_runs(kept_space: Space) -> None:
    main = steps([{"name": "s", "template": "step", "withItems": [1, 2, 3, 4, 5]}])

    run = await kept_space.run(main, container(f"sleep 0.3; {RANDOM} > /tmp/out"))

    pods = await kept_space.settled(run)
    assert sorted(map(result, pods)) == ["hit"] * 4 + ["stored"]
    assert [result(pod) for pod in on_a_node(pods)] == ["stored"]
    assert kept_space.times_ran() == 1
    nodes = [node for node in run["status"]["nodes"].values() if node["type"] == "Pod"]
    assert len({node["outputs"]["parameters"][0]["value"] for node in nodes}) == 1
    assert [node["outputs"]["exitCode"] for node in nodes] == ["0"] * 5


async def test_of_five_equal_workflows_at_once_one_runs(kept_space: Space) -> None:
    template = container(f"sleep 0.3; {RANDOM} > /tmp/out")

    runs = await asyncio.gather(*(kept_space.run(template) for _ in range(5)))

    assert len({out(run) for run in runs}) == 1
    assert kept_space.times_ran() == 1


async def test_when_the_one_that_runs_fails_the_others_run(kept_space: Space) -> None:
    main = steps([{"name": "s", "template": "step", "withItems": [1, 2, 3]}])

    run = await kept_space.run(main, container("sleep 0.3; exit 3"))

    assert phase(run) == "Failed"
    assert await results(kept_space, run) == ["skipped"] * 3
    assert kept_space.times_ran() == 3
    assert await kept_space.entries() == {}


async def test_a_held_pod_that_is_deleted_is_no_loss_to_others(kept_space: Space) -> None:
    go_on = "until test -e /ran/go-on; do sleep 0.02; done"
    leader = await kept_space.submit(container(f"{go_on}; {RANDOM} > /tmp/out"))
    await kept_space.until_ran(1)
    deleted, other = [await kept_space.submit(container()) for _ in range(2)]
    await kept_space.until_there(PODS, 2, f"{names.RESULT}={names.RESULT_GATED}")

    await kept_space.client.delete(PODS, kept_space.name, deleted["metadata"]["name"])
    kept_space.file("go-on").touch()
    finished = [await kept_space.cluster.finished(each) for each in (leader, deleted, other)]

    assert [phase(each) for each in finished] == ["Succeeded", "Error", "Succeeded"]
    assert out(finished[2]) == out(finished[0])


async def test_mode_refresh_runs_and_overwrites(kept_space: Space) -> None:
    before = await kept_space.run(container())
    await kept_space.settled(before)

    refreshed = await kept_space.run(container(), annotations={names.MODE: "refresh"})
    await kept_space.settled(refreshed)
    after = await kept_space.run(container())

    assert out(before) != out(refreshed) == out(after)
    assert kept_space.times_ran() == 2


async def test_mode_readonly_answers_and_never_stores(kept_space: Space) -> None:
    await kept_space.run(container(), annotations={names.MODE: "readonly"})
    assert await kept_space.entries() == {}
    stored = await kept_space.run(container())
    await kept_space.settled(stored)

    answered = await kept_space.run(container(), annotations={names.MODE: "readonly"})

    assert out(answered) == out(stored)


async def test_a_step_that_fails_is_not_stored(kept_space: Space) -> None:
    failed = await kept_space.run(container("echo x > /tmp/out; exit 3"))

    assert await results(kept_space, failed) == ["skipped"]
    assert await kept_space.entries() == {}


async def test_the_workflow_shows_what_became_of_its_step(kept_space: Space) -> None:
    runs = [await kept_space.run(container()) for _ in range(2)]

    events = await kept_space.until_there(EVENTS, 2)
    told = {event["involvedObject"]["name"]: event["reason"] for event in events}
    assert [told[run["metadata"]["name"]] for run in runs] == ["MemoizationStored", "MemoizationHit"]
