import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoize import names
from webhook.submit.hostnodes import uses
from webhook.submit.verdict import review_object

BLOCK = {"key": "k", "maxAge": "1h", "cache": {"configMap": {"name": "c"}}}
LEAF = {"name": "leaf", "container": {"image": "x"}, "memoize": BLOCK}
ON = {"labels": {names.MEMOIZE: "true"}}


def workflow(*templates, kind="Workflow", metadata=None):
    spec = {"templates": list(templates)}
    found = {"kind": kind, "metadata": {"name": "w", **(metadata or {})}}
    return found | {"spec": {"workflowSpec": spec} if kind == "CronWorkflow" else spec}


def steps(**second):
    return {"name": "main", "steps": [[{"name": "one-a", "template": "leaf"}], [{"name": "two", **second}]]}


def dag(**second):
    tasks = [{"name": "one-a", "template": "leaf"}, {"name": "two", **second}]
    return {"name": "main", "dag": {"tasks": tasks}}


def argument(value):
    return {"arguments": {"parameters": [{"name": "node", "value": value}]}}


USES = [
    argument("{{W.one-a.hostNodeName}}"),
    argument("{{ W.one-a.hostNodeName }}"),
    argument("{{=W['one-a'].hostNodeName}}"),
    argument('{{= W [ "one-a" ] [ "hostNodeName" ] }}'),
    argument("{{=W?.['one-a']?.hostNodeName}}"),
    argument("{{=let name = 'one-a'; W[name].hostNodeName}}"),
    argument("{{W.{{item}}.hostNodeName}}"),
    {"arguments": {"artifacts": [{"name": "a", "raw": {"data": "on {{W.one-a.hostNodeName}}"}}]}},
    {"when": "{{W.one-a.hostNodeName}} == here"},
    {"withParam": "{{=toJson([W['one-a'].hostNodeName])}}"},
    {"withItems": ["{{W.one-a.hostNodeName}}"]},
    {"hooks": {"exit": {"template": "leaf", **argument("{{W.one-a.hostNodeName}}")}}},
    {"hooks": {"x": {"template": "leaf", "expression": "W['one-a'].hostNodeName == 'here'"}}},
    {"inline": {"container": {"image": "x"}, "nodeSelector": {"host": "{{W.one-a.hostNodeName}}"}}},
    {"inline": {"steps": [[{"name": "in", "template": "other", **argument("{{W.one-a.hostNodeName}}")}]]}},
]


@pytest.mark.parametrize("use", USES, ids=str)
@pytest.mark.parametrize(("word", "around"), [("steps", steps), ("tasks", dag)])
def test_a_use_is_found_wherever_argo_resolves_it(word, around, use):
    def spelt(value):
        if isinstance(value, dict):
            return {name: spelt(item) for name, item in value.items()}
        if isinstance(value, list):
            return [spelt(item) for item in value]
        return value.replace("W", word)

    for obj in (
        workflow(around(**spelt(use)), LEAF),
        workflow(LEAF, around(**spelt(use)), kind="CronWorkflow"),
    ):
        (reference,) = uses(obj["kind"], obj).templates.values()
        assert reference == f"{word}.one-a.hostNodeName"


def test_a_use_in_a_fields_name_is_found():
    inline = {"container": {"image": "x"}, "nodeSelector": {"{{steps.one-a.hostNodeName}}": "yes"}}
    assert uses("Workflow", workflow(steps(inline=inline), LEAF)).templates


@pytest.mark.parametrize(
    "outputs",
    [
        {"parameters": [{"name": "n", "valueFrom": {"expression": "steps['one-a'].hostNodeName"}}]},
        {"parameters": [{"name": "n", "valueFrom": {"parameter": "{{steps.one-a.hostNodeName}}"}}]},
        {"artifacts": [{"name": "n", "fromExpression": "steps['one-a'].hostNodeName == '' ? x : y"}]},
    ],
)
def test_a_use_in_the_outputs_is_found(outputs):
    obj = workflow({**steps(template="other"), "outputs": outputs}, LEAF)
    assert uses("Workflow", obj).templates == {("spec", "templates", 1): "steps.one-a.hostNodeName"}


