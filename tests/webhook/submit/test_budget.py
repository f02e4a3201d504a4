"""A review costs what is in the object, up to a budget: nobody waits for somebody else's workflow."""

import json
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from memoize import names
from memoize.reasons import Reason
from tests.work import calls, grows
from webhook.submit.findings import MOST
from webhook.submit.verdict import ENFORCE, OFF, WARN, Verdict, review_object

Json = dict[str, Any]
CACHE = {"configMap": {"name": "c"}}
OURS = f"{names.DOMAIN}/"


def numbered(count: int, text: str = "p") -> list[str]:
    return [f"{text}{number}" for number in range(count)]


def named(count: int, **fields: Any) -> list[Json]:
    return [{"name": name, **fields} for name in numbered(count)]


def workflow() -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w", "annotations": {names.MEMOIZE: "true"}, "labels": {}},
        "spec": {
            "arguments": {"parameters": []},
            "templateDefaults": {
                "metadata": {"annotations": {}},
                "inputs": {"parameters": [], "artifacts": []},
            },
            "templates": [
                {
                    "name": "one",
                    "container": {"image": "x"},
                    "inputs": {"parameters": [], "artifacts": []},
                    "outputs": {"artifacts": []},
                    "metadata": {"annotations": {}, "labels": {}},
                    "memoize": {"key": "k", "cache": CACHE, "maxAge": "1h"},
                },
                {"name": "all", "steps": [], "dag": {"tasks": []}, "inputs": {"parameters": []}},
            ],
        },
    }


def leaf(**fields: Any) -> Json:
    return {"name": "leaf", "container": {"image": "x"}, **fields}


BLOCK = {"key": "k-{{inputs.parameters.x}}", "cache": CACHE}
HOST = "{{steps.p0.hostNodeName}} {{=steps['p1'].hostNodeName}} steps.hostNodeName"


def one(obj: Json) -> Json:
    return dict(obj["spec"]["templates"][0])


def defaults(obj: Json) -> Json:
    return dict(obj["spec"]["templateDefaults"])


PLACES: dict[str, Callable[[Json, int], object]] = {
    "parameters in templateDefaults": lambda o, n: defaults(o)["inputs"]["parameters"].extend(named(n)),
    "artifacts in templateDefaults": lambda o, n: defaults(o)["inputs"]["artifacts"].extend(named(n)),
    "annotations in templateDefaults": lambda o, n: defaults(o)["metadata"]["annotations"].update(
        dict.fromkeys(numbered(n), "x")
    ),
    "tags in an inherited key": lambda o, n: defaults(o)["metadata"]["annotations"].update(
        {names.KEY: "".join(f"{{{{inputs.parameters.{name}}}}}" for name in numbered(n)), names.CACHE: "c"}
    ),
    "empty templates": lambda o, n: o["spec"]["templates"].extend([{}] * n),
    "templates with a block": lambda o, n: o["spec"]["templates"].extend([leaf(memoize=BLOCK)] * n),
    "templates with a block for everything": lambda o, n: o["spec"]["templates"].extend(
        [leaf(memoize={"key": "{{inputs.parameters}}", "cache": CACHE})] * n
    ),
    "templates with a block that is wrong": lambda o, n: o["spec"]["templates"].extend(
        [leaf(memoize={"kye": "{{input.x}}", "maxAge": 1})] * n
    ),
    "resources": lambda o, n: o["spec"]["templates"].extend([{"resource": {}, "memoize": BLOCK}] * n),
    "annotations of a template": lambda o, n: one(o)["metadata"]["annotations"].update(
        dict.fromkeys(numbered(n), "x")
    ),
    "unknown annotations of a template": lambda o, n: one(o)["metadata"]["annotations"].update(
        dict.fromkeys(numbered(n, f"{OURS}kye"), "x")
    ),
    "unknown annotations": lambda o, n: o["metadata"]["annotations"].update(
        dict.fromkeys(numbered(n, f"{OURS}kye"), "x")
    ),
    "labels": lambda o, n: o["metadata"]["labels"].update(dict.fromkeys(numbered(n, OURS), "x")),
    "wrong tags in a key": lambda o, n: one(o)["memoize"].update(
        key="".join(f"{{{{inputs.parameters.{name}}}}}{{{{{name}}}}}" for name in numbered(n, "q"))
    ),
    "names in an expression": lambda o, n: one(o)["memoize"].update(
        cache={"configMap": {"name": f"{{{{=[{', '.join(f'{name}.x' for name in numbered(n, 'q'))}]}}}}"}}
    ),
    "unknown fields of a block": lambda o, n: one(o)["memoize"].update(dict.fromkeys(numbered(n), 1)),
    "parameters of a template": lambda o, n: one(o)["inputs"]["parameters"].extend(
        named(n, value="{{a}} {{b")
    ),
    "artifacts of a template": lambda o, n: one(o)["inputs"]["artifacts"].extend(named(n)),
    "output artifacts": lambda o, n: one(o)["outputs"]["artifacts"].extend(
        named(n, artifactGC={"strategy": "OnPodDeletion"})
    ),
    "steps whose node is used": lambda o, n: o["spec"]["templates"][1]["steps"].extend(
        [{**step, "template": "one", "when": HOST}] for step in named(n)
    ),
    "inline templates": lambda o, n: o["spec"]["templates"][1]["steps"].extend(
        [{**step, "inline": leaf(memoize=BLOCK)}] for step in named(n)
    ),
    "tasks of other objects": lambda o, n: o["spec"]["templates"][1]["dag"]["tasks"].extend(
        named(n, templateRef={"name": "t"}, when="{{tasks.p0.hostNodeName}} tasks.hostNodeName")
    ),
    "parameters around inline templates": lambda o, n: o["spec"]["templates"][1]["inputs"][
        "parameters"
    ].extend(named(n)),
    "arguments": lambda o, n: o["spec"]["arguments"]["parameters"].extend(named(n, value="{{a}} {{b")),
    "templates that inherit the rest of a key": lambda o, n: o["spec"]["templates"].extend(
        [leaf(metadata={"annotations": {names.MAX_AGE: "1h"}})] * n
    ),
}
A_PRODUCT = {"tags in an inherited key", "templates that inherit the rest of a key"}
"""Each of the templates is judged by the whole of that key: the budget bounds how often it is read."""


