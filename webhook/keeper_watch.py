"""Watches the keeper's Lease, which is renewed every second; keeper_state.py says what follows from it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from argo.shape import mapping
from kube import client
from kube.backoff import Backoff
from kube.errors import ApiError, Unreadable
from memoize.keeper_status import KeeperStatus
from server.logs import fields
from webhook.keeper_state import TRUST, KeeperState, SeenLease

_log = logging.getLogger(__name__)

LEASE = "stepmemo-keeper"
STATES = (KeeperState.READY, KeeperState.BUSY, KeeperState.GONE)
"""In which the keeper as a whole can be."""
SETTLE = 4.0
"""Seconds after the start within which a keeper that acts has been seen to, if the API server answers."""
_SHORTEST = 1.0
"""Seconds of an attempt; after a shorter one there is a pause …"""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
"""… of so many seconds."""


class KeeperWatch:
    """What the keeper says of itself, while it is to be believed.

    `clock` counts seconds. After `idle_timeout` seconds without an event the watch is opened anew: the
    connection may be dead.
    """

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        idle_timeout: float = TRUST,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._api, self._clock, self._idle_timeout, self._sleep = api, clock, idle_timeout, sleep
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"
        self._lease, self._begun = SeenLease(), clock()
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._told: KeeperState | None = None
        self._trouble = ""

    @property
    def status(self) -> KeeperStatus | None:
        """What the keeper that acts says now; None: nobody acts, as far as we can tell."""
        return self._lease.status(self._clock())

    @property
    def settling(self) -> bool:
        """Whether `status` may say that nobody acts only since we have just started; soon it does not."""
        return self._lease.unsure and self._clock() < self._begun + SETTLE

    @property
    def state(self) -> KeeperState:
        """How the keeper is as a whole; for one Namespace it may be worse."""
        status = self.status
        if status is None:
            return KeeperState.GONE
        return KeeperState.READY if status.ready else KeeperState.BUSY

    async def run(self) -> None:
        """Follow the Lease for ever; each change of `state`, and each trouble, is said in the log."""
        while True:
            begun = self._clock()
            try:
                await self._follow()
            except ApiError as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    _log.warning("cannot watch the keeper's Lease", extra=fields(error=self._trouble))
            except Exception:
                _log.exception("cannot watch the keeper's Lease: a bug of ours")
            self._tell()
            if self._clock() - begun < _SHORTEST:
                await self._sleep(self._backoff.next())
            else:
                self._backoff.reset()

    async def _follow(self) -> None:
        """Look at the Lease and then watch it, until it ends or nothing comes for `idle_timeout`."""
        # RBAC takes a list and a watch of one name for a request for that object.
        query = [("fieldSelector", f"metadata.name={LEASE}")]
        found = await client.request(self._api, "GET", self._path, seconds=self._idle_timeout, query=query)
        leases, version = found.get("items"), mapping(found.get("metadata")).get("resourceVersion")
        if not isinstance(leases, list) or not isinstance(version, str):
            raise Unreadable("the answer is not a list")
        self._lease.listed(mapping(leases[0]) if leases else None)
        query.append(("resourceVersion", version))
        async with client.watch(self._api, self._path, query, idle_timeout=self._idle_timeout) as events:
            async for type_, lease in events:
                self._lease.changed(None if type_ == "DELETED" else lease, self._clock())
                self._trouble = ""
                self._tell()

    def _tell(self) -> None:
        if self.state is not self._told:
            self._told = self.state
            level = logging.WARNING if self._told is KeeperState.GONE else logging.INFO
            _log.log(level, "the keeper's state has changed", extra=fields(state=self._told.value))
