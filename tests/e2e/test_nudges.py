"""Hits in a row, where Argo's controller looks at a workflow as soon as it is annotated and where not."""

import pytest

from argo import names as argo_names
from argo.version import TAKES_UPDATES_AT_ONCE, Version
from memoize import names
from tests.e2e import server
from tests.e2e.cluster import Namespace
from tests.e2e.probe import Setting
from tests.e2e.run import Run, twice
from tests.e2e.steps import answer, arguments, container, in_a_row, look, memo

STEP = {"template": "step"}
CHAIN = 6


@pytest.fixture(autouse=True)
def _keeper() -> None:
    if server.access() != server.SERVICE:
        pytest.skip("the keeper nudges, and there is none")


def is_nudged(run: Run) -> bool:
    return names.NUDGED in run.workflow["metadata"]["annotations"]


def takes_updates(setting: Setting) -> bool:
    return TAKES_UPDATES_AT_ONCE.holds_in(Version(*map(int, setting.argo.split("."))))


def test_hits_in_a_row_are_nudged_for_where_argo_takes_it(ns: Namespace, setting: Setting) -> None:
    """Hits in a row end right, each with its output; some versions' controller is had look at once."""
    entries = {f"k-{number}": answer(f"by hand {number}") for number in range(CHAIN)}
    ns.config_map(ns.cache, entries, {argo_names.CONFIGMAP_TYPE: argo_names.CONFIGMAP_TYPE_CACHE})
    template = container(inputs={"parameters": [{"name": "x"}]}, memoize=memo("k-{{inputs.parameters.x}}"))
    chain = in_a_row(*(STEP | {"arguments": arguments(x=str(number))} for number in range(CHAIN)))
    run = ns.run(chain, template, entrypoint="main")
    twice(run, ran=(0,))
    assert run.answers() == [{"out": f"by hand {number}"} for number in range(CHAIN)], run.said()
    assert is_nudged(run) == takes_updates(setting), (
        "is --nudge off, or does the controller limit parallelism?"
    )


def test_a_workflow_that_uses_its_annotations_is_left_alone(ns: Namespace) -> None:
    """Steps that are given `workflow.annotations` get the same text after a hit as before it."""
    ns.put("k", answer("by hand"))
    shown = {"parameters": [{"name": "x", "value": "{{workflow.annotations}}"}]}
    main = in_a_row(
        STEP, {"template": "look", "arguments": shown}, STEP, {"template": "look", "arguments": shown}
    )
    run = ns.run(main, container(), look(), entrypoint="main")
    twice(run, ran=(0,))
    assert not is_nudged(run)
    seen = [
        node["inputs"]["parameters"][0]["value"]
        for node in run.workflow["status"]["nodes"].values()
        if node["type"] == "Suspend"
    ]
    assert len(seen) == 2
    assert not any(names.NUDGED in text for text in seen)
