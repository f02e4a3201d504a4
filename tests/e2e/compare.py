"""Compares two runs of one workflow, node by node. Pure."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

Json = Any

NOTHING = "$^"
"""A pattern that no node's name has."""

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
THE_WORKFLOW = "the workflow"
"""What is told of the workflow itself stands under this name, beside the names of nodes."""
_EDGES = ("children", "outboundNodes", "boundaryID")
_OF_THE_WORKFLOW = ("phase", "message", "outputs", "progress")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_IP = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")


def unresolved(workflow: Json) -> list[str]:
    """Inputs of nodes that still hold a tag."""
    inputs = {node["name"]: json.dumps(node.get("inputs")) for node in workflow["status"]["nodes"].values()}
    return [f"{name}: {text}" for name, text in inputs.items() if "{{" in text]


def differences(first: Json, second: Json, apart: str = NOTHING) -> list[str]:
    """What two runs of one workflow tell otherwise: a line each."""
    others = [one["metadata"]["name"] for one in (first, second)]
    before, after = (told(one, others, apart) for one in (first, second))
    return [
        f"{node}: {part}: {before.get(node, {}).get(part)!r} became {after.get(node, {}).get(part)!r}"
        for node in sorted(before.keys() | after.keys())
        for part in sorted(before.get(node, {}).keys() | after.get(node, {}).keys())
        if before.get(node, {}).get(part) != after.get(node, {}).get(part)
    ]


def told(workflow: Json, names_of_runs: Sequence[str], apart: str = NOTHING) -> dict[str, dict[str, Json]]:
    """What a run tells of each node, by the node's name, and of the workflow itself.

    `progress` counts all nodes, so it says nothing where some are left out.
    """
    status = workflow["status"]
    nodes = {id: node for id, node in status.get("nodes", {}).items() if not re.search(apart, node["name"])}
    hidden = (*_OWN_TO_A_RUN, *(() if apart == NOTHING else ("progress",)))

    def edges(value: Json) -> Json:
        if isinstance(value, list):
            return sorted(nodes[id]["name"] for id in value if id in nodes)
        return nodes[value]["name"] if value in nodes else value

    found = {
        node["name"]: {
            part: edges(value) if part in _EDGES else value
            for part, value in node.items()
            # Argo leaves an empty list out; one is left where all that it named is kept apart.
            if part not in hidden and not (part in _EDGES and edges(value) == [])
        }
        for node in nodes.values()
    }
    whole = {part: status.get(part) for part in _OF_THE_WORKFLOW if part not in hidden}
    text = scrub(json.dumps({THE_WORKFLOW: whole} | found), names_of_runs)
    return json.loads(text, object_hook=_without_location)


def scrub(text: str, names_of_runs: Iterable[str]) -> str:
    """The text without what only these runs have: times, addresses, names, ids."""
    text = _IP.sub("IP", _TIME.sub("TIME", text))
    for name in names_of_runs:
        # The ids of nodes and the names of Pods end with a number that depends on the workflow's name.
        text = re.sub(rf"{name}(-[a-z0-9-]+)?-\d+\b", "ID", text).replace(name, "WORKFLOW")
    return text


def _without_location(one: Json) -> Json:
    """Of a location the key is compared: a run leaves out what the repository says, an entry does not.

    An answer is never collected with the workflow that takes it: `artifactGC: Never`.
    """
    if isinstance(one.get("s3"), dict) and "key" in one["s3"]:
        return one | {"s3": {"key": one["s3"]["key"]}, "artifactGC": None}
    return one
