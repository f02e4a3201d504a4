"""The caches of a cluster, or of some namespaces: what they hold, and whether anything of that has changed.

Watched are the metadata of ConfigMaps alone, and nothing is kept of a cache that nobody asks for: however
many there are, and whatever is in them, costs those who write them. A cache is read when somebody asks for
it, and what was read is kept until an event, or a list, tells of another version, and for some minutes at
most. What the view does not know it never takes for a miss.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper.cache.lru import Answer, Data, DataCache
from keeper.cache.reads import Reads
from keeper.store import NOT_NOW, READ_TIMEOUT, Cache, CacheFill
from kube import client
from kube.backoff import Backoff
from kube.caching import TtlCache
from kube.client import Json
from kube.errors import ApiError, NotFound
from kube.reflector import Reflector
from memoize import capacity, configmap, spec
from memoize.outcome import Outcome
from server.logs import fields
from server.outcomes import outcome_of

_log = logging.getLogger(__name__)

SELECTOR = f"{argo.CONFIGMAP_TYPE}={argo.CONFIGMAP_TYPE_CACHE}"
KEPT_BYTES = 64 << 20
"""Of caches that were read and have not changed since."""
READ_SECONDS = 5.0
"""For one request."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two reads of a cache that changed and cannot be read."""
_FILLS, _FILLS_OF_ONE = 5_000, 500
"""Caches of which it is remembered how full they are, and those of one Namespace …"""
_FILL_SECONDS = 3_600.0
"""… and for how many seconds since they were read."""

Told = Callable[[str, str, Data], None]


