"""Follows the Pods that are tended, of all Namespaces or of some."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from keeper import steppods
from kube.reflector import Reflector

WATCH = 25
"""Seconds that a watch is opened for. A connection may die without a word, and a Pod that is held meanwhile
waits until that is noticed; bookmarks, which come every minute or two, are too seldom for it."""
SILENCE = 30.0
"""Seconds without a word, not even the watch's end, after which its connection is taken for dead."""

Json = dict[str, Any]


class See(Protocol):
    """Who takes note of a Pod and returns its uid; `new`: it was made a moment ago."""

    def __call__(self, pod: Json, *, new: bool) -> str:
        """Take note of it."""


def reflectors(
    api: ApiClient,
    namespaces: Sequence[str],
    see: See,
    gone: Callable[[str], None],
    *,
    synced: Callable[[], None],
    clock: Callable[[], float],
) -> list[Reflector]:
    """One for each Namespace; one for all where none is named. `gone` is told the uids of Pods that left."""
    return [
        Reflector(
            api,
            path,
            Pods(see, gone),
            name="step Pods",
            selector=steppods.SELECTOR,
            clock=clock,
            watch_seconds=WATCH,
            silence=SILENCE,
            on_synced=synced,
        )
        for path in _paths(namespaces)
    ]


class Pods:
    """Who is told what one list and watch hold (watching.Handler), and tells which Pods have gone since."""

    def __init__(self, see: See, gone: Callable[[str], None]) -> None:
        self._see, self._gone = see, gone
        self._known: set[str] = set()
        self._listed: set[str] = set()

    def begin(self) -> None:
        """See watching.Handler."""
        self._known |= self._listed  # of a list that broke off: who is not in this one has gone
        self._listed = set()

    def listed(self, obj: Json) -> None:
        """See watching.Handler."""
        self._listed.add(self._see(obj, new=False))

    def end(self) -> None:
        """See watching.Handler."""
        for uid in self._known - self._listed:
            self._gone(uid)
        self._known, self._listed = self._listed, set()

    def changed(self, type_: str, obj: Json) -> None:
        """See watching.Handler."""
        if type_ == "DELETED":
            uid = str(obj["metadata"].get("uid", ""))
            self._known.discard(uid)
            self._gone(uid)
        else:
            self._known.add(self._see(obj, new=type_ == "ADDED"))


def _paths(namespaces: Sequence[str]) -> list[str]:
    if not namespaces:
        return ["/api/v1/pods"]
    return [f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" for namespace in namespaces]
