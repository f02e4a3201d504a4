"""Judges a run of a workflow by a run of the same workflow without memoization. Pure.

It is right where it ends likewise, the same nodes were made, each was given the same, what is not memoized
gave the same, and hooks, metrics and the workflow's outputs are there. What lies below a memoized node
(attempts, containers, the steps of a template that is memoized as a whole) need not be there.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tests.e2e.compare import NOTHING, THE_WORKFLOW, scrub, told
from tests.e2e.run import template_of

HANGS = "hangs"
REFUSED = "refused"
ENDS = "ends"
TAG = "tag"
HOOK = "hook"
NODE = "node"
VALUE = "value"
OUTPUTS = "outputs"
METRIC = "metric"
KINDS = {
    HANGS: "the workflow hangs",
    REFUSED: "the command is refused",
    ENDS: "the workflow fails",
    TAG: "the text of a tag is passed on",
    HOOK: "the hook is not run",
    NODE: "a step is missing",
    VALUE: "another value is passed on",
    OUTPUTS: "the workflow's outputs are others",
    METRIC: "the metric is not emitted",
}
"""What can be wrong, in the words of the docs."""

Json = Any
Nodes = Mapping[str, Mapping[str, Json]]

_LONGEST = 300
_GROUPS = ("StepGroup", "TaskGroup")
_BELOW = re.compile(r"[\[(.]")
_OF_A_HOOK = re.compile(r"\.hooks\.|\.onExit\b")


class Fault(NamedTuple):
    """`kind`: one of KINDS. `detail`: what was seen."""

    kind: str
    detail: str


class Ended(NamedTuple):
    """A workflow that is over, or is known to hang.

    `refused`: what a command on it answered that was not taken. `metric`: whether one of this run is told.
    """

    workflow: Json
    hangs: bool = False
    refused: str = ""
    metric: bool = False

    @property
    def name(self) -> str:
        return self.workflow["metadata"]["name"]


def hits(workflow: Json, results: Collection[bool]) -> str:
    """How many memoized nodes were served from a cache: `2 of 3`; "" where there is none to tell of.

    `results`: of the Pods that stepmemo memoizes, whether each was a hit. Argo tells on its nodes.
    """
    nodes = workflow["status"].get("nodes", {}).values()
    found = [*results, *(n["memoizationStatus"]["hit"] for n in nodes if "memoizationStatus" in n)]
    return f"{sum(found)} of {len(found)}" if found else ""


def faults(
    plain: Ended, run: Ended, memoized: Collection[str], names: Collection[str] = (), apart: str = NOTHING
) -> list[Fault]:
    """What is wrong with a run.

    `memoized`: names of templates. `names`: of other workflows whose values may have got here. `apart`: a
    pattern for nodes that two plain runs need not have in common.
    """
    everybody = [plain.name, run.name, *names]
    if run.hangs:
        phase = run.workflow["status"].get("phase")
        return [Fault(HANGS, f"{phase}, its Pods over, nothing changed; a later workflow has ended")]
    if run.refused:
        return [Fault(REFUSED, scrub(run.refused, everybody)[-_LONGEST:])]
    if run.workflow["status"].get("phase") != plain.workflow["status"].get("phase"):
        return [Fault(ENDS, scrub(_end(run.workflow), everybody)[:_LONGEST])]
    before, after = (told(one.workflow, everybody, apart) for one in (plain, run))
    outputs = [one.pop(THE_WORKFLOW)["outputs"] for one in (before, after)]
    found = _of_nodes(before, after, memoized)
    if outputs[0] != outputs[1]:
        found.append(Fault(OUTPUTS, f"{outputs[0]} became {outputs[1]}"[:_LONGEST]))
    if plain.metric and not run.metric:
        found.append(Fault(METRIC, "none with this run's label"))
    return found


def _end(workflow: Json) -> str:
    """Its phase, and what was said of it where it went wrong."""
    status = workflow["status"]
    said = [
        f"{node['displayName']}: {node['message']}"
        for node in status.get("nodes", {}).values()
        if node.get("phase") in ("Failed", "Error") and node.get("message") and not node.get("children")
    ]
    return f"{status.get('phase')}: {said[0] if said else status.get('message', '')}"


def _of_nodes(before: Nodes, after: Nodes, memoized: Collection[str]) -> list[Fault]:
    found = []
    below = _below(before, memoized)
    for name, node in before.items():
        if name in below:
            continue
        if name not in after:
            found.append(Fault(HOOK if _OF_A_HOOK.search(name) else NODE, name))
            continue
        parts = ("phase", "inputs", *(() if template_of(node) in memoized else ("outputs",)))
        for part in parts:
            if node.get(part) != after[name].get(part):
                detail = f"{name}: {part}: {node.get(part)!r} became {after[name].get(part)!r}"
                kind = TAG if "{{" in repr(after[name].get(part)) else VALUE
                found.append(Fault(kind, detail[:_LONGEST]))
    return found


def _below(nodes: Nodes, memoized: Collection[str]) -> set[str]:
    """The names of nodes below memoized ones, hooks left out."""
    tops = [
        name for name, node in nodes.items() if template_of(node) in memoized and node["type"] not in _GROUPS
    ]
    return {
        name
        for name in nodes
        for top in tops
        if name.startswith(top) and _BELOW.match(name[len(top) :]) and not _OF_A_HOOK.search(name[len(top) :])
    }
