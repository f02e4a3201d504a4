import copy
import hashlib
import json

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo.templates import defaults_ref, template_refs
from memoize import names
from webhook.submit.conversion import authored
from webhook.submit.verdict import edited, restore, review_object

CACHE = {"configMap": {"name": "results"}}
BLOCK = {"key": "{{item}}", "maxAge": "1h", "cache": CACHE}
FLAT = {names.KEY: "{{item}}", names.CACHE: "results", names.MAX_AGE: "1h"}
MADE = {names.MEMOIZE, names.CONFIG_MAP, names.GATED, names.GATED_FOR}
"""What the webhook writes beside FLAT."""
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
    verdict = review_object(obj["kind"], obj, None, "CREATE", labels, "enforce", **review_of)
    assert verdict.errors == []
    paths = [op["path"] for op in verdict.ops]
    nested = [path for at, path in enumerate(paths) if any(path.startswith(f"{p}/") for p in paths[:at])]
    assert nested == [], "the server's own check leaves the values out"
    stored = jsonpatch.apply_patch(obj, verdict.ops)
    assert review_object(obj["kind"], stored, None, "CREATE", labels, "enforce").ops == []
    return stored


def all_refs(obj):
    defaults = defaults_ref(obj["kind"], obj)
    return [*([defaults] if defaults else []), *template_refs(obj["kind"], obj)]


def as_argo_marshals(obj):
    """The object with both fields in its blocks that mean nothing when empty, as Argo writes them."""
    obj = copy.deepcopy(obj)
    for ref in all_refs(obj):
        block = ref.template.get("memoize")
        if block is not None:
            block.setdefault("maxAge", "")
            block["cache"]["configMap"].setdefault("key", "")
    return obj


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
    [{"steps": []}, {"dag": {}}, {"http": {}}, {"plugin": {}}, {"suspend": {}}, {}],
)
def test_templates_without_a_pod_keep_their_block(fields):
    obj = holder({"name": "t", "memoize": BLOCK, **fields}, labels=ON)
    assert admit(obj) == obj


@pytest.mark.parametrize("defaults", [{}, {"daemon": True}])
def test_the_block_of_an_opted_in_daemon_is_taken_away_and_comes_back(defaults):
    daemon = template(BLOCK) | ({} if defaults else {"daemon": True})
    obj = holder(daemon, labels=ON, **({"templateDefaults": defaults} if defaults else {}))
    stored = admit(obj)
    assert is_taken_over(stored), "Argo's own hit on a daemon hangs the workflow"
    assert jsonpatch.apply_patch(stored, restore(obj["kind"], stored)) == obj
    stored["metadata"] = {"name": "w", "labels": OFF}
    assert not is_taken_over(admit(stored))


def test_the_block_of_a_daemon_that_is_not_opted_in_stays_with_argo():
    obj = holder(template(BLOCK, daemon=True))
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


def test_a_cron_workflow_is_never_changed():
    obj = {"kind": "CronWorkflow", "metadata": {}, "spec": {"workflowSpec": holder(template(BLOCK))["spec"]}}
    obj["spec"]["workflowMetadata"] = {"labels": ON}
    verdict = review_object("CronWorkflow", obj, None, "CREATE", ON, "enforce")
    assert (verdict.errors, verdict.ops) == ([], [])


# --- Defaults: the block of templateDefaults -----------------------------------------------------------

DEFAULT_BLOCK = {"key": "of-the-day", "maxAge": "2h", "cache": {"configMap": {"name": "days"}}}
DEFAULT_FLAT = {names.KEY: "of-the-day", names.CACHE: "days", names.MAX_AGE: "2h"}


def as_argo_merges(defaults, template):
    """What of the two concerns memoization, as mergedTemplateDefaultsInto makes one of them (v3.5 to v4.1).

    A strategic merge of what Go marshals: fields of a block without omitempty, and annotations one by one.
    """
    block = template.get("memoize") or defaults.get("memoize")
    annotations = [each.get("metadata", {}).get("annotations", {}) for each in (defaults, template)]
    return block, annotations[0] | annotations[1]


def who_answers(defaults, template, *, namespace=None, workflow=None):
    """What Argo memoizes by and what stepmemo does by, for a step of this template; None: it does not."""
    block, annotations = as_argo_merges(defaults, template)
    word = annotations.get(names.MEMOIZE)
    if word is None and names.MANAGED not in annotations:
        word = next((w for w in (workflow, namespace) if w), None)
    return block and block["key"], annotations.get(names.KEY) if word != "false" else None


