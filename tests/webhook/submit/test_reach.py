import pytest

from argo.fields import Kind
from memoize import names
from webhook.submit.verdict import review_object

BLOCK = {"key": "k", "maxAge": "1h", "cache": {"configMap": {"name": "c"}}}
STEP = {"name": "step", "container": {"image": "x"}, "memoize": BLOCK}
TRUE, FALSE = {names.MEMOIZE: "true"}, {names.MEMOIZE: "false"}
KINDS = ["Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"]


def verdict(kind="Workflow", metadata=None, of_runs=None, templates=(STEP,), **spec):
    spec = {"templates": list(templates), **spec}
    whole = {"workflowSpec": spec, **({"workflowMetadata": of_runs} if of_runs else {})}
    obj = {"kind": kind, "metadata": metadata or {}, "spec": whole if kind == "CronWorkflow" else spec}
    return review_object(kind, obj, None, "CREATE", {}, "enforce")


def warnings(*args, **of):
    found = verdict(*args, **of)
    assert found.errors == []
    return found.warnings


def texts(*args, **of):
    return [warning.partition(": ")[2] for warning in warnings(*args, **of)]


# --- Metadata of the object ---------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["annotations", "labels"])
@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("Workflow", names.MEMOIZE, None),
        ("Workflow", names.MODE, None),
        ("WorkflowTemplate", names.MEMOIZE, None),
        ("WorkflowTemplate", names.MODE, "counts on a Workflow or a template, not here"),
        ("ClusterWorkflowTemplate", names.MODE, "counts on a Workflow or a template, not here"),
        ("CronWorkflow", names.MODE, "does not reach a CronWorkflow's runs: use spec.workflowMetadata"),
        ("Workflow", names.KEY, "counts on a template, not here"),
        ("Workflow", names.GATED, "counts on a template, not here"),
        ("Workflow", names.VALIDATE, "counts on a Namespace, as a label"),
        ("Workflow", f"{names.DOMAIN}/memoise", "is not known here: did you mean stepmemo.dev/memoize?"),
        ("Workflow", "example.com/memoize", None),
    ],
)
def test_words_in_an_objects_metadata(kind, name, text, field):
    word = {names.MODE: "refresh"}.get(name, "true")
    path = f"metadata.{field}[{name}]: "
    assert warnings(kind, {field: {name: word}}) == ([path + text] if text else [])


def test_words_for_a_cron_workflows_runs_count_where_they_are_handed_on():
    assert warnings("CronWorkflow", of_runs={"labels": {**TRUE, names.MODE: "use"}}) == []
    assert texts("CronWorkflow", of_runs={"labels": {names.KEY: "k"}}) == ["counts on a template, not here"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["annotations", "labels", "labelsFrom"])
def test_workflow_metadata_in_a_spec_comes_too_late(kind, field):
    word = {names.MEMOIZE: {"expression": "'true'"} if field == "labelsFrom" else "true"}
    (text,) = texts(kind, workflowMetadata={field: word})
    use = "spec.workflowMetadata" if kind == "CronWorkflow" else "metadata"
    assert text == f"is written after the first Pods are made: use {use}"


# --- podMetadata --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "words", "warned"),
    [
        ("annotations", TRUE, True),
        ("annotations", FALSE, False),
        ("annotations", {names.KEY: "k", names.CACHE: "c"}, True),
        ("annotations", {names.MODE: "refresh", names.SINGLE_FLIGHT: "false", names.GATED: "false"}, False),
        ("annotations", {names.MODE: "{{workflow.parameters.mode}}"}, False),
        ("labels", {names.MODE: "refresh"}, True),
        ("labels", FALSE, True),
    ],
)
def test_words_in_pod_metadata_that_come_too_late_for_a_block_are_told_once(field, words, warned):
    told = ["reaches Pods, and no memoize block: use metadata or the template's"]
    assert texts(podMetadata={field: words}) == (told if warned else [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["podMetadata", "workflowMetadata"])
@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_a_misspelt_word_is_an_error_there_too(kind, place, field):
    found = verdict(kind, **{place: {field: {names.MODE: "refesh"}}})
    path = "spec.workflowSpec" if kind == "CronWorkflow" else "spec"
    assert [(e.field, e.kind) for e in found.errors] == [
        (f"{path}.{place}.{field}[{names.MODE}]", Kind.NOT_SUPPORTED)
    ]


# --- Templates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [names.KEY, names.CACHE, names.MAX_AGE, names.MEMOIZE, names.MODE, names.SINGLE_FLIGHT, names.GATED],
)
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("steps", {"steps": []}),
        ("dag", {"dag": {}}),
        ("http", {"http": {}}),
        ("daemon", {"container": {}, "daemon": True}),
        ("typeless", {}),
    ],
)
def test_words_on_a_template_that_is_never_memoized(kind, fields, name):
    annotations = {names.CACHE: "c", names.KEY: "k"} if name == names.KEY else {name: "true"}
    annotations |= {names.MODE: "use"} if name == names.MODE else {}
    (warning,) = warnings(templates=[{"metadata": {"annotations": annotations}, **fields}])
    assert warning == f"spec.templates[0].metadata.annotations[{name}]: has no effect on a {kind} template"


def test_a_word_beside_a_block_on_such_a_template_is_what_the_block_is_told_of():
    for word in (TRUE, FALSE):
        template = {"steps": [], "memoize": BLOCK, "metadata": {"annotations": word}}
        assert texts(templates=[template]) == ["memoize on a steps template is left to Argo's controller"]


def test_words_of_template_defaults_are_for_the_templates_that_can_have_them():
    defaults = {"metadata": {"annotations": TRUE}}
    assert warnings(templates=[{"steps": []}, STEP], templateDefaults=defaults) == []


def test_labels_of_a_template_are_not_read():
    told = "spec.templates[0].metadata.labels[stepmemo.dev/memoize]: is read as an annotation, not as a label"
    assert warnings(templates=[{**STEP, "metadata": {"labels": TRUE}}]) == [told]


# --- Templates of other objects -----------------------------------------------------------------------

CALL = {"name": "main", "steps": [[{"name": "a", "templateRef": {"name": "l", "template": "t"}}]]}


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_a_workflow_made_from_a_template_cannot_opt_that_in_or_out(field):
    ref = {"templates": (), "workflowTemplateRef": {"name": "l"}}
    (warning,) = warnings(metadata={field: TRUE}, **ref)
    assert warning == (
        f"metadata.{field}[stepmemo.dev/memoize]: "
        "reaches no memoize block behind workflowTemplateRef: opt in there"
    )
    assert texts(metadata={field: FALSE}, **ref) == [
        'reaches no block of a workflowTemplateRef: use stepmemo.dev/mode: "off"'
    ]
    assert warnings(metadata={field: {names.MODE: "off"}}, **ref) == []
    told = ["reaches no memoize block behind workflowTemplateRef: opt in there"]
    assert texts("CronWorkflow", of_runs={field: TRUE}, **ref) == told


def test_a_word_is_told_of_template_refs_where_it_has_nothing_else_to_reach():
    told = ["reaches no memoize block behind a templateRef: opt in there"]
    assert texts(metadata={"labels": TRUE}, templates=[CALL]) == told
    assert texts("WorkflowTemplate", {"labels": TRUE}, templates=[CALL]) == told
    assert texts(metadata={"labels": TRUE}, templates=[CALL, STEP]) == []
    assert texts(metadata={"labels": FALSE}, templates=[CALL]) == []
    assert texts(templates=[CALL]) == []
