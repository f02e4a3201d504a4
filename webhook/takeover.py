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
from dataclasses import dataclass, field
from typing import Any

from memoize import names
from memoize.shape import mapping
from webhook import words
from webhook.patch import Op, add, remove, replace
from webhook.templates import Parts, Site

_BLOCK = (names.KEY, names.CACHE, names.MAX_AGE)
_MADE = (_BLOCK, (*_BLOCK, names.MEMOIZE), (names.MEMOIZE,))
"""The sets of annotations that we make: a block's, a block's and its holder's word, the word alone."""


@dataclass(frozen=True, slots=True)
class Form:
    """What concerns us in a template: its block or None, and its annotations.

    In the authored form, `made` holds the annotations of ours that were left out; `edited` says that there
    were some, but they were changed by hand since and count as the author's.
    """

    block: Any
    annotations: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    edited: bool = False


@dataclass(frozen=True, slots=True)
class Nearby:
    """The words around the templates of one object, and what keeps them from being taken over.

    `namespace_known` is False where a Namespace counts but could not be read. `defaults_memoize`: Argo would
    merge the block of `templateDefaults` into a template whose own block is gone, and use its key instead.
    """

    holder: bool | None
    namespace: bool | None
    namespace_known: bool
    defaults_memoize: bool


def authored(site: Site) -> Form:
    """The template as its author wrote it; a block counts before annotations made from an older one."""
    block = site.template.get("memoize")
    if names.MANAGED not in site.annotations:
        return Form(block, site.annotations)
    annotations = {name: value for name, value in site.annotations.items() if name != names.MANAGED}
    digest = site.annotations[names.MANAGED]
    for made in _MADE:
        ours = {name: annotations[name] for name in made if name in annotations}
        if ours and digest == _digest(ours):
            kept = {name: value for name, value in annotations.items() if name not in ours}
            return Form(block if block is not None else _as_block(ours), kept, ours)
    return Form(block, annotations, edited=True)


def wanted(site: Site, written: Form, nearby: Nearby) -> Form:
    """The template, authored so, as the words around it ask for; defined for one without errors.

    Where the Namespace counts and is not known, what was taken over before stays as it is.
    """
    namespace = nearby.namespace if nearby.namespace_known else _as_it_was(written.made)
    seen_by_argo = {**site.default_annotations, **written.annotations}
    word = words.of_template(seen_by_argo)
    nearest = next((w for w in (word, nearby.holder, namespace) if w is not None), None)
    keyed = names.KEY in seen_by_argo
    opted_in = keyed if nearest is None else nearest
    block, annotations, made = written.block, written.annotations, dict[str, Any]()
    if block is not None and opted_in and site.makes_cacheable_pod and not nearby.defaults_memoize:
        flat = _as_annotations(block, site.default_annotations)
        block = None
        if names.KEY in annotations:  # the author says the same twice; what he wrote flat stays his
            annotations = {**annotations, **flat}
        else:
            made = flat
    if (made or keyed) and site.makes_cacheable_pod and word is None:
        made = made | _holders_word(nearby.holder, namespace)
    if made:
        made = made | {names.MANAGED: _digest(made)}
    return Form(block, {**annotations, **made})


def _as_it_was(made: Mapping[str, Any]) -> bool | None:
    """The Namespace's word by what it once led to, for when it cannot be asked."""
    if names.MEMOIZE in made:
        return False
    return True if made else None


def _holders_word(holder: bool | None, namespace: bool | None) -> dict[str, Any]:
    """The holder's word, where the Pod webhook would come to another one without it.

    It sees the template's annotations and the Namespace's label, but not the WorkflowTemplate between them.
    """
    if holder is False:
        return {names.MEMOIZE: "false"}
    return {names.MEMOIZE: "true"} if holder and namespace is False else {}


def _as_annotations(block: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A sound block, flat. A maxAge of `templateDefaults`' annotations is not the block's."""
    made = {names.KEY: block["key"], names.CACHE: block["cache"]["configMap"]["name"]}
    max_age = block.get("maxAge")
    if max_age is None and names.MAX_AGE in defaults:
        max_age = ""
    return made if max_age is None else made | {names.MAX_AGE: max_age}


def _as_block(made: Mapping[str, Any]) -> dict[str, Any] | None:
    """The block that these annotations were made from, or None if they were made from none."""
    if names.KEY not in made:
        return None
    block: dict[str, Any] = {"key": made[names.KEY], "cache": {"configMap": {"name": made.get(names.CACHE)}}}
    return block | ({"maxAge": made[names.MAX_AGE]} if names.MAX_AGE in made else {})


def _digest(made: Mapping[str, Any]) -> str:
    text = json.dumps(made, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def changes(site: Site, form: Form) -> list[Op]:
    """The operations that give the template that form; none where it has it."""
    return [*_annotation_changes(site, form.annotations), *_block_changes(site, form.block)]


def _block_changes(site: Site, block: Any) -> Iterator[Op]:
    parts: Parts = (*site.parts, "memoize")
    if block == site.template.get("memoize"):
        return
    yield add(parts, block) if block is not None else remove(parts)


def _annotation_changes(site: Site, after: Mapping[str, Any]) -> Iterator[Op]:
    """Annotation by annotation, so that other webhooks' stay; what we leave empty goes with the last one."""
    before = site.annotations
    if after == before:
        return
    parts: Parts = (*site.parts, "metadata")
    metadata = mapping(site.template.get("metadata"))
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
                yield replace((*parts, "annotations", name), value)
