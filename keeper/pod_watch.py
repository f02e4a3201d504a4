"""Watches the Pods that are reconciled, of all Namespaces or of some."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from keeper import steppods
from kube.reflector import Reflector

WATCH_SECONDS = 25
"""Seconds that a watch is opened for. A connection may die unnoticed, and a Pod that is gated meanwhile waits
until that is seen; bookmarks, which come every minute or two, are too seldom for it."""
WATCH_IDLE_TIMEOUT = 30.0
"""Seconds without an event, not even the watch's end, after which its connection is taken for dead."""

Json = dict[str, Any]


class OnPod(Protocol):
    """Who takes note of a Pod and returns its uid; `new`: it was made a moment ago."""

    def __call__(self, pod: Json, *, new: bool) -> str:
        """Take note of it."""


def reflectors(
    api: ApiClient,
    namespaces: Sequence[str],
    on_pod: OnPod,
    on_deleted: Callable[[str], None],
    *,
    on_synced: Callable[[], None],
    clock: Callable[[], float],
) -> list[Reflector]:
    """One for each Namespace; one for all where none is named. `on_deleted` gets uids."""
    return [
        Reflector(
            api,
            path,
            Pods(on_pod, on_deleted),
            name="step Pods",
            selector=steppods.SELECTOR,
            clock=clock,
            watch_seconds=WATCH_SECONDS,
            silence=WATCH_IDLE_TIMEOUT,
            on_synced=on_synced,
        )
        for path in _paths(namespaces)
    ]


class Pods:
    """Passes on what one list and watch hold (reflector.Handler), and which Pods have gone since."""

    def __init__(self, on_pod: OnPod, on_deleted: Callable[[str], None]) -> None:
        self._on_pod, self._on_deleted = on_pod, on_deleted
        self._known: set[str] = set()
        self._listed: set[str] = set()

    def begin(self) -> None:
        """See reflector.Handler."""
        self._known |= self._listed  # of a list that broke off: who is not in this one has gone
        self._listed = set()

    def listed(self, obj: Json) -> None:
        """See reflector.Handler."""
        self._listed.add(self._on_pod(obj, new=False))

    def end(self) -> None:
        """See reflector.Handler."""
        for uid in self._known - self._listed:
            self._on_deleted(uid)
        self._known, self._listed = self._listed, set()

    def changed(self, type_: str, obj: Json) -> None:
        """See reflector.Handler."""
        if type_ == "DELETED":
            uid = str(obj["metadata"].get("uid", ""))
            self._known.discard(uid)
            self._on_deleted(uid)
        else:
            self._known.add(self._on_pod(obj, new=type_ == "ADDED"))


def _paths(namespaces: Sequence[str]) -> list[str]:
    if not namespaces:
        return ["/api/v1/pods"]
    return [f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" for namespace in namespaces]
