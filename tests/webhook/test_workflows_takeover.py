import copy

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize import names
from webhook.takeover import authored
from webhook.templates import sites
from webhook.workflows import edited, restore, review

CACHE = {"configMap": {"name": "results"}}
BLOCK = {"key": "{{item}}", "maxAge": "1h", "cache": CACHE}
FLAT = {names.KEY: "{{item}}", names.CACHE: "results", names.MAX_AGE: "1h"}
ON, OFF = {names.MEMOIZE: "true"}, {names.MEMOIZE: "false"}
KINDS = ["Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate"]


def holder(*templates, kind="WorkflowTemplate", annotations=None, labels=None, **spec):
    metadata = {"name": "w"} | ({"annotations": annotations} if annotations else {})
    metadata |= {"labels": labels} if labels else {}
    return {"kind": kind, "metadata": metadata, "spec": {"templates": list(templates), **spec}}


def template(memoize=None, annotations=None, **fields):
    made = {"name": "t", "container": {"image": "busybox"}, **fields}
    made |= {} if memoize is None else {"memoize": memoize}
    return made | ({} if annotations is None else {"metadata": {"annotations": dict(annotations)}})


def admit(obj, namespace=None, *, known=True, **review_of):
    """The object as it is stored, after a first and an idle second pass."""
    labels = (namespace or {}) if known else None
    verdict = review(obj["kind"], obj, None, "CREATE", labels, "enforce", **review_of)
    assert verdict.errors == []
    paths = [op["path"] for op in verdict.ops]
    nested = [path for at, path in enumerate(paths) if any(path.startswith(f"{p}/") for p in paths[:at])]
    assert nested == [], "the server's own check leaves the values out"
    stored = jsonpatch.apply_patch(obj, verdict.ops)
    assert review(obj["kind"], stored, None, "CREATE", labels, "enforce").ops == []
    return stored


def annotations_of(obj, index=0):
    return obj["spec"]["templates"][index].get("metadata", {}).get("annotations", {})


def is_taken_over(obj, index=0):
    made = annotations_of(obj, index)
    is_flat = FLAT.items() <= made.items() and names.MANAGED in made
    is_block = obj["spec"]["templates"][index].get("memoize") is not None
    assert is_flat != is_block, "neither or both would answer the step"
    return is_flat


# --- Opting in: the nearest word counts ---------------------------------------------------------------


