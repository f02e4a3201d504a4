"""Entries: which of them answer, and who may write them."""

import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import CONTROLLER, DSN, Namespace, prepare
from tests.e2e.kube import kubectl
from tests.e2e.run import twice
from tests.e2e.steps import answer, arguments, container, entry, in_a_row, memo, opted_in

UNUSABLE = {
    "garbage": "{not json",
    "incomplete": entry({"parameters": [{"name": "other", "value": "1"}]}),
    "null-outputs": entry(None),
    "outputs-of-the-wrong-type": entry([]),
}


def test_an_entry_that_cannot_answer_is_a_miss_and_is_replaced(ns: Namespace) -> None:
    """An entry that cannot be served (garbage, incomplete, of the wrong type) is a miss and is replaced."""
    for key, text in UNUSABLE.items():
        ns.put(key, text)
    template = container(inputs={"parameters": [{"name": "x"}]}, memoize=memo("{{inputs.parameters.x}}"))
    fan = {"template": "step", "withItems": list(UNUSABLE), "arguments": arguments(x="{{item}}")}
    twice(*ns.runs(in_a_row(fan), template, entrypoint="main"), ran=(len(UNUSABLE), 0))


def test_an_entry_edited_with_kubectl_is_served(ns: Namespace) -> None:
    ns.put("k", answer("written by hand"))
    run = ns.run(container())
    assert run.executions() == 0, run.said()
    assert run.output() == "written by hand"


def test_an_expired_entry_is_a_miss(ns: Namespace) -> None:
    old = entry({"parameters": [{"name": "out", "value": "old"}]}, creationTimestamp="2020-01-01T00:00:00Z")
    ns.put("k", old)
    run = ns.run(container(memoize=memo(max_age="1h")))
    assert run.executions() == 1, run.said()
    assert run.output() != "old"


def test_a_long_key_of_any_characters_hits(ns: Namespace) -> None:
    key = "ümlaut \"double\" 'single'\nnew line\t$(STEPMEMO_POD_NAME) \\ {json: [1]} " + "x" * 5000
    twice(*ns.runs(container(memoize=memo(key))))


def test_a_key_from_an_input_tells_inputs_apart(ns: Namespace) -> None:
    template = container(inputs={"parameters": [{"name": "x"}]}, memoize=memo("in-{{inputs.parameters.x}}"))

    one, two, again = (ns.run(template, arguments=arguments(x=x)) for x in "121")
    assert (one.executions(), two.executions(), again.executions()) == (1, 1, 0)
    assert one.output() == again.output() != two.output()


@pytest.fixture
def home() -> Iterator[Namespace]:
    """The controller's own namespace, the only one where Argo's memoization keeps its caches."""
    namespace = Namespace(CONTROLLER, cache=f"e2e-{uuid.uuid4().hex[:8]}")
    prepare(CONTROLLER)
    yield namespace
    kubectl("-n", CONTROLLER, "delete", "configmap", namespace.cache, check=False)
    kubectl("-n", CONTROLLER, "delete", "workflow", *namespace.submitted, check=False)


@pytest.mark.parametrize("argo_first", [True, False], ids=["Argo's entry, our hit", "our entry, Argo's hit"])
def test_entries_are_shared_with_argos_own_memoization(home: Namespace, argo_first: bool) -> None:
    """Entries are shared with Argo's own memoization."""
    if DSN and not argo_first:
        pytest.skip("Argo does not look into the database, where entries of ours are")
    block = memo(cache=home.cache, max_age="1h")  # full CRDs ask for one where Argo reads the block
    native = container(memoize=block, metadata={"annotations": {"stepmemo.dev/memoize": "false"}})
    ours = container(memoize=block, metadata=opted_in())
    order = [native, ours] if argo_first else [ours, native]
    first, second = (home.run(template, serviceAccountName="default") for template in order)
    assert (first.phase, second.phase) == ("Succeeded", "Succeeded"), second.said()
    assert (first.executions(), second.executions()) == (1, 0), first.said() + second.said()
    node = second.workflow["status"]["nodes"][second.name]
    value = next(p["value"] for p in node["outputs"]["parameters"] if p["name"] == "out")
    assert value == first.output()
    if not argo_first:
        assert node["memoizationStatus"]["hit"] is True
