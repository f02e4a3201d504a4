"""What a Workflow means to the runner: names of nodes and Pods, `{{…}}` substitution, inputs and outputs.

Pure. Sources: argo-workflows v4.1, workflow/util/pod_name.go and WorkflowSpec (names), workflow/common
(substitution), docs/variables.md (the tags).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Scope = Mapping[str, Any]
"""What tags stand for: `inputs.parameters.x` to its text, `steps.a.outputs.artifacts.y` to the artifact."""

_TAG = re.compile(r"\{\{\s*([^{}=\s][^{}\s]*)\s*\}\}")
_SPEC_FIELDS = {"entrypoint", "arguments", "templates", "serviceAccountName", "volumes"}
_TEMPLATE_FIELDS = {"name", "inputs", "outputs", "metadata", "container", "script", "steps", "memoize"}
_TEMPLATE_FIELDS |= {"serviceAccountName", "volumes"}
_STEP_FIELDS = {"name", "template", "arguments", "withItems"}
_INPUT_SOURCES = {"raw", "s3", "from"}


class WorkflowError(Exception):
    """The Workflow asks for something impossible, or that this runner does not do; the text says what."""


def check_supported(spec: Mapping[str, Any]) -> None:
    """WorkflowError for the fields that this runner would otherwise ignore without a word."""
    _only(spec, _SPEC_FIELDS, "spec")
    for template in spec.get("templates") or []:
        where = f"template {template['name']!r}"
        _only(template, _TEMPLATE_FIELDS, where)
        if len(template.keys() & {"container", "script", "steps"}) != 1:
            raise WorkflowError(f"{where}: exactly one of container, script and steps is needed")
        for step in (each for group in template.get("steps") or [] for each in group):
            _only(step, _STEP_FIELDS, f"{where}, step {step.get('name')!r}")


def _only(found: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(found.keys() - known):
        raise WorkflowError(f"{where}: the devcluster's runner does not know {', '.join(unknown)}")


def template_named(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The template of that name."""
    found: Mapping[str, Any]
    for found in spec.get("templates") or []:
        if found["name"] == name:
            return found
    raise WorkflowError(f"there is no template {name!r}")


def node_id(workflow: str, node_name: str) -> str:
    """A node's id, which is also the name of its WorkflowTaskResult."""
    return workflow if node_name == workflow else f"{workflow}-{_fnv32a(node_name)}"


def pod_name(workflow: str, node_name: str, template: str) -> str:
    """The name of a node's Pod (Argo's version 2 names)."""
    return workflow if node_name == workflow else f"{workflow}-{template}-{_fnv32a(node_name)}"


