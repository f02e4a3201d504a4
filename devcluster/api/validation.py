"""What an object must be before it is stored, and what the API server itself adds or drops.

Only rules that something here depends on, in the server's words: names, labels, the size limits, Leases, and
Pods (podvalidation.py).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from devcluster.api import errors, kinds, podspec, podvalidation
from devcluster.api.errors import Cause, invalid_value, required, too_long
from devcluster.api.kinds import Kind, Object

MAX_DATA_BYTES = 1024 * 1024
"""Of a ConfigMap or Secret: the sum over its values (core validation, MaxSecretSize)."""
MAX_ANNOTATION_BYTES = 256 * 1024
"""Of all annotations of an object, keys and values (apimachinery, TotalAnnotationSizeLimitB)."""

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', "
    f"regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
    "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
    f"regex used for validation is '{_LABEL}')"
)
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    f"regex used for validation is '{_LABEL_VALUE}')"
)
_MICRO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    f"'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
)


def check(kind: Kind, obj: Object, old: Object | None = None) -> None:
    """ApiError 422 with all that is wrong with an object about to be stored, in the place of `old`."""
    causes = [*_check_metadata(kind, obj["metadata"]), *_CHECKS.get(kind, _no_check)(obj)]
    if old is not None and kind is kinds.POD:
        causes += podvalidation.check_pod_update(obj, old)
    if causes:
        raise errors.invalid(kind, obj["metadata"].get("name", ""), causes)


def normalize(kind: Kind, obj: Object) -> Object:
    """The object as it survives the server's decoding; ApiError 400 for values of the wrong type.

    Empty maps and lists of the metadata are dropped, a Secret's stringData is folded into its data, and a
    Namespace is labelled with its name.
    """
    metadata = {key: value for key, value in obj["metadata"].items() if value not in (None, {}, [])}
    normal = {**obj, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    if kind is kinds.NAMESPACE and "name" in metadata:
        own_name = {"kubernetes.io/metadata.name": metadata["name"]}
        metadata["labels"] = {**metadata.get("labels", {}), **own_name}
    if kind in (kinds.CONFIG_MAP, kinds.SECRET):
        if kind is kinds.SECRET:
            normal = _fold_string_data(normal)
        for field in ("data", "binaryData"):
            _check_strings(kind, field, normal.get(field))
            if not normal.get(field):
                normal.pop(field, None)
    for field in ("labels", "annotations"):
        _check_strings(kind, f"metadata.{field}", metadata.get(field))
    if kind is kinds.LEASE:
        normal["spec"] = _lease_spec(normal.get("spec") or {})
    if (spec := podspec.of(kind, normal)) is not None:
        there = {"spec": podspec.normal(spec)}
        normal |= {"template": {**normal["template"], **there}} if kind is kinds.POD_TEMPLATE else there
    return normal


def _lease_spec(spec: Mapping[str, Any]) -> Object:
    """Without nulls; its times are MicroTimes, with six digits after the point and no other way."""
    for field in ("acquireTime", "renewTime"):
        time = spec.get(field)
        if time is not None and not re.fullmatch(_MICRO_TIME, time):
            raise errors.bad_request(
                f'Lease in version "v1" cannot be handled as a Lease: parsing time "{time}" as '
                '"2006-01-02T15:04:05.000000Z07:00": cannot parse'
            )
    return {field: value for field, value in spec.items() if value is not None}


def _check_strings(kind: Kind, field: str, values: Any) -> None:
    names = {dict: "object", list: "array", bool: "bool", int: "number", float: "number", str: "string"}
    wrong = (
        f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: json: cannot unmarshal'
    )
    where = f"into Go struct field {kind.name}.{field}"
    if values is None:
        return
    if not isinstance(values, dict):
        go_name = names.get(type(values), "null")
        raise errors.bad_request(f"{wrong} {go_name} {where} of type map[string]string")
    for value in values.values():
        if not isinstance(value, str):
            raise errors.bad_request(f"{wrong} {names.get(type(value), 'null')} {where} of type string")


def _fold_string_data(secret: Object) -> Object:
    folded = dict(secret)
    plain = folded.pop("stringData", None) or {}
    data = dict(folded.get("data") or {})
    for key, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise errors.bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data ({key})'
            ) from error
    data.update({key: base64.b64encode(value.encode()).decode() for key, value in plain.items()})
    return {"type": "Opaque", **folded, "data": data}


def _check_metadata(kind: Kind, metadata: Mapping[str, Any]) -> Iterable[Cause]:
    name = metadata.get("name", "")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from _check_name(kind, name)
    for key, value in (metadata.get("labels") or {}).items():
        if len(value) > 63:
            yield invalid_value("metadata.labels", value, "must be no more than 63 bytes")
        if not re.fullmatch(_LABEL_VALUE, value):
            yield invalid_value("metadata.labels", value, _LABEL_VALUE_TEXT)
        if len(key.rpartition("/")[2]) > 63:
            yield invalid_value("metadata.labels", key, "name part must be no more than 63 bytes")
    annotations = metadata.get("annotations") or {}
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        > MAX_ANNOTATION_BYTES
    ):
        yield too_long("metadata.annotations", MAX_ANNOTATION_BYTES)


def _check_name(kind: Kind, name: str) -> Iterable[Cause]:
    if kind is kinds.NAMESPACE:
        if "." in name:
            yield invalid_value("metadata.name", name, "must not contain dots")
        elif not re.fullmatch(_LABEL, name):
            yield invalid_value("metadata.name", name, _LABEL_TEXT)
    elif kind.group == kinds.RBAC:
        for character in filter(name.__contains__, "/%"):
            yield invalid_value("metadata.name", name, f"may not contain '{character}'")
    elif not re.fullmatch(_SUBDOMAIN, name):
        yield invalid_value("metadata.name", name, _SUBDOMAIN_TEXT)
    if len(name) > 253:
        yield invalid_value("metadata.name", name, "must be no more than 253 characters")


def _check_config_map(obj: Object) -> Iterable[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    yield from _check_keys("data", data)
    yield from _check_keys("binaryData", binary)
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > MAX_DATA_BYTES:
        yield too_long("[]", MAX_DATA_BYTES)


def _check_secret(obj: Object) -> Iterable[Cause]:
    data = obj.get("data") or {}
    yield from _check_keys("data", data)
    if sum(len(base64.b64decode(value)) for value in data.values()) > MAX_DATA_BYTES:
        yield too_long("data", MAX_DATA_BYTES)


def _check_keys(field: str, data: Mapping[str, str]) -> Iterable[Cause]:
    for key in data:
        where = f"{field}[{key}]"
        if len(key) > 253:
            yield invalid_value(where, key, "must be no more than 253 characters")
        if not re.fullmatch(_CONFIG_KEY, key):
            yield invalid_value(where, key, _CONFIG_KEY_TEXT)


def _check_event(obj: Object) -> Iterable[Cause]:
    about = (obj.get("involvedObject") or {}).get("namespace", "")
    if about != obj["metadata"].get("namespace"):
        yield invalid_value("involvedObject.namespace", about, "does not match event.namespace")


def _check_lease(obj: Object) -> Iterable[Cause]:
    spec = obj.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        yield invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0")
    if transitions is not None and transitions < 0:
        yield invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0")


def _no_check(obj: Object) -> Iterable[Cause]:
    return ()


_CHECKS: dict[Kind, Callable[[Object], Iterable[Cause]]] = {
    kinds.CONFIG_MAP: _check_config_map,
    kinds.SECRET: _check_secret,
    kinds.EVENT: _check_event,
    kinds.LEASE: _check_lease,
    kinds.POD: podvalidation.check_pod,
    kinds.POD_TEMPLATE: podvalidation.check_pod_template,
}
