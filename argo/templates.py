"""Where templates stand in Argo's objects, and what Argo will make of each.

Shapes are not trusted: what is no object or no list where Argo wants one is passed over, since Argo's own
validation tells the author of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from argo import names
from argo.fields import annotation
from argo.shape import DRIVERS, mapping

Parts = tuple[str | int, ...]
"""A place in an object, from its root."""

WORKFLOW = "Workflow"
WORKFLOW_TEMPLATE = "WorkflowTemplate"
CLUSTER_WORKFLOW_TEMPLATE = "ClusterWorkflowTemplate"
CRON_WORKFLOW = "CronWorkflow"
KINDS = frozenset({WORKFLOW, WORKFLOW_TEMPLATE, CLUSTER_WORKFLOW_TEMPLATE, CRON_WORKFLOW})
"""The kinds that hold templates."""

TYPES = (
    "container",
    "containerSet",
    "steps",
    "dag",
    "script",
    "resource",
    "data",
    "suspend",
    "http",
    "plugin",
)
"""The fields that say what a template is, in the order in which Argo looks (Template.GetType)."""
POD_TYPES = frozenset({"container", "containerSet", "script", "resource", "data"})
"""Types for which Argo makes a Pod of the template's own."""


Names = Mapping[str, None]
"""Names in their order, each of them once."""


class Inputs(Collection[str]):
    """Names of a template's inputs of one kind: its own, then those that only `templateDefaults` has.

    Those of `templateDefaults` are not copied: thousands of templates may have the same thousands of them.
    """

    def __init__(self, own: Names, default: Names) -> None:
        self._own, self._default = own, default

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._default

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._default if name not in self._own)

    def __len__(self) -> int:
        return self._count if self._default else len(self._own)

    @cached_property
    def _count(self) -> int:
        return len(self._default) + sum(name not in self._default for name in self._own)


@dataclass(frozen=True)
class Defaults:
    """`templateDefaults`, which Argo merges under every template; each part is read once for all of them."""

    template: Mapping[str, Any]

    @cached_property
    def annotations(self) -> Mapping[str, Any]:
        """Those of its metadata."""
        return mapping(mapping(self.template.get("metadata")).get("annotations"))

    @cached_property
    def parameters(self) -> Names:
        """Those of its inputs."""
        return _parameters(self.template)

    @cached_property
    def artifacts(self) -> Names:
        """Those of its inputs whose location it leaves to a template's caller."""
        return _artifacts(self.template)


_NO_DEFAULTS = Defaults({})


@dataclass(frozen=True)
class TemplateRef:
    """One template where it stands, and what it says; each is read once, since a large object has hundreds.

    `defaults` is the `templateDefaults` that Argo merges under it, empty if there is none, and empty for
    `templateDefaults` itself; `enclosing` are the input parameters of the templates around an inline one,
    whose tags Argo resolves in it as well.
    """

    parts: Parts
    template: Mapping[str, Any]
    defaults: Defaults = _NO_DEFAULTS
    enclosing: tuple[Inputs, ...] = ()

    @cached_property
    def path(self) -> str:
        """The place in the words of the Kubernetes API: `spec.templates[0]`."""
        return dotted(self.parts)

    @property
    def is_defaults(self) -> bool:
        """Whether this is `templateDefaults`, which is no template but a part of all."""
        return self.parts[-1] == _DEFAULTS

    @cached_property
    def type(self) -> str:
        """Which of TYPES this template is, or empty; `templateDefaults` cannot change it."""
        return next((field for field in TYPES if self.template.get(field) is not None), "")

    @property
    def kind(self) -> str:
        """The type, or what else is worth telling of a template that is not memoized."""
        return "daemon" if self.type in POD_TYPES and self.daemon else self.type or "typeless"

    def said(self, field: str) -> Any:
        """The value of a field that `templateDefaults` may say as well."""
        return self.template.get(field, self.defaults.template.get(field))

    @property
    def daemon(self) -> bool:
        """Whether the step runs on beside the steps after it."""
        return self.said("daemon") is True

    @property
    def makes_pod(self) -> bool:
        """Whether Argo makes a Pod of this template's own; true of `templateDefaults`, which serve such."""
        return self.is_defaults or self.type in POD_TYPES

    @property
    def makes_cacheable_pod(self) -> bool:
        """Whether that Pod comes to an end with outputs."""
        return self.makes_pod and not self.daemon

    @cached_property
    def annotations(self) -> Mapping[str, Any]:
        """The template's own annotations."""
        return mapping(mapping(self.template.get("metadata")).get("annotations"))

    @property
    def default_annotations(self) -> Mapping[str, Any]:
        """Annotations that Argo merges under the template's own."""
        return self.defaults.annotations

    def seen_by_argo(self, own: Mapping[str, Any], of: Iterable[str]) -> dict[str, Any]:
        """The annotations of these names that Argo sees, were the template's own those given here."""
        default = self.default_annotations
        return {name: own.get(name, default.get(name)) for name in of if name in own or name in default}

    def annotation_path(self, name: str) -> str:
        """Where an annotation stands that Argo will see: the template's own, else that of `templateDefaults`.

        The template's own place for one that stands nowhere.
        """
        holder = self.parts
        if name not in self.annotations and name in self.default_annotations:
            holder = (*holder[: holder.index("templates")], _DEFAULTS)
        return annotation(f"{dotted(holder)}.metadata", name)

    @cached_property
    def parameters(self) -> Inputs:
        """The template's input parameters."""
        return Inputs(_parameters(self.template), self.defaults.parameters)

    @cached_property
    def artifacts(self) -> Inputs:
        """The input artifacts whose location is left to the template's caller."""
        return Inputs(_artifacts(self.template), self.defaults.artifacts)

    def resolves(self, parameter: str) -> bool:
        """Whether there is an input parameter of that name, of this template or one around it."""
        return parameter in self.parameters or any(parameter in around for around in self.enclosing)


