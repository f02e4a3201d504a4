"""Keys that write themselves: of a chain of steps only what changed, and what comes after it, runs again."""

from typing import Any

from argo import names as argo
from memoize import names
from tests.e2e.cluster import Namespace
from tests.e2e.run import RAN, Run
from tests.e2e.steps import RANDOM, arguments, memoized, opted_in, parameter

CHAIN = "abcde"
FILE = {"name": "file", "path": "/tmp/file"}


def chain(third: str = "", salt: str = "") -> list[dict[str, Any]]:
    """A DAG of five tasks, each with what the one before it made; the last one has it as an artifact too.

    `third` goes into the script of the third.
    """
    templates = []
    tasks: list[dict[str, Any]] = []
    for before, name in zip(["", *CHAIN], CHAIN, strict=False):
        source = f"echo {RAN} >&2\n: {{{{inputs.parameters.x}}}}{third if name == 'c' else ''}\n"
        source += f"{RANDOM} > /tmp/out; cp /tmp/out /tmp/file"
        body = {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh"], "source": source}
        template = memoized(
            "auto",
            name=name,
            script=body,
            inputs={"parameters": [{"name": "x"}]},
            outputs={"parameters": [parameter()], "artifacts": [FILE]},
        )
        if salt:
            template["metadata"] = opted_in(**{names.SALT: salt})
        value = f"{{{{tasks.{before}.outputs.parameters.out}}}}" if before else "first"
        task = {"name": name, "template": name, "arguments": arguments(x=value)}
        if before:
            task["depends"] = before
        if name == "e":
            template["inputs"]["artifacts"] = [{"name": "in", "path": "/tmp/in"}]
            handed = {"name": "in", "from": f"{{{{tasks.{before}.outputs.artifacts.file}}}}"}
            task["arguments"]["artifacts"] = [handed]
        templates.append(template)
        tasks.append(task)
    return [{"name": "main", "dag": {"tasks": tasks}}, *templates]


def ran(run: Run) -> str:
    """The tasks whose own command ran, in order."""
    assert run.phase == "Succeeded", run.said()
    tasks = {node["id"]: node["displayName"] for node in run.workflow["status"]["nodes"].values()}
    return "".join(
        sorted(
            tasks[pod["metadata"]["annotations"][argo.NODE_ID]]
            for pod in run.pods()
            if RAN in run.logs(pod["metadata"]["name"], "--all-containers", "--ignore-errors").splitlines()
        )
    )


def test_what_changed_runs_again_with_all_that_comes_after_it(ns: Namespace) -> None:
    runs = [
        ns.run(*templates, entrypoint="main")
        for templates in (chain(), chain(), chain(third=" changed"), chain(salt="2"), chain(salt="2"))
    ]
    assert [ran(run) for run in runs] == ["abcde", "", "cde", "abcde", ""]
    for name in CHAIN:
        assert runs[0].answers(name) == runs[1].answers(name) != [], runs[1].said()
    kept = list(ns.entries().items())
    assert len(kept) == 5 + 3 + 5
    assert all(key.startswith("auto-v1-") for key, _ in kept)
    assert {entry["stepmemo"]["template"] for _, entry in kept} == set(CHAIN)
    assert all({"image", "script"} <= entry["stepmemo"]["parts"].keys() for _, entry in kept)
