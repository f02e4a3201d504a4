"""A run of nothing but hits differs from the run that was stored in what the docs name, and in no more."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from memoize import names
from tests.e2e.cluster import Namespace, fresh_namespace, grant
from tests.e2e.kube import PATIENCE, argo, create_all, get, wait_for
from tests.e2e.outcome import memoization
from tests.e2e.run import Run
from tests.e2e.shapes import BOTH, ONE, REFERENCES, SHAPES, SOURCES, Shape

ALTOGETHER = 10 * PATIENCE
"""Seconds that all shapes together may take."""

AT_ONCE = 24
"""Workflows at a time: two cores start about one Pod a second."""

_OWN_TO_A_RUN = (
    "id",
    "startedAt",
    "finishedAt",
    "resourcesDuration",
    "estimatedDuration",
    "hostNodeName",
    "podIP",
)
"""What two runs of one workflow need not have in common; for its hits the docs say it of `hostNodeName`."""
_EDGES = ("children", "outboundNodes", "boundaryID")
_OF_THE_WORKFLOW = ("phase", "message", "outputs", "progress")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_IP = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")

Json = Any


class Outcome(NamedTuple):
    """A workflow and its Pods, when it was over or when patience was."""

    run: Run
    pods: list[Json]

    def not_hit(self) -> list[str]:
        """The memoized Pods that were not answered: name and what became of them."""
        found = [(pod, memoization(pod)) for pod in self.pods if names.KEY in _annotations(pod)]
        return [
            f"{pod['metadata']['name']}: {' '.join(told)}"
            for pod, told in found
            if told.result != names.RESULT_HIT
        ]


class Pair(NamedTuple):
    first: Outcome
    second: Outcome


def _annotations(pod: Json) -> dict[str, str]:
    return pod["metadata"].get("annotations", {})


def run_all(ns: Namespace, wanted: list[str]) -> dict[str, Outcome]:
    """A workflow of each shape, so many at once; when all are over and stored, or when patience ends."""
    waiting, submitted = list(wanted), dict[str, str]()

    def listed() -> dict[str, Json]:
        return {one["metadata"]["name"]: one for one in get(ns.name, "workflows")["items"]}

    def all_over() -> bool | None:
        known = listed()
        running = [name for name in submitted.values() if not _is_over(known[name])]
        batch, waiting[:] = waiting[: AT_ONCE - len(running)], waiting[AT_ONCE - len(running) :]
        if batch:
            manifests = [_workflow(SHAPES[shape]) for shape in batch]
            submitted.update(zip(batch, ns.create_workflows(manifests), strict=True))
        return None if batch or running else True

    def all_told() -> bool | None:
        pods = [pod for pod in get(ns.name, "pods")["items"] if names.KEY in _annotations(pod)]
        return all(memoization(pod).reason for pod in pods) or None

    for what, probe, seconds in (("end", all_over, ALTOGETHER / 2), ("last word", all_told, PATIENCE / 4)):
        try:
            wait_for(f"{what} of every shape", probe, seconds)
        except AssertionError as error:
            print(error)  # each shape that is not over fails on its own, and says so
    known, pods = listed(), dict[str, list[Json]]()
    for pod in get(ns.name, "pods")["items"]:
        pods.setdefault(pod["metadata"]["labels"].get(names.WORKFLOW_LABEL, ""), []).append(pod)
    return {
        shape: Outcome(Run(ns.name, known[name]), pods.get(name, [])) for shape, name in submitted.items()
    }


def _is_over(workflow: Json) -> bool:
    return workflow.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error")


def _workflow(shape: Shape) -> Json:
    return argo("Workflow", {"generateName": "shape-"} | shape.metadata, shape.spec)


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest) -> Iterator[dict[str, Pair]]:
    """Both runs of each shape that this session asks for: all first runs before the second ones."""
    wanted = [item.callspec.params["name"] for item in request.session.items if _is_about_a_shape(item)]
    with fresh_namespace() as ns:
        grant(
            ns.name,
            "resource",
            [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}],
        )
        objects = [one for name in wanted for one in SHAPES[name].objects]
        if objects:
            create_all(ns.name, objects)
        first, second = (run_all(ns, wanted) for _ in range(2))
        yield {name: Pair(first[name], second[name]) for name in wanted if name in first and name in second}


def _is_about_a_shape(item: pytest.Item) -> bool:
    return (
        isinstance(item, pytest.Function)
        and item.originalname == "test_a_run_of_hits_is_the_run_it_stands_for"
    )


@pytest.mark.timeout(2 * ALTOGETHER)
@pytest.mark.parametrize("name", SHAPES)
def test_a_run_of_hits_is_the_run_it_stands_for(pairs: dict[str, Pair], name: str) -> None:
    """A run of hits has the nodes, phases, inputs and outputs of the run it stands for."""
    shape, (first, second) = SHAPES[name], pairs[name]
    said = first.run.said() + second.run.said()
    assert [one.run.workflow["status"].get("phase") for one in (first, second)] == [shape.phase] * 2, said
    runs_again = [pod for pod in second.not_hit() if any(f"-{again}-" in pod for again in shape.runs)]
    assert second.not_hit() == runs_again, said
    assert [unresolved(one.run.workflow) for one in (first, second)] == [[], []], said
    assert differences(first.run.workflow, second.run.workflow, shape.apart) == [], said


def unresolved(workflow: Json) -> list[str]:
    """Inputs of nodes that still hold a tag."""
    inputs = {node["name"]: json.dumps(node.get("inputs")) for node in workflow["status"]["nodes"].values()}
    return [f"{name}: {text}" for name, text in inputs.items() if "{{" in text]


def differences(first: Json, second: Json, apart: str = "$^") -> list[str]:
    """What two runs of one workflow tell otherwise: a line each."""
    others = [one["metadata"]["name"] for one in (first, second)]
    before, after = (_told(one, others, apart) for one in (first, second))
    return [
        f"{node}: {part}: {before.get(node, {}).get(part)!r} became {after.get(node, {}).get(part)!r}"
        for node in sorted(before.keys() | after.keys())
        for part in sorted(before.get(node, {}).keys() | after.get(node, {}).keys())
        if before.get(node, {}).get(part) != after.get(node, {}).get(part)
    ]


def _told(workflow: Json, names_of_runs: list[str], apart: str) -> dict[str, dict[str, Json]]:
    """What a run tells of each node, by the node's name, and of the workflow itself."""
    status = workflow["status"]
    nodes = {id: node for id, node in status.get("nodes", {}).items() if not re.search(apart, node["name"])}

    def edges(value: Json) -> Json:
        if isinstance(value, list):
            return sorted(nodes[id]["name"] for id in value if id in nodes)
        return nodes[value]["name"] if value in nodes else value

    told = {
        node["name"]: {
            part: edges(value) if part in _EDGES else value
            for part, value in node.items()
            if part not in _OWN_TO_A_RUN
        }
        for node in nodes.values()
    }
    whole = {part: status.get(part) for part in _OF_THE_WORKFLOW}
    text = _IP.sub("IP", _TIME.sub("TIME", json.dumps({"the workflow": whole} | told)))
    for name in names_of_runs:
        # The ids of nodes and the names of Pods end with a number that depends on the workflow's name.
        text = re.sub(rf"{name}(-[a-z0-9-]+)?-\d+\b", "ID", text).replace(name, "WORKFLOW")
    return json.loads(text, object_hook=_without_location)


def _without_location(one: Json) -> Json:
    """Of a location the key is compared: a run leaves out what the repository says, an entry does not.

    An answer is never collected with the workflow that takes it: `artifactGC: Never`.
    """
    if isinstance(one.get("s3"), dict) and "key" in one["s3"]:
        return one | {"s3": {"key": one["s3"]["key"]}, "artifactGC": None}
    return one


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_reference_has_a_shape_of_steps_and_one_of_tasks(reference: str) -> None:
    about = [name for name in SHAPES if any(reference.replace("OF", of) in name for of in ("steps", "tasks"))]
    assert len(about) == 2
    assert REFERENCES[reference][0] in SOURCES


def test_there_are_shapes_of_all_that_is_named() -> None:
    assert len(SHAPES) == 2 * (len(REFERENCES) + len(BOTH)) + len(ONE)
