"""Objects between a request's body and the store: reading them, and what the server alone sets in them."""

import json
from typing import Any

from devcluster.api import errors, kinds, naming, pods, validation
from devcluster.api.kinds import Kind, Object
from devcluster.api.requests import RequestInfo

_SYSTEM_FIELDS = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
)


def decode(info: RequestInfo, body: bytes) -> Object:
    """The object in a create's or update's body, fit for its path; ApiError 400."""
    kind = info.kind
    obj = parse(kind, body)
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    if kind.namespaced and metadata.setdefault("namespace", info.namespace) != info.namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if info.name and metadata.get("name", "") != info.name:
        raise errors.other_on_url("name", metadata.get("name", ""), info.name)
    return validation.normalize(kind, {**obj, "metadata": metadata})


def identified(kind: Kind, obj: Object) -> Object:
    """A new object with its name (made from generateName where it has none), UID and first status."""
    metadata = dict(obj["metadata"])
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = naming.generated(metadata["generateName"])
    metadata["uid"] = naming.uid()
    metadata["creationTimestamp"] = naming.timestamp()
    if kind.custom:
        metadata["generation"] = 1
    new = {**obj, "metadata": metadata}
    if kind is kinds.NAMESPACE:
        new["status"] = {"phase": "Active"}
    if kind is kinds.POD:
        new["status"] = pods.first_status(new["spec"])
    return validation.normalize(kind, new)


def parse(kind: Kind, body: bytes) -> Object:
    """The object of a kind in a request's body; ApiError 400 if there is none."""
    shown = body.decode(errors="replace")
    unrecognized = f"the object provided is unrecognized (must be of type {kind.name}):"
    try:
        obj = json.loads(body)
    except ValueError as error:
        raise errors.bad_request(
            f"{unrecognized} couldn't get version/kind; json parse error: {error} ({shown:.300})"
        ) from error
    if not isinstance(obj, dict):
        raise errors.bad_request(f"{unrecognized} couldn't get version/kind; json parse error ({shown:.300})")
    found = obj.get("kind")
    if not found and kind.custom:
        raise errors.bad_request(f"{unrecognized} Object 'Kind' is missing in '{shown:.300}' ({shown:.300})")
    version = obj.get("apiVersion")
    if found not in (None, "", kind.name) or version not in (None, "", kind.api_version):
        raise errors.bad_request(
            f'{found} in version "{version or kind.api_version}" cannot be handled as a {kind.name}'
        )
    obj.update(kind=kind.name, apiVersion=kind.api_version)
    return obj


def with_system_fields(info: RequestInfo, wanted: Object, old: Object) -> Object:
    """The wanted object with what only the server may set; ApiError where it insists on another."""
    before: dict[str, Any] = old["metadata"]
    metadata = dict(wanted.get("metadata") or {})
    for field in ("name", "namespace"):
        if metadata.get(field, before.get(field)) != before.get(field):
            raise errors.other_on_url(field, metadata[field], before[field])
    if metadata.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
        raise errors.conflict(info.kind, info.name)
    if metadata.get("uid", before["uid"]) != before["uid"]:
        cause = errors.invalid_value("metadata.uid", metadata["uid"], "field is immutable")
        raise errors.invalid(info.kind, info.name, [cause])
    metadata.update({field: before[field] for field in _SYSTEM_FIELDS if field in before})
    new = {**wanted, "metadata": metadata}
    if not info.kind.status_subresource:
        return new
    if info.subresource == "status":
        # Of the metadata, owners alone are kept from this way (podStatusStrategy in registry/core/pod).
        metadata.pop("ownerReferences", None)
        metadata |= {key: before[key] for key in ("ownerReferences",) if key in before}
        return {**old, "metadata": metadata} | {key: new[key] for key in ("status",) if key in new}
    return {**new, "status": old.get("status", {})}


def with_generation(kind: Kind, new: Object, old: Object) -> Object:
    """A custom resource's generation counts the changes outside its metadata."""
    content = [{key: value for key, value in obj.items() if key != "metadata"} for obj in (new, old)]
    if not kind.custom or content[0] == content[1]:
        return new
    generation = old["metadata"].get("generation", 0) + 1
    return {**new, "metadata": {**new["metadata"], "generation": generation}}