def filled(*places: str) -> Callable[[int], Json]:
    def made(size: int) -> Json:
        obj = workflow()
        for place in places:
            PLACES[place](obj, size)
        return obj

    return made


def review(obj: Any, validate: str = ENFORCE) -> Verdict:
    return review_object("Workflow", obj, None, "CREATE", {}, validate)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_review_takes_work_that_grows_with_what_there_is(place: str) -> None:
    made = filled(place)
    assert json.dumps(made(2)) != json.dumps(made(1))
    assert grows(review, made, 60) <= 2.3


SIZES = 20, 30, 40
"""Not fewer than the findings that are told of: more of them then take no more words."""


@cache
def work(function: Callable[[Any], object], size: int, *places: str) -> int:
    made = filled(*places)(size)
    function(made)  # what is made once and kept is no part of it
    return calls(function, made)


def bend(function: Callable[[Any], object], *places: str) -> int:
    """By how much faster the work for all these together comes to grow, beside the work for each alone.

    What is linear cancels out, however much it is: 0, and 200 for each call that is made for every pair of
    what stands in two of them.
    """
    small, middle, large = (
        work(function, size, *places)
        - sum(work(function, size, place) for place in places)
        + work(function, size) * (len(places) - 1)
        for size in SIZES
    )
    return large - 2 * middle + small


def products(function: Callable[[Any], object], *places: str) -> dict[tuple[str, ...], int]:
    """The pairs of these places of which one is read for each of the other, with the bend of each.

    One look at all of them tells whether there are any; which, is found only then.
    """
    if (all_of_them := bend(function, *places)) < 100:
        return {}
    bends = {pair: bend(function, *pair) for pair in combinations(places, 2)}
    return {pair: more for pair, more in bends.items() if more >= 100} or {places: all_of_them}


SPOILING = ("names in an expression", "unknown fields of a block", "wrong tags in a key")
"""With one of these a template's block is refused, and much else of the template is not looked at …"""
SOUND = [place for place in PLACES if place not in SPOILING]
GROUPS = [SOUND[first::5] for first in range(5)]
TOGETHER = {f"groups {a} and {b}": (*GROUPS[a], *GROUPS[b]) for a, b in combinations(range(5), 2)}
"""… while each two others are in one of these."""


@pytest.mark.slow
@pytest.mark.xdist_group("what a review takes")  # one process counts the work for each place alone, once
@pytest.mark.parametrize("together", TOGETHER)
def test_what_there_is_in_one_place_is_not_read_for_each_of_another(together: str) -> None:
    places = TOGETHER[together]
    for left_out in A_PRODUCT if {*places} >= A_PRODUCT else {""}:
        assert products(review, *(place for place in places if place != left_out)) == {}


@pytest.mark.slow
@pytest.mark.xdist_group("what a review takes")
@pytest.mark.parametrize("spoiling", SPOILING)
def test_nor_is_it_where_a_block_is_refused(spoiling: str) -> None:
    pairs = [(spoiling, other) for other in PLACES if other != spoiling]
    assert {pair: more for pair in pairs if (more := products(review, *pair))} == {}


