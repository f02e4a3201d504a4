"""Moving an opted-in template's `memoize` block into annotations, and back.

Argo substitutes tags in a template's annotations and copies them to the Pod, where the Pod webhook finds
them; the block itself goes, or the controller would memoize too. What a template should look like is worked
out from what its author wrote, never from what we made of it before: so a second pass changes nothing, an
edit of the block or of a label counts at once, and leaving stepmemo is the same computation without an
opt-in.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from argo.shape import mapping
from argo.templates import Parts, TemplateRef
from kube import jsonpatch
from kube.jsonpatch import Op, add, remove
from memoize import names, opt_in

_BLOCK = (names.KEY, names.CACHE, names.MAX_AGE, names.CONFIG_MAP)
_MADE = (_BLOCK, (*_BLOCK, names.MEMOIZE), (names.MEMOIZE,))
"""The sets of annotations under names.MANAGED: a block's, those and its holder's opt-in, the opt-in alone."""


class Form(NamedTuple):
    """What concerns us in a template, as its author wrote it or as it is wanted."""

    block: Any
    """Its `memoize` block or None."""
    annotations: Mapping[str, Any]
    made: Mapping[str, Any] = MappingProxyType({})
    """As written: the annotations of ours that were left out."""
    edited: bool = False
    """As written: there were some, but they were changed by hand since and count as the author's."""
    memoized: bool = False
    """As wanted: stepmemo will memoize the template's steps."""
    blocked: bool = False
    """As wanted: it is opted in, and its block stays with Argo since that of `templateDefaults` does."""
    needs_node: str = ""
    """As wanted: the reference to its steps that only a Pod with a node satisfies."""


@dataclass(frozen=True, slots=True)
class Nearby:
    """The words around the templates of one object, and what keeps them from being converted."""

    holder: bool | None
    """The object's own opt-in, None for none."""
    namespace: bool | None
    """The Namespace's, None for none."""
    namespace_known: bool
    """False where a Namespace counts but could not be read."""
    defaults_block: bool = False
    """`templateDefaults` keeps a block, which Argo would merge into a template whose own block is gone."""


def authored(ref: TemplateRef) -> Form:
    """The template as its author wrote it; a block counts before annotations made from an older one."""
    annotations, gate, edited = _without_gate(ref.annotations)
    block = ref.template.get("memoize")
    if names.MANAGED not in annotations:
        return Form(block, annotations, gate, edited)
    digest = annotations.pop(names.MANAGED)
    for made in _MADE:
        ours = {name: annotations[name] for name in made if name in annotations}
        if ours and digest == _digest(ours):
            kept = {name: value for name, value in annotations.items() if name not in ours}
            return Form(block if block is not None else _as_block(ours), kept, ours | gate, edited)
    return Form(block, annotations, gate, edited=True)


