"""Artifacts."""

import pytest

from tests.e2e.cluster import Namespace
from tests.e2e.kube import patch
from tests.e2e.run import Run, twice
from tests.e2e.steps import RANDOM, container, in_a_row, parameter, shell

SEEN = "test -e /tmp/in || echo nothing > /tmp/in; find -L /tmp/in -type f | sort | xargs cat > /tmp/seen"


def consumed(ns: Namespace, make: dict, optional: bool = False) -> list[Run]:
    """The step's artifact `a` goes to a next step that is not memoized: its text, or `nothing`, is `seen`."""
    read = {
        "name": "read",
        "inputs": {"artifacts": [{"name": "a", "path": "/tmp/in", "optional": optional}]},
        "outputs": {"parameters": [parameter("seen", "/tmp/seen")]},
        "container": shell(SEEN),
    }
    argument = {"artifacts": [{"name": "a", "from": "{{steps.a.outputs.artifacts.a}}", "optional": optional}]}
    main = in_a_row({"template": "step"}, {"template": "read", "arguments": argument})
    runs = ns.runs(main, make, read, entrypoint="main")
    twice(*runs, ran=(2, 1))
    twice(*runs, ran=(2, 1), template="read")
    return runs


def test_an_artifact_is_stored_by_its_full_location_and_read_by_the_next_step(ns: Namespace) -> None:
    artifact = {"name": "a", "path": "/tmp/a", "archive": {"none": {}}}
    runs = consumed(ns, container(f"{RANDOM} > /tmp/a", outputs={"artifacts": [artifact]}))
    assert len(runs[0].output("seen", "read")) == len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
    (stored,) = (a for a in ns.entries()["k"]["outputs"]["artifacts"] if a["name"] == "a")
    assert stored["s3"]["bucket"]
    assert stored["s3"]["endpoint"]
    assert stored["artifactGC"] == {"strategy": "Never"}


def test_a_step_with_an_input_artifact_and_a_folder_as_output(ns: Namespace) -> None:
    inputs = {"artifacts": [{"name": "in", "path": "/tmp/in", "raw": {"data": "from the input\n"}}]}
    outputs = {"artifacts": [{"name": "a", "path": "/tmp/a"}], "parameters": [parameter()]}
    make = f"mkdir /tmp/a; cp /tmp/in /tmp/a/0; {RANDOM} | tee /tmp/out > /tmp/a/1"
    runs = consumed(ns, container(make, inputs=inputs, outputs=outputs))
    assert runs[1].output("seen", "read") == f"from the input\n{runs[0].output()}".rstrip("\n")


def test_an_optional_artifact_that_is_absent(ns: Namespace) -> None:
    outputs = {
        "artifacts": [{"name": "a", "path": "/tmp/none", "optional": True}],
        "parameters": [parameter()],
    }
    runs = consumed(ns, container(outputs=outputs), optional=True)
    assert runs[1].output("seen", "read") == "nothing"


@pytest.mark.parametrize("who", ["the artifact says it", "the workflow says it"])
def test_what_argo_will_delete_is_not_stored(ns: Namespace, who: str) -> None:
    """What Argo's artifact garbage collection will delete is not stored."""
    gc = {"artifactGC": {"strategy": "OnWorkflowDeletion"}}
    of_artifact, of_workflow = (gc, {}) if who == "the artifact says it" else ({}, gc)
    template = container(outputs={"artifacts": [{"name": "a", "path": "/tmp/out"} | of_artifact]})
    run = ns.run(template, **of_workflow)
    try:
        assert run.phase == "Succeeded", run.said()
        assert ns.entries() == {}, run.said()
        assert run.reasons() == {"ArtifactGC"}
    finally:  # its finalizer would outlive the namespace's rights
        patch(ns.name, "workflow", run.name, {"metadata": {"finalizers": None}})