@pytest.mark.parametrize("namespace", [None, "true", "false"])
@pytest.mark.parametrize("held", [None, "true", "false"])
@pytest.mark.parametrize("default", [None, "true", "false"])
@pytest.mark.parametrize("own", [None, "true", "false"])
@pytest.mark.parametrize("block", [None, BLOCK])
def test_a_step_under_a_default_block_is_answered_by_one_key_and_its_own_if_it_has_one(
    block, own, default, held, namespace
):
    words = {who: {names.MEMOIZE: word} if word else None for who, word in (("own", own), ("d", default))}
    obj = holder(
        template(block, words["own"]),
        labels={names.MEMOIZE: held} if held else None,
        templateDefaults=template(DEFAULT_BLOCK, words["d"]),
    )
    spec = admit(obj, {names.MEMOIZE: namespace} if namespace else {})["spec"]
    argo, ours = who_answers(
        spec["templateDefaults"], spec["templates"][0], namespace=namespace, workflow=held
    )
    converted = (default or held or namespace) == "true"
    key = block["key"] if block else DEFAULT_BLOCK["key"]
    if not converted:
        assert (argo, ours) == (key, None), "with Argo as before"
    elif own == "false":
        assert (argo, ours) == (block and key, None), "its own block stays Argo's, the default one is gone"
    else:
        assert (argo, ours) == (None, key)


@pytest.mark.parametrize("called", ["converted", "flat", "plain", "opted out"])
def test_a_template_of_another_object_has_its_own_words_under_a_converted_default_block(called):
    library = {
        "converted": admit(holder(template({"key": "own", "cache": CACHE}), labels=ON)),
        "flat": admit(holder(template(annotations=FLAT))),
        "plain": admit(holder(template(), labels=ON)),
        "opted out": admit(holder(template(annotations=OFF))),
    }[called]
    caller = admit(holder(kind="Workflow", labels=ON, templateDefaults=template(DEFAULT_BLOCK)))
    defaults, template_ = caller["spec"]["templateDefaults"], library["spec"]["templates"][0]
    expected = {"converted": "own", "flat": FLAT[names.KEY], "plain": DEFAULT_BLOCK["key"], "opted out": None}
    assert who_answers(defaults, template_, workflow="true") == (None, expected[called])
    if called == "converted":
        assert as_argo_merges(defaults, template_)[1][names.MAX_AGE] == "", "no maxAge of another block's"


def test_a_key_of_the_authors_does_not_answer_beside_a_block_that_a_default_one_keeps_with_argo():
    obj = holder(template(BLOCK, annotations=FLAT), templateDefaults={"memoize": DEFAULT_BLOCK})
    spec = admit(obj)["spec"]
    assert who_answers(spec["templateDefaults"], spec["templates"][0]) == (BLOCK["key"], None)
    del obj["spec"]["templateDefaults"]
    assert who_answers({}, admit(obj)["spec"]["templates"][0]) == (None, BLOCK["key"])


def test_a_new_block_under_a_default_one_that_was_moved_follows_it_while_the_namespace_is_unreadable():
    stored = admit(holder(template(), templateDefaults={"memoize": DEFAULT_BLOCK}), ON)
    stored["spec"]["templates"].append(template(BLOCK))
    assert is_taken_over(admit(stored, known=False), 1)


def test_a_default_block_is_moved_and_comes_back_whole():
    block = {**DEFAULT_BLOCK, "cache": {"configMap": {"name": "days", "key": "x", "optional": True}}}
    obj = holder(template(), labels=ON, templateDefaults=template(block, {"a": "b"}))
    stored = admit(obj)
    defaults = stored["spec"]["templateDefaults"]
    assert defaults.get("memoize") is None
    assert defaults["metadata"]["annotations"].items() >= {**DEFAULT_FLAT, "a": "b"}.items()
    assert jsonpatch.apply_patch(stored, restore(obj["kind"], stored)) == obj
    stored["metadata"] = {"name": "w", "labels": OFF}
    assert admit(stored)["spec"] == obj["spec"]


def test_a_default_block_with_a_mistake_leaves_every_block_to_argo_where_nothing_is_validated():
    bad = holder(template(BLOCK), labels=ON, templateDefaults=template({"key": "k", "maxAge": "1x"}))
    assert review_object("Workflow", bad, None, "CREATE", {}, "off").ops == []


# --- What is changed, and what is not -----------------------------------------------------------------


def test_the_operations_are_the_fewest_that_do_it():
    verdict = review_object("Workflow", holder(template(BLOCK, {"a": "b"})), None, "CREATE", ON, "enforce")
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
        assert admit(admit(obj, ON)) == as_argo_marshals(obj)


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
    assert admit(stored, namespace) == as_argo_marshals(before)


