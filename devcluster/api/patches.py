"""The patch types that the devcluster takes: JSON Patch, JSON merge patch and some of strategic merge patch.

The API server applies JSON Patch with a Go library that is laxer than RFC 6902 in two places that callers
can see: a `test` against null passes where the member is absent, and `replace` sets a member that is absent.
Of strategic merge patch, which Kubernetes' own kinds take, there is a list with a merge key, and in it
`$patch: delete`; a patch with more is refused. Server-side apply is left out: nothing here uses it.
"""

import copy
import json
from typing import Any

from devcluster.api import errors
from devcluster.api.kinds import Kind, Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_MERGE_KEYS = {"schedulingGates": "name"}
"""The lists that a strategic merge patch merges here, by their field: what their items are known by
(`patchMergeKey` of the Go type; kubernetes, staging/src/k8s.io/api/core/v1/types.go)."""
_DIRECTIVE = "$patch"

_GO_NAMES = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "bool"}


class PatchError(Exception):
    """A JSON Patch that does not apply; the text is only for webhook answers, clients never see it."""


def decode(content_type: str, body: bytes, kind: Kind) -> Any:
    """The decoded patch of a PATCH request; ApiError 400 or 415 if it is none."""
    accepted = (JSON_PATCH, MERGE_PATCH) if kind.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
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
    if content_type == STRATEGIC_PATCH:
        return _merged_by_kind(obj, patch)
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


def _merged_by_kind(target: Object, patch: Object) -> Object:
    """Strategic merge patch (mergeMap in apimachinery, strategicpatch/patch.go); ApiError 501 beyond it."""
    merged = dict(target)
    for name, value in patch.items():
        found = merged.get(name)
        if name.startswith("$"):
            raise errors.not_implemented(f"{name} in a strategic merge patch")
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merged_by_kind(found if isinstance(found, dict) else {}, value)
        elif not isinstance(value, list):
            merged[name] = value
        elif name in _MERGE_KEYS:
            merged[name] = _merged_items(found or [], value, _MERGE_KEYS[name])
        else:
            raise errors.not_implemented(f"a list {name} in a strategic merge patch")
    return merged


def _merged_items(found: list[Any], items: list[Any], key: str) -> list[Any]:
    """The list without what the patch deletes, and with what it adds or changes."""
    merged = {each[key]: each for each in found}
    for item in items:
        match item.get(_DIRECTIVE):
            case None:
                merged[item[key]] = {**merged.get(item[key], {}), **item}
            case "delete":
                merged.pop(item[key], None)
            case other:
                raise errors.not_implemented(f"{_DIRECTIVE}: {other} in a strategic merge patch")
    return list(merged.values())


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
