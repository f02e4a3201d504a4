"""Lists in pages: `limit` and `continue`, and what a token is that has grown too old.

All pages of one list show the collection as it was when the first was read, in the order of the keys that
the real server keeps in etcd. Its tokens look like these (apiserver, pkg/storage/continue.go), but no client
is to look inside.
"""

import base64
import json
from collections.abc import Mapping

from devcluster.api import errors
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Kind, Object
from devcluster.api.selectors import Predicate
from devcluster.api.store import Store

_VERSION = "meta.k8s.io/v1"


def page(
    store: Store, kind: Kind, namespace: str, selected: Predicate, query: Mapping[str, str]
) -> tuple[list[Object], Object]:
    """The objects of the page that a list's query asks for, and the list's metadata.

    ApiError 400 for a query that cannot be, 410 where the first page is no longer remembered.
    """
    limit = _limit(query)
    start, revision = _position(store, query)
    try:
        everything = store.objects_at(kind, namespace or None, revision)
    except ApiError as error:
        raise errors.continue_expired(_token(start, -1)) from error
    left = [obj for obj in everything if selected(obj) and _key(obj, namespace) >= start]
    metadata: Object = {"resourceVersion": str(revision)}
    if kind.custom:
        metadata["continue"] = ""
    if limit and len(left) > limit:
        metadata["continue"] = _token(_key(left[limit - 1], namespace) + "\0", revision)
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(left) - limit
        left = left[:limit]
    return left, metadata


def _limit(query: Mapping[str, str]) -> int:
    """How many objects at most, 0 for all; `resourceVersion=0` is answered from memory, whole."""
    text = query.get("limit") or "0"
    try:
        limit = int(text)
    except ValueError as error:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error
    return 0 if query.get("resourceVersion") == "0" and not query.get("continue") else max(limit, 0)


def _position(store: Store, query: Mapping[str, str]) -> tuple[str, int]:
    """The first key of the page, and the revision at which the objects are looked at."""
    token = query.get("continue")
    if not token:
        return "", store.revision
    if query.get("resourceVersion", "0") not in ("", "0"):
        raise errors.bad_request("specifying resource version is not allowed when using continue")
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        start, revision = str(found["start"]), int(found["rv"])
    except (ValueError, LookupError, TypeError) as error:
        raise errors.bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    return start, revision if revision > 0 else store.revision


def _token(start: str, revision: int) -> str:
    found = {"v": _VERSION, "rv": revision, "start": start}
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode().rstrip("=")


def _key(obj: Object, namespace: str) -> str:
    """The object's key in etcd, below the collection that the list is of."""
    metadata = obj["metadata"]
    own = "" if namespace else metadata.get("namespace", "")
    return f"/{own}/{metadata['name']}" if own else f"/{metadata['name']}"
