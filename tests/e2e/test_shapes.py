"""A run of nothing but hits differs from the run that was stored in what the docs name, and in no more."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from argo import names as argo_names
from memoize import names
from tests.e2e import server
from tests.e2e.argo import COMPLETED
from tests.e2e.cluster import Namespace, fresh_namespace, grant
from tests.e2e.compare import differences, unresolved
from tests.e2e.kube import PATIENCE, argo, create_all, get, wait_for
from tests.e2e.outcome import memoization
from tests.e2e.run import Run
from tests.e2e.shapes import SHAPES, Shape

ALTOGETHER = 10 * PATIENCE
"""Seconds that all shapes together may take."""

AT_ONCE = 16
"""Workflows at a time: two cores start about one Pod a second."""

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

    def all_over() -> bool | None:
        running = len(get(ns.name, "workflows", "-l", f"{COMPLETED}!=true")["items"])
        batch, waiting[:] = waiting[: AT_ONCE - running], waiting[AT_ONCE - running :]
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
    known = {one["metadata"]["name"]: one for one in get(ns.name, "workflows")["items"]}
    pods: dict[str, list[Json]] = {}
    for pod in get(ns.name, "pods")["items"]:
        pods.setdefault(pod["metadata"]["labels"].get(argo_names.WORKFLOW_LABEL, ""), []).append(pod)
    return {
        shape: Outcome(Run(ns.name, known[name]), pods.get(name, [])) for shape, name in submitted.items()
    }


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
    assert name in pairs, "not begun in time"
    shape, (first, second) = SHAPES[name], pairs[name]
    if shape.equal_at_once:
        server.needs(server.SERVICE)
    said = first.run.said() + second.run.said()
    assert [one.run.workflow["status"].get("phase") for one in (first, second)] == [shape.phase] * 2, said
    runs_again = [pod for pod in second.not_hit() if any(f"-{again}-" in pod for again in shape.runs)]
    assert second.not_hit() == runs_again, said
    assert [unresolved(one.run.workflow) for one in (first, second)] == [[], []], said
    different = differences(first.run.workflow, second.run.workflow, shape.apart)
    assert not different, "\n".join([said, *different])
