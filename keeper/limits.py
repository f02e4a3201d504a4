"""What an admin gives one Namespace: more or less than the flags give each of them.

The limits are annotations of the Namespace, which Kubernetes' own roles give no tenant the right to edit.
They are read, and not watched: a watch would bring every Namespace of the cluster, and takes one more right.
Nobody waits for them. Until they were read the flags hold; what was read holds until it could be read again.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo.shape import mapping
from kube import client
from kube.errors import ApiError, NotFound
from kube.fair_queue import EVEN
from memoize import names
from memoize.configmap import MOST_BYTES
from memoize.reasons import Reason
from server import values
from server.logs import fields

_log = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds after which a Namespace's annotations are read again …"""
PACE = 0.05
"""… and from one such read to the next: later than that, where there are more than a thousand."""
FORGOTTEN = 600.0
"""Seconds after which nobody is taken to ask for them any more."""
MOST_NAMESPACES = 10_000
"""Namespaces of which they are known; of those beyond, the flags hold."""
_IDLE = 1.0
"""Seconds until it is looked whether somebody asks for a Namespace that is new."""
_SECONDS = 5.0
"""For one request."""
_LONGEST = 40
"""Characters of a value that are looked at."""


class Limits(NamedTuple):
    """What a Namespace may have of what all share."""

    weight: int = EVEN
    """Its part of the keeper's turns, beside others: see kube.fair_queue."""
    single_flight_waiters: int = 1000
    """Its steps that may be gated until equal ones have ended."""
    max_bytes: int = MOST_BYTES
    """Of values, in each of its caches that is a ConfigMap; that may say less itself."""
    max_total_bytes: int = 1 << 30
    """Of all its entries in a database."""


LIMITS = Limits()
"""Unless settings or annotations say otherwise."""
OfNamespace = Callable[[str], Limits]
"""Gives those of a Namespace; at once, and to be asked each time."""

_READERS: Mapping[str, tuple[str, values.Reader[int]]] = {
    "weight": (names.WEIGHT, values.count(EVEN // 10, EVEN * 10)),
    "single_flight_waiters": (names.SINGLE_FLIGHT_WAITERS, values.count(0, 100_000)),
    "max_bytes": (names.MAX_BYTES, values.CACHE_BYTES),
    "max_total_bytes": (names.MAX_TOTAL_BYTES, values.BYTES),
}
"""By field, its annotation, and what that may be."""


class Said(NamedTuple):
    """What a Namespace's annotations say."""

    limits: Mapping[str, int]
    """By field of Limits; what they say nothing of is not there."""
    texts: Mapping[str, str]
    """The same as they are written, by annotation without its domain."""
    problems: tuple[str, ...] = ()
    """Of each that cannot be read, and is ignored, what is wrong with it."""


def read(annotations: Mapping[str, Any]) -> Said:
    """Read the limits among a Namespace's annotations."""
    limits, texts, problems = dict[str, int](), dict[str, str](), list[str]()
    for field, (annotation, reader) in _READERS.items():
        if (value := annotations.get(annotation)) is None:
            continue
        whole = str(value)
        text = whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]}…"  # which is no number
        try:
            limits[field] = reader(text)
        except ValueError as error:
            problems.append(f'annotation {annotation}: "{text}" {error}; it is ignored')
        else:
            texts[annotation.removeprefix(f"{names.DOMAIN}/")] = text
    return Said(limits, texts, tuple(problems))


@dataclass(slots=True)
class _Known:
    """What is known of a Namespace that somebody asks for."""

    limits: Limits
    asked: float
    due: float
    """When it is to be read."""
    problems: tuple[str, ...] = ()
    """As the log says."""


class NamespaceLimits:
    """The limits of each Namespace that somebody asks for, within a second or two of the first time.

    `flags` are those of all that say nothing. `on_failed` is told which resource could not be read, for the
    metrics. `clock` counts seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        flags: Limits,
        on_failed: Callable[[str], None] = lambda resource: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._flags, self._on_failed = api, flags, on_failed
        self._clock, self._sleep = clock, sleep
        self._known: dict[str, _Known] = {}
        self._new: deque[str] = deque()
        """Those that were never read …"""
        self._due: deque[str] = deque()
        """… and the others, in the order in which they are due."""

    def of(self, namespace: str) -> Limits:
        """See OfNamespace."""
        known, now = self._known.get(namespace), self._clock()
        if known is None:
            if len(self._known) >= MOST_NAMESPACES:
                return self._flags
            known = self._known[namespace] = _Known(self._flags, now, now)
            self._new.append(namespace)
        known.asked = now
        return known.limits

    async def run(self) -> None:
        """Read for ever, one after the other."""
        while True:
            await self._sleep(PACE if await self.read_next() else _IDLE)

    async def read_next(self) -> bool:
        """Read the Namespace that is due first; whether there was one."""
        if (namespace := self._next()) is None:
            return False
        known = self._known[namespace]
        try:
            path = f"/api/v1/namespaces/{quote(namespace, safe='')}"
            found = await client.request(
                self._api, "GET", path, seconds=_SECONDS, accept=client.METADATA_ONLY
            )
            self._take(namespace, known, mapping(mapping(found.get("metadata")).get("annotations")))
        except NotFound:
            self._take(namespace, known, {})
        except ApiError as error:
            self._on_failed("namespaces")
            told = fields(namespace=namespace, error=str(error))
            _log.warning("cannot read the limits of a Namespace: they stay as they are", extra=told)
        finally:
            known.due = self._clock() + PERIOD
            self._due.append(namespace)
        return True

    def _next(self) -> str | None:
        if self._new:
            return self._new.popleft()
        now = self._clock()
        while self._due and self._known[self._due[0]].due <= now:
            namespace = self._due.popleft()
            if self._known[namespace].asked > now - FORGOTTEN:
                return namespace
            del self._known[namespace]
        return None

    def _take(self, namespace: str, known: _Known, annotations: Mapping[str, Any]) -> None:
        said = read(annotations)
        known.limits = self._flags._replace(**said.limits)
        for problem in said.problems:
            if problem not in known.problems:
                told = fields(reason=Reason.INVALID_LIMIT.value, namespace=namespace, detail=problem)
                _log.warning("a limit of a Namespace is ignored", extra=told)
        known.problems = said.problems
