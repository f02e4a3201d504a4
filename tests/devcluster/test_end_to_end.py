"""stepmemo's whole path, from a memoize block at submit to a step that is answered, in the devcluster."""

import base64
import json

import pytest

from argo import names as argo
from devcluster.client import CONFIG_MAPS, ROLES
from memoize import names
from tests.devcluster.playground import (
    CACHE,
    RANDOM,
    Space,
    container,
    memo,
    out,
    outputs,
    phase,
    script,
    steps,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LABELS = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
FOR_EVER = "2999-01-01T00:00:00Z"


def entry(value: str, **fields: object) -> str:
    """An entry as Argo writes it."""
    outputs = {"parameters": [{"name": "out", "value": value, "valueFrom": {"path": "/tmp/out"}}]}
    whole = {
        "nodeID": "other",
        "outputs": outputs,
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "lastHitTimestamp": "2024-01-01T00:00:00Z",
    }
    return json.dumps(whole | fields)


async def test_the_second_run_is_answered_with_the_outputs_of_the_first(any_space: Space) -> None:
    first, second = await any_space.run(container()), await any_space.run(container())

    assert (any_space.decided(first), any_space.kept(first)) == ("Miss", "Stored")
    assert (any_space.decided(second), phase(second)) == ("Hit", "Succeeded")
    assert outputs(second) == outputs(first)
    assert any_space.times_ran() == 1


async def test_another_key_is_another_entry(space: Space) -> None:
    template = container(key="k-{{inputs.parameters.x}}", inputs={"parameters": [{"name": "x"}]})

    runs = [await space.run(template, parameters={"x": x}) for x in "aba"]

    assert [space.decided(run) for run in runs] == ["Miss", "Miss", "Hit"]
    assert out(runs[2]) == out(runs[0]) != out(runs[1])


async def test_a_computed_key_hits_for_the_same_step_and_misses_for_another(any_space: Space) -> None:
    template = container(key="auto")
    another = container(f"{RANDOM} > /tmp/out; true", key="auto")
    salted = template | {"metadata": {"annotations": {names.SALT: "2"}}}
    renamed = template | {"name": "renamed", "retryStrategy": {"limit": 1}}

    runs = [await any_space.run(each) for each in (template, template, another, salted)]
    await any_space.run(renamed)

    assert [any_space.decided(run) for run in runs] == ["Miss", "Hit", "Miss", "Miss"]
    assert out(runs[1]) == out(runs[0])
    assert any_space.times_ran() == 3
    entries = await any_space.entries()
    assert len(entries) == 3
    assert all(key.startswith("auto-v1-") for key in entries)
    told = [one["stepmemo"] for one in entries.values()]
    assert all(one["template"] == "step" and "image" in one["parts"] for one in told)
    assert sum("salt" in one["parts"] for one in told) == 1


async def test_a_script_result_that_a_next_step_uses_comes_from_the_cache(any_space: Space) -> None:
    use = script("echo got {{inputs.parameters.x}}", inputs={"parameters": [{"name": "x"}]})
    use = use | {"name": "use", "memoize": None}
    del use["memoize"]
    argument = {"name": "x", "value": "{{steps.make.outputs.result}}"}
    main = steps(
        [{"name": "make", "template": "step"}],
        [{"name": "use", "template": "use", "arguments": {"parameters": [argument]}}],
        outputs={"parameters": [{"name": "r", "valueFrom": {"parameter": argument["value"]}}]},
    )

    first, second = [await any_space.run(main, script(RANDOM), use) for _ in range(2)]

    assert phase(second) == "Succeeded"
    assert outputs(second, "make")["result"] == outputs(first, "make")["result"] != ""
    assert outputs(second)["parameters"] == outputs(first)["parameters"]
    assert any_space.times_ran() == 3, "make once, use twice"


async def test_a_step_without_outputs_runs_once(space: Space) -> None:
    template = container("true", outputs={})

    runs = [await space.run(template) for _ in range(2)]

    assert [space.decided(run) for run in runs] == ["Miss", "Hit"]
    assert space.times_ran() == 1


async def test_an_artifact_comes_from_where_the_first_run_put_it(any_space: Space) -> None:
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

    first, second = [await any_space.run(main, container(outputs=artifacts), use) for _ in range(2)]

    assert phase(second) == "Succeeded", second["status"]
    assert outputs(second, "use") == outputs(first, "use")
    assert any_space.times_ran() == 1


@pytest.mark.parametrize("failure", ["exit 3", "kill -9 $$$$"])
async def test_a_main_container_that_fails_leaves_no_entry(any_space: Space, failure: str) -> None:
    failed = await any_space.run(container(f"echo x > /tmp/out; {failure}"))

    assert phase(failed) == "Failed"
    assert any_space.kept(failed) == "StepFailed"
    assert await any_space.entries() == {}


async def test_a_main_container_that_is_killed_with_its_emissary_ends_and_leaves_no_entry(
    any_space: Space,
) -> None:
    submitted = await any_space.submit(container("echo x > /tmp/out; sleep 600"))
    await any_space.until_ran(1)
    await any_space.kill(submitted, "main")

    killed = await any_space.cluster.finished(submitted)

    assert (phase(killed), killed["status"]["message"]) == ("Failed", "main: Error (exit code 137)")
    assert any_space.kept(killed) in ("StepFailed", "OutputsFailed"), "wait is signalled before us"
    assert await any_space.entries() == {}


async def test_outputs_that_could_not_be_saved_leave_no_entry(space: Space) -> None:
    failed = await space.run(container("true"))

    assert phase(failed) == "Error"
    assert "out" in failed["status"]["message"]
    assert space.kept(failed) == "OutputsFailed"
    assert await space.entries() == {}


GARBAGE = ["not json", "[]", '{"nodeID":"x"}', entry("x", outputs={"parameters": []})]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_an_entry_that_does_not_answer_the_step_is_a_miss(space: Space, garbage: str) -> None:
    await space.write({"k": garbage}, LABELS)

    run = await space.run(container())

    assert space.decided(run) in ("BrokenEntry", "IncompleteEntry")
    assert (phase(run), space.kept(run)) == ("Succeeded", "Stored")
    assert (await space.entries())["k"]["outputs"]["parameters"][0]["value"] == out(run)


async def test_an_entry_that_somebody_edited_is_served(space: Space) -> None:
    await space.run(container())
    cache = await space.client.get(CONFIG_MAPS, space.name, CACHE)
    edited = json.loads(cache["data"]["k"])
    edited["outputs"]["parameters"][0]["value"] = "by hand"
    await space.client.patch(CONFIG_MAPS, space.name, CACHE, {"data": {"k": json.dumps(edited, indent=2)}})

    run = await space.run(container())

    assert (space.decided(run), out(run)) == ("Hit", "by hand")


async def test_an_entry_that_argo_wrote_is_served(space: Space) -> None:
    await space.write({"k": entry("argo's")}, LABELS)

    run = await space.run(container())

    assert (space.decided(run), out(run)) == ("Hit", "argo's")
    assert space.times_ran() == 0


async def test_an_entry_older_than_max_age_is_a_miss_and_is_replaced(space: Space) -> None:
    await space.write({"k": entry("old")}, LABELS)
    template = container(memoize=memo("k") | {"maxAge": "1h"})

    runs = [await space.run(template) for _ in range(2)]

    assert [space.decided(run) for run in runs] == ["Expired", "Hit"]
    assert out(runs[1]) == out(runs[0]) != "old"


@pytest.mark.parametrize("kind", ["container", "script"])
async def test_a_long_key_with_quotes_newlines_and_unicode_is_a_key(space: Space, kind: str) -> None:
    key = "\"'\\ $(HOME) $$\n\t/tmp/x ключ 鍵 " + base64.b64encode(bytes(3750)).decode()
    template = container(key=key) if kind == "container" else script(RANDOM, key=key)

    runs = [await space.run(template) for _ in range(2)]

    assert [space.decided(run) for run in runs] == ["Miss", "Hit"]
    assert space.times_ran() == 1


async def test_a_key_that_looks_like_a_path_stays_what_it_is(any_space: Space) -> None:
    await any_space.write({"sha256-" + "0" * 64: "{}"}, LABELS)

    runs = [await any_space.run(container(key="/tmp/data")) for _ in range(2)]

    assert [any_space.decided(run) for run in runs] == ["Miss", "Hit"]
    [kept] = [each for each in (await any_space.entries()).values() if each]
    assert kept["stepmemo"]["key"] == "/tmp/data"


RIGHTS = [
    ("configmaps", ["get", "create", "patch"]),
    ("configmaps", ["get"]),
    ("configmaps", ["create"]),
    ("configmaps", ["patch"]),
    ("events", ["create"]),
]


@pytest.mark.parametrize(("resource", "verbs"), RIGHTS)
async def test_a_missing_permission_never_fails_a_step(space: Space, resource: str, verbs: list[str]) -> None:
    role = await space.client.get(ROLES, space.name, "stepmemo-direct")
    for rule in role["rules"]:
        if resource in rule["resources"]:
            rule["verbs"] = [verb for verb in rule["verbs"] if verb not in verbs]
    await space.client.patch(ROLES, space.name, "stepmemo-direct", {"rules": role["rules"]})

    runs = [await space.run(container()) for _ in range(2)]

    assert [phase(run) for run in runs] == ["Succeeded", "Succeeded"]


async def test_a_config_map_without_the_label_is_refused_and_left_alone(space: Space) -> None:
    await space.write({"k": entry("not a cache")})

    run = await space.run(container())

    assert phase(run) == "Succeeded"
    assert (space.decided(run), space.kept(run)) == ("NotACache", "NotACache")
    assert (await space.entries())["k"]["outputs"]["parameters"][0]["value"] == "not a cache"


async def test_mode_refresh_runs_and_overwrites(space: Space) -> None:
    await space.write({"k": entry("old")}, LABELS)

    refreshed = await space.run(container(), annotations={names.MODE: "refresh"})
    after = await space.run(container())

    assert (out(refreshed) != "old", space.kept(refreshed)) == (True, "Stored")
    assert (space.decided(after), out(after)) == ("Hit", out(refreshed))


async def test_mode_readonly_answers_and_never_stores(space: Space) -> None:
    first = await space.run(container(), annotations={names.MODE: "readonly"})
    assert await space.entries() == {}
    assert [c["name"] for c in (await space.pod(first["metadata"]["name"]))["spec"]["containers"]] == [
        "wait",
        "main",
    ]

    await space.write({"k": entry("kept")}, LABELS)
    second = await space.run(container(), annotations={names.MODE: "readonly"})
    assert out(second) == "kept"


@pytest.mark.parametrize("annotations", [{names.MODE: "off"}, {names.MEMOIZE: "false"}])
async def test_a_run_that_opts_out_is_not_touched(space: Space, annotations: dict[str, str]) -> None:
    run = await space.run(container(), annotations=annotations)

    pod = await space.pod(run["metadata"]["name"])
    assert [each["name"] for each in pod["spec"]["containers"]] == ["wait", "main"]
    assert phase(run) == "Succeeded"
    assert await space.entries() == {}


async def test_equal_steps_side_by_side_all_succeed_and_leave_one_entry(space: Space) -> None:
    main = steps([{"name": f"s{number}", "template": "step"} for number in range(3)])

    run = await space.run(main, container())

    assert phase(run) == "Succeeded"
    values = [outputs(run, f"s{number}")["parameters"][0]["value"] for number in range(3)]
    assert (await space.entries())["k"]["outputs"]["parameters"][0]["value"] in values


@pytest.mark.parametrize("killed", ["stepmemo", "wait"])
async def test_a_killed_sidecar_leaves_no_entry(space: Space, killed: str) -> None:
    go_on = "until test -e /ran/go-on; do sleep 0.02; done"
    submitted = await space.submit(container(f"{go_on}; echo x > /tmp/out"))
    await space.until_ran(1)
    await space.kill(submitted, killed)
    space.file("go-on").touch()

    run = await space.cluster.finished(submitted)

    assert phase(run) in ("Failed", "Error"), "Argo counts a killed sidecar too: exit code 137"
    assert await space.entries() == {}