def test_what_no_scope_resolves_is_no_use():
    tag = "{{steps.one-a.hostNodeName}}{{tasks.one-a.hostNodeName}}"
    for obj in (
        workflow({**LEAF, "container": {"args": [tag]}}),
        workflow(
            steps(**argument("{{steps.two.hostNodeName}}{{steps.one-a.ip}}{{tasks.one-a.hostNodeName}}"))
        ),
        workflow(steps(**argument("hostNodeName"))),
    ):
        assert uses("Workflow", obj).templates == {}


def test_an_inline_template_is_the_one_that_needs_the_node():
    first = {"name": "one", "inline": {key: LEAF[key] for key in ("container", "memoize")}}
    obj = workflow({"steps": [[first], [{"name": "two", **argument("{{steps.one.hostNodeName}}")}]]})
    place = ("spec", "templates", 0, "steps", 0, 0, "inline")
    assert uses("Workflow", obj).templates == {place: "steps.one.hostNodeName"}


@pytest.mark.parametrize(
    ("kind", "ref", "same"),
    [
        ("WorkflowTemplate", {"name": "w"}, True),
        ("ClusterWorkflowTemplate", {"name": "w", "clusterScope": True}, True),
        ("WorkflowTemplate", {"name": "w", "clusterScope": True}, False),
        ("Workflow", {"name": "w"}, False),
        ("WorkflowTemplate", {"name": "other"}, False),
    ],
)
def test_a_template_ref_counts_where_it_leads_back_into_the_object(kind, ref, same):
    first = {"name": "one", "templateRef": {**ref, "template": "leaf"}}
    use = {"name": "two", "template": "leaf", **argument("{{steps.one.hostNodeName}}")}
    found = uses(kind, workflow({"steps": [[first], [use]]}, LEAF, kind=kind))
    assert bool(found.templates) is same
    assert found.elsewhere == (() if same else ("spec.templates[0].steps[0][0]",))


