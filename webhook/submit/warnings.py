"""What works but will not do what its author hopes: the warnings that go back with an admitted object."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from argo import artifact_gc, tags
from argo import names as argo
from argo.resource import goes_with_workflow
from argo.shape import mapping
from argo.tags import Tag
from argo.templates import TemplateRef, objects
from memoize import duration, names
from webhook.submit import autokeys, reach
from webhook.submit.conversion import Form
from webhook.submit.findings import Remark
from webhook.submit.validation import Validation


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What warnings have to know of the spec around a template.

    `artifact_gc` is its strategy for artifacts, `braces` are the workflow's parameters whose value holds
    braces that Argo leaves as they are, `claims` the volumes that are made for it alone, `owned` the fields
    of the `resource` in `templateDefaults` by which it goes with the workflow, each with why: read once,
    since every template may inherit them.
    """

    artifact_gc: str
    braces: frozenset[str]
    claims: frozenset[str]
    owned: Mapping[str, str]


def surroundings(spec: Mapping[str, Any]) -> Surroundings:
    """Those of the templates of a WorkflowSpec."""
    strategy = mapping(spec.get("artifactGC")).get("strategy")
    inherited = mapping(mapping(spec.get("templateDefaults")).get("resource"))
    why = {name: goes_with_workflow({"resource": {name: value}}) for name, value in inherited.items()}
    return Surroundings(
        artifact_gc=str(strategy or ""),
        braces=_with_braces(mapping(spec.get("arguments")).get("parameters")),
        claims=frozenset(
            str(mapping(claim.get("metadata")).get("name"))
            for claim in objects(spec.get("volumeClaimTemplates"))
        ),
        owned={name: text for name, text in why.items() if text is not None},
    )


def _with_braces(parameters: object) -> frozenset[str]:
    return frozenset(
        str(parameter.get("name"))
        for parameter in objects(parameters)
        if any(_never_resolved(parameter.get(field)) for field in ("value", "default"))
    )


def _never_resolved(value: object) -> bool:
    """Whether text of another tool's is in it, in braces like Argo's."""
    if not isinstance(value, str) or not tags.has_tags(value):
        return False
    return tags.is_unbalanced(value) or any(tag.unknown_roots for tag in tags.find(value))


def template_warnings(
    ref: TemplateRef, validation: Validation, written: Form, around: Surroundings
) -> Iterator[Remark]:
    """Warnings for one template that follow from what its author wrote."""
    yield from reach.on_template(ref, written.annotations, block=written.block is not None)
    memo = validation.memo
    auto = _is_auto(ref, validation, written)
    if not validation.errors:
        told = autokeys.remarks if auto else autokeys.without_auto
        yield from told(ref, written.annotations, around.claims)
    if memo is None:
        return
    where, home = validation.key_path, validation.home
    if not ref.is_defaults and not auto:  # which inputs there are, each template says for itself
        yield from (Remark(where, text) for text in _inputs(ref, validation.key_tags))
    yield from (Remark(where, text) for text in _never_twice(validation.key_tags))
    yield from (Remark(where, text) for text in _in_braces(ref, validation.key_tags, around.braces))
    if _always_expired(memo.max_age):
        yield Remark(home, f'maxAge {memo.max_age} never hits: use {names.MODE}: "refresh"')
    if deleted := _deleted_artifacts(ref, around.artifact_gc):
        some = _some((deleted,), len(deleted))
        yield Remark(home, f"artifactGC will delete what the cache points to: {some}")


def _is_auto(ref: TemplateRef, validation: Validation, written: Form) -> bool:
    """Whether the template's key is one to be computed: its own, or that of `templateDefaults`."""
    if validation.memo is not None:
        return validation.memo.key == names.AUTO_KEY
    inherited = ref.seen_by_argo(written.annotations, (names.KEY,))
    return written.block is None and inherited.get(names.KEY) == names.AUTO_KEY


def outcome_warnings(
    ref: TemplateRef, validation: Validation, written: Form, form: Form, around: Surroundings
) -> Iterator[Remark]:
    """Warnings that follow from what becomes of a template: `form` is what it looks like once admitted."""
    home = validation.home or ref.path
    if ref.type == "resource" and (form.memoized or form.block is not None):
        yield Remark(home, _of_resource(ref, form, around))
    if form.needs_node:
        gate = form.annotations.get(names.GATED, ref.default_annotations.get(names.GATED))
        if names.GATED_FOR in form.annotations:
            yield Remark(home, f"{form.needs_node} is used: a hit is answered inside its Pod")
        elif gate == "true":
            yield Remark(home, f'{form.needs_node} is used: {names.GATED} must be "false"')
    if ref.is_defaults or written.block is None or ref.makes_cacheable_pod:
        pass
    elif form.block is None:
        yield Remark(home, f"memoize on a {ref.kind} template is taken away: it always runs")
    else:
        yield Remark(home, _left_to_argo(ref))
    if form.block is not None:
        yield from _unless_opted_in(validation)


