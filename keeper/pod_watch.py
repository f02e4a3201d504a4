"""Watches the Pods that are reconciled, of all Namespaces or of some, and searches for those not heard of."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from keeper import steppods
from kube import client
from kube.errors import ApiError, NotFound
from kube.pages import pages
from kube.reflector import Reflector
from memoize import names
from server.logs import fields

_log = logging.getLogger(__name__)

WATCH_SECONDS = 25
"""Seconds that a watch is opened for. A connection may die unnoticed, and a Pod that is gated meanwhile waits
until that is seen; bookmarks, which come every minute or two, are too seldom for it."""
WATCH_IDLE_TIMEOUT = 30.0
"""Seconds without an event, not even the watch's end, after which its connection is taken for dead."""
PAGE = 25
"""The most Pods in a page of a list: the ones that follow small ones may each weigh a megabyte."""
PAGE_OF_METADATA = 500
SEARCH_SECONDS = 300.0
"""Seconds between two searches for Pods of which no event came."""
SEARCH_GRACE = 60.0
"""Seconds that an event may take: a watch whose connection has died is opened anew within them."""
MOST_FOUND = 1000
"""Such Pods of one Namespace that a search deals with; the next one finds the others."""
REQUEST_SECONDS = 5.0
_UNSCHEDULED = "spec.nodeName=,status.phase=Pending"
"""The field selector that takes every gated Pod, and few others."""

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
            page=PAGE,
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


class _Place(NamedTuple):
    namespace: str
    name: str
    uid: str

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{quote(self.namespace, safe='')}/pods/{quote(self.name, safe='')}"


class Search:
    """Finds Pods that are to be reconciled and of which no event came, and tells of them.

    A watch tells nothing of what an API server has lost of its history, as after etcd was restored; nor of a
    gated Pod that has lost our label, or has got a final one. That one gets its label back if this process
    `acts`, and the watch tells of it then. Others are handed to `on_pod`, unless `knows` their uid.
    """

    def __init__(
        self,
        api: ApiClient,
        namespaces: Sequence[str],
        knows: Callable[[str], bool],
        on_pod: OnPod,
        acts: Callable[[], bool],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._namespaces = api, namespaces
        self._knows, self._on_pod, self._acts, self._sleep = knows, on_pod, acts, sleep

    async def run(self) -> None:
        """Search for ever."""
        while True:
            await self._sleep(SEARCH_SECONDS)
            await self.search()

    async def search(self) -> None:
        """Search once; what fails is said in the log, and tried again the next time."""
        # 1. Who is there, and not known?
        found = defaultdict[str, list[_Place]](list)
        for path in _paths(self._namespaces):
            try:
                async for place in self._unknown(path):
                    found[place.namespace].append(place)
            except ApiError as error:  # of this list: the Pods of others are not to wait for it
                _log.warning("cannot search for Pods", extra=fields(path=path, error=str(error)))
        if not found:
            return
        # 2. Those that an event is still on its way of are known after a while.
        await self._sleep(SEARCH_GRACE)
        # 3. Namespaces take turns: none waits for all the Pods of another.
        for turn in zip_longest(*found.values()):
            for place in turn:
                if place is not None and not self._knows(place.uid):
                    await self._deal_with(place)

    async def _unknown(self, path: str) -> AsyncIterator[_Place]:
        found: Counter[str] = Counter()
        labelled = pages(
            self._api,
            path,
            [("labelSelector", steppods.SELECTOR)],
            name="step Pods",
            most=PAGE_OF_METADATA,
            metadata_only=True,
        )
        gated = pages(
            self._api, path, [("fieldSelector", _UNSCHEDULED)], name="Pods without a node", most=PAGE
        )
        for listed, is_one in ((labelled, steppods.is_labelled), (gated, steppods.lost_its_label)):
            async for page in listed:
                for pod in page.get("items") or []:
                    place = _place(pod)
                    if is_one(pod) and not self._knows(place.uid) and found[place.namespace] < MOST_FOUND:
                        found[place.namespace] += 1
                        yield place
                    await asyncio.sleep(0)  # thousands of Pods must not hold everybody else up

    async def _deal_with(self, place: _Place) -> None:
        try:
            pod = await client.request(self._api, "GET", place.path, seconds=REQUEST_SECONDS)
            if _place(pod) != place:
                return
            told = fields(namespace=place.namespace, pod=place.name)
            if steppods.is_labelled(pod):
                _log.warning("a step Pod was found of which no event came", extra=told)
                self._on_pod(pod, new=False)
            elif steppods.lost_its_label(pod) and self._acts():
                _log.warning("a gated Pod gets the label back that it has lost", extra=told)
                metadata = {
                    "uid": place.uid,
                    "resourceVersion": pod["metadata"]["resourceVersion"],
                    "labels": {names.RESULT: names.RESULT_GATED},
                }
                await client.request(
                    self._api,
                    "PATCH",
                    place.path,
                    seconds=REQUEST_SECONDS,
                    body={"metadata": metadata},
                    accept=client.METADATA_ONLY,
                    content_type=client.MERGE_PATCH,
                )
        except NotFound:
            pass
        except ApiError as error:  # of this Pod: others are not to wait for it
            told = fields(namespace=place.namespace, pod=place.name, error=str(error))
            _log.warning("cannot deal with a Pod that was found", extra=told)


def _place(pod: Json) -> _Place:
    metadata = pod.get("metadata") or {}
    return _Place(*(str(metadata.get(name, "")) for name in ("namespace", "name", "uid")))