def _without_gate(annotations: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """The annotations without `gate` where that is ours; what was ours; whether it was changed.

    It has a mark of its own, since names.MANAGED on a Pod says that its key was opted in at submit.
    """
    kept = dict(annotations)
    if names.GATED_FOR not in kept:
        return kept, {}, False
    use = kept.pop(names.GATED_FOR)
    if kept.get(names.GATED) != _NEVER_GATED:
        return kept, {}, True
    return kept, {names.GATED: kept.pop(names.GATED), names.GATED_FOR: use}, False


_NEVER_GATED = "false"


def wanted(ref: TemplateRef, written: Form, nearby: Nearby, needs_node: str = "") -> Form:
    """The template, authored so, as the opt-ins around it ask for; defined for one without errors.

    Where the Namespace counts and is not known, what was taken over before stays as it is. `needs_node` is
    the reference to a step of this template that only a Pod with a node can satisfy.
    """
    namespace = nearby.namespace if nearby.namespace_known else _as_it_was(written.made)
    seen_by_argo = ref.seen_by_argo(written.annotations, (names.MEMOIZE, names.KEY, names.GATED))
    word = opt_in.of_template(seen_by_argo)
    nearest = next((w for w in (word, nearby.holder, namespace) if w is not None), None)
    keyed, cacheable = names.KEY in seen_by_argo, ref.makes_cacheable_pod
    opted_in = keyed if nearest is None else nearest
    block, annotations, made = written.block, written.annotations, dict[str, Any]()
    if block is not None and opted_in and ref.makes_pod and not nearby.defaults_block:
        flat = _as_annotations(block)
        if names.KEY in annotations:  # the author says the same twice; what he wrote flat stays his
            annotations = {**annotations, **flat}
        else:
            made = flat | _rest(block)
        block = None
    elif block is not None and ref.template.get("memoize") is None:
        block = _with_config_map_key(block)
    memoized = opted_in and bool(made or keyed) and block is None and cacheable
    if (made or keyed) and cacheable and not ref.is_defaults and word is None:
        # A key from somewhere else must not answer beside the block that Argo keeps.
        says = {names.MEMOIZE: "false"} if block is not None else _holders_word(nearby.holder, namespace)
        made = made | says
    if made:
        made = made | {names.MANAGED: _digest(made)}
    # A Workflow that calls it may say "true", where only its Namespace says "false".
    may_be = memoized or (keyed and block is None and cacheable and word is None and nearby.holder is None)
    if may_be and needs_node and names.GATED not in seen_by_argo:
        made = made | {names.GATED: _NEVER_GATED, names.GATED_FOR: needs_node}
    blocked = opted_in and block is not None and ref.makes_pod
    return Form(
        block,
        {**annotations, **made},
        memoized=memoized,
        blocked=blocked,
        needs_node=needs_node if may_be else "",
    )


def _as_it_was(made: Mapping[str, Any]) -> bool | None:
    """The Namespace's opt-in by what it once led to, for when it cannot be read."""
    if names.MEMOIZE in made:
        return False
    return True if names.KEY in made else None


def _holders_word(holder: bool | None, namespace: bool | None) -> dict[str, Any]:
    """The holder's opt-in, where the Pod webhook would come to another one without it.

    It sees the template's annotations and the Namespace's label, but not the WorkflowTemplate between them.
    """
    if holder is False:
        return {names.MEMOIZE: "false"}
    return {names.MEMOIZE: "true"} if holder and namespace is False else {}


def _as_annotations(block: Mapping[str, Any]) -> dict[str, Any]:
    """A sound block, flat.

    An absent maxAge is said as well: that of a caller's `templateDefaults` must not creep in, as it does not
    creep into a block, which Argo merges with all of its fields (Memoize, workflow_types.go).
    """
    return {
        names.KEY: block["key"],
        names.CACHE: block["cache"]["configMap"]["name"],
        names.MAX_AGE: block.get("maxAge") or "",
    }


def _rest(block: Mapping[str, Any]) -> dict[str, Any]:
    """What a sound block says and its flat form does not."""
    config_map = block["cache"]["configMap"]
    rest = {name: value for name, value in config_map.items() if name != "name"}
    return {names.CONFIG_MAP: json.dumps(rest, sort_keys=True)} if rest else {}


def _as_block(made: Mapping[str, Any]) -> dict[str, Any] | None:
    """The block that these annotations were made from, or None if they were made from none.

    An empty maxAge stands for an absent one: Argo reads both alike, and its full CRDs want the field.
    """
    if names.KEY not in made:
        return None
    config_map = {**_parsed(made.get(names.CONFIG_MAP)), "name": made.get(names.CACHE)}
    return {
        "key": made[names.KEY],
        "maxAge": made.get(names.MAX_AGE, ""),
        "cache": {"configMap": config_map},
    }


def _parsed(text: Any) -> Mapping[str, Any]:
    """The object in a JSON text, empty for anything else: anybody can make a digest that fits."""
    try:
        return mapping(json.loads(text)) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}


def restored(ref: TemplateRef, *, config_map_key: bool) -> Form:
    """The template as its author wrote it; `config_map_key`: with the one field that some CRDs ask for."""
    form = authored(ref)
    if not config_map_key or ref.template.get("memoize") is not None or form.block is None:
        return form
    return form._replace(block=_with_config_map_key(form.block))


def _with_config_map_key(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block with a `configMap.key`, which means nothing.

    Argo's full CRDs require it up to 3.7 (manifests/base/crds/full). Those of 4.x do not have it: an API
    server lets it pass from a webhook, but not from a client that asks for strict validation, like kubectl.
    """
    config_map = mapping(mapping(block.get("cache")).get("configMap"))
    return {**block, "cache": {"configMap": {"key": "", **config_map}}}


def _digest(made: Mapping[str, Any]) -> str:
    return hashlib.sha256(_encoder.encode(made).encode()).hexdigest()[:32]


_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def with_form(template: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """A copy of the template that has that form."""
    metadata = {**mapping(template.get("metadata")), "annotations": form.annotations}
    return {**template, "memoize": form.block, "metadata": metadata}


def changes(ref: TemplateRef, form: Form) -> list[Op]:
    """The operations that give the template that form; none where it has it."""
    return [*_annotation_changes(ref, form.annotations), *_block_changes(ref, form.block)]


def _block_changes(ref: TemplateRef, block: Any) -> Iterator[Op]:
    parts: Parts = (*ref.parts, "memoize")
    if block == ref.template.get("memoize"):
        return
    yield add(parts, block) if block is not None else remove(parts)


def _annotation_changes(ref: TemplateRef, after: Mapping[str, Any]) -> Iterator[Op]:
    """Annotation by annotation, so that other webhooks' stay; what we leave empty goes with the last one."""
    before = ref.annotations
    if after == before:
        return
    parts: Parts = (*ref.parts, "metadata")
    metadata = mapping(ref.template.get("metadata"))
    if not metadata:
        yield add(parts, {"annotations": after})
    elif not before:
        yield add((*parts, "annotations"), after)
    elif not after:
        yield remove(parts if metadata.keys() == {"annotations"} else (*parts, "annotations"))
    else:
        for name in sorted(before.keys() - after.keys()):
            yield remove((*parts, "annotations", name))
        for name, value in after.items():
            if name not in before:
                yield add((*parts, "annotations", name), value)
            elif before[name] != value:
                yield jsonpatch.replace((*parts, "annotations", name), value)
