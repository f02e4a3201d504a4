"""What cannot work in a template's memoization: the rules whose breach is a denial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from argo import tags
from argo.fields import FieldError, Kind, annotation, misspelt
from argo.shape import mapping
from argo.tags import Tag
from argo.templates import TemplateRef
from memoize import names, opt_in, spec
from memoize.spec import Memo
from webhook.submit import autokeys

_FLAT = (names.KEY, names.CACHE, names.MAX_AGE)


class Validation(NamedTuple):
    """What a template says of memoization, and what is wrong with it."""

    memo: Memo | None
    """None where it says nothing, or nothing sound."""
    key_path: str
    """The field that the key stands in; empty where there is none."""
    errors: list[FieldError]
    key_tags: Sequence[Tag] = ()
    """The tags in the key."""

    @property
    def home(self) -> str:
        """The block, or the annotation that holds the key; empty where there is neither."""
        return self.key_path.removesuffix(".key")

    @property
    def silent(self) -> bool:
        """Whether the template does not concern us at all."""
        return self.memo is None and not self.errors


def validate_template(ref: TemplateRef, own: Mapping[str, Any]) -> Validation:
    """What one template says, and what is wrong with it.

    `own` are its annotations without those that we made from a block.

    A block counts before annotations; without one the annotations count that Argo will see, those of
    `templateDefaults` merged under the template's.
    """
    metadata = f"{ref.path}.metadata"
    errors = [*opt_in.errors(own, f"{metadata}.annotations", may_hold_tags=True), *autokeys.errors(ref, own)]
    for beside in autokeys.BESIDE:
        if not ref.is_defaults and tags.has_tags(said := str(own.get(beside, ""))):
            errors += _input_errors(ref, annotation(metadata, beside), said, tags.find(said))
    block = ref.template.get("memoize")
    if block is not None:
        path = f"{ref.path}.memoize"
        fields = _Fields(f"{path}.key", f"{path}.cache.configMap.name", f"{path}.maxAge")
        memo, found = spec.from_block(block, path)
        texts = _texts_of_block(block)
        errors += found
        if own:
            errors += _contradictions(ref, fields, texts, own)
    elif any(name in ref.annotations for name in _FLAT):
        fields = _Fields(*map(ref.annotation_path, _FLAT))
        annotations = ref.seen_by_argo(ref.annotations, _FLAT)
        memo, found = spec.from_annotations(annotations, metadata)
        texts = [annotations.get(name) for name in _FLAT]
        stands_at = {annotation(metadata, name): ref.annotation_path(name) for name in _FLAT}
        errors += [replace(error, field=stands_at[error.field]) for error in found]
    else:
        return Validation(None, "", errors)
    found_tags = [tags.find(text) if isinstance(text, str) else [] for text in texts]
    if not ref.is_defaults:
        for field, text, tags_in_it in zip(fields, texts, found_tags, strict=True):
            if tags_in_it:
                errors += _input_errors(ref, field, text, tags_in_it)
    return Validation(memo if not errors else None, fields.key, errors, found_tags[0])


class _Fields(NamedTuple):
    """The paths of the three things that an author may say, in the order of _FLAT."""

    key: str
    cache: str
    max_age: str


def _texts_of_block(block: object) -> list[object]:
    """What a block says, in the order of _FLAT, sound or not."""
    fields = mapping(block)
    config_map = mapping(mapping(fields.get("cache")).get("configMap"))
    return [fields.get("key"), config_map.get("name"), fields.get("maxAge")]


def _contradictions(
    ref: TemplateRef, fields: _Fields, texts: list[object], own: Mapping[str, Any]
) -> Iterator[FieldError]:
    """The template's own annotations that say something else than the block beside them."""
    for name, field, text in zip(_FLAT, fields, texts, strict=True):
        says = "" if text is None and name == names.MAX_AGE else text
        if name in own and says is not None and own[name] != says:
            where = annotation(f"{ref.path}.metadata", name)
            detail = f"contradicts {field}: keep one of the two"
            yield FieldError(where, Kind.INVALID, detail, own[name])


def _input_errors(ref: TemplateRef, path: str, text: object, found: Sequence[Tag]) -> Iterator[FieldError]:
    """Tags that name an input which the template does not have."""
    whose = "this template" if path.startswith(f"{ref.path}.") else ref.path
    for tag in tags.distinct(found):
        for name in tag.certain:
            if name[0] != "inputs" or len(name) < 2:
                continue
            if name[1] not in _INPUTS:
                yield FieldError(path, Kind.INVALID, f"{tag}: ", text, misspelt(name[1], _INPUTS))
            elif name[1] == "parameters" and len(name) > 2 and not ref.resolves(_parameter(tag, name[2:])):
                detail = f"{tag} names no input parameter of {whose}: "
                if ref.parameters:
                    yield FieldError(path, Kind.INVALID, detail, text, misspelt(name[2], ref.parameters))
                else:
                    yield FieldError(path, Kind.INVALID, f"{detail}it has none", text)


_INPUTS = ("parameters", "artifacts")


def _parameter(tag: Tag, rest: tuple[str, ...]) -> str:
    """The parameter in a name. An expression goes on into its value; a simple tag is one name to its end."""
    return rest[0] if tag.expression else ".".join(rest)
