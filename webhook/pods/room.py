"""What there is room for in a Pod: no Pod may be refused for what stepmemo adds to it.

Pure. An API server takes a Pod with so many bytes of annotations, and etcd one of so many bytes in all; Linux
hands a program variables of so many. Where there is no room for a key its digest takes its place, and where
there is none for what we add the Pod is left alone.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from argo.shape import mapping
from argo.templates import items
from kube.jsonpatch import Op, add, remove
from memoize import names
from memoize.key import data_key, is_hashed

ANNOTATIONS = 256 * 1024
"""Bytes of all annotations of an object, keys and values (TotalAnnotationSizeLimitB, ValidateAnnotationsSize
in apimachinery, pkg/api/validation/objectmeta.go)."""
OBJECT = 1536 * 1024
"""Bytes of an object as it is stored (etcd's `--max-request-bytes`, DefaultMaxRequestBytes)."""
VARIABLE = 128 * 1024 - 1
"""Bytes of `NAME=value` that Linux lets a program start with (MAX_ARG_STRLEN, its final NUL taken off)."""

CONTAINERS = 1_000
"""Of a Pod that is looked at; each may cost 0.05 ms. A kubelet runs Pods with some dozens."""

_LATER = 16 * 1024
"""Bytes of OBJECT that are left for what is written on the Pod after its creation."""
_STORED = 8
"""The most that a byte of JSON comes to in storage, with what `managedFields` says of each field."""
_MERGE_KEYS = frozenset(
    {"conditionType", "containerPort", "devicePath", "ip", "key", "mountPath", "name", "port", "protocol"}
    | {"resourceName", "topologyKey", "type", "uid", "whenUnsatisfiable"}
)
"""Members that tell one element of a list from another, and so are repeated in `managedFields`."""


def shortened(pod: Mapping[str, Any], written: Mapping[str, str]) -> list[Op] | None:
    """The operations that make room in the Pod's annotations for those that are `written` into it.

    None: there is no room for them. The only thing that can give way is a key whose entry lies under its
    digest anyway.
    """
    annotations = pod["metadata"].get("annotations") or {}
    used = _bytes({**annotations, **written})
    if used <= ANNOTATIONS:
        return []
    key = annotations.get(names.KEY)
    if key is None or not is_hashed(data_key(str(key))):
        return None
    digest = {names.KEY_DIGEST: data_key(str(key))}
    rest = {name: text for name, text in annotations.items() if name != names.KEY}
    if _bytes({**rest, **written, **digest}) > ANNOTATIONS:
        return None
    at = ("metadata", "annotations")
    return [remove((*at, names.KEY)), add((*at, names.KEY_DIGEST), digest[names.KEY_DIGEST])]


def fitted(
    pod: Mapping[str, Any], ops: Sequence[Op], written: Mapping[str, str], most: int = sys.maxsize
) -> list[Op] | str:
    """The operations `ops`, and those that make room for them; or why there is none.

    `written` are the annotations that they, and whoever ends what they begin, write; `most` is what too_large
    says.
    """
    room = shortened(pod, written)
    if room is None:
        return "its annotations leave none for ours"
    made = [*ops, *room]
    return "it is nearly as large as an object may be" if too_large(pod, made, most) else made


def too_large(pod: Mapping[str, Any], ops: Sequence[Op], most: int = sys.maxsize) -> bool:
    """Whether the Pod might not be stored any more once the operations are carried out.

    Where that cannot be told the answer is yes, for Pods of no less than an eighth of OBJECT. `most` are
    bytes that the Pod is known not to exceed, so that most Pods need not be measured.
    """
    added = [op.get("value") for op in ops]
    ours = _json(added) * _STORED + _LATER
    if most * _STORED + ours <= OBJECT:
        return False
    size = _json(pod)
    if size * _STORED + ours <= OBJECT:
        return False
    return size + _managed(pod) + _json(added) + _managed(added) + _LATER > OBJECT


def too_many_containers(pod: Mapping[str, Any]) -> bool:
    """Whether there are more of them than are looked at."""
    spec = mapping(pod.get("spec"))
    return sum(len(items(spec.get(kind))) for kind in ("initContainers", "containers")) > CONTAINERS


def is_too_long(name: str, value: str) -> bool:
    """Whether no program can be started with this variable."""
    return len(f"{name}={value}".encode("utf-8", "surrogatepass")) > VARIABLE


def _bytes(annotations: Mapping[str, Any]) -> int:
    return sum(len(f"{name}{text}".encode("utf-8", "surrogatepass")) for name, text in annotations.items())


def _json(value: object) -> int:
    """Bytes of a value as JSON, which is more than what protobuf makes of it."""
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):
        # What no API server writes, such as half of a surrogate pair.
        return len(_encoder.encode(value).encode("utf-8", "surrogatepass"))


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def _managed(value: object) -> int:
    """The most that `managedFields` says of the fields in a value: FieldsV1 names each of them once."""
    size, rest = 0, [value]
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping):
            size += len(json.dumps(list(value))) + len(value) * len('"f:":{".":{}},')
            rest += value.values()
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, Mapping):
                    told = {name: inner[name] for name in _MERGE_KEYS & inner.keys()}
                    # Quoted once more, since it is a name there.
                    size += len(json.dumps(json.dumps(told))) + len('"k:":{".":{}},')
                    rest.append(inner)
                else:
                    size += len('"v:":{},')
    return size