class View:
    """A watched view of the caches of `namespaces`; of all where none is named. `clock` counts seconds.

    `most_bytes` says what a cache of a Namespace may hold that does not say less itself.
    """

    def __init__(
        self,
        api: ApiClient,
        namespaces: Sequence[str] = (),
        *,
        kept_bytes: int = KEPT_BYTES,
        most_bytes: Callable[[str], int] = lambda namespace: configmap.MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._kept = DataCache(kept_bytes, clock)
        self._most_bytes = most_bytes
        self._fills = TtlCache[Cache, CacheFill](
            _FILLS, clock, group=lambda key: key[0], most_of_one=_FILLS_OF_ONE
        )
        self._reads = Reads(self._fetch, self._on_read, self._on_left, clock=clock)
        self._told: Told = lambda *_: None
        self._followed: Collection[Cache] = ()
        self._changed: dict[Cache, bool] = {}
        """Followed caches that are being read since they changed; whether they did so again since that
        began."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._parts = {
            namespace: _Part(api, namespace, self, self._kept, clock) for namespace in (namespaces or ("",))
        }

    async def run(self) -> None:
        """Follow the caches for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts.values():
                    group.create_task(part.reflector.run())
        finally:
            for task in self._tasks:
                task.cancel()
            await self._reads.close()

    @property
    def in_sync(self) -> bool:
        """Whether `knows` is true of every Namespace that is looked after."""
        return all(part.reflector.in_sync for part in self._parts.values())

    @property
    def kept_bytes(self) -> int:
        """How much memory what was read takes."""
        return self._kept.bytes

    def fills(self) -> list[CacheFill]:
        """How full the caches were that were read in the last hour, each when it was read last."""
        return self._fills.values()

    def subscribe(self, told: Told, followed: Collection[Cache]) -> None:
        """Have `told(namespace, cache, data)` called with what one of the caches `followed` holds by now.

        So it is after a change (once for several in quick succession), of all of them each time that the
        view has come in sync, and after a `read` that somebody did not wait for. `followed` is asked each
        time; neither must block. There is one subscriber.
        """
        self._told, self._followed = told, followed

    def knows(self, namespace: str) -> bool:
        """Whether every change of the Namespace's caches is heard of."""
        return self.last_contact(namespace) > -math.inf

    def last_contact(self, namespace: str) -> float:
        """`clock()` when the API server last said something of the Namespace's caches ("": of those of all).

        Minus infinity while there are changes that were not heard of.
        """
        part = self._parts.get(namespace) or self._parts.get("")
        return part.reflector.last_contact if part is not None and part.reflector.in_sync else -math.inf

    async def read(self, namespace: str, cache: str, seconds: float | None = READ_TIMEOUT) -> Answer:
        """Give all of a cache's data, no older than the last change that was heard of before the call.

        Empty where there is none; an Outcome where it is no cache, or cannot be read within `seconds`
        (None: however long that takes). Do not change it.
        """
        if not spec.is_dns1123_subdomain(cache):
            return {}  # a tenant wrote the name, and it must not lead the request elsewhere
        key = (namespace, cache)
        if self.knows(namespace) and (kept := self._kept.get(key)) is not None:
            return kept
        return await self._reads.get(key, seconds)

    def forget(self, namespace: str, cache: str) -> None:
        """Take the cache for changed before an event says so: the caller has written to it."""
        self._kept.drop((namespace, cache))
        self._reads.on_event((namespace, cache))

    async def _fetch(self, key: Cache) -> tuple[str, Answer]:
        namespace, name = key
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{name}"
        try:
            found = await client.request(self._api, "GET", path, seconds=READ_SECONDS)
        except NotFound:
            self._fills.put(key, CacheFill(namespace, 0, self._most_bytes(namespace)), _FILL_SECONDS)
            return "", {}
        except ApiError as error:
            return "", outcome_of(error)
        if refused := configmap.not_a_cache(found):
            return "", refused  # should it get the label, that is heard of
        used, limit = configmap.used(found), capacity.limit(found, self._most_bytes(namespace)).bytes
        self._fills.put(key, CacheFill(namespace, used, limit), _FILL_SECONDS)
        return str(found["metadata"].get("resourceVersion", "")), configmap.data(found)

    def _on_read(self, key: Cache, version: str, answer: Answer) -> None:
        if self.knows(key[0]) and not _not_now(answer):
            self._kept.put(key, version, answer)

    def _on_left(self, key: Cache, answer: Answer) -> None:
        if key in self._followed and not _not_now(answer):
            self._tell(key, answer)

    # --- What the reflectors tell ---------------------------------------------------------------------

    def on_list(self) -> None:
        """Learn that what is being read may be older than what will be listed."""
        self._reads.on_list()

    def on_version(self, key: Cache, version: str) -> None:
        """Learn at which resourceVersion a cache is, "" where there is none any more."""
        if self._kept.version(key) != version:
            self._kept.drop(key)
        self._reads.on_event(key, version)

    def on_change(self, key: Cache) -> None:
        """Tell the subscriber what the cache holds now."""
        if key not in self._followed:
            return
        if key in self._changed:
            self._changed[key] = True
            return
        self._changed[key] = True
        task = asyncio.ensure_future(self._tell_of_change(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_synced(self) -> None:
        """Tell the subscriber of all caches, once all of them are in sync."""
        if self.in_sync:
            for key in list(self._followed):
                self.on_change(key)

    async def _tell_of_change(self, key: Cache) -> None:
        """Read the cache until its newest version was handed on, no more often than its Namespace may."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while self._changed[key] and key in self._followed:
                self._changed[key] = False
                answer = await self.read(*key, seconds=None)
                if _not_now(answer):
                    self._changed[key] = True
                    await asyncio.sleep(backoff.next())
                else:
                    self._tell(key, answer)
        except Exception:
            _log.exception("cannot tell of a cache", extra=fields(namespace=key[0], cache=key[1]))
        finally:
            del self._changed[key]

    def _tell(self, key: Cache, answer: Answer) -> None:
        self._told(*key, {} if isinstance(answer, Outcome) else answer)


class _Part:
    """The caches of one namespace, or of all: passes on what their reflector tells."""

    def __init__(
        self, api: ApiClient, namespace: str, view: View, kept: DataCache, clock: Callable[[], float]
    ) -> None:
        self._namespace, self._view, self._kept = namespace, view, kept
        self._listed: set[Cache] = set()
        """Those of the list of which something is kept: memory does not grow with the list."""
        within = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
        self.reflector = Reflector(
            api,
            f"/api/v1/{within}configmaps",
            self,
            name=f"the caches of {namespace or 'all namespaces'}",
            selector=SELECTOR,
            identity_only=True,
            clock=clock,
            on_synced=view.on_synced,
        )

    def begin(self) -> None:
        self._listed = set()
        self._view.on_list()

    def listed(self, obj: Json) -> None:
        key = _key(obj)
        self._view.on_version(key, obj["metadata"]["resourceVersion"])
        if self._kept.version(key) is not None:
            self._listed.add(key)

    def end(self) -> None:
        for key in set(self._kept.caches(self._namespace)) - self._listed:
            self._kept.drop(key)

    def changed(self, type_: str, obj: Json) -> None:
        key = _key(obj)
        self._view.on_version(key, "" if type_ == "DELETED" else obj["metadata"]["resourceVersion"])
        self._view.on_change(key)


def _not_now(answer: Answer) -> bool:
    return isinstance(answer, Outcome) and answer.reason in NOT_NOW


def _key(obj: Json) -> Cache:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