@pytest.mark.parametrize("namespace", [None, "true", "false"])
@pytest.mark.parametrize("held", [None, "true", "false"])
@pytest.mark.parametrize("own", [None, "true", "false"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_word_nearest_to_the_template_decides(own, held, namespace, kind):
    obj = holder(
        template(BLOCK, annotations={names.MEMOIZE: own} if own else None),
        kind=kind,
        labels={names.MEMOIZE: held} if held else None,
    )
    counted = namespace if kind != "ClusterWorkflowTemplate" else None
    stored = admit(obj, {names.MEMOIZE: namespace} if namespace else {})
    assert is_taken_over(stored) is ((own or held or counted) == "true")


def test_an_annotation_of_the_holder_counts_before_its_label():
    assert not is_taken_over(admit(holder(template(BLOCK), annotations=OFF, labels=ON)))
    assert is_taken_over(admit(holder(template(BLOCK), annotations=ON, labels=OFF)))


def test_the_words_of_template_defaults_are_the_templates_own():
    obj = holder(template(BLOCK), annotations=OFF, templateDefaults={"metadata": {"annotations": ON}})
    assert is_taken_over(admit(obj))


def test_a_word_with_tags_is_left_to_the_pod():
    obj = holder(template(BLOCK, annotations={names.MEMOIZE: "{{workflow.parameters.memoize}}"}))
    assert is_taken_over(admit(obj))


@pytest.mark.parametrize("fields", [{"script": {}}, {"containerSet": {}}, {"resource": {}}, {"data": {}}])
def test_every_template_that_makes_a_pod_is_taken_over(fields):
    taken = template(BLOCK) | fields
    del taken["container"]
    assert is_taken_over(admit(holder(taken, labels=ON)))


@pytest.mark.parametrize(
    "fields",
    [{"steps": []}, {"dag": {}}, {"http": {}}, {"plugin": {}}, {"suspend": {}}, {"daemon": True}, {}],
)
def test_templates_without_a_pod_that_ends_keep_their_block(fields):
    left = {"name": "t", "memoize": BLOCK, **({"container": {}} if "daemon" in fields else {}), **fields}
    obj = holder(left, labels=ON)
    assert admit(obj) == obj


def test_inline_templates_are_taken_over_where_they_stand():
    obj = holder(
        {"name": "s", "steps": [[{"name": "a", "inline": template(BLOCK)}]]},
        {"name": "d", "dag": {"tasks": [{"name": "a", "inline": template(BLOCK)}]}},
        labels=ON,
    )
    spec = admit(obj)["spec"]["templates"]
    for inline in (spec[0]["steps"][0][0]["inline"], spec[1]["dag"]["tasks"][0]["inline"]):
        assert "memoize" not in inline
        assert inline["metadata"]["annotations"].items() >= FLAT.items()


def test_a_block_in_template_defaults_keeps_every_block_where_it_is():
    obj = holder(template(BLOCK), labels=ON, templateDefaults={"memoize": {"key": "k", "cache": CACHE}})
    assert admit(obj) == obj


def test_a_cron_workflow_is_never_changed():
    obj = {"kind": "CronWorkflow", "metadata": {}, "spec": {"workflowSpec": holder(template(BLOCK))["spec"]}}
    obj["spec"]["workflowMetadata"] = {"labels": ON}
    verdict = review("CronWorkflow", obj, None, "CREATE", ON, "enforce")
    assert (verdict.errors, verdict.ops) == ([], [])


# --- What is changed, and what is not -----------------------------------------------------------------


def test_the_operations_are_the_fewest_that_do_it():
    verdict = review("Workflow", holder(template(BLOCK, {"a": "b"})), None, "CREATE", ON, "enforce")
    assert [(op["op"], op["path"]) for op in verdict.ops] == [
        ("add", "/spec/templates/0/metadata/annotations/stepmemo.dev~1key"),
        ("add", "/spec/templates/0/metadata/annotations/stepmemo.dev~1cache"),
        ("add", "/spec/templates/0/metadata/annotations/stepmemo.dev~1max-age"),
        ("add", "/spec/templates/0/metadata/annotations/stepmemo.dev~1managed"),
        ("remove", "/spec/templates/0/memoize"),
    ]


@pytest.mark.parametrize(
    "metadata", [None, {}, {"annotations": None}, {"annotations": {}}, {"labels": {"a": "b"}}]
)
def test_metadata_is_made_where_there_is_none(metadata):
    stored = admit(holder(template(BLOCK, metadata=metadata)), ON)
    assert is_taken_over(stored)
    assert stored["spec"]["templates"][0]["metadata"].get("labels") == (metadata or {}).get("labels")


def test_what_else_stands_in_metadata_survives_the_way_back():
    for metadata in ({"labels": {"a": "b"}}, {"annotations": {"a": "b"}, "labels": {"a": "b"}}):
        obj = holder(template(BLOCK, metadata=metadata))
        assert admit(admit(obj, ON)) == obj


def test_template_defaults_are_never_changed():
    defaults = {"container": {}, "metadata": {"annotations": FLAT}}
    stored = admit(holder(template(), labels=OFF, templateDefaults=defaults))
    assert stored["spec"]["templateDefaults"] == defaults
    assert annotations_of(stored)[names.MEMOIZE] == "false"


def test_max_age_of_template_defaults_does_not_creep_into_a_block_without_one():
    defaults = {"metadata": {"annotations": {names.MAX_AGE: "1h"}}}
    stored = admit(holder(template({"key": "k", "cache": CACHE}), templateDefaults=defaults), ON)
    assert annotations_of(stored)[names.MAX_AGE] == ""


@pytest.mark.parametrize("word", [None, ON])
@pytest.mark.parametrize("said", [FLAT, {names.KEY: FLAT[names.KEY]}])
def test_annotations_that_an_author_wrote_beside_the_same_block_stay_the_authors(said, word):
    stored = admit(holder(template(BLOCK, annotations=said), labels=word))
    assert stored["spec"]["templates"] == [template(annotations=FLAT)], "writing the key oneself is an opt-in"


# --- Edits after a take-over --------------------------------------------------------------------------


def test_a_block_counts_before_annotations_made_from_an_older_one():
    stored = admit(holder(template(BLOCK), labels=ON))
    stored["spec"]["templates"][0]["memoize"] = {**BLOCK, "key": "new"}
    assert annotations_of(admit(stored))[names.KEY] == "new"


@pytest.mark.parametrize(
    ("labels", "namespace"), [(OFF, ON), (None, OFF), (None, None)], ids=["holder", "namespace", "no word"]
)
def test_opting_out_gives_argo_its_block_back(labels, namespace):
    before = holder(template(BLOCK), labels=labels)
    stored = admit(holder(template(BLOCK), labels=ON))
    stored["metadata"] = before["metadata"]
    assert admit(stored, namespace) == before


def test_annotations_that_an_author_edited_are_the_authors():
    stored = admit(holder(template(BLOCK), labels=ON))
    annotations_of(stored)[names.KEY] = "mine"
    assert annotations_of(admit(stored)) == {**FLAT, names.KEY: "mine"}


def test_a_changed_input_breaks_a_key_that_was_taken_over():
    block = {"key": "{{inputs.parameters.x}}", "cache": CACHE}
    stored = admit(holder(template(block, inputs={"parameters": [{"name": "x"}]}), labels=ON))
    stored["spec"]["templates"][0]["inputs"] = {"parameters": [{"name": "y"}]}
    (error,) = review("Workflow", stored, None, "CREATE", {}, "enforce").errors
    assert error.field == "spec.templates[0].metadata.annotations[stepmemo.dev/key]"


@pytest.mark.parametrize("held", [None, "true", "false"])
@pytest.mark.parametrize("namespace", [{}, ON, OFF])
def test_an_unreadable_namespace_changes_nothing_that_it_had_decided(held, namespace):
    obj = holder(template(BLOCK), template(annotations=FLAT), labels={names.MEMOIZE: held} if held else None)
    stored = admit(obj, namespace)
    assert admit(stored, known=False) == stored


def test_an_unreadable_namespace_does_not_keep_an_older_key():
    stored = admit(holder(template(BLOCK)), ON)
    stored["spec"]["templates"][0]["memoize"] = {**BLOCK, "key": "new"}
    assert annotations_of(admit(stored, known=False))[names.KEY] == "new"


def test_an_unreadable_namespace_opts_nothing_in():
    obj = holder(template(BLOCK))
    assert admit(obj, known=False) == obj


# --- The holder's word on templates with annotations --------------------------------------------------


def test_annotations_that_an_author_wrote_are_left_as_they_are():
    for word in (None, ON):
        obj = holder(template(annotations=FLAT), labels=word)
        assert admit(obj) == obj


def test_a_holder_that_says_false_is_told_to_the_pod():
    stored = admit(holder(template(annotations=FLAT), labels=OFF))
    assert annotations_of(stored).items() >= {**FLAT, names.MEMOIZE: "false"}.items()
    assert names.MANAGED in annotations_of(stored)


def test_a_holder_that_no_longer_says_false_takes_its_word_back():
    obj = holder(template(annotations=FLAT))
    stored = admit(holder(template(annotations=FLAT), labels=OFF))
    stored["metadata"] = obj["metadata"]
    assert admit(stored) == obj


def test_a_word_that_an_author_put_in_place_of_the_holders_stays():
    stored = admit(holder(template(annotations=FLAT), labels=OFF))
    annotations_of(stored)[names.MEMOIZE] = "true"
    assert annotations_of(admit(stored)) == {**FLAT, names.MEMOIZE: "true"}


@pytest.mark.parametrize("made", [template(BLOCK), template(annotations=FLAT)])
def test_a_holder_that_says_true_is_told_to_the_pod_where_the_namespace_says_false(made):
    stored = admit(holder(made, labels=ON), OFF)
    assert annotations_of(stored).items() >= {**FLAT, names.MEMOIZE: "true"}.items()


def test_a_templates_own_word_is_never_touched():
    obj = holder(template(annotations={**FLAT, **ON}), labels=OFF)
    assert admit(obj) == obj


def test_the_holders_word_is_not_written_where_it_means_nothing():
    obj = holder(template(), {"name": "s", "steps": [], "metadata": {"annotations": FLAT}}, labels=OFF)
    assert admit(obj) == obj


# --- Laws ---------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="{"), min_size=1).filter(str.strip)
BLOCKS = st.fixed_dictionaries(
    {
        "key": TEXT | st.just("{{item}}"),
        "cache": st.sampled_from(["a", "results", "{{workflow.name}}"]).map(
            lambda n: {"configMap": {"name": n}}
        ),
    },
    optional={"maxAge": st.sampled_from(["", "1h", "-1s", "{{workflow.name}}"])},
)
WORDS = st.sampled_from([{}, ON, OFF])
TEMPLATES = st.builds(
    lambda block, annotations, fields: template(block, annotations, **fields),
    st.none() | BLOCKS,
    st.none() | st.dictionaries(st.sampled_from(["a/b~c", "d"]), TEXT, min_size=1, max_size=2) | st.just(ON),
    st.dictionaries(st.sampled_from(["unknown", "nodeSelector", "daemon"]), st.booleans(), max_size=2),
)
OBJECTS = st.builds(
    lambda templates, labels, kind: holder(*templates, labels=labels, kind=kind),
    st.lists(TEMPLATES | TEMPLATES.map(lambda t: {"steps": [[{"inline": t}]]}), max_size=3),
    WORDS,
    st.sampled_from(KINDS),
)


@given(OBJECTS, WORDS)
def test_restore_undoes_every_take_over(obj, namespace):
    stored = admit(obj, namespace)
    restored = jsonpatch.apply_patch(stored, restore(obj["kind"], stored))
    assert restored == obj
    assert restore(obj["kind"], restored) == []
    assert edited(obj["kind"], stored) == []


@given(OBJECTS, WORDS, WORDS, WORDS)
def test_only_the_last_words_count_whatever_was_said_before(obj, first, labels, second):
    through_a_change = admit(obj, first)
    straight = copy.deepcopy(obj)
    for version in (through_a_change, straight):
        version["metadata"] = {"name": "w", "labels": labels}
    assert admit(through_a_change, second) == admit(straight, second)


@given(OBJECTS, WORDS)
def test_nothing_but_blocks_and_our_annotations_changes(obj, namespace):
    stored = admit(obj, namespace)
    for site in sites(obj["kind"], stored):
        assert set(authored(site).made) <= {*FLAT, names.MEMOIZE}

    def without(version):
        version = copy.deepcopy(version)
        for site in sites(obj["kind"], version):
            site.template.pop("memoize", None)
            kept = {n: v for n, v in site.annotations.items() if not n.startswith(names.DOMAIN)}
            site.template.pop("metadata", None)
            site.template["annotations"] = kept
        return version

    assert without(stored) == without(obj)
