import sys
from types import FrameType

import pytest

from argo import tags
from memoize import names
from webhook.submit.verdict import review_object

CACHE = {"configMap": {"name": "results"}}


def warnings(template, kind="Workflow", metadata=None, **spec):
    obj = {"kind": kind, "metadata": metadata or {}, "spec": {"templates": [template], **spec}}
    verdict = review_object(kind, obj, None, "CREATE", {}, "enforce")
    assert verdict.errors == []
    return verdict.warnings


def template(key="k", parameters=(), artifacts=(), max_age=None, type_="container", **fields):
    block = {"key": key, "cache": CACHE} | ({} if max_age is None else {"maxAge": max_age})
    inputs = {"parameters": [{"name": name} for name in parameters], "artifacts": list(artifacts)}
    return {"name": "t", type_: {"x": 1}, "memoize": block, "inputs": inputs, **fields}


def test_a_key_with_every_input_and_a_max_age_is_no_reason_to_warn():
    assert warnings(template("{{inputs.parameters.a}}-{{=inputs.parameters.b}}", "ab", max_age="1h")) == []
    assert warnings(template("constant")) == []


def test_a_constant_key_though_there_are_inputs():
    assert warnings(template("k", "ab")) == [
        "spec.templates[0].memoize.key: is constant, though the template has inputs: a, b"
    ]


def test_inputs_that_the_key_does_not_mention():
    assert warnings(template("{{inputs.parameters.a}}", "abcde", artifacts=[{"name": "data"}])) == [
        "spec.templates[0].memoize.key: inputs missing from the key: b, c, d and 2 more"
    ]


def test_an_artifact_that_the_template_itself_locates_is_no_input():
    artifacts = [{"name": "code", "raw": {"data": "x"}}, {"name": "data", "optional": True}]
    assert warnings(template("{{inputs.parameters.a}}", "a", artifacts=artifacts)) == [
        "spec.templates[0].memoize.key: inputs missing from the key: artifact data"
    ]


@pytest.mark.parametrize(
    "key",
    [
        "{{inputs.parameters}}",
        "{{=sprig.sha256sum(toJson(inputs.parameters))}}",
        "{{=toJson(inputs)}}",
        "{{=inputs.parameters[workflow.parameters.which]}}",
        "{{=join(map(['a'], {inputs.parameters[#]}), '-')}}",
        "{{inputs.parameters.{{workflow.parameters.which}}}}",
    ],
)
def test_a_key_that_may_mention_every_input_is_trusted(key):
    assert warnings(template(key, "ab")) == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "workflow.uid",
            "workflow.name",
            "workflow.creationTimestamp",
            "workflow.creationTimestamp.RFC3339",
        ),
        *("workflow.scheduledTime", "pod.name", "node.name", "retries", "lastRetry.exitCode"),
        *("steps.a.startedAt", "tasks.a.id"),
    ],
)
def test_a_key_that_differs_in_every_run(name):
    expected = [f"spec.templates[0].memoize.key: {name} differs in every run: the key never comes back"]
    assert warnings(template("{{" + name + "}}")) == expected
    assert warnings(template("{{=string(" + name + ")}}")) == expected


@pytest.mark.parametrize("call", ["now()", "sprig.now()", "sprig.uuidv4()", "sprig.randAlphaNum(5)"])
def test_a_key_from_a_clock_or_a_die(call):
    name = call.partition("(")[0]
    assert warnings(template("{{=" + call + "}}")) == [
        f"spec.templates[0].memoize.key: {name} differs in every run: the key never comes back"
    ]


def test_a_key_that_changes_by_the_day_is_meant_so():
    assert warnings(template("{{workflow.creationTimestamp.Y}}-{{workflow.creationTimestamp.d}}")) == []


HASH_IT = "spec.templates[0].memoize.key: a value that holds {{ is no key: hash it, {{=sprig.sha256sum(…)}}"


@pytest.mark.parametrize(
    ("key", "value", "warned"),
    [
        ("{{workflow.parameters.p}}", "{{ .Values.x }}", True),
        ("{{workflow.parameters.p}}", "{{ name", True),
        ("{{=workflow.parameters['p']}}", "hello {{name}}", True),
        ("{{=sprig.sha256sum(workflow.parameters.p)}}", "hello {{name}}", False),
        ("{{workflow.parameters.p}}", "{{workflow.name}}", False),
        ("{{workflow.parameters.other}}", "{{name}}", False),
    ],
)
def test_a_value_in_braces_that_argo_never_resolves(key, value, warned):
    found = warnings(template(key), arguments={"parameters": [{"name": "p", "value": value}]})
    assert [w for w in found if "differs" not in w] == ([HASH_IT] if warned else [])


