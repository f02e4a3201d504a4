"""What goes with `key: auto` at submit: mistakes beside it, and what keeps it from doing what is hoped.

What counts for the key is said in memoize/autokey.py, which sees the Pod. Here it is looked for in the
template as its author wrote it, where tags still show what differs in every run.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from argo import tags
from argo.fields import FieldError, Kind, annotation, misspelt
from argo.shape import mapping
from argo.templates import Parts, TemplateRef, dotted, objects
from memoize import autokey, names, spec
from webhook.submit.findings import Remark

BESIDE = (names.KEY_IGNORE, names.SALT)
"""Annotations that mean something beside such a key alone."""

_WHOLE = ("resource", "data", "volumes")


def errors(ref: TemplateRef, own: Mapping[str, Any]) -> Iterator[FieldError]:
    """What is wrong with what a template itself says beside its key."""
    for name in BESIDE:
        if name in own:
            yield from spec.text_errors(own[name], annotation(f"{ref.path}.metadata", name))
    for name in _ignored(own):
        kind, _, rest = name.partition("/")
        if kind in autokey.IGNORABLE and rest:
            continue
        of_parameters = kind.rstrip("s").endswith("parameter")
        detail = _OF_PARAMETERS if of_parameters else "must be env/NAME or artifact/NAME"
        where = annotation(f"{ref.path}.metadata", names.KEY_IGNORE)
        yield FieldError(where, Kind.INVALID, detail, name)


_OF_PARAMETERS = (
    "a parameter cannot be left out, Argo has filled it in where it is used: hand it to the container in a "
    "variable, and write env/NAME"
)


def without_auto(ref: TemplateRef, own: Mapping[str, Any], _: frozenset[str]) -> Iterator[Remark]:
    """What a template says without effect, having no such key; `templateDefaults` may say it for others."""
    for name in BESIDE:
        if name in own and not ref.is_defaults:
            yield Remark(annotation(f"{ref.path}.metadata", name), 'counts beside key "auto" alone')


def remarks(ref: TemplateRef, own: Mapping[str, Any], claims: frozenset[str]) -> Iterator[Remark]:
    """What to know of a template with such a key.

    `own` are its annotations, `claims` the volumes that are made for each workflow anew
    (`volumeClaimTemplates`).
    """
    if ref.is_defaults:
        return
    left_out = frozenset(_ignored(ref.seen_by_argo(own, (names.KEY_IGNORE,))))
    yield from _unknown(ref, own)
    for parts, container in _containers(ref.template):
        path = dotted((*ref.parts, *parts))
        image = container.get("image")
        if isinstance(image, str) and _moves(image):
            yield Remark(f"{path}.image", f"{image} may move: the key stays as it is when it does")
        for mount in objects(container.get("volumeMounts")):
            if mount.get("name") in claims:
                text = f"{mount['name']} is another claim in every run: the key never comes back"
                yield Remark(f"{path}.volumeMounts", text)
    if ref.type == "data":
        yield Remark(f"{ref.path}.data", "the key stays as it is when what is listed there changes")
    for parts, text in texts(ref.template, left_out):
        for varying in tags.varying(tags.find(text)):
            told = f"{varying} differs in every run: the key never comes back"
            yield Remark(dotted((*ref.parts, *parts)), told)


def texts(template: Mapping[str, Any], left_out: frozenset[str] = frozenset()) -> Iterator[tuple[Parts, str]]:
    """The texts with tags in them that are parts of the key, each with its place in the template."""
    for parts, container in _containers(template):
        for field, value in container.items():
            if field == "env":
                for i, entry in enumerate(objects(value)):
                    if f"env/{entry.get('name')}" not in left_out:
                        yield from _tagged((*parts, "env", i), entry)
            elif field not in autokey.NO_PART:
                yield from _tagged((*parts, field), value)
    for field in _WHOLE:
        yield from _tagged((field,), template.get(field))
    for side in ("inputs", "outputs"):
        for i, artifact in enumerate(objects(mapping(template.get(side)).get("artifacts"))):
            if f"artifact/{artifact.get('name')}" not in left_out:
                yield from _tagged((side, "artifacts", i), artifact)


def _ignored(annotations: Mapping[str, Any]) -> list[str]:
    """The names to leave out; of a text with tags nothing is known yet."""
    text = annotations.get(names.KEY_IGNORE)
    return [] if tags.has_tags(str(text)) else autokey.ignored(text)


def _unknown(ref: TemplateRef, own: Mapping[str, Any]) -> Iterator[Remark]:
    """Names to leave out that the template does not have."""
    known: dict[str, dict[str, None]] = {"env": {}, "artifact": {}}
    for _, container in _containers(ref.template):
        known["env"].update(_names(container.get("env")))
    for side in ("inputs", "outputs"):
        known["artifact"].update(_names(mapping(ref.template.get(side)).get("artifacts")))
    for one in _ignored(own):
        kind, _, name = one.partition("/")
        if kind in known and name not in known[kind]:
            where = annotation(f"{ref.path}.metadata", names.KEY_IGNORE)
            yield Remark(where, f"there is no {one} here: ", misspelt(name, known[kind]))


def _names(found: object) -> dict[str, None]:
    return {str(one.get("name")): None for one in objects(found)}


def _containers(template: Mapping[str, Any]) -> Iterator[tuple[Parts, Mapping[str, Any]]]:
    for field in ("container", "script"):
        if isinstance(template.get(field), dict):
            yield (field,), template[field]
    of_set: Iterable[object] = objects(mapping(template.get("containerSet")).get("containers"))
    yield from ((("containerSet", "containers", i), mapping(c)) for i, c in enumerate(of_set))
    for field in ("sidecars", "initContainers"):
        yield from (((field, i), c) for i, c in enumerate(objects(template.get(field))))


def _moves(image: str) -> bool:
    """Whether the image is whatever is newest: tag `latest`, or none. What Argo fills in is not known."""
    if "@" in image or tags.has_tags(image):
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


def _tagged(parts: Parts, value: object) -> Iterator[tuple[Parts, str]]:
    """The texts with tags in a value, whatever it is made of, all of them at its place."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            if tags.has_tags(value):
                yield parts, value
        elif isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value
