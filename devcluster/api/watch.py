"""Watches: the objects there are, or the changes after a resourceVersion, then every change as it comes.

A watch ends at `timeoutSeconds`, with its client or the server. One that asks for bookmarks is told how far
it is about every minute (the real server: for the first time after up to two, and shortly before the end),
and one that asks for initial events, where those end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

from devcluster.api import errors
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Kind, Object
from devcluster.api.selectors import Predicate
from devcluster.api.store import Change, Store

Event = tuple[str, Object]
"""`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`, and the object or Status."""

BOOKMARK_SECONDS = 60.0
"""About how often the real server sends one (cacher.go, defaultBookmarkFrequency)."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_TRUE = ("1", "true", "True", "t", "T")


def parse_revision(query: Mapping[str, str]) -> int:
    """The query's resourceVersion, 0 for none; ApiError, 500 like the real one, if it is not a number."""
    text = query.get("resourceVersion") or "0"
    if not text.isdecimal():
        message = (
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
        raise errors.ApiError(500, "", message)
    return int(text)


async def events(
    store: Store,
    kind: Kind,
    namespace: str | None,
    selected: Predicate,
    query: Mapping[str, str],
    bookmark_seconds: float = BOOKMARK_SECONDS,
) -> AsyncIterator[Event]:
    """The events of a watch without end; too old a revision gives one ERROR event, as the server does it."""
    revision = parse_revision(query)
    bookmarks = query.get("allowWatchBookmarks") in _TRUE
    initial = query.get("sendInitialEvents") in _TRUE
    if revision == 0 or initial:
        revision = store.revision
        for obj in store.objects(kind, namespace):
            if selected(obj):
                yield "ADDED", obj
        if initial:
            yield "BOOKMARK", _bookmark(kind, revision, {INITIAL_EVENTS_END: "true"})
    clock = asyncio.get_running_loop().time
    due = clock() + bookmark_seconds
    while not store.closed:
        try:
            changes = store.since(revision)
        except ApiError as error:
            yield "ERROR", error.status
            return
        revision = max(revision, store.revision)
        for change in changes:
            if change.kind is kind and (event := _event(change, namespace, selected)) is not None:
                yield event
        if clock() >= due:
            due = clock() + bookmark_seconds
            if bookmarks:
                yield "BOOKMARK", _bookmark(kind, revision)
        await store.wait_beyond(revision, due - clock())


def _bookmark(kind: Kind, revision: int, annotations: Mapping[str, str] | None = None) -> Object:
    """An object of the kind that says nothing but how far the watch has come."""
    metadata: Object = {"resourceVersion": str(revision)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}


def _event(change: Change, namespace: str | None, selected: Predicate) -> Event | None:
    """What the change means to a watch: an object that enters or leaves the selection is added or deleted."""
    if namespace is not None and change.object["metadata"].get("namespace", "") != namespace:
        return None
    was = change.previous is not None and selected(change.previous)
    is_selected = change.type != "DELETED" and selected(change.object)
    if is_selected:
        return ("MODIFIED" if was else "ADDED"), change.object
    return ("DELETED", change.object) if was else None


def encode(type_: str, obj: Object) -> bytes:
    """One line of a watch's body."""
    return json.dumps({"type": type_, "object": obj}, separators=(",", ":")).encode() + b"\n"


async def until(deadline: float | None, source: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The source's events up to a deadline of the event loop's clock; None: to its end."""
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                event = await anext(source, None)
            if event is None:
                return
            yield event
    except TimeoutError:
        return
