"""Many workflows at once, in several namespaces: which are over, and which will never be.

A workflow hangs where it is still running though nothing of it has changed for a while, all of its Pods are
over, and another workflow, created when that was seen, has ended: the controller is at work, and has nothing
left to wait for.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from argo import names as argo_names
from tests.e2e.argo import COMPLETED
from tests.e2e.cluster import Namespace
from tests.e2e.kube import PATIENCE, get, wait_for

AT_ONCE = 32
"""Workflows that are made and not over: two cores start about one Pod a second."""
STILL = 30.0
"""Seconds without a change after which a workflow that has no Pod left is no longer waited for."""

Json = Any
Key = tuple[str, str]
"""Namespace and name of a workflow."""


class Sight(NamedTuple):
    """What can change of a workflow that is not over, and how many of its Pods are not."""

    phases: tuple[str, ...]
    unfinished: int


class Finished(NamedTuple):
    """Names of the workflows that were made, and those of them that hang."""

    names: dict[Any, str]
    hanging: set[Key]


class Watch:
    """Since when each workflow has looked the same."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[Sight, float]] = {}

    def still(self, sights: Mapping[Key, Sight], now: float) -> set[Key]:
        """Those of them that have not changed for STILL seconds, all Pods over. `now`: monotonic seconds."""
        for key, sight in sights.items():
            if key not in self._seen or self._seen[key][0] != sight:
                self._seen[key] = (sight, now)
        self._seen = {key: self._seen[key] for key in sights}
        return {
            key for key, sight in sights.items() if not sight.unfinished and now - self._seen[key][1] >= STILL
        }


def sights(namespace: str, items: Iterable[Json]) -> dict[Key, Sight]:
    """What is seen of each Workflow among these objects, with the Pods among them."""
    pods: dict[str, list[str]] = {}
    workflows: dict[str, list[str]] = {}
    for one in items:
        metadata, status = one["metadata"], one.get("status", {})
        if one["kind"] == "Workflow":
            nodes = status.get("nodes", {})
            told = [f"{id} {nodes[id].get('phase')}" for id in sorted(nodes)]
            workflows[metadata["name"]] = [status.get("phase", ""), *told]
        else:
            owner = metadata.get("labels", {}).get(argo_names.WORKFLOW_LABEL, "")
            pods.setdefault(owner, []).append(f"{metadata['name']} {status.get('phase')}")
    return {
        (namespace, name): Sight(
            tuple(told + sorted(pods.get(name, ()))),
            sum(not pod.endswith((" Succeeded", " Failed")) for pod in pods.get(name, ())),
        )
        for name, told in workflows.items()
    }


def run_all(
    lanes: Mapping[str, Namespace],
    manifests: Mapping[tuple[str, str], Json],
    watch: Watch,
    control: Json,
    seconds: float,
) -> Finished:
    """Makes these Workflows, some at once, and returns when each is over or hangs.

    A job is what and in which lane; who has none waits for what is there already. `control`: a Workflow that
    ends soon, made in the first lane where others seem to hang. What is not over after `seconds` is left.
    """
    waiting, made = list(manifests), dict[tuple[str, str], str]()
    deadline = time.monotonic() + seconds

    def look() -> tuple[int, set[Key]]:
        seen = {
            key: sight
            for ns in lanes.values()
            for key, sight in sights(
                ns.name, get(ns.name, "workflows,pods", "-l", f"{COMPLETED}!=true")["items"]
            ).items()
        }
        still = watch.still(seen, time.monotonic())
        return len(seen) - len(still), still

    def settled() -> set[Key] | None:
        busy, still = look()
        batch = waiting[: max(0, AT_ONCE - busy)]
        del waiting[: len(batch)]
        for lane, ns in lanes.items():
            jobs = [job for job in batch if job[1] == lane]
            if jobs:
                made.update(zip(jobs, ns.create_workflows([manifests[job] for job in jobs]), strict=True))
        return None if batch or busy else still

    while True:
        try:
            suspects = wait_for("end of all workflows", settled, deadline - time.monotonic())
        except AssertionError as error:
            print(error)  # each that is not over fails on its own, and says so
            return Finished(made, set())
        if not suspects:
            return Finished(made, set())
        first = next(iter(lanes.values()))
        first.finished(first.create_workflow(control), PATIENCE)
        busy, still = look()
        if not busy:
            return Finished(made, still)
