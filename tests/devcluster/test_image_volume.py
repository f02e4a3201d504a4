"""stepmemo's whole path with our image as a volume: one container of ours, which looks up beside the step."""

import pytest

from devcluster.client import Object
from memoize import names
from tests.devcluster.playground import (
    RANDOM,
    Space,
    container,
    out,
    outputs,
    phase,
    script,
    steps,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def ours(pod: Object) -> list[str]:
    everything = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return [each["name"] for each in everything if each["name"] in names.CONTAINERS]


async def test_the_second_run_is_answered_with_the_outputs_of_the_first(volume_space: Space) -> None:
    first, second = await volume_space.run(container()), await volume_space.run(container())

    assert volume_space.reasons(first, "stepmemo") == ["Miss", "Stored"]
    assert volume_space.reasons(second, "stepmemo") == ["Hit"]
    assert (phase(first), phase(second)) == ("Succeeded", "Succeeded")
    assert outputs(second) == outputs(first)
    assert volume_space.times_ran() == 1


async def test_the_pod_has_one_container_of_ours_and_argos_init_is_as_it_was(volume_space: Space) -> None:
    run = await volume_space.run(container())

    pod = await volume_space.pod(run["metadata"]["name"])
    assert ours(pod) == ["stepmemo"]
    assert pod["spec"]["containers"][0]["name"] == "stepmemo"
    assert [each["command"][0] for each in pod["spec"]["initContainers"]] == ["argoexec"]


async def test_a_script_result_comes_from_the_cache(volume_space: Space) -> None:
    use = {"name": "use", "container": {"image": "busybox", "command": ["true"]}}
    argument = {"name": "x", "value": "{{steps.make.outputs.result}}"}
    use["inputs"] = {"parameters": [{"name": "x"}]}
    main = steps(
        [{"name": "make", "template": "step"}],
        [{"name": "use", "template": "use", "arguments": {"parameters": [argument]}}],
    )

    first, second = [await volume_space.run(main, script(RANDOM), use) for _ in range(2)]

    assert phase(second) == "Succeeded"
    assert outputs(second, "make")["result"] == outputs(first, "make")["result"] != ""
    assert volume_space.times_ran() == 1


async def test_a_main_container_that_fails_leaves_no_entry(volume_space: Space) -> None:
    failed = await volume_space.run(container("echo x > /tmp/out; exit 3"))

    assert phase(failed) == "Failed"
    assert volume_space.reasons(failed, "stepmemo") == ["Miss", "StepFailed"]
    assert await volume_space.entries() == {}


async def test_mode_refresh_runs_and_overwrites(volume_space: Space) -> None:
    await volume_space.run(container())

    refreshed = await volume_space.run(container(), annotations={names.MODE: "refresh"})
    after = await volume_space.run(container())

    assert volume_space.reasons(refreshed, "stepmemo") == ["Stored"]
    assert out(after) == out(refreshed)
    assert volume_space.times_ran() == 2


async def test_mode_readonly_answers_and_never_stores(volume_space: Space) -> None:
    first = await volume_space.run(container(), annotations={names.MODE: "readonly"})
    assert volume_space.reasons(first, "stepmemo") == ["Miss"]
    assert await volume_space.entries() == {}

    stored = await volume_space.run(container())
    second = await volume_space.run(container(), annotations={names.MODE: "readonly"})

    assert volume_space.reasons(second, "stepmemo") == ["Hit"]
    assert out(second) == out(stored)


async def test_a_killed_sidecar_is_started_again_stores_nothing_and_fails_no_step(
    volume_space: Space,
) -> None:
    go_on = "until test -e /ran/go-on; do sleep 0.02; done"
    submitted = await volume_space.submit(container(f"{go_on}; echo x > /tmp/out"))
    await volume_space.until_ran(1)

    await volume_space.kill(submitted, "stepmemo")
    await until(lambda: "InternalError" in volume_space.reasons(submitted, "stepmemo"))
    volume_space.file("go-on").touch()
    run = await volume_space.cluster.finished(submitted)

    assert phase(run) == "Succeeded"
    statuses = (await volume_space.pod(run["metadata"]["name"]))["status"]["containerStatuses"]
    assert {each["name"]: each["restartCount"] for each in statuses} == {"stepmemo": 1, "wait": 0, "main": 0}
    assert await volume_space.entries() == {}
