"""How the end-to-end suite compares two runs of a workflow, and over which shapes."""

from typing import Any

import pytest

from tests.e2e.compare import differences, unresolved
from tests.e2e.shapes import BOTH, ONE, REFERENCES, SHAPES, SOURCES


def run(name: str, **of_the_step: Any) -> dict[str, Any]:
    """A workflow of one step, whose node is told apart by what is given."""
    step = {
        "id": f"{name}-1234567890",
        "name": f"{name}[0].a",
        "type": "Pod",
        "phase": "Succeeded",
        "startedAt": "2026-01-31T12:00:00Z",
        "hostNodeName": name,
        "boundaryID": name,
        "outputs": {"parameters": [{"name": "out", "value": "v"}]},
    }
    root = {"id": name, "name": name, "type": "Steps", "phase": "Succeeded", "children": [step["id"]]}
    nodes = {root["id"]: root, step["id"]: step | of_the_step}
    return {"metadata": {"name": name}, "status": {"phase": "Succeeded", "nodes": nodes}}


def test_runs_that_differ_in_names_times_and_hosts_are_equal() -> None:
    later = run("second-b", startedAt="2026-02-28T00:00:00Z", hostNodeName="other")
    assert differences(run("first-a"), later) == []


def test_names_of_a_run_count_for_one_within_values_too() -> None:
    one, other = (
        run(
            name,
            inputs={"parameters": [{"name": "x", "value": f"{name}-step-42 of {name} at {time} on {ip}"}]},
        )
        for name, time, ip in (
            ("first-a", "2026-01-31T12:00:00Z", "10.0.0.1"),
            ("second-b", "2026-02-28T00:00:00Z", "10.0.0.2"),
        )
    )
    assert differences(one, other) == []


@pytest.mark.parametrize(
    "other",
    [
        {"phase": "Skipped"},
        {"type": "Retry"},
        {"outputs": {"parameters": [{"name": "out", "value": "w"}]}},
        {"outputs": {"parameters": [{"name": "out", "value": "v", "globalName": "g"}]}},
        {"outputs": {"parameters": [{"name": "out", "value": "v"}], "result": "r"}},
        {"boundaryID": "second-b-1234567890"},
        {"nodeFlag": {"hooked": True}},
        {"inputs": {"parameters": [{"name": "x", "value": "{{steps.a.id}}"}]}},
    ],
)
def test_what_a_node_tells_otherwise_is_a_difference(other: dict[str, Any]) -> None:
    (line,) = differences(run("first-a"), run("second-b", **other))
    assert line.startswith(f"WORKFLOW[0].a: {next(iter(other))}: ")


def test_a_node_that_one_run_lacks_is_a_difference_unless_it_is_left_out() -> None:
    first, second = run("first-a"), run("second-b")
    second["status"]["nodes"].pop("second-b-1234567890")
    assert differences(first, second) != []
    assert differences(first, second, apart=r"\[0\]\.a$") == []


def test_an_artifact_is_compared_by_its_key() -> None:
    def drawn(name: str, key: str, **location: Any) -> dict[str, Any]:
        return run(name, outputs={"artifacts": [{"name": "a", "s3": {"key": key} | location}]})

    first = drawn("first-a", "first-a/a.tgz")
    assert differences(first, drawn("second-b", "first-a/a.tgz", bucket="b", endpoint="e")) == []
    assert differences(first, drawn("second-b", "other/a.tgz")) != []


def test_a_tag_that_was_not_resolved_is_seen() -> None:
    literal = {"parameters": [{"name": "x", "value": "{{workflow.outputs.parameters.g}}"}]}
    assert len(unresolved(run("first-a", inputs=literal))) == 1
    assert unresolved(run("first-a")) == []


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_reference_has_a_shape_of_steps_and_one_of_tasks(reference: str) -> None:
    about = [name for name in SHAPES if any(reference.replace("OF", of) in name for of in ("steps", "tasks"))]
    assert len(about) == 2
    assert REFERENCES[reference][0] in SOURCES


def test_there_are_shapes_of_all_that_is_named() -> None:
    assert len(SHAPES) == 2 * (len(REFERENCES) + len(BOTH)) + len(ONE)