def test_every_two_places_are_looked_at_and_a_sound_template_stays_so() -> None:
    looked_at = {frozenset(pair) for places in TOGETHER.values() for pair in combinations(places, 2)}
    looked_at |= {
        frozenset((spoiling, other)) for spoiling in SPOILING for other in PLACES if other != spoiling
    }
    assert looked_at == {frozenset(pair) for pair in combinations(PLACES, 2)}
    of_it = "spec.templates[0]."
    for places in TOGETHER.values():
        assert [error for error in review(filled(*places)(1)).errors if of_it in str(error)] == []
    for place in SPOILING:
        assert [error for error in review(filled(place)(1)).errors if of_it in str(error)]


@pytest.mark.slow
def test_a_quadratic_place_would_be_found() -> None:
    def copies(obj: Any) -> list[Json]:
        return [{**obj["metadata"]["annotations"]} for one in obj["spec"]["templates"] if not one]

    pair = ("empty templates", "unknown annotations")
    assert bend(copies, *pair) >= 200
    places = next(places for places in TOGETHER.values() if {*pair} <= {*places})
    assert [{*found} for found in products(copies, *places)] == [{*pair}]
    assert bend(review, *A_PRODUCT) >= 200
    assert bend(review, *PLACES) >= 200, "among all others, too"


# --- The budget ---------------------------------------------------------------------------------------


def nested(depth: int) -> Json:
    inner = leaf(memoize=BLOCK)
    for _ in range(depth):
        inner = {"steps": [[{"name": "s", "inline": inner}]]}
    return {**workflow(), "spec": {"templates": [inner]}}


KEYED = {names.KEY: "{{item}}" * 200, names.CACHE: "c"}
BEYOND = {
    "more than 10000 templates": {"templates": [{}] * 10_001},
    "more than 16 inline templates in each other": nested(17)["spec"],
    "more than 20000 tags in keys": {
        "templateDefaults": {"metadata": {"annotations": KEYED}},
        "templates": [leaf(metadata={"annotations": {names.MAX_AGE: ""}})] * 101,
    },
    "more than 4 MiB of keys": {
        "templateDefaults": {"metadata": {"annotations": {names.KEY: "k" * 50_000}}},
        "templates": [leaf(metadata={"annotations": {names.MAX_AGE: ""}})] * 100,
    },
    "its keys as annotations could be too much for etcd": {
        "templates": [leaf(memoize={"key": "k", "cache": CACHE}, script="x" * 3_000)] * 480
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("validate", [ENFORCE, WARN, OFF])
@pytest.mark.parametrize("why", BEYOND)
def test_an_object_beyond_the_budget_passes_untouched_and_its_author_is_told(why: str, validate: str) -> None:
    verdict = review({**workflow(), "spec": BEYOND[why]}, validate)
    assert (verdict.reason, verdict.errors, verdict.ops) == (Reason.BEYOND_BUDGET, [], [])
    assert verdict.warnings == [f"spec: {why}: not reviewed, its memoize blocks stay with Argo"]
    assert len(verdict.warnings[0]) <= 120


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        {"templates": [{}] * 10_000},
        nested(16)["spec"],
        {
            "templateDefaults": {"metadata": {"annotations": KEYED}},
            "templates": [leaf(metadata={"annotations": {names.MAX_AGE: ""}})] * 99,
        },
    ],
    ids=["templates", "depth", "tags"],
)
def test_up_to_the_budget_an_object_is_reviewed(spec: Json) -> None:
    assert review({**workflow(), "spec": spec}).reason is not Reason.BEYOND_BUDGET


@pytest.mark.slow
def test_what_is_beyond_the_budget_is_not_read_to_its_end() -> None:
    def empty(count: int) -> Json:
        return {"metadata": {}, "spec": {"templates": [{}] * count}}

    assert calls(review, empty(12_000)) - calls(review, empty(11_000)) < 100


# --- What is told -------------------------------------------------------------------------------------


def test_of_many_errors_the_first_are_told_and_the_others_counted() -> None:
    tags = "".join(f"{{{{{name}}}}}" for name in numbered(332))
    obj = {**workflow(), "spec": {"templates": [leaf(memoize={"key": tags, "cache": CACHE})]}}
    verdict = review(obj)
    assert (len(verdict.errors), verdict.more_errors) == (MOST, 312)
    assert [error.message.count("did you mean") for error in verdict.errors[10:]] == [0] * 10
    warned = review(obj, WARN)
    assert len(warned.warnings) == MOST + 1
    assert warned.warnings[-1] == "and 312 more"


def test_of_many_warnings_the_first_are_told_and_the_others_counted() -> None:
    annotations = dict.fromkeys(numbered(332, f"{OURS}mdoe"), "x")
    verdict = review({**workflow(), "metadata": {"annotations": annotations}})
    assert len(verdict.warnings) == MOST + 1
    assert verdict.warnings[-1] == "and 312 more"
    assert all("did you mean stepmemo.dev/mode?" in told for told in verdict.warnings[:10])
    assert not any("did you mean" in told for told in verdict.warnings[10:])
