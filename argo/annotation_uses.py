"""Whether a value in a workflow can change with the annotations of its Workflow.

`workflow.annotations` is all of them as JSON, made anew each time the controller looks at the workflow
(setGlobalParameters in workflow/controller/operator.go, v3.5 to v4.1), so an annotation that somebody adds
while the workflow runs reaches the steps that begin after it. Looked for in every text of the spec, and of
the templates and the artifact repository (its keyFormat) that Argo has stored in the status: in
`{{workflow.annotations}}`, in expressions, in hooks, labels and manifests. Doubt counts as a use, and so does
a parameter out of a ConfigMap, which nobody reads here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from argo.shape import mapping
from argo.tags import OPEN
from argo.templates import objects

_ROOT, _MEMBER = "workflow", "annotations"
_NAMED = re.compile(rf"\b{_ROOT}\b")
_NESTED = re.compile(r"\{\{[^}]*\{\{")
"""A tag whose name another tag makes: `{{workflow.{{item}}}}`."""
_WHOLE = re.compile(rf"\$env\b|\b{_ROOT}\b(?!\s*\.\s*[A-Za-z])")
"""In an expression: the variable itself, from which any member may be taken, `toJson(workflow)`."""
_EXPRESSIONS = frozenset({"expression", "fromExpression"})
"""Fields that hold an expression without braces."""

Json = Mapping[str, Any]


def uses_annotations(workflow: Json) -> bool | None:
    """Whether the Workflow, as the API server gave it, has such a value.

    None where it cannot be told yet: it refers to a template, of another object, that Argo has not stored in
    the Workflow's status, which it does when the template's first step begins.
    """
    status = mapping(workflow.get("status"))
    spec, merged = mapping(workflow.get("spec")), mapping(status.get("storedWorkflowTemplateSpec"))
    stored = mapping(status.get("storedTemplates"))
    repository = mapping(status.get("artifactRepositoryRef"))
    if any(_is_use(field, value) for field, value in _values([spec, merged, stored, repository])):
        return True
    ref = mapping(spec.get("workflowTemplateRef"))
    if ref and not merged:
        return None
    seen = {*stored, *(_key(ref, one.get("name")) for one in objects(merged.get("templates")))}
    # What the Workflow calls by name is in its spec; what a stored template calls so is of its own object.
    called = [*_called([spec, merged], ""), *_called_by(stored)]
    return None if any(key not in seen for key in called) else False


def _is_use(field: str, value: object) -> bool:
    if not isinstance(value, str):
        return field == "parameters" and "configMapKeyRef" in mapping(mapping(value).get("valueFrom"))
    # `workflow.annotations`, `workflow["annotations"]`, `get(workflow, 'annotations')` …
    if _MEMBER in value and (named := _NAMED.search(value)) and value.rfind(_MEMBER) > named.start():
        return True
    if OPEN in value and _NESTED.search(value):
        return True
    return (field in _EXPRESSIONS or f"{OPEN}=" in value) and _WHOLE.search(value) is not None


def _values(values: list[object]) -> Iterator[tuple[str, object]]:
    """All that stands there, names of fields included, and the field that it stands in."""
    rest = [("", value) for value in values]
    while rest:
        field, value = rest.pop()
        yield field, value
        if isinstance(value, dict):  # to ask for a Mapping takes five times as long
            rest += (("", name) for name in value)
            rest += value.items()
        elif isinstance(value, list):
            rest += ((field, item) for item in value)


def _key(ref: Json, template: object) -> str:
    return f"{'cluster' if ref.get('clusterScope') else 'namespaced'}/{ref.get('name')}/{template}"


def _called_by(stored: Json) -> Iterator[str]:
    for key, template in stored.items():
        scope, _, rest = key.partition("/")
        yield from _called([template], f"{scope}/{rest.partition('/')[0]}")


def _called(values: list[object], holder: str) -> Iterator[str]:
    """The keys under which Argo stores what is called from there.

    They are those of resolveTemplateReference (pkg/apis/workflow/v1alpha1/workflow_types.go, v3.5 to v4.1).
    `holder` is the object that what is called by name belongs to, "" for one that is here whole.
    """
    rest = list(values)
    while rest:
        value = rest.pop()
        if isinstance(value, dict):  # to ask for a Mapping takes five times as long
            if ref := mapping(value.get("templateRef")):
                yield _key(ref, ref.get("template"))
            elif holder:
                yield from (
                    f"{holder}/{value[field]}"
                    for field in ("template", "onExit")
                    if value.get(field) and isinstance(value[field], str)
                )
            rest += (item for name, item in value.items() if name != "templateRef")
        elif isinstance(value, list):
            rest += value
