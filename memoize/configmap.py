"""A cache as a ConfigMap: the requests that write entries into one, and what its answers mean.

One JSON patch says its own condition: it tests the label and adds the entries, whoever wrote in between. It
does not tell a failed test from a ConfigMap that has no data yet: both are a bare 422, so that whoever gets
one has to read the ConfigMap and to write what `seen` makes of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from argo import names as argo
from memoize.outcome import Outcome
from memoize.reasons import Reason

MOST_BYTES = 1 << 20
"""Of all values of a ConfigMap together (MaxSecretSize in k8s.io/api/core/v1)."""
MOST_OBJECT_BYTES = (1536 - 48) << 10
"""Of a whole ConfigMap as etcd keeps it, at a guess: etcd takes requests of 1.5 MiB, unless set otherwise
(embed.DefaultMaxRequestBytes), and some of that is metadata, or around the object. Managed fields do not
count: the API server drops them where they are too much (apiserver/pkg/endpoints/handlers/patch.go)."""
FIELD_MANAGER = "stepmemo"
"""The query parameter `fieldManager` of every write."""

_INVALID = 422
_TOO_LARGE = 413
_FAILED = 500
_TOO_LONG = "FieldValueTooLong"
"""The cause that Kubernetes gives when the values would come to more than MOST_BYTES."""
_TOO_MUCH_FOR_ETCD = ("request is too large", "message larger than max")
"""What etcd, and the API server's client of it, say in a plain 500 when an object comes to more than 1.5 MiB
or 2 MiB with its data keys and managed fields (v3rpc/rpctypes in etcd, grpc's ResourceExhausted)."""


def new(name: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Return the ConfigMap to create where there is none, with these entries by data key."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}},
        "data": dict(entries),
    }


def added(entries: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the JSON patch that puts these entries into a cache that has data, and into nothing else."""
    return [
        _label(),
        *({"op": "add", "path": _path(data_key), "value": text} for data_key, text in entries.items()),
    ]


def replaced(changes: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the JSON patch from `{data key: (old text, new text)}`; it fails where any old text is gone."""
    ops = [_label()]
    for data_key, (old, new) in changes.items():
        ops.append({"op": "test", "path": _path(data_key), "value": old})
        ops.append({"op": "replace", "path": _path(data_key), "value": new})
    return ops


def dropped(data_key: str, text: str) -> list[dict[str, Any]]:
    """Return the JSON patch that takes an entry out of a cache; it fails where that is not its text."""
    return [
        _label(),
        {"op": "test", "path": _path(data_key), "value": text},
        {"op": "remove", "path": _path(data_key)},
    ]


def removed(data_keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return the JSON patch that takes these entries out of a cache; it fails where any of them is gone."""
    return [_label(), *({"op": "remove", "path": _path(data_key)} for data_key in data_keys)]


def seen(
    config_map: Mapping[str, Any], entries: Mapping[str, str], without: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the merge-patch that puts the entries into the ConfigMap as it was read, and drops `without`.

    Its resourceVersion makes the server refuse when anybody wrote since (409). It names single keys, and
    works where there is no data yet.
    """
    changes: dict[str, str | None] = {**dict.fromkeys(without), **entries}
    return {
        "metadata": {"resourceVersion": config_map["metadata"].get("resourceVersion")},
        "data": changes,
    }


def data(config_map: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of a ConfigMap by data key."""
    found = config_map.get("data")
    if not isinstance(found, Mapping):
        return {}
    return {data_key: text for data_key, text in found.items() if isinstance(text, str)}


def size(text: str) -> int:
    """Return what a value counts against MOST_BYTES; data keys count nothing."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def object_bytes(data_key: str, text: str) -> int:
    """Return what an entry counts against MOST_OBJECT_BYTES, with lengths and tags of protocol buffers."""
    return size(text) + len(data_key) + 12


def binary_bytes(config_map: Mapping[str, Any]) -> int:
    """Return what counts against MOST_BYTES besides the data (core/validation.ValidateConfigMap)."""
    found = config_map.get("binaryData")
    values = found.values() if isinstance(found, Mapping) else ()
    return sum(len(text) * 3 // 4 for text in values if isinstance(text, str))


def used(config_map: Mapping[str, Any]) -> int:
    """Return what counts against MOST_BYTES, and against a limit of the cache's own."""
    return binary_bytes(config_map) + sum(map(size, data(config_map).values()))


def refused(config_map: Mapping[str, Any]) -> Outcome | None:
    """Return why nothing is written into this ConfigMap, or None."""
    if outcome := not_a_cache(config_map):
        return outcome
    if config_map.get("immutable") is True:
        return Outcome(Reason.NOT_A_CACHE, "the ConfigMap is immutable")
    return None


def not_a_cache(config_map: Mapping[str, Any]) -> Outcome | None:
    """Return the outcome for a ConfigMap without the label: it is neither read nor written."""
    if _of_metadata(config_map, "labels").get(argo.CONFIGMAP_TYPE) == argo.CONFIGMAP_TYPE_CACHE:
        return None
    return Outcome(
        Reason.NOT_A_CACHE,
        f"the ConfigMap lacks the label {argo.CONFIGMAP_TYPE}: {argo.CONFIGMAP_TYPE_CACHE}",
    )


def annotations(config_map: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the annotations of a ConfigMap, given whole or by its metadata."""
    return _of_metadata(config_map, "annotations")


def too_large(status: int, causes: Iterable[str], message: str = "") -> bool:
    """Whether an answer says that the ConfigMap would be too large.

    `causes` are the reasons (details.causes[].reason) and `message` the text of its metav1.Status.
    """
    if status == _INVALID:
        return _TOO_LONG in causes
    return status == _TOO_LARGE or (
        status == _FAILED and any(words in message for words in _TOO_MUCH_FOR_ETCD)
    )


def object_too_large(status: int, message: str = "") -> bool:
    """Whether an answer says so for more than its values: for all that etcd, or a proxy, has to take."""
    return status != _INVALID and too_large(status, (), message)


def too_large_for(text: str, limit: int = MOST_BYTES) -> Outcome | None:
    """Return the outcome for an entry that is larger than a whole ConfigMap may be, else None."""
    if (length := size(text)) > limit:
        detail = f"an entry of {length} bytes does not fit into the {limit} that the ConfigMap may hold"
        return Outcome(Reason.CACHE_FULL, detail)
    return None


def stored(text: str) -> Outcome:
    """Return the outcome for an entry that is in the cache."""
    return Outcome(Reason.STORED, f"{size(text)} bytes")


def full(text: str) -> Outcome:
    """Return the outcome for an entry that finds no room, whatever goes that may."""
    return Outcome(Reason.CACHE_FULL, f"no room for {size(text)} bytes in the ConfigMap")


def _of_metadata(config_map: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    metadata = config_map.get("metadata")
    found = metadata.get(field) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _label() -> dict[str, Any]:
    return {
        "op": "test",
        "path": "/metadata/labels/" + argo.CONFIGMAP_TYPE.replace("/", "~1"),
        "value": argo.CONFIGMAP_TYPE_CACHE,
    }


def _path(data_key: str) -> str:
    """Return where an entry lies; no data key that Kubernetes takes needs escaping (IsConfigMapKey)."""
    return f"/data/{data_key}"
