"""The end of objects: preconditions, finalizers, and what goes with them.

A Pod ends at once, without a grace period: whoever runs its containers sees the DELETED event. What an
object owns goes when none of its owners is left (background propagation; the other policies are left out).
"""

from collections.abc import Mapping

from devcluster.api import errors, kinds, naming
from devcluster.api.kinds import Kind, Object
from devcluster.api.store import Store


def check_preconditions(kind: Kind, obj: Object, preconditions: Mapping[str, str]) -> None:
    """ApiError 409 unless the object is the one that the client means."""
    metadata = obj["metadata"]
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted = preconditions.get(field)
        if wanted and wanted != metadata[field]:
            raise errors.precondition_failed(kind, metadata["name"], label, wanted, metadata[field])


def delete(store: Store, kind: Kind, namespace: str, name: str) -> None:
    """End an object that is there; with finalizers it only learns that it is to end."""
    obj = store.get(kind, namespace, name)
    if obj is None:
        return
    metadata = obj["metadata"]
    if not metadata.get("finalizers"):
        _remove(store, kind, namespace, name)
    elif "deletionTimestamp" not in metadata:
        store.put(kind, {**obj, "metadata": {**metadata, "deletionTimestamp": naming.timestamp()}})


def finish(store: Store, kind: Kind, obj: Object) -> None:
    """After an update: end an object that was waiting for its last finalizer to go."""
    metadata = obj["metadata"]
    if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
        _remove(store, kind, metadata.get("namespace", ""), metadata["name"])


def _remove(store: Store, kind: Kind, namespace: str, name: str) -> None:
    gone = store.remove(kind, namespace, name)
    if kind is kinds.NAMESPACE:
        for inner, obj in store.everything():
            if obj["metadata"].get("namespace") == name:
                delete(store, inner, name, obj["metadata"]["name"])
    _collect_dependents(store, gone["metadata"]["uid"])


def _collect_dependents(store: Store, owner: str) -> None:
    objects = store.everything()
    living = {obj["metadata"]["uid"] for _, obj in objects}
    for kind, obj in objects:
        metadata = obj["metadata"]
        owners = {reference.get("uid") for reference in metadata.get("ownerReferences") or []}
        if owner in owners and owners.isdisjoint(living):
            delete(store, kind, metadata.get("namespace", ""), metadata["name"])