def test_a_default_of_an_input_in_braces_that_argo_never_resolves():
    inputs = {"parameters": [{"name": "p", "default": "{{ name }}"}]}
    assert warnings(template("{{inputs.parameters.p}}", inputs=inputs)) == [HASH_IT]


@pytest.mark.parametrize("max_age", ["0", "0s", "-1h"])
def test_a_max_age_that_is_never_a_hit(max_age):
    assert warnings(template(max_age=max_age)) == [
        f'spec.templates[0].memoize: maxAge {max_age} never hits: use stepmemo.dev/mode: "refresh"'
    ]


@pytest.mark.parametrize("type_", ["steps", "dag", "http", "plugin", "suspend"])
def test_templates_without_a_pod_of_their_own_are_left_to_argo(type_):
    assert warnings(template(type_=type_)) == [
        f"spec.templates[0].memoize: memoize on a {type_} template is left to Argo's controller"
    ]


@pytest.mark.parametrize("type_", ["steps", "dag", "http", "plugin"])
def test_argos_own_hit_hangs_a_dag_that_goes_on_after_a_step_with_retries(type_):
    expected = [
        "spec.templates[0].memoize: left to Argo's controller,"
        " whose hit with a retryStrategy hangs a DAG behind it"
    ]
    assert warnings(template(type_=type_, retryStrategy={"limit": 2})) == expected
    assert warnings(template(type_=type_), templateDefaults={"retryStrategy": {}}) == expected


OPTED_IN = {"labels": {names.MEMOIZE: "true"}}


def test_the_block_of_a_daemon_is_taken_away_or_hangs_the_workflow():
    for fields, spec in (({"daemon": True}, {}), ({}, {"templateDefaults": {"daemon": True}})):
        assert warnings(template(**fields), metadata=OPTED_IN, **spec) == [
            "spec.templates[0].memoize: memoize on a daemon template is taken away: it always runs"
        ]
        assert warnings(template(**fields), **spec) == [
            "spec.templates[0].memoize: left to Argo's controller, whose hit on a daemon hangs the workflow"
        ]


DEFAULTS = {"memoize": {"key": "k", "cache": CACHE}}


def test_a_default_block_that_stays_with_argo_keeps_the_blocks_of_opted_in_templates():
    own = {"metadata": {"annotations": {names.MEMOIZE: "true"}}}
    assert warnings(template(**own), templateDefaults=DEFAULTS) == [
        "spec.templateDefaults.memoize: left to Argo's controller, and with it every block of this spec"
    ]
    assert warnings(template(**own), metadata=OPTED_IN, templateDefaults=DEFAULTS) == []
    assert warnings(template(), templateDefaults=DEFAULTS) == []


@pytest.mark.parametrize(
    "call",
    [
        {"steps": [[{"name": "a", "templateRef": {"name": "l", "template": "t"}}]]},
        {"dag": {"tasks": [{"name": "a", "templateRef": {"name": "l", "template": "t"}}]}},
        {"steps": [[{"name": "a", "hooks": {"exit": {"templateRef": {"name": "l", "template": "t"}}}}]]},
    ],
)
def test_a_default_block_takes_over_what_is_called_by_a_template_ref(call):
    expected = [
        "spec.templateDefaults.memoize: Argo uses it for opted-in templates of a templateRef too: opt in here"
    ]
    assert warnings(call, templateDefaults=DEFAULTS) == expected
    assert warnings(call, metadata=OPTED_IN, templateDefaults=DEFAULTS) == []
    spec = {"workflowTemplateRef": {"name": "l"}, "templateDefaults": DEFAULTS}
    assert warnings({"steps": []}, **spec) == expected


def test_annotations_on_a_template_without_a_pod_have_no_effect():
    annotations = {names.KEY: "k", names.CACHE: "results"}
    assert warnings({"dag": {"tasks": []}, "metadata": {"annotations": annotations}}) == [
        "spec.templates[0].metadata.annotations[stepmemo.dev/key]: has no effect on a dag template"
    ]


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        ({"setOwnerReference": True}, "setOwnerReference"),
        ({"manifest": "{uid: '{{ workflow.uid }}'}"}, "workflow.uid in its manifest"),
        ({"manifest": "{{=workflow['uid']}}"}, "workflow.uid in its manifest"),
    ],
)
def test_a_resource_that_goes_with_its_workflow(resource, why):
    own = template()
    del own["container"]
    said = [f"spec.templates[0].memoize: is not stored: the resource goes with its workflow ({why})"]
    assert warnings({**own, "resource": resource}, metadata=OPTED_IN) == said
    inherited = {"templateDefaults": {"resource": resource}}
    assert warnings({**own, "resource": {"action": "create"}}, metadata=OPTED_IN, **inherited) == said
    assert warnings({**own, "resource": resource}) == [
        f"spec.templates[0].memoize: Argo's own hit names a resource that went with its workflow ({why})"
    ]