def _of_resource(ref: TemplateRef, form: Form, around: Surroundings) -> str:
    own = mapping(ref.template.get("resource"))
    inherited = (why for name, why in around.owned.items() if name not in own)
    why = goes_with_workflow({"resource": own}) or next(inherited, None)
    if why is None:
        return "the resource's side effect will not happen on a hit"
    if form.memoized:
        return f"is not stored: the resource goes with its workflow ({why})"
    return f"Argo's own hit names a resource that went with its workflow ({why})"


def _left_to_argo(ref: TemplateRef) -> str:
    """What becomes of a block that stays, and what Argo's own hit does where that is worse than a run.

    A daemon that is over has no address (`steps.NAME.ip`). A hit on a template with retries is a node of type
    Retry without attempts, and a DAG takes the tasks after it for these: seen on v3.7.18 and v4.1.2, and the
    same in all versions (workflow/controller/dag.go, assessDAGPhase).
    """
    if ref.kind == "daemon":
        return "left to Argo's controller, whose hit on a daemon hangs the workflow"
    if ref.said("retryStrategy") is not None:
        return "left to Argo's controller, whose hit with a retryStrategy hangs a DAG behind it"
    return f"memoize on a {ref.kind} template is left to Argo's controller"


def _unless_opted_in(validation: Validation) -> Iterator[Remark]:
    """Warnings for a block that stays with Argo's own memoization."""
    key = validation.memo.key if validation.memo is not None else ""
    if key == names.AUTO_KEY:
        yield Remark(validation.key_path, f'without opt-in "{key}" is one key to Argo, for all steps alike')
    nested = any(tags.OPEN in tag.text for tag in validation.key_tags)
    if key and not nested and not argo.CACHE_KEY.fullmatch(tags.filled(key, "0")):
        yield Remark(validation.key_path, "without opt-in Argo takes letters, digits and '-' only")


def _inputs(ref: TemplateRef, found: Sequence[Tag]) -> Iterator[str]:
    """What the result may depend on and the key does not."""
    artifacts = (f"artifact {name}" for name in ref.artifacts)
    count = len(ref.parameters) + len(ref.artifacts)
    if not found:
        if count:
            yield f"is constant, though the template has inputs: {_some((ref.parameters, artifacts), count)}"
        return
    if any(_opaque(tag) for tag in found):
        return
    named = {name[:3] for tag in found for name in tag.names}
    missing: list[Iterable[str]] = [artifacts]
    if named & {("inputs",), ("inputs", "parameters")}:
        count = len(ref.artifacts)
    else:
        there = {name[2] for name in named if len(name) == 3 and name[:2] == ("inputs", "parameters")}
        missing.insert(0, (name for name in ref.parameters if name not in there))
        count -= sum(name in ref.parameters for name in there)
    if count:
        yield f"inputs missing from the key: {_some(missing, count)}"


def _opaque(tag: Tag) -> bool:
    """Whether the tag may hold names that were not read."""
    return tags.OPEN in tag.text or (tag.expression and not tag.names)


def _never_twice(found: Sequence[Tag]) -> Iterator[str]:
    return (f"{name} differs in every run: the key never comes back" for name in tags.varying(found))


def _in_braces(ref: TemplateRef, found: Sequence[Tag], of_workflow: frozenset[str]) -> Iterator[str]:
    """Values that a key takes over as they are; on the Pod, what is in braces passes for a lost tag."""
    if not found:
        return
    of_template = _with_braces(mapping(ref.template.get("inputs")).get("parameters"))
    braces = {"workflow": of_workflow, "inputs": of_template}
    for tag in tags.distinct(found):
        name = tag.names[0] if len(tag.names) == 1 else ()
        if len(name) != 3 or (tag.expression and not tag.text.strip().startswith(name[0])):
            continue
        if name[1] == "parameters" and name[2] in braces.get(name[0], ()):
            yield "a value that holds {{ is no key: hash it, {{=sprig.sha256sum(…)}}"


def _always_expired(max_age: str) -> bool:
    return bool(max_age) and not tags.has_tags(max_age) and duration.parse(max_age) <= 0


def _deleted_artifacts(ref: TemplateRef, of_workflow: str) -> list[str]:
    """Output artifacts that Argo's garbage collection takes (Workflow.GetArtifactGCStrategy)."""
    return [
        str(artifact.get("name"))
        for artifact in objects(mapping(ref.template.get("outputs")).get("artifacts"))
        if artifact_gc.deletes(artifact_gc.strategy(artifact) or of_workflow)
    ]


def _some(found: Iterable[Iterable[str]], count: int) -> str:
    """The first few of `count` names, which are not all looked at."""
    first = ", ".join(itertools.islice(itertools.chain.from_iterable(found), _TOLD))
    return first if count <= _TOLD else f"{first} and {count - _TOLD} more"


_TOLD = 3