def test_annotations_that_an_author_edited_are_the_authors():
    stored = admit(holder(template(BLOCK), labels=ON))
    annotations_of(stored)[names.KEY] = "mine"
    assert annotations_of(admit(stored)) == {**FLAT, names.KEY: "mine"}


def test_a_changed_input_breaks_a_key_that_was_taken_over():
    block = {"key": "{{inputs.parameters.x}}", "cache": CACHE}
    stored = admit(holder(template(block, inputs={"parameters": [{"name": "x"}]}), labels=ON))
    stored["spec"]["templates"][0]["inputs"] = {"parameters": [{"name": "y"}]}
    (error,) = review_object("Workflow", stored, None, "CREATE", {}, "enforce").errors
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


def test_what_an_older_release_took_over_without_a_max_age_is_still_ours():
    made = {names.KEY: "k", names.CACHE: "results", names.MANAGED: "8c4ae398efa6997e65a5eefd5ca82a8d"}
    obj = holder(template(annotations=made), kind="WorkflowTemplate")
    assert edited(obj["kind"], obj) == []
    restored = jsonpatch.apply_patch(obj, restore(obj["kind"], obj))
    assert restored == holder(template({"key": "k", "maxAge": "", "cache": CACHE}))


@pytest.mark.parametrize("rest", ["no JSON", "[]", '{"name": "other", "x": [1]}', "[" * 100_000])
def test_a_digest_that_somebody_else_made_breaks_nothing(rest):
    made = {names.KEY: "k", names.CACHE: "results", names.CONFIG_MAP: rest}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    obj = holder(template(annotations=made | {names.MANAGED: digest[:32]}), labels=ON)
    assert edited(obj["kind"], obj) == []
    assert annotations_of(admit(obj))[names.KEY] == "k"
    (op,) = [op for op in restore(obj["kind"], obj) if op["op"] == "add"]
    assert op["value"]["cache"]["configMap"]["name"] == "results"


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
        "cache": st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "results", "{{workflow.name}}"])},
            optional={"key": st.sampled_from(["", "k"]), "optional": st.booleans()},
        ).map(lambda found: {"configMap": found}),
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
KEYED = st.builds(
    lambda words, fields: template(annotations=FLAT | words, **fields),
    WORDS,
    st.sampled_from([{}, {"daemon": True}]),
)
DEFAULTS = st.builds(
    lambda block, annotations: template(block, annotations),
    st.none() | BLOCKS,
    st.none() | st.sampled_from([ON, OFF, {"a/b~c": "d"}, {names.GATED: "true"}]),
)
USE = {"name": "use", "template": "t", "when": "{{steps.one.hostNodeName}} != x"}


def on_its_node(inner):
    return {"name": "around", "steps": [[{"name": "one", "inline": inner}], [USE]]}


OBJECTS = st.builds(
    lambda templates, labels, kind, defaults: holder(*templates, labels=labels, kind=kind, **defaults),
    st.lists(
        TEMPLATES
        | KEYED
        | TEMPLATES.map(lambda t: {"steps": [[{"inline": t}]]})
        | (TEMPLATES | KEYED).map(on_its_node),
        max_size=3,
    ),
    WORDS,
    st.sampled_from(KINDS),
    st.just({}) | DEFAULTS.map(lambda found: {"templateDefaults": found}),
)


@given(OBJECTS, WORDS)
def test_restore_undoes_every_take_over(obj, namespace):
    stored = admit(obj, namespace)
    restored = jsonpatch.apply_patch(stored, restore(obj["kind"], stored))
    assert as_argo_marshals(restored) == as_argo_marshals(obj)
    assert restore(obj["kind"], restored) == []
    assert edited(obj["kind"], stored) == []


@given(OBJECTS, WORDS, WORDS, WORDS)
def test_only_the_last_words_count_whatever_was_said_before(obj, first, labels, second):
    through_a_change = admit(obj, first)
    straight = copy.deepcopy(obj)
    for version in (through_a_change, straight):
        version["metadata"] = {"name": "w", "labels": labels}
    ends = [admit(version, second) for version in (through_a_change, straight)]
    assert as_argo_marshals(ends[0]) == as_argo_marshals(ends[1])


@given(OBJECTS, WORDS)
def test_nothing_but_blocks_and_our_annotations_changes(obj, namespace):
    stored = admit(obj, namespace)
    for ref in all_refs(stored):
        assert set(authored(ref).made) <= {*FLAT, *MADE}

    def without(version):
        version = copy.deepcopy(version)
        for ref in all_refs(version):
            ref.template.pop("memoize", None)
            kept = {n: v for n, v in ref.annotations.items() if not n.startswith(names.DOMAIN)}
            ref.template.pop("metadata", None)
            ref.template["annotations"] = kept
        return version

    assert without(stored) == without(obj)
