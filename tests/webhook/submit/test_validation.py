import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo.fields import Kind
from memoize import names
from memoize.reasons import Reason
from webhook.submit.verdict import review_object

CACHE = {"configMap": {"name": "results"}}
BLOCK = {"key": "k", "cache": CACHE}
BAD = {"key": "k", "cache": CACHE, "maxAge": "1x"}


def template(memoize=None, **fields):
    block = {} if memoize is None else {"memoize": memoize}
    return {"name": "t", "container": {"image": "busybox"}, **block, **fields}


def workflow(*templates, kind="Workflow", metadata=None, **spec):
    spec = {"templates": list(templates), **spec}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "w", **(metadata or {})},
        "spec": {"schedule": "* * * * *", "workflowSpec": spec} if kind == "CronWorkflow" else spec,
    }


def judge(obj, old=None, operation="CREATE", labels=None, validate="enforce"):
    return review_object(obj["kind"], obj, old, operation, labels, validate)


def told(verdict):
    return [(error.field, error.kind) for error in verdict.errors]


def inputs(*parameter_names):
    return {"parameters": [{"name": name} for name in parameter_names]}


# --- Where blocks are found ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (workflow(template(), template(BAD)), "spec.templates[1].memoize.maxAge"),
        (workflow(template(), templateDefaults={"memoize": BAD}), "spec.templateDefaults.memoize.maxAge"),
        (
            workflow({"name": "s", "steps": [[{"name": "a"}], [{"name": "b", "inline": template(BAD)}]]}),
            "spec.templates[0].steps[1][0].inline.memoize.maxAge",
        ),
        (
            workflow({"name": "d", "dag": {"tasks": [{"name": "a", "inline": template(BAD)}]}}),
            "spec.templates[0].dag.tasks[0].inline.memoize.maxAge",
        ),
        (
            workflow(
                {"steps": [[{"inline": {"dag": {"tasks": [{"inline": template(BAD)}]}}}]]},
            ),
            "spec.templates[0].steps[0][0].inline.dag.tasks[0].inline.memoize.maxAge",
        ),
        (workflow(template(BAD), kind="WorkflowTemplate"), "spec.templates[0].memoize.maxAge"),
        (workflow(template(BAD), kind="ClusterWorkflowTemplate"), "spec.templates[0].memoize.maxAge"),
        (workflow(template(BAD), kind="CronWorkflow"), "spec.workflowSpec.templates[0].memoize.maxAge"),
        (
            workflow(template(metadata={"annotations": {names.KEY: "k", names.CACHE: "A"}})),
            "spec.templates[0].metadata.annotations[stepmemo.dev/cache]",
        ),
    ],
)
def test_a_mistake_is_found_wherever_a_block_can_be(obj, field):
    verdict = judge(obj)
    assert verdict.reason is Reason.INVALID_MEMOIZE
    assert [error.field for error in verdict.errors] == [field]
    assert verdict.ops == []


def test_every_mistake_of_every_template_is_told_at_once():
    verdict = judge(workflow(template({}), template(BAD), templateDefaults={"memoize": {"key": 1}}))
    assert told(verdict) == [
        ("spec.templateDefaults.memoize.key", Kind.TYPE_INVALID),
        ("spec.templateDefaults.memoize.cache.configMap.name", Kind.REQUIRED),
        ("spec.templates[0].memoize.key", Kind.REQUIRED),
        ("spec.templates[0].memoize.cache.configMap.name", Kind.REQUIRED),
        ("spec.templates[1].memoize.maxAge", Kind.INVALID),
    ]


def test_a_missing_input_is_told_beside_other_mistakes_of_the_same_block():
    block = {"key": "{{inputs.parameters.x}}", "maxAge": "{{inputs.parameters.y}}d {{", "cache": CACHE}
    assert told(judge(workflow(template(block)))) == [
        ("spec.templates[0].memoize.maxAge", Kind.INVALID),
        ("spec.templates[0].memoize.key", Kind.INVALID),
        ("spec.templates[0].memoize.maxAge", Kind.INVALID),
    ]


# --- Inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "{{inputs.parameters.x}}",
        "{{ inputs.parameters.x }}",
        "{{=inputs.parameters.x}}",
        "{{=inputs.parameters['x'] + inputs.parameters.x.y}}",
        "{{inputs.parameters}}",
        "{{=inputs.parameters.absent ?? 'none'}}",
        "{{=toJson(inputs.parameters)}}",
        "{{inputs.parameters.{{workflow.parameters.which}}}}",
        "{{inputs.artifacts.a.path}}",
        "{{workflow.parameters.absent}}-{{steps.name}}-{{item.a}}-{{pod.name}}-{{lastRetry.status}}",
    ],
)
def test_tags_that_can_work_at_run_time_are_admitted(key):
    obj = workflow(template({"key": key, "cache": CACHE}, inputs=inputs("x")))
    assert judge(obj).errors == []


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        ("{{inputs.parameters.messag}}", "names no input parameter of this template: did you mean message?"),
        (
            "{{inputs.parameters.message.x}}",
            "names no input parameter of this template: did you mean message?",
        ),
        (
            "{{=inputs.parameters['messag']}}",
            "names no input parameter of this template: did you mean message?",
        ),
        (
            "{{inputs.parameters.wholly-else}}",
            "names no input parameter of this template: only message are known",
        ),
        ("{{inputs.parameter.message}}", "did you mean parameters?"),
    ],
)
def test_a_tag_for_an_input_that_is_not_there_is_denied(key, detail):
    (error,) = judge(workflow(template({"key": key, "cache": CACHE}, inputs=inputs("message")))).errors
    assert error.field == "spec.templates[0].memoize.key"
    assert detail in error.message