_DEFAULTS = "templateDefaults"


def _parameters(template: Mapping[str, Any]) -> Names:
    return _names(objects(mapping(template.get("inputs")).get("parameters")))


def _artifacts(template: Mapping[str, Any]) -> Names:
    found = objects(mapping(template.get("inputs")).get("artifacts"))
    return _names(item for item in found if not DRIVERS & item.keys())


def _names(found: Iterable[Mapping[str, Any]]) -> Names:
    return dict.fromkeys(name for item in found if isinstance(name := item.get("name"), str))


def spec_parts(kind: str) -> Parts:
    """Where an object of this kind keeps its WorkflowSpec."""
    return ("spec", "workflowSpec") if kind == CRON_WORKFLOW else ("spec",)


def workflow_spec(kind: str, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The WorkflowSpec of the object, empty if it has none."""
    found: Mapping[str, Any] = obj
    for part in spec_parts(kind):
        found = mapping(found.get(str(part)))
    return found


def defaults_ref(kind: str, obj: Mapping[str, Any]) -> TemplateRef | None:
    """The object's `templateDefaults`, None if it has none."""
    defaults = mapping(workflow_spec(kind, obj).get(_DEFAULTS))
    return TemplateRef((*spec_parts(kind), _DEFAULTS), defaults) if defaults else None


def template_refs(
    kind: str, obj: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Iterator[TemplateRef]:
    """Every template of the object in reading order, inline ones after the template around them.

    `defaults` counts in place of the object's own `templateDefaults`, where it is not None.
    """
    spec, parts = workflow_spec(kind, obj), spec_parts(kind)
    under = Defaults(mapping(spec.get(_DEFAULTS)) if defaults is None else defaults)
    for i, template in enumerate(items(spec.get("templates"))):
        yield from _with_inline((*parts, "templates", i), template, under, ())


def _with_inline(
    parts: Parts, template: object, defaults: Defaults, enclosing: tuple[Inputs, ...]
) -> Iterator[TemplateRef]:
    if not isinstance(template, dict):
        return
    ref = TemplateRef(parts, template, defaults, enclosing)
    yield ref
    if not calls_others(template):
        return
    for place, step in steps_of(template):
        inline = step.get("inline")
        if inline is not None:
            inner = (*enclosing, ref.parameters)
            yield from _with_inline((*parts, *place, "inline"), inline, defaults, inner)


def calls_others(template: Mapping[str, Any]) -> bool:
    """Whether the template may have steps or tasks."""
    return "steps" in template or "dag" in template


def steps_of(template: Mapping[str, Any]) -> Iterator[tuple[Parts, Mapping[str, Any]]]:
    """The steps of a `steps` template and the tasks of a `dag` one, each with its place in the template."""
    for i, group in enumerate(items(template.get("steps"))):
        for j, step in enumerate(items(group)):
            yield ("steps", i, j), mapping(step)
    for i, task in enumerate(items(mapping(template.get("dag")).get("tasks"))):
        yield ("dag", "tasks", i), mapping(task)


def is_argo(obj: Mapping[str, Any]) -> bool:
    """Whether the object is of Argo's group and holds templates."""
    group, _, _ = str(obj.get("apiVersion", "")).partition("/")
    return group == names.GROUP and str(obj.get("kind")) in KINDS


def dotted(parts: Parts) -> str:
    """`spec.templates[0].steps[1][0].inline` for the parts of that place."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def items(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects in the value if it is a list, else none."""
    return [item for item in items(value) if isinstance(item, dict)]
