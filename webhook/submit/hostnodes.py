"""Which templates need a Pod with a node, because another step uses their `hostNodeName`.

Argo offers `steps.NAME.hostNodeName` and `tasks.NAME.hostNodeName` where the step had a Pod on a node
(workflow/controller/operator.go, buildLocalScope, v3.5 to v4.1). An answer without a Pod's node has no such
value, and whoever uses it waits for ever. Uses are looked for in all text that Argo resolves in the scope of
a `steps` or `dag` template, that is, in all of it, its inline templates included. What cannot be read counts
as a use: too many Pods with a node cost time, one too few a workflow.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from argo.shape import mapping
from argo.templates import (
    CLUSTER_WORKFLOW_TEMPLATE,
    WORKFLOW_TEMPLATE,
    Parts,
    calls_others,
    dotted,
    items,
    spec_parts,
    steps_of,
    workflow_spec,
)
from memoize import names

_FIELD = "hostNodeName"
_USE = re.compile(
    r"\b(steps|tasks)\s*"
    r"(?:\??\.\s*([\w-]+)|(?:\?\.)?\[\s*(['\"`])([\w-]+)\3\s*\])\s*"
    rf"(?:\??\.\s*{_FIELD}\b|(?:\?\.)?\[\s*(['\"`]){_FIELD}\5\s*\])"
)
"""Both forms of a tag: `steps.my-step.hostNodeName`, and in an expression `steps['my-step'].hostNodeName`."""
_SCOPE = re.compile(r"\b(steps|tasks)\b")


@dataclass(frozen=True, slots=True)
class Uses:
    """Templates of the object whose node is used, by their place, each with the first such reference.

    `elsewhere` are the paths of steps whose node is used and whose template another object holds.
    """

    templates: Mapping[Parts, str]
    elsewhere: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """The steps or tasks of one template, by name; `word` is how Argo calls them."""

    word: str
    steps: Mapping[str, tuple[Parts, Mapping[str, Any]]]


def uses(kind: str, obj: Mapping[str, Any]) -> Uses:
    """The uses in an object of templates.KINDS."""
    found = _Finder(kind, obj)
    for i, template in enumerate(items(workflow_spec(kind, obj).get("templates"))):
        found.read(template, (*spec_parts(kind), "templates", i), ())
    return Uses(found.templates, tuple(found.elsewhere))


class _Finder:
    def __init__(self, kind: str, obj: Mapping[str, Any]) -> None:
        self.templates: dict[Parts, str] = {}
        self.elsewhere: dict[str, None] = {}
        self._kind, self._name = kind, mapping(obj.get("metadata")).get("name")
        self._whole: set[_Scope] = set()
        self._places: dict[str, Parts] = {}
        for i, template in enumerate(items(workflow_spec(kind, obj).get("templates"))):
            name = mapping(template).get("name")
            if isinstance(name, str):  # Argo takes the first of a name (GetTemplateByName)
                self._places.setdefault(name, (*spec_parts(kind), "templates", i))

    def read(self, template: object, parts: Parts, around: tuple[_Scope, ...]) -> None:
        """Note the uses in one template and the inline ones in it; `around` are the scopes it stands in."""
        fields = mapping(template)
        scopes = (*around, *_scopes(fields, parts))
        if not scopes:  # nothing in it can be resolved to another step
            return
        for scope in scopes[len(around) :]:
            for place, step in scope.steps.values():
                if step.get("inline") is not None:
                    self.read(step["inline"], (*place, "inline"), scopes)
        for text in _texts(fields):
            self._note(text, scopes)

    def _note(self, text: str, scopes: tuple[_Scope, ...]) -> None:
        read = 0
        for use in _USE.finditer(text):
            read += 1
            name = use[2] or use[4]
            for scope in scopes:
                if scope.word == use[1] and name in scope.steps:
                    self._use(f"{use[1]}.{name}.{_FIELD}", *scope.steps[name])
        if read < text.count(_FIELD):
            words = set(_SCOPE.findall(text))
            for scope in scopes:
                if scope.word in words and scope not in self._whole:
                    self._whole.add(scope)
                    for name, step in scope.steps.items():
                        self._use(f"{scope.word}.{name}.{_FIELD}", *step)

    def _use(self, reference: str, parts: Parts, step: Mapping[str, Any]) -> None:
        if step.get("inline") is not None:
            self.templates.setdefault((*parts, "inline"), reference)
            return
        ref = mapping(step.get("templateRef"))
        if ref and not self._is_this(ref):
            self.elsewhere.setdefault(dotted(parts))
            return
        place = self._places.get(str(ref.get("template") if ref else step.get("template")))
        if place is not None:
            self.templates.setdefault(place, reference)

    def _is_this(self, ref: Mapping[str, Any]) -> bool:
        """Whether a templateRef leads back into the object it stands in."""
        kind = CLUSTER_WORKFLOW_TEMPLATE if ref.get("clusterScope") is True else WORKFLOW_TEMPLATE
        return kind == self._kind and ref.get("name") == self._name


def _scopes(template: Mapping[str, Any], parts: Parts) -> Iterator[_Scope]:
    if not calls_others(template):
        return
    found: dict[str, dict[str, tuple[Parts, Mapping[str, Any]]]] = {"steps": {}, "tasks": {}}
    for place, step in steps_of(template):
        word = "steps" if place[0] == "steps" else "tasks"
        found[word][str(step.get("name"))] = ((*parts, *place), step)
    yield from (_Scope(word, named) for word, named in found.items() if named)


_NOT_READ = ("inline", names.GATED_FOR)


def _texts(template: Mapping[str, Any]) -> Iterator[str]:
    """Every text in a template that holds the field's name, keys included; but not what we wrote of it."""
    rest: list[object] = [template]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if _FIELD in value:
                yield value
        elif isinstance(value, dict):
            rest += (name for name in value)
            rest += (item for name, item in value.items() if name not in _NOT_READ)
        elif isinstance(value, list):
            rest += value
