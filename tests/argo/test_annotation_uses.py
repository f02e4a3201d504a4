"""Which workflows have a value that changes with their annotations; doubt counts as one."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argo.annotation_uses import uses_annotations
from tests.work import calls

Json = dict[str, Any]

STEP = {"name": "s", "template": "leaf"}
WORKFLOW: Json = {
    "metadata": {"annotations": {"x": "{{workflow.annotations}}"}, "name": "wf"},
    "spec": {
        "entrypoint": "main",
        "workflowMetadata": {"annotations": {"a": "b"}},
        "arguments": {"parameters": [{"name": "p", "value": "{{workflow.name}}"}]},
        "templates": [
            {"name": "main", "steps": [[STEP]], "metadata": {"annotations": {"a": "{{workflow.uid}}"}}},
            {
                "name": "leaf",
                "script": {
                    "source": "{{=workflow.parameters.p}}",
                    "args": ["the workflow's {{workflow.labels.x}}"],
                },
                "outputs": {
                    "parameters": [{"name": "o", "valueFrom": {"expression": "workflow.status + 'x'"}}]
                },
            },
        ],
    },
    "status": {"nodes": {"wf": {"outputs": {"result": "{{workflow.annotations}}"}}}},
}
"""Uses none: what its own metadata, or a step's outputs, say is nobody's tag."""


def with_text(text: str, field: str = "source") -> Json:
    workflow = deepcopy(WORKFLOW)
    workflow["spec"]["templates"][1]["script"] = {field: text}
    return workflow


def test_a_workflow_without_such_a_value_uses_none() -> None:
    assert uses_annotations(WORKFLOW) is False
    assert uses_annotations({}) is False


@pytest.mark.parametrize(
    "text",
    [
        "{{workflow.annotations}}",
        "{{ workflow.annotations.json }}",
        "{{workflow.annotations.theirs}}",
        "{{=workflow.annotations}}",
        "{{= workflow . annotations }}",
        "{{=workflow?.annotations}}",
        "{{=workflow['annotations']}}",
        '{{=get(workflow, "annotations")}}',
        '{{=workflow["anno" + "tations"]}}',
        r'{{=workflow["\u0061nnotations"]}}',
        "{{=toJson(workflow)}}",
        "{{=let w = workflow; w.annotations}}",
        "{{=toJson($env)}}",
        "{{workflow.{{inputs.parameters.which}}}}",
        "{{ {{item}}.annotations }}",
    ],
)
def test_every_spelling_of_it_counts(text: str) -> None:
    assert uses_annotations(with_text(text)) is True
    assert uses_annotations(with_text(f'echo "{text}" {{{{workflow.name}}}}')) is True


@pytest.mark.parametrize("field", ["expression", "fromExpression"])
def test_fields_that_are_expressions_need_no_braces(field: str) -> None:
    assert uses_annotations(with_text("toJson(workflow) matches 'x'", field)) is True
    assert uses_annotations(with_text("workflow.parameters.p == 'x'", field)) is False


@pytest.mark.parametrize(
    "place",
    [
        {"arguments": {"parameters": [{"name": "p", "value": "{{workflow.annotations}}"}]}},
        {"hooks": {"exit": {"template": "leaf", "expression": "workflow.annotations.x == 'y'"}}},
        {"workflowMetadata": {"labelsFrom": {"l": {"expression": "workflow.annotations['x']"}}}},
        {"podMetadata": {"labels": {"{{workflow.annotations}}": "x"}}},
        {"podSpecPatch": '{"labels": "{{workflow.annotations.json}}"}'},
        {"templateDefaults": {"container": {"args": ["{{workflow.annotations}}"]}}},
        {"volumes": [{"name": "v", "emptyDir": {"medium": "{{workflow.annotations}}"}}]},
    ],
)
def test_it_is_found_anywhere_in_the_spec(place: Json) -> None:
    assert uses_annotations({**WORKFLOW, "spec": WORKFLOW["spec"] | place}) is True


@pytest.mark.parametrize("side", ["arguments", "inputs"])
def test_a_parameter_out_of_a_config_map_may_be_one_and_a_variable_of_a_container_is_none(side: str) -> None:
    ref = {"valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    of_argo = {"name": "t", side: {"parameters": [{"name": "p", **ref}]}}
    of_kubernetes = {"name": "t", "container": {"env": [{"name": "V", **ref}]}}
    assert uses_annotations({"spec": {"templates": [of_argo]}}) is True
    assert uses_annotations({"spec": {"templates": [of_kubernetes]}}) is False


def test_the_keys_of_an_artifact_repository_are_looked_into() -> None:
    def with_keys(key_format: str) -> Json:
        repository = {"s3": {"bucket": "b", "keyFormat": key_format}}
        return {"status": {"artifactRepositoryRef": {"default": True, "artifactRepository": repository}}}

    assert uses_annotations(with_keys("{{workflow.name}}/{{pod.name}}")) is False
    assert uses_annotations(with_keys("{{workflow.annotations.team}}/{{pod.name}}")) is True


USE = {"name": "u", "container": {"args": ["{{workflow.annotations}}"]}}
FINE = {"name": "leaf", "container": {"args": ["{{workflow.name}}"]}}


def calling(status: Json, **spec: Any) -> Json:
    return {"spec": spec, "status": status}


def to(name: str, template: str, **fields: Any) -> Json:
    return {"name": "s", "templateRef": {"name": name, "template": template, **fields}}


def test_what_argo_has_stored_is_looked_into() -> None:
    assert uses_annotations(calling({"storedTemplates": {"namespaced/shared/u": USE}})) is True
    assert uses_annotations(calling({"storedWorkflowTemplateSpec": {"templates": [USE]}})) is True


STORED: dict[str, tuple[Json, bool | None]] = {
    "a template that was not reached": (
        calling({}, templates=[{"name": "main", "steps": [[to("shared", "leaf")]]}]),
        None,
    ),
    "one that was": (
        calling(
            {"storedTemplates": {"namespaced/shared/leaf": FINE}},
            templates=[{"name": "main", "steps": [[to("shared", "leaf")]]}],
        ),
        False,
    ),
    "one of the cluster's, of which only the namespaced twin was": (
        calling(
            {"storedTemplates": {"namespaced/shared/leaf": FINE}},
            templates=[{"name": "main", "dag": {"tasks": [to("shared", "leaf", clusterScope=True)]}}],
        ),
        None,
    ),
    "a hook": (calling({}, hooks={"exit": to("shared", "leaf")}), None),
    "a stored template whose own object has one that was not reached": (
        calling({"storedTemplates": {"namespaced/shared/main": {"name": "main", "steps": [[STEP]]}}}),
        None,
    ),
    "all of that object's": (
        calling(
            {
                "storedTemplates": {
                    "namespaced/shared/main": {"name": "main", "steps": [[STEP]]},
                    "namespaced/shared/leaf": FINE,
                }
            }
        ),
        False,
    ),
    "a workflowTemplateRef that was not reached": (calling({}, workflowTemplateRef={"name": "whole"}), None),
    "one that was, and whose templates are stored as they begin": (
        calling(
            {
                "storedWorkflowTemplateSpec": {"templates": [{"name": "main", "steps": [[STEP]]}, FINE]},
                "storedTemplates": {"namespaced/whole/main": {"name": "main", "steps": [[STEP]]}},
            },
            workflowTemplateRef={"name": "whole"},
        ),
        False,
    ),
    "one that refers on": (
        calling(
            {"storedWorkflowTemplateSpec": {"templates": [{"name": "main", "steps": [[to("shared", "x")]]}]}},
            workflowTemplateRef={"name": "whole"},
        ),
        None,
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_it_cannot_be_told_while_a_template_was_not_seen(case: str) -> None:
    workflow, expected = STORED[case]
    assert uses_annotations(workflow) is expected


def many(count: int) -> Json:
    stored = {f"namespaced/shared/{n}": {"steps": [[{"template": f"{n}"}]]} for n in range(count)}
    return calling({"storedTemplates": stored}, templates=[{"name": "{{workflow.name}}"}] * count)


def test_twice_as_many_templates_are_twice_the_work() -> None:
    once, twice = (calls(uses_annotations, many(count)) for count in (100, 200))
    assert twice <= 2.1 * once


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(_JSON, _JSON)
def test_any_workflow_can_be_asked(spec: Any, stored: Any) -> None:
    uses_annotations({"spec": spec, "status": stored})
    uses_annotations({"spec": {"workflowTemplateRef": spec}, "status": {"storedTemplates": stored}})