JSON = st.recursive(
    st.none() | st.sampled_from(["", "steps", "hostNodeName", "{{steps.a.hostNodeName}}", "leaf", "w"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "template", "templateRef", "inline", "steps", "dag", "tasks", "when"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=3))
def test_no_shape_is_too_odd_to_be_read(templates):
    uses("Workflow", workflow(*templates))


# --- What is made of it -------------------------------------------------------------------------------


def stored(obj, namespace=None):
    verdict = review_object(obj["kind"], obj, None, "CREATE", namespace or {}, "enforce")
    assert verdict.errors == []
    return jsonpatch.apply_patch(obj, verdict.ops), verdict.warnings


def annotations(obj):
    return obj["spec"]["templates"][1].get("metadata", {}).get("annotations", {})


USED = steps(template="other", **argument("{{steps.one-a.hostNodeName}}"))
FLAT = {names.KEY: "k", names.CACHE: "c", names.MAX_AGE: "1h"}


def flat(**more):
    return {"name": "leaf", "container": {}, "metadata": {"annotations": {**FLAT, **more}}}


@pytest.mark.parametrize("leaf", [LEAF, flat()], ids=["block", "annotations"])
def test_a_memoized_template_whose_node_is_used_is_never_gated_and_the_author_is_told(leaf):
    after, warnings = stored(workflow(USED, leaf, metadata=ON))
    assert annotations(after)[names.GATED] == "false"
    assert [w.partition(": ")[2] for w in warnings] == [
        "steps.one-a.hostNodeName is used: a hit is answered inside its Pod"
    ]
    assert stored(after)[0] == after
    assert len(stored(after)[1]) == 1


def test_a_key_of_the_authors_is_still_not_opted_in_by_us():
    after, _ = stored(workflow(USED, flat()))
    assert annotations(after)[names.GATED] == "false"
    assert names.MANAGED not in annotations(after), "on a Pod it would outweigh the Namespace's word"


@pytest.mark.parametrize("labels", [{names.MEMOIZE: "false"}, None], ids=["opted out", "not known"])
def test_a_key_that_a_calling_workflow_may_still_opt_in_gets_the_mark(labels):
    """On a Pod the Workflow's word counts before the Namespace's."""
    obj = {**workflow(USED, flat()), "kind": "WorkflowTemplate"}
    verdict = review_object("WorkflowTemplate", obj, None, "CREATE", labels, "enforce")
    assert annotations(jsonpatch.apply_patch(obj, verdict.ops))[names.GATED] == "false"
    obj["metadata"] = {"annotations": {names.MEMOIZE: "false"}}
    verdict = review_object("WorkflowTemplate", obj, None, "CREATE", labels, "enforce")
    assert names.GATED not in annotations(jsonpatch.apply_patch(obj, verdict.ops))


def test_the_mark_goes_with_the_use_and_with_the_opt_in():
    after, _ = stored(workflow(USED, flat()))
    after["spec"]["templates"][0] = steps(template="other")
    assert stored(after)[0]["spec"]["templates"][1] == flat()
    after, _ = stored(workflow(USED, LEAF, metadata=ON))
    after["metadata"] = {"name": "w"}
    back = stored(after)[0]["spec"]["templates"][1]
    assert "metadata" not in back
    assert back["memoize"]["key"] == "k"


def test_the_mark_of_an_inline_template_goes_with_the_use():
    first = {"name": "one", "inline": flat()}
    use = {"name": "two", "template": "other", **argument("{{steps.one.hostNodeName}}")}
    after, _ = stored(workflow({"steps": [[first], [use]]}))
    assert after["spec"]["templates"][0]["steps"][0][0]["inline"] != flat()
    del after["spec"]["templates"][0]["steps"][1]
    assert stored(after)[0]["spec"]["templates"][0]["steps"][0][0]["inline"] == flat()


@pytest.mark.parametrize("word", ["false", "true", "{{workflow.parameters.gate}}"])
def test_the_authors_own_word_is_left_and_one_that_cannot_work_is_told(word):
    obj = workflow(USED, flat(**{names.GATED: word}))
    after, warnings = stored(obj)
    assert after == obj
    told = ['steps.one-a.hostNodeName is used: stepmemo.dev/gate must be "false"']
    assert [w.partition(": ")[2] for w in warnings] == (told if word == "true" else [])


def test_a_word_that_an_author_put_in_place_of_ours_stays():
    after, _ = stored(workflow(USED, flat()))
    annotations(after)[names.GATED] = "true"
    assert annotations(stored(after)[0]) == {**FLAT, names.GATED: "true"}


def test_a_word_that_is_none_is_an_error():
    verdict = review_object("Workflow", workflow(flat(**{names.GATED: "no"})), None, "CREATE", {}, "enforce")
    (error,) = verdict.errors
    assert error.field == "spec.templates[0].metadata.annotations[stepmemo.dev/gate]"


@pytest.mark.parametrize(
    "leaf",
    [{**LEAF, "daemon": True}, {"name": "leaf", "container": {}}, flat(**{names.MEMOIZE: "false"})],
    ids=["daemon", "not memoized", "opted out"],
)
def test_a_template_that_is_never_answered_needs_no_mark(leaf):
    assert names.GATED not in annotations(stored(workflow(USED, leaf, metadata=ON))[0])


def test_a_template_behind_a_template_ref_is_told_of():
    call = {"name": "one", "templateRef": {"name": "l", "template": "t"}}
    main = {"steps": [[call], [{"name": "two", "template": "x", **argument("{{steps.one.hostNodeName}}")}]]}
    told = [
        "spec.templates[0].steps[0][0]: its hostNodeName is used: "
        'if memoized, it needs stepmemo.dev/gate: "false"'
    ]
    assert stored(workflow(main, flat()))[1] == told
    assert stored(workflow(main))[1] == [], "nobody here uses stepmemo"
