"""The JSON Patch operations (RFC 6902) that the webhooks answer with, and whoever else changes a Pod.

Operations are built one by one, where the decision is made, instead of by comparing two documents: what the
webhook changes can then be read in the code that decides it, and nothing else can slip in.
"""

from typing import Any

Op = dict[str, Any]
"""One JSON Patch operation, ready for json.dumps."""

END = "-"
"""As the last part of a path: behind the last element of a list (RFC 6901, section 4)."""


def pointer(*parts: str | int) -> str:
    """The JSON Pointer (RFC 6901) to a place; no parts mean the whole document."""
    return "".join(["/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts])


def add(parts: tuple[str | int, ...], value: Any) -> Op:
    """Set a member of an object, or insert into a list before the index given (END appends)."""
    return {"op": "add", "path": pointer(*parts), "value": value}


def put(parts: tuple[str | int, ...], name: str, value: Any, *, there: object) -> Op:
    """Set a member of the object at `parts`; `there` is false where that object is missing, or empty."""
    return add((*parts, name), value) if there else add(parts, {name: value})


def replace(parts: tuple[str | int, ...], value: Any) -> Op:
    """Give a place that exists another value; the API server refuses the patch where it does not exist."""
    return {"op": "replace", "path": pointer(*parts), "value": value}


def remove(parts: tuple[str | int, ...]) -> Op:
    """Take a place that exists away; the API server refuses the patch where it does not exist."""
    return {"op": "remove", "path": pointer(*parts)}


def apply(document: Any, op: Op) -> None:
    """Carry out an `add`, `replace` or `remove` of ours on a document, which then shares the value.

    LookupError or TypeError for a place that is not there, where the API server refuses the whole patch.
    """
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:])
    owner = document
    for part in parents:
        owner = owner[int(part)] if isinstance(owner, list) else owner[part]
    adds, at = op["op"] == "add", last
    if isinstance(owner, list):
        at = len(owner) if adds and last == END else int(last)
        if not 0 <= at < len(owner) + adds:
            raise IndexError(op["path"])
    elif not adds and last not in owner:
        raise KeyError(op["path"])
    if op["op"] == "remove":
        del owner[at]
    elif adds and isinstance(owner, list):
        owner.insert(at, op["value"])
    else:
        owner[at] = op["value"]


def test(parts: tuple[str | int, ...], value: Any) -> Op:
    """Ask for a value that stands there already; the API server refuses the whole patch for any other."""
    return {"op": "test", "path": pointer(*parts), "value": value}
