"""The patch types that the devcluster takes: JSON Patch, JSON merge patch, for Pods some strategic merge.

The API server applies JSON Patch with a Go library that is laxer than RFC 6902 in two places that callers
can see: a `test` against null passes where the member is absent, and `replace` sets a member that is absent.
Of strategic merge patch there is what takes a Pod's scheduling gates by their names. Server-side apply is
left out: nothing here uses it.
"""

import copy
import json
from typing import Any

from devcluster.api import errors
from devcluster.api.kinds import Kind, Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
ACCEPTED = (JSON_PATCH, MERGE_PATCH)
_MERGED_BY_NAME = "schedulingGates"

_GO_NAMES = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "bool"}


class PatchError(Exception):
    """A JSON Patch that does not apply; the text is only for webhook answers, clients never see it."""


def decode(content_type: str, body: bytes, kind: Kind) -> Any:
    """The decoded patch of a PATCH request; ApiError 400 or 415 if it is none."""
    accepted = (*ACCEPTED, STRATEGIC_MERGE_PATCH) if kind.name == "Pod" else ACCEPTED
    if content_type not in accepted:
        raise errors.unsupported_patch(accepted)
    try:
        patch = json.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from error
    go_name = _GO_NAMES.get(type(patch), "null")
    if content_type == JSON_PATCH and not isinstance(patch, list):
        go_type = "[]handlers.jsonPatchOp"
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {go_name} into Go value of type {go_type}"
        )
    if content_type != JSON_PATCH and not isinstance(patch, dict):
        go_type = "map[string]interface {}"
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {go_name} into Go value of type {go_type}"
        )
    return patch


def apply(content_type: str, patch: Any, obj: Object) -> Object:
    """The object with the decoded patch applied; the object itself stays. ApiError 422 if it does not fit."""
    if content_type == MERGE_PATCH:
        merged: Object = merge(obj, patch)
        return merged
    if content_type == STRATEGIC_MERGE_PATCH:
        return _merge_strategically(patch, obj)
    try:
        return apply_operations(patch, obj)
    except PatchError as error:
        raise errors.patch_failed() from error


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386): null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _merge_strategically(patch: Any, obj: Object) -> Object:
    """A merge patch, but for the scheduling gates: each of the patch's is added, or deleted, by its name."""
    spec = patch.get("spec") or {}
    others = {**patch, "spec": {key: value for key, value in spec.items() if key != _MERGED_BY_NAME}}
    merged: Object = merge(obj, others)
    gates = {gate["name"]: gate for gate in merged["spec"].get(_MERGED_BY_NAME) or ()}
    for gate in spec.get(_MERGED_BY_NAME) or ():
        if gate.get("$patch") == "delete":
            gates.pop(gate["name"], None)
        else:
            gates[gate["name"]] = gate
    merged["spec"].pop(_MERGED_BY_NAME, None)
    if gates:
        merged["spec"][_MERGED_BY_NAME] = list(gates.values())
    return merged


def apply_operations(operations: list[Any], obj: Object) -> Object:
    """JSON Patch (RFC 6902) on a copy of the object; PatchError names the operation that does not fit."""
    root: Any = {"": copy.deepcopy(obj)}
    for operation in operations:
        try:
            _apply_one(root, operation)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise PatchError(f"{_describe(operation)} does not apply: {error}") from error
    result: Object = root[""]
    return result


def _describe(operation: Any) -> str:
    if not isinstance(operation, dict):
        return "operation"
    return f"{operation.get('op')} operation at {operation.get('path')}"


def _apply_one(root: Any, operation: Any) -> None:
    match operation["op"]:
        case "add":
            _add(root, operation["path"], copy.deepcopy(operation["value"]))
        case "replace":
            parent, key = _locate(root, operation["path"])
            parent[key] = copy.deepcopy(operation["value"])
        case "remove":
            parent, key = _locate(root, operation["path"])
            del parent[key]
        case "test":
            parent, key = _locate(root, operation["path"])
            found = parent.get(key) if isinstance(parent, dict) else parent[key]
            if not _equal(found, operation.get("value")):
                raise ValueError("testing value failed")
        case "copy":
            parent, key = _locate(root, operation["from"])
            _add(root, operation["path"], copy.deepcopy(parent[key]))
        case "move":
            parent, key = _locate(root, operation["from"])
            value = parent[key]
            del parent[key]
            _add(root, operation["path"], value)
        case unknown:
            raise ValueError(f"unexpected kind {unknown}")


def _add(root: Any, path: str, value: Any) -> None:
    parent, key = _locate(root, path)
    if not isinstance(parent, list):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    elif key <= len(parent):
        parent.insert(key, value)
    else:
        raise IndexError(f"index {key} is beyond the list")


def _locate(root: Any, path: str) -> tuple[Any, Any]:
    """The container that a JSON Pointer's last part is looked up in, and that part."""
    if path and not path.startswith("/"):
        raise ValueError(f"{path} is not a JSON Pointer")
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
    container = root
    for part in parents:
        container = container[_key(container, part)]
    if not isinstance(container, dict | list):
        raise TypeError(f"nothing can lie at {path}")
    return container, _key(container, last)


def _key(container: Any, part: str) -> Any:
    if not isinstance(container, list) or part == "-":
        return part
    index = int(part)
    if index < 0:
        raise IndexError(f"index {index} is before the list")
    return index


def _equal(found: Any, wanted: Any) -> bool:
    """JSON equality: Python holds True equal to 1."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_equal(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    return bool(found == wanted)
