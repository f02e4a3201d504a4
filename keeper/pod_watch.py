"""Watches the Pods that are reconciled, of all Namespaces or some, and searches for what no event came of."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

from kubernetes_asyncio.client import ApiClient

from keeper import paths, steppods
from keeper.state import Records
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
"""Seconds between two searches for those of which no event came."""
SEARCH_GRACE = 60.0
"""Seconds that an event may take: a watch whose connection has died is opened anew within them."""
MOST_FOUND = 1000
"""Pods of one Namespace that a search deals with; the next one finds the others."""
REQUEST_SECONDS = 5.0
_ALL = ""
"""In place of a Namespace's name."""

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
            idle_timeout=WATCH_IDLE_TIMEOUT,
            on_synced=on_synced,
        )
        for path in map(paths.pods, namespaces or [_ALL])
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


class _Place(NamedTuple):
    """A Pod, and the version of it that is known; "" where none is."""

    namespace: str
    name: str
    uid: str
    version: str = ""


class Search:
    """Finds Pods of which no event came, told by what is remembered of them, and sees to it that it is right.

    A watch tells nothing of what an API server has lost of its history, as after etcd was restored: neither
    of Pods that came, nor of those that ended, or are gone, and that equal steps would wait for. Nor does it
    tell of a gated Pod that has lost our label, or has got a final one: that one gets its label back if this
    process `acts`, and the watch tells of it then.
    """

    def __init__(
        self,
        api: ApiClient,
        namespaces: Sequence[str],
        records: Records,
        on_pod: OnPod,
        on_deleted: Callable[[str], None],
        acts: Callable[[], bool],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._namespaces, self._records = api, namespaces, records
        self._on_pod, self._on_deleted, self._acts, self._sleep = on_pod, on_deleted, acts, sleep

    async def run(self) -> None:
        """Search for ever."""
        while True:
            await self._sleep(SEARCH_SECONDS)
            try:
                await self.search()
            except Exception:  # the others that run beside it would end with it
                _log.exception("a search for Pods ended, and is made again later")

    async def search(self) -> None:
        """Search once; what fails is said in the log, and tried again the next time."""
        # 1. Who is not known, or otherwise than the API server lists it?
        found = await self._find()
        if not found:
            return
        # 2. Of those that an event is still on its way of, it has come after a while.
        await self._sleep(SEARCH_GRACE)
        # 3. Namespaces take turns: none waits for all the Pods of another.
        for turn in zip_longest(*found.values()):
            for place in turn:
                if place is not None and self._is_unheard_of(place):
                    await self._deal_with(place)

    async def _find(self) -> Mapping[str, list[_Place]]:
        """By Namespace; of each no more than MOST_FOUND."""
        known, found = defaultdict[str, dict[str, str]](dict), defaultdict[str, list[_Place]](list)
        for pod in self._records.pods():
            known[pod.namespace][pod.uid] = pod.version
        for namespace in self._namespaces or [_ALL]:
            try:
                await self._list(namespace, known, found)
            except ApiError as error:  # of this list: the Pods of others are not to wait for it
                about = fields(namespace=namespace, error=str(error))
                _log.warning("cannot search for Pods", extra=about)
                if namespace == _ALL:
                    known.clear()
                known.pop(namespace, None)  # only a whole list tells who is gone
        for namespace, versions in known.items():
            for uid, version in versions.items():
                record = self._records.get(uid)
                if record is not None and record.pod.version == version:  # others would fill the bound
                    _add(found, _Place(namespace, record.pod.name, uid, version))
        return found

    async def _list(
        self, namespace: str, known: Mapping[str, dict[str, str]], found: dict[str, list[_Place]]
    ) -> None:
        """Take out of `known` (versions by uid) who is listed like that; add to `found` who is not known."""
        labelled = pages(
            self._api,
            paths.pods(namespace),
            [("labelSelector", steppods.SELECTOR)],
            name="step Pods",
            most=PAGE_OF_METADATA,
            metadata_only=True,
        )
        gated = pages(
            self._api,
            paths.pods(namespace),
            [("fieldSelector", steppods.UNSCHEDULED)],
            name="Pods without a node",
            most=PAGE,
        )
        for listed, is_one in ((labelled, steppods.is_labelled), (gated, steppods.lost_its_label)):
            async for page in listed:
                for pod in page.get("items") or []:
                    place = _place(pod)
                    if is_one(pod) and self._is_unheard_of(place):
                        _add(found, place)
                    versions = known.get(place.namespace, {})
                    if is_one is steppods.is_labelled and versions.get(place.uid) == _version(pod):
                        del versions[place.uid]
                    await asyncio.sleep(0)  # thousands of Pods must not hold everybody else up

    def _is_unheard_of(self, place: _Place) -> bool:
        """Whether what was found still holds: no event of it came since."""
        record = self._records.get(place.uid)
        return (record.pod.version if record is not None else "") == place.version

    async def _deal_with(self, place: _Place) -> None:
        about = fields(namespace=place.namespace, pod=place.name)
        try:
            pod = await self._get(place)
            if not self._is_unheard_of(place):
                return
            if pod is None:
                if place.version:
                    _log.warning("a step Pod has gone of which no event came", extra=about)
                    self._on_deleted(place.uid)
                return
            if place.version or steppods.is_labelled(pod):
                _log.warning("a step Pod was found of which no event came", extra=about)
                self._on_pod(pod, new=False)
            if steppods.lost_its_label(pod) and self._acts():
                _log.warning("a gated Pod gets the label back that it has lost", extra=about)
                metadata = {
                    "uid": place.uid,
                    "resourceVersion": _version(pod),
                    "labels": {names.RESULT: names.RESULT_GATED},
                }
                await client.request(
                    self._api,
                    "PATCH",
                    paths.pod(place.namespace, place.name),
                    seconds=REQUEST_SECONDS,
                    body={"metadata": metadata},
                    accept=client.METADATA_ONLY,
                    content_type=client.MERGE_PATCH,
                )
        except NotFound:
            pass
        except ApiError as error:  # of this Pod: others are not to wait for it
            about = fields(namespace=place.namespace, pod=place.name, error=str(error))
            _log.warning("cannot deal with a Pod that was found", extra=about)

    async def _get(self, place: _Place) -> Json | None:
        """The Pod as it is now; None where it is gone, though another one may have its name."""
        try:
            path = paths.pod(place.namespace, place.name)
            pod: Json = await client.request(self._api, "GET", path, seconds=REQUEST_SECONDS)
        except NotFound:
            return None
        return pod if _place(pod).uid == place.uid else None


def _add(found: dict[str, list[_Place]], place: _Place) -> None:
    if len(found[place.namespace]) < MOST_FOUND:
        found[place.namespace].append(place)


def _place(pod: Json) -> _Place:
    """Where the Pod is, as one that is not known."""
    metadata = pod.get("metadata") or {}
    return _Place(*(str(metadata.get(name, "")) for name in ("namespace", "name", "uid")))


def _version(pod: Json) -> str:
    return str((pod.get("metadata") or {}).get("resourceVersion", ""))