def test_a_resource_of_its_own_takes_the_place_of_the_default_one_field_by_field():
    inherited = {
        "templateDefaults": {"resource": {"manifest": "{{workflow.uid}}", "setOwnerReference": True}}
    }
    own = template(type_="resource")
    said = []
    for resource in (
        {"manifest": "x"},
        {"setOwnerReference": False},
        {"manifest": "", "setOwnerReference": False},
    ):
        said += warnings({**own, "resource": resource}, metadata=OPTED_IN, **inherited)
    where = "spec.templates[0].memoize"
    assert said == [
        f"{where}: is not stored: the resource goes with its workflow (setOwnerReference)",
        f"{where}: is not stored: the resource goes with its workflow (workflow.uid in its manifest)",
        f"{where}: the resource's side effect will not happen on a hit",
    ]


def test_a_default_manifest_is_read_once_however_many_templates_inherit_it():
    own = template(type_="resource")
    templates = [{**own, "name": f"t{i}", "resource": {"action": "create"}} for i in range(20)]
    manifest = "{{workflow.name}}" * 300
    defaults = {"resource": {"manifest": manifest}}
    obj = {"metadata": OPTED_IN, "spec": {"templateDefaults": defaults, "templates": templates}}
    read = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is tags.find.__code__:
            read.append(frame.f_locals["text"])

    sys.setprofile(note)
    try:
        verdict = review_object("Workflow", obj, None, "CREATE", {}, "enforce")
    finally:
        sys.setprofile(None)
    assert len(verdict.warnings) == len(templates)
    assert read.count(manifest) == 1


def test_a_resource_whose_side_effect_will_not_happen():
    assert warnings(template(type_="resource")) == [
        "spec.templates[0].memoize: the resource's side effect will not happen on a hit"
    ]


@pytest.mark.parametrize(
    ("spec", "artifact", "warned"),
    [
        ("OnWorkflowDeletion", {}, True),
        ("Never", {}, False),
        (None, {}, False),
        (None, {"artifactGC": {"strategy": "OnWorkflowCompletion"}}, True),
        ("OnWorkflowDeletion", {"artifactGC": {"strategy": "Never"}}, False),
        ("OnWorkflowDeletion", {"artifactGC": {"strategy": ""}}, True),
    ],
)
def test_artifacts_that_argo_will_delete(spec, artifact, warned):
    outputs = {"artifacts": [{"name": "report", "path": "/r", **artifact}]}
    artifact_gc = {} if spec is None else {"artifactGC": {"strategy": spec}}
    expected = ["spec.templates[0].memoize: artifactGC will delete what the cache points to: report"]
    assert warnings(template(outputs=outputs), **artifact_gc) == (expected if warned else [])


@pytest.mark.parametrize("key", ["a/b", "-{{item}}", "{{item}}_1", "{{item}} "])
def test_a_key_that_argo_itself_would_fail_on_where_nobody_opted_in(key):
    assert warnings(template(key)) == [
        "spec.templates[0].memoize.key: without opt-in Argo takes letters, digits and '-' only"
    ]
    assert warnings(template(key), metadata={"labels": {names.MEMOIZE: "true"}}) == []


def test_an_annotation_of_ours_that_does_not_exist():
    annotations = {names.KEY: "k", names.CACHE: "results", f"{names.DOMAIN}/maxage": "1h"}
    (warning,) = warnings({"container": {}, "metadata": {"annotations": annotations}})
    assert warning.endswith(
        ".annotations[stepmemo.dev/maxage]: is not known here: did you mean stepmemo.dev/max-age?"
    )


def test_words_on_a_cron_workflow_do_not_reach_its_runs():
    obj = {"metadata": {"annotations": {names.MEMOIZE: "true"}}, "spec": {}}
    assert review_object("CronWorkflow", obj, None, "CREATE", {}, "enforce").warnings == [
        "metadata.annotations[stepmemo.dev/memoize]: does not reach a CronWorkflow's runs: "
        "use spec.workflowMetadata"
    ]


def test_no_warning_is_longer_than_kubectl_shows_and_each_keeps_the_end_of_its_path():
    inner = template(
        "{{inputs.parameters." + "a" * 100 + "}}-{{workflow.uid}}/",
        ["a" * 100, "b" * 100, "c" * 100],
        max_age="-" + "1h" * 100,
        outputs={"artifacts": [{"name": "d" * 100, "artifactGC": {"strategy": "OnWorkflowDeletion"}}]},
        metadata={"annotations": {f"{names.DOMAIN}/{'x' * 60}": "y"}},
    )
    for _ in range(12):
        inner = {"steps": [[{"inline": inner}]]}
    found = warnings(inner)
    assert len(found) == 6
    assert max(map(len, found)) <= 120
    assert all(warning.startswith("…") for warning in found)
    assert sum("inline.memoize" in warning for warning in found) == 5