def test_a_template_without_inputs_is_said_to_have_none():
    (error,) = judge(workflow(template({"key": "{{inputs.parameters.x}}", "cache": CACHE}))).errors
    assert error.detail == "{{inputs.parameters.x}} names no input parameter of this template: it has none"


def test_template_defaults_give_inputs_and_have_none_to_be_checked_against():
    block = {"key": "{{inputs.parameters.x}}", "cache": CACHE}
    obj = workflow(template(block), templateDefaults={"inputs": inputs("x")})
    assert judge(obj).errors == []
    assert judge(workflow(template(), templateDefaults={"memoize": block})).errors == []


def test_an_inline_template_knows_its_own_inputs_and_those_around_it():
    def nested(key):
        inline = template({"key": key, "cache": CACHE}, inputs=inputs("inner"))
        return workflow(
            {"name": "s", "inputs": inputs("outer"), "steps": [[{"name": "a", "inline": inline}]]}
        )

    assert judge(nested("{{inputs.parameters.inner}}-{{inputs.parameters.outer}}")).errors == []
    assert told(judge(nested("{{inputs.parameters.other}}"))) == [
        ("spec.templates[0].steps[0][0].inline.memoize.key", Kind.INVALID)
    ]


# --- Annotations and words ----------------------------------------------------------------------------


def test_a_block_and_annotations_that_contradict_it_are_denied():
    annotations = {names.KEY: "other", names.CACHE: "results", names.MAX_AGE: "1h"}
    verdict = judge(workflow(template(BLOCK, metadata={"annotations": annotations})))
    assert [str(error) for error in verdict.errors] == [
        'spec.templates[0].metadata.annotations[stepmemo.dev/key]: Invalid value: "other": '
        "contradicts spec.templates[0].memoize.key: keep one of the two",
        'spec.templates[0].metadata.annotations[stepmemo.dev/max-age]: Invalid value: "1h": '
        "contradicts spec.templates[0].memoize.maxAge: keep one of the two",
    ]


def test_a_block_and_annotations_that_agree_are_admitted():
    annotations = {names.KEY: "k", names.CACHE: "results", names.MAX_AGE: ""}
    assert judge(workflow(template(BLOCK, metadata={"annotations": annotations}))).errors == []


def test_annotations_of_a_template_are_judged_with_those_of_template_defaults_under_them():
    obj = workflow(
        template(metadata={"annotations": {names.KEY: "k"}}),
        templateDefaults={"metadata": {"annotations": {names.CACHE: "results"}}},
    )
    assert judge(obj).errors == []


@pytest.mark.parametrize(
    ("obj", "field", "kind"),
    [
        (
            workflow(metadata={"annotations": {names.MEMOIZE: "yes"}}),
            "metadata.annotations[stepmemo.dev/memoize]",
            Kind.NOT_SUPPORTED,
        ),
        (
            workflow(metadata={"labels": {names.MODE: "on"}}),
            "metadata.labels[stepmemo.dev/mode]",
            Kind.NOT_SUPPORTED,
        ),
        (
            workflow(template(metadata={"annotations": {names.MEMOIZE: True}})),
            "spec.templates[0].metadata.annotations[stepmemo.dev/memoize]",
            Kind.TYPE_INVALID,
        ),
        (
            {"kind": "CronWorkflow", "spec": {"workflowMetadata": {"labels": {names.MEMOIZE: "on"}}}},
            "spec.workflowMetadata.labels[stepmemo.dev/memoize]",
            Kind.NOT_SUPPORTED,
        ),
    ],
)
def test_a_word_that_means_nothing_is_denied(obj, field, kind):
    assert told(judge(obj)) == [(field, kind)]


def test_a_word_on_a_template_may_hold_tags():
    annotations = {
        names.MEMOIZE: "{{workflow.parameters.memoize}}",
        names.MODE: "{{workflow.parameters.mode}}",
    }
    assert judge(workflow(template(metadata={"annotations": annotations}))).errors == []


# --- How strict ---------------------------------------------------------------------------------------


def test_warn_admits_and_tells_the_errors_as_warnings():
    verdict = judge(workflow(template(BAD)), validate="warn")
    assert verdict.reason is Reason.INVALID_MEMOIZE
    assert verdict.errors == []
    assert verdict.warnings == [
        "spec.templates[0].memoize.maxAge: Invalid value: \"1x\": has the unknown unit 'x': "
        "use h, m, s, ms, us or ns"
    ]


