"""What may be in an object that is reviewed: the time for it is linear in this, and in the object's bytes.

An object that goes beyond is admitted as it is. Sizes are counted, never times: what is admitted must not
depend on how busy we are.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from argo.shape import mapping
from argo.templates import TemplateRef, defaults_ref, template_refs
from kube.jsonpatch import Op
from memoize import names
from webhook.submit import autokeys
from webhook.submit.findings import Remark

TEMPLATES = 10_000
"""Templates, inline ones included. Each may cost 0.05 ms."""
DEPTH = 16
"""Inline templates in each other; the path of each leads through all of them. Argo runs one in another."""
TAGS = 20_000
"""Tags in keys, names of caches and ages. Each may cost 0.01 ms, of an inherited key once a template."""
TEXT = 4 << 20
"""Characters of them, which are searched for tags."""
OBJECT = 1536 * 1024 - 64 * 1024
"""Bytes of an object as etcd takes it (`--max-request-bytes`), less what may be written to it later."""

_FLAT = (names.KEY, names.CACHE, names.MAX_AGE)


def templates_of(kind: str, obj: Mapping[str, Any]) -> Sequence[TemplateRef] | str:
    """The templates of an object of templates.KINDS, or what there is too much of in it."""
    costs: dict[str, tuple[int, int]] = {}  # an inherited text is measured once, however often it is read

    def cost(text: str) -> tuple[int, int]:
        if text not in costs:
            costs[text] = (len(text), text.count("{{"))
        return costs[text]

    found: list[TemplateRef] = []
    length = tags = 0
    for ref in _refs(kind, obj):
        found.append(ref)
        if len(found) > 1 + TEMPLATES:
            return f"more than {TEMPLATES} templates"
        if len(ref.enclosing) > DEPTH:
            return f"more than {DEPTH} inline templates in each other"
        for text in _texts(ref.template, ref.annotations, ref.default_annotations):
            if isinstance(text, str):
                characters, inside = cost(text)
                length, tags = length + characters, tags + inside
        if tags > TAGS:
            return f"more than {TAGS} tags in keys"
        if length > TEXT:
            return f"more than {TEXT >> 20} MiB of keys"
    return found[1:]


def _refs(kind: str, obj: Mapping[str, Any]) -> Iterator[TemplateRef]:
    """What is in the place of `templateDefaults`, and then the templates."""
    yield defaults_ref(kind, obj) or TemplateRef((), {})
    yield from template_refs(kind, obj)


def _texts(
    template: Mapping[str, Any], annotations: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Sequence[object]:
    """The texts that the template's review reads."""
    block = template.get("memoize")
    found: list[object] = []
    if block is not None:
        fields = mapping(block)
        config_map = mapping(mapping(fields.get("cache")).get("configMap"))
        found = [fields.get("key"), config_map.get("name"), fields.get("maxAge")]
    elif any(name in annotations for name in _FLAT):
        found = [annotations.get(name, defaults.get(name)) for name in _FLAT]
    found += [annotations[name] for name in autokeys.BESIDE if name in annotations]
    if names.AUTO_KEY in (annotations.get(names.KEY, defaults.get(names.KEY)), *found[:1]):
        found += (text for _, text in autokeys.texts(template))
    return found


def too_large(obj: Mapping[str, Any], ops: Sequence[Op], most: int) -> bool:
    """Whether the object, of `most` bytes at most, might not be stored any more once it is changed."""
    if not ops:
        return False
    added = _bytes([op.get("value") for op in ops])
    return most + added > OBJECT and _bytes(obj) + added > OBJECT


def _bytes(value: object) -> int:
    return len(_encoder.encode(value).encode("utf-8", "surrogatepass"))


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def remark(why: str) -> Remark:
    """The warning for the author of an object beyond the budget."""
    return Remark("spec", f"{why}: not reviewed, its memoize blocks stay with Argo")