def _fnv32a(text: str) -> int:
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def substitute(value: Any, scope: Scope) -> Any:
    """`value` with the tags that `scope` knows replaced in every string of it; others stay as they are."""
    if isinstance(value, dict):
        return {key: substitute(each, scope) for key, each in value.items()}
    if isinstance(value, list):
        return [substitute(each, scope) for each in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        known = scope.get(match[1])
        return known if isinstance(known, str) else match[0]

    return _TAG.sub(replacement, value)


def workflow_scope(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The tags that mean the same in the whole Workflow."""
    metadata, spec = workflow["metadata"], workflow["spec"]
    scope = {
        "workflow.name": metadata["name"],
        "workflow.namespace": metadata["namespace"],
        "workflow.uid": metadata["uid"],
        "workflow.serviceAccountName": spec.get("serviceAccountName", "default"),
    }
    for parameter in (spec.get("arguments") or {}).get("parameters") or []:
        if "value" not in parameter:
            raise WorkflowError(f"spec.arguments.parameters.{parameter['name']}.value is required")
        scope[f"workflow.parameters.{parameter['name']}"] = str(parameter["value"])
    return scope


def with_inputs(template: Mapping[str, Any], arguments: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The template with its inputs filled from `arguments` and every tag that is known by now replaced."""
    given = {each["name"]: each for each in arguments.get("parameters") or []}
    inputs = template.get("inputs") or {}
    parameters = []
    local = dict(scope)
    for parameter in inputs.get("parameters") or []:
        name = parameter["name"]
        source = given.get(name, parameter)
        if (value := source.get("value", parameter.get("value", parameter.get("default")))) is None:
            raise WorkflowError(f"template {template['name']!r}: inputs.parameters.{name} was not supplied")
        parameters.append(parameter | {"value": str(value)})
        local[f"inputs.parameters.{name}"] = str(value)
    artifacts = [_input_artifact(each, arguments, template) for each in inputs.get("artifacts") or []]
    local |= {f"inputs.artifacts.{each['name']}.path": each["path"] for each in artifacts if "path" in each}
    outputs = template.get("outputs") or {}
    for kind in ("parameters", "artifacts"):
        for each in outputs.get(kind) or []:
            if path := each.get("path") or (each.get("valueFrom") or {}).get("path"):
                local[f"outputs.{kind}.{each['name']}.path"] = path
    filled = {"parameters": parameters, "artifacts": artifacts}
    resolved: dict[str, Any] = substitute({**template, "inputs": {}}, local)
    resolved["inputs"] = {kind: each for kind, each in filled.items() if each}
    return resolved


def _input_artifact(
    artifact: Mapping[str, Any], arguments: Mapping[str, Any], template: Mapping[str, Any]
) -> dict[str, Any]:
    given: Mapping[str, Any] = next(
        (each for each in arguments.get("artifacts") or [] if each["name"] == artifact["name"]), {}
    )
    source = {key: value for key, value in given.items() if key in _INPUT_SOURCES}
    if not source and not artifact.get("optional") and not artifact.keys() & _INPUT_SOURCES:
        where = f"template {template['name']!r}"
        raise WorkflowError(f"{where}: inputs.artifacts.{artifact['name']} was not supplied")
    return {**artifact, **source}


def expanded(step: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The steps that one stands for, by the last part of their nodes' names: `withItems` makes one of each.

    Items are strings and numbers here (Argo: expandStep in workflow/controller/steps.go).
    """
    if "withItems" not in step:
        return [(step["name"], step)]
    for item in step["withItems"]:
        if not isinstance(item, str | int | float):
            raise WorkflowError(f"step {step['name']!r}: the devcluster's items are strings and numbers")
    texts = [item if isinstance(item, str) else json.dumps(item) for item in step["withItems"]]
    return [
        (f"{step['name']}({number}:{text})", substitute(step, {"item": text}))
        for number, text in enumerate(texts)
    ]


def arguments_of(step: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """A step's arguments with tags replaced; an artifact taken `from` another step becomes its location."""
    arguments: dict[str, Any] = substitute(step.get("arguments") or {}, scope)
    for artifact in arguments.get("artifacts") or []:
        if "from" in artifact and (tag := _TAG.fullmatch(artifact["from"])) and tag[1] in scope:
            artifact["s3"] = scope[tag[1]]["s3"]
            del artifact["from"]
    return arguments


def tags_of(prefix: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The tags that a finished step defines: `<prefix>.outputs.…` and `<prefix>.exitCode`."""
    scope: dict[str, Any] = {}
    for parameter in outputs.get("parameters") or []:
        scope[f"{prefix}.outputs.parameters.{parameter['name']}"] = parameter["value"]
    for artifact in outputs.get("artifacts") or []:
        scope[f"{prefix}.outputs.artifacts.{artifact['name']}"] = artifact
    if "result" in outputs:
        scope[f"{prefix}.outputs.result"] = outputs["result"]
    if "exitCode" in outputs:
        scope[f"{prefix}.exitCode"] = outputs["exitCode"]
    return scope


def tags_of_all(prefix: str, every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The tags that the steps of a `withItems` define together: lists of their outputs, as JSON."""
    scope: dict[str, Any] = {}
    if every and all("result" in outputs for outputs in every):
        scope[f"{prefix}.outputs.result"] = json.dumps([outputs["result"] for outputs in every])
    lists: dict[str, list[str]] = {}
    for parameter in (each for outputs in every for each in outputs.get("parameters") or []):
        lists.setdefault(parameter["name"], []).append(parameter["value"])
    for name, values in lists.items():
        scope[f"{prefix}.outputs.parameters.{name}"] = json.dumps(values)
    return scope


def own_outputs(template: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The outputs of a `steps` template: its parameters, each taken from one of its steps."""
    parameters = []
    for parameter in (template.get("outputs") or {}).get("parameters") or []:
        source = (parameter.get("valueFrom") or {}).get("parameter", "")
        parameters.append({"name": parameter["name"], "value": substitute(source, scope)})
    return {"parameters": parameters} if parameters else {}


def uses_result(step: str, template: Mapping[str, Any]) -> bool:
    """Whether anything in the steps template refers to that step's `outputs.result`."""
    return f"steps.{step}.outputs.result" in _TAG.findall(json.dumps(template))
