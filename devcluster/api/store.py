"""Every object of the cluster in memory, with revisions and a bounded history of changes for watches."""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Literal

from devcluster.api import errors
from devcluster.api.kinds import Kind, Object

FIRST_REVISION = 100
"""Revision 1 is too old from the start, as in any cluster that has lived a while: clients meet 410."""

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `previous` is what the object was before, None when it was created."""

    revision: int
    type: ChangeType
    kind: Kind
    object: Object
    previous: Object | None


class Store:
    """Objects by kind, namespace ("" for cluster-scoped kinds) and name.

    An object handed out is never changed in place, here or by a caller: a write puts a new one. All calls
    come from one event loop, so a read and the write after it are one step as long as nothing is awaited
    in between.
    """

    def __init__(self, history: int = 2000):
        self.revision = FIRST_REVISION
        self.closed = False
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._forgotten = FIRST_REVISION
        self._changed = asyncio.Event()

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, None if there is none."""
        return self._objects.get(kind, {}).get((namespace, name))

    def objects(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """All objects of a kind, of one namespace unless that is None, in the order of their names."""
        objects = self._objects.get(kind, {})
        return [objects[key] for key in sorted(objects) if namespace is None or key[0] == namespace]

    def objects_at(self, kind: Kind, namespace: str | None, revision: int) -> list[Object]:
        """The same as they were at a revision, in their keys' order; ApiError 410 if that is forgotten."""
        objects = dict(self._objects.get(kind, {}))
        for change in reversed(self.since(revision)):
            if change.kind is kind:
                metadata = change.object["metadata"]
                key = metadata.get("namespace", ""), metadata["name"]
                if change.previous is None:
                    del objects[key]
                else:
                    objects[key] = change.previous
        keys = sorted(objects, key="/".join)
        return [objects[key] for key in keys if namespace is None or key[0] == namespace]

    def everything(self) -> list[tuple[Kind, Object]]:
        """All objects of all kinds."""
        return [(kind, found) for kind, objects in self._objects.items() for found in objects.values()]

    def put(self, kind: Kind, new: Object) -> Object:
        """Store an object whole, under the next revision; returns it with that resourceVersion."""
        self.revision += 1
        metadata = {**new["metadata"], "resourceVersion": str(self.revision)}
        stored = {**new, "metadata": metadata}
        key = (metadata.get("namespace", ""), metadata["name"])
        objects = self._objects.setdefault(kind, {})
        previous = objects.get(key)
        objects[key] = stored
        self._record("MODIFIED" if previous else "ADDED", kind, stored, previous)
        return stored

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Take an object out; KeyError if there is none. Returns it under the revision of its end."""
        last = self._objects[kind].pop((namespace, name))
        self.revision += 1
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}}
        self._record("DELETED", kind, gone, last)
        return gone

    def _record(self, type_: ChangeType, kind: Kind, obj: Object, previous: Object | None) -> None:
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].revision
        self._history.append(Change(self.revision, type_, kind, obj, previous))
        self._wake()

    def since(self, revision: int) -> list[Change]:
        """The changes after a revision, oldest first; ApiError 410 if some of them are forgotten."""
        if revision < self._forgotten:
            raise errors.expired(revision, self._forgotten)
        newer: deque[Change] = deque()
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            newer.appendleft(change)
        return list(newer)

    async def wait_beyond(self, revision: int, seconds: float) -> None:
        """Return once there is a change after that revision, the store is closed or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.revision <= revision and not self.closed:
                    await self._changed.wait()

    def close(self) -> None:
        """Let every watch come to its end."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
