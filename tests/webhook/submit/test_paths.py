"""Every error names a field of the object that was submitted, and shows what stands there."""

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from argo.fields import FieldError, Kind
from argo.templates import CRON_WORKFLOW, KINDS
from memoize import names
from webhook.submit.verdict import review_object

Json = dict[str, Any]

_PART = re.compile(r"\.?([A-Za-z][A-Za-z0-9-]*)|\[(\d+)\]|\[([^\]\d][^\]]*)\]")
_MISSING = object()


def parts(path: str) -> list[str | int]:
    """`spec.templates[0].metadata.annotations[stepmemo.dev/key]` as the steps that lead there."""
    found, at = [], 0
    while at < len(path):
        match = _PART.match(path, at)
        assert match, f"no path: {path}"
        name, index, key = match.groups()
        found.append(int(index) if index is not None else name or key)
        at = match.end()
    return found


def looked_up(obj: Any, path: str) -> tuple[Any, Any]:
    """What stands at the path, or _MISSING, and the last thing on the way that is there."""
    for part in parts(path):
        if not (part in obj if isinstance(obj, dict) else isinstance(obj, list) and part < len(obj)):
            return _MISSING, obj
        obj = obj[part]
    return obj, obj


def wrong_about(obj: Json, error: FieldError) -> str:
    """Why this error does not fit the object, "" where it does."""
    found, holder = looked_up(obj, error.field)
    if found is _MISSING:
        if error.kind is not Kind.REQUIRED:
            return "names a field that is not there"
        return "" if isinstance(holder, dict) or holder is None else "lies in what holds no fields"
    if error.kind is Kind.REQUIRED:
        return "" if found is None or not str(found).strip() else "says that what is there is missing"
    nothing_shown = FieldError("", error.kind, error.detail, meant=error.meant).message
    shows_another = error.message != nothing_shown and error.value != found
    return "shows what does not stand there" if shows_another else ""


SCALARS = st.sampled_from(
    [None, "", " ", "k", "1h", "one day", "{{", "{{inputs.parameters.y}}", 5, True, [], {}]
)
KEYS = st.sampled_from(["k", "{{inputs.parameters.x}}", "{{workflow.name}}"]) | SCALARS
CACHES = SCALARS | st.fixed_dictionaries(
    {},
    optional={
        "configMap": SCALARS | st.fixed_dictionaries({}, optional={"name": KEYS, "key": KEYS, "nme": KEYS}),
        "confgMap": SCALARS,
    },
)
BLOCKS = SCALARS | st.fixed_dictionaries(
    {}, optional={"key": KEYS, "cache": CACHES, "maxAge": KEYS, "maxage": KEYS, "kye": KEYS}
)
WORDS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        [names.KEY, names.CACHE, names.MAX_AGE, names.MEMOIZE, names.MODE, names.GATED, "other"],
        st.sampled_from(["", "k", "true", "use", "maybe", "{{", "{{inputs.parameters.y}}", "A_b", "1h"]),
    ),
)
METADATA = st.fixed_dictionaries({"annotations": WORDS, "labels": WORDS})
LEAVES = st.fixed_dictionaries(
    {"name": st.just("t"), "container": st.just({"image": "x"})},
    optional={
        "memoize": BLOCKS,
        "metadata": METADATA,
        "inputs": st.just({"parameters": [{"name": "x"}]}),
    },
)
TEMPLATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(
            lambda found: {"name": "s", "steps": [[{"name": "a", "inline": each}] for each in found]}
        )
        | inner.map(lambda each: {"name": "d", "dag": {"tasks": [{"name": "a", "inline": each}]}})
    ),
    max_leaves=4,
)
SPECS = st.fixed_dictionaries(
    {"templates": st.lists(TEMPLATES, max_size=3)},
    optional={
        "templateDefaults": st.fixed_dictionaries({"metadata": METADATA}, optional={"memoize": BLOCKS}),
        "workflowMetadata": METADATA,
        "podMetadata": METADATA,
    },
)

INHERITING = st.builds(
    lambda own, defaults: {
        "templates": [{"name": "t", "container": {}, "metadata": {"annotations": {names.KEY: "k"} | own}}],
        "templateDefaults": {"metadata": {"annotations": defaults}},
    },
    WORDS,
    WORDS,
)
"""Templates without a block that leave some of it to templateDefaults: rare among all the others."""


@st.composite
def objects(draw: st.DrawFn) -> Json:
    kind = draw(st.sampled_from(sorted(KINDS)))
    spec = draw(SPECS | INHERITING)
    if kind == CRON_WORKFLOW:
        runs = {"workflowMetadata": spec.pop("workflowMetadata")} if "workflowMetadata" in spec else {}
        spec = {"workflowSpec": spec, **runs}
    return {"kind": kind, "metadata": {"name": "w", **draw(METADATA)}, "spec": spec}


@given(objects())
@settings(max_examples=3 * settings.default.max_examples)
def test_every_error_names_a_field_that_is_there_or_that_has_a_place_there(obj: Json) -> None:
    for error in review_object(obj["kind"], obj, None, "CREATE", {names.MEMOIZE: "true"}, "enforce").errors:
        assert not wrong_about(obj, error), (error, wrong_about(obj, error))


@given(objects())
@settings(max_examples=100, deadline=None)
def test_no_error_is_told_twice(obj: Json) -> None:
    errors = review_object(obj["kind"], obj, None, "CREATE", {}, "enforce").errors
    assert len({str(error) for error in errors}) == len(errors)


def test_what_a_template_inherits_is_wrong_where_it_stands_and_once() -> None:
    template = {"container": {"image": "x"}, "metadata": {"annotations": {names.KEY: "k", names.CACHE: "c"}}}
    spec = {
        "templateDefaults": {"metadata": {"annotations": {names.MAX_AGE: "one day"}}},
        "templates": [{"name": "a", **template}, {"name": "b", **template}],
    }
    obj = {"kind": "Workflow", "metadata": {"name": "w"}, "spec": spec}
    (error,) = review_object("Workflow", obj, None, "CREATE", {}, "enforce").errors
    assert error.field == "spec.templateDefaults.metadata.annotations[stepmemo.dev/max-age]"


def test_an_inherited_key_that_fits_one_template_only_says_which_it_does_not_fit() -> None:
    cache = {"container": {"image": "x"}, "metadata": {"annotations": {names.CACHE: "c"}}}
    spec = {
        "templateDefaults": {"metadata": {"annotations": {names.KEY: "{{inputs.parameters.x}}"}}},
        "templates": [
            {"name": "a", "inputs": {"parameters": [{"name": "x"}]}, **cache},
            {"name": "b", **cache},
        ],
    }
    obj = {"kind": "Workflow", "metadata": {"name": "w"}, "spec": spec}
    errors = review_object("Workflow", obj, None, "CREATE", {}, "enforce").errors
    (error,) = (error for error in errors if error.kind is Kind.INVALID)
    assert error.field == "spec.templateDefaults.metadata.annotations[stepmemo.dev/key]"
    assert "names no input parameter of spec.templates[1]: it has none" in error.detail