def test_off_says_nothing():
    verdict = judge(workflow(template(BAD), template({**BLOCK, "maxAge": "0s"})), validate="off")
    assert (verdict.errors, verdict.warnings) == ([], [])


@pytest.mark.parametrize("validate", ["warn", "off"])
def test_sound_blocks_are_taken_over_beside_broken_ones(validate):
    obj = workflow(template(BAD), template(BLOCK), metadata={"labels": {names.MEMOIZE: "true"}})
    verdict = judge(obj, validate=validate)
    assert {op["path"].rpartition("/")[0] for op in verdict.ops} == {"/spec/templates/1"}


@pytest.mark.parametrize(
    ("label", "server", "denied"),
    [
        ("off", "enforce", False),
        ("warn", "enforce", False),
        ("enforce", "off", True),
        ("nonsense", "enforce", True),
        ("nonsense", "off", False),
        (None, "warn", False),
    ],
)
def test_the_namespace_overrules_the_server(label, server, denied):
    labels = {} if label is None else {names.VALIDATE: label}
    assert bool(judge(workflow(template(BAD)), labels=labels, validate=server).errors) is denied


# --- Updates ------------------------------------------------------------------------------------------


def test_an_update_of_the_status_alone_is_not_judged():
    obj = workflow(template(BAD), kind="WorkflowTemplate")
    new = copy.deepcopy(obj) | {"status": {"x": 1}}
    new["metadata"] |= {"resourceVersion": "2", "annotations": {"workflows.argoproj.io/x": "y"}}
    assert judge(new, old=obj, operation="UPDATE").reason is Reason.UNCHANGED


def test_an_update_of_the_spec_is_judged():
    new = workflow(template(BAD), kind="WorkflowTemplate")
    assert judge(new, old=workflow(template(), kind="WorkflowTemplate"), operation="UPDATE").errors
    assert judge(new, old=None, operation="UPDATE").errors


@pytest.mark.parametrize("field", ["annotations", "labels"])
@pytest.mark.parametrize("name", [names.MEMOIZE, names.MODE])
def test_an_update_of_the_opt_in_metadata_is_judged(field, name):
    old = workflow(template(BAD), kind="WorkflowTemplate")
    word = "true" if name == names.MEMOIZE else "off"
    new = workflow(template(BAD), kind="WorkflowTemplate", metadata={field: {name: word}})
    assert judge(new, old=old, operation="UPDATE").errors


def test_an_update_of_what_a_cron_workflow_gives_its_runs_is_judged():
    old = workflow(template(BAD), kind="CronWorkflow")
    new = copy.deepcopy(old)
    new["spec"]["workflowMetadata"] = {"labels": {names.MEMOIZE: "true"}}
    assert judge(new, old=old, operation="UPDATE").errors


def test_an_object_that_is_being_deleted_is_not_judged():
    new = workflow(template(BAD), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert judge(new, old=workflow(template()), operation="UPDATE").reason is Reason.UNCHANGED


def test_a_cron_workflow_with_a_bad_block_can_still_be_suspended():
    old = workflow(template(BAD), kind="CronWorkflow")
    new = copy.deepcopy(old)
    new["spec"]["suspend"] = True
    assert judge(new, old=old, operation="UPDATE").reason is Reason.UNCHANGED
    new["spec"]["workflowSpec"]["entrypoint"] = "t"
    assert judge(new, old=old, operation="UPDATE").errors


# --- The rest -----------------------------------------------------------------------------------------


def test_what_does_not_concern_us_is_said_so():
    verdict = judge(workflow(template()), labels={names.MEMOIZE: "true"})
    assert verdict.reason is Reason.NOT_MEMOIZED
    assert (verdict.errors, verdict.warnings, verdict.ops) == ([], [], [])


def test_a_sound_block_is_accepted():
    assert judge(workflow(template(BLOCK))).reason is Reason.ACCEPTED


FIELDS = (
    *("metadata", "annotations", "labels", "spec", "workflowSpec", "templates", "templateDefaults", "steps"),
    *("dag", "tasks", "inline", "inputs", "outputs", "parameters", "artifacts", "name", "memoize", "key"),
    *("cache", "configMap", "maxAge", "container", "artifactGC", "strategy", "workflowMetadata", "daemon"),
    *(names.KEY, names.CACHE, names.MAX_AGE, names.MEMOIZE, names.MODE, names.MANAGED),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "true", "k", "1h", "{{item}}", "{{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=30,
)


@given(ANYTHING, ANYTHING, st.sampled_from(["Workflow", "ClusterWorkflowTemplate", "CronWorkflow"]))
def test_no_shape_of_an_object_is_too_much(spec, metadata, kind):
    obj = {"kind": kind, "metadata": metadata, "spec": spec}
    assert judge(obj).reason in Reason
    nested = {
        "kind": kind,
        "metadata": {"annotations": metadata},
        "spec": {"templates": [spec, {"memoize": spec}]},
    }
    for labels in (None, {names.MEMOIZE: "true"}):
        assert judge(nested, labels=labels).reason in Reason
