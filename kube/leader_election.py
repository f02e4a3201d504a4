"""Which of several processes acts: a Lease (coordination.k8s.io/v1), by client-go's rules.

kubernetes_asyncio.leaderelection does not serve here: it keeps the Lease when it stops, so that every rollout
would cost the whole duration; its requests have no time-out; it measures by the wall clock; and
it ends once the Lease is lost, where we want to stand for it again.

The Lease spares the API server double work. It guards nothing: a holder may be stopped for a minute and then
go on, so every action carries preconditions of its own.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from kube import client
from kube.errors import ApiError, Conflict, NotFound, Unreadable

_log = logging.getLogger(__name__)

DURATION = 6.0
"""Seconds that a holder who is not heard of keeps the Lease. It guards nothing, so that a short time costs no
more than requests."""
RENEW = 1.0
"""Seconds between two looks at it, or renewals of it."""
_ACTING = 2 / 3
"""Share of the duration for which the holder trusts its last renewal: it ends before others may take over."""
_API_VERSION = "coordination.k8s.io/v1"


class Lease:
    """Stands for the Lease `name` as `identity`, which no two processes share, while `may_lead` says so.

    A holder who may not lead any more lets it run out: others get their chance, and if it is well
    again before anybody took over, nothing has changed.

    `annotation` is the name of an annotation in which the holder says something of itself: every renewal
    writes what `says` returns, and whoever gives the Lease up takes it away in the same request.
    """

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        may_lead: Callable[[], bool] = lambda: True,
        annotation: str = "",
        says: Callable[[], str] = str,
        duration: float = DURATION,
        renew: float = RENEW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._may_lead, self._annotation, self._says = may_lead, annotation, says
        self._duration, self._renew, self._clock = duration, renew, clock
        self._list = f"/apis/{_API_VERSION}/namespaces/{quote(namespace, safe='')}/leases"
        self._self = f"{self._list}/{quote(name, safe='')}"
        self._seen: dict[str, Any] = {}
        self._changed = clock()
        self._renewed: float | None = None
        self._checked = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """Whether this process may act."""
        return self._renewed is not None and self._clock() < self._renewed + _ACTING * self._duration

    @property
    def is_held_by_another(self) -> bool:
        """Whether somebody else holds it, and was heard of within its duration."""
        return _holder(self._seen) not in ("", self._identity) and not self._over()

    def check_now(self) -> None:
        """Look at the Lease now, since what `may_lead` says may have changed."""
        self._checked.set()

    async def run(self) -> None:
        """Stand for the Lease for ever; when cancelled, give it up if we have it."""
        try:
            while True:
                self._checked.clear()
                await self._turn()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._renew):
                        await self._checked.wait()
        finally:
            await self._release()

    async def _turn(self) -> None:
        try:
            if self.is_leader and self._may_lead() and await self._is_renewed():
                return
            await self._look()
            if self._may_lead() and (_holder(self._seen) in ("", self._identity) or self._over()):
                await self._take()
        except Conflict:
            self._renewed = None  # somebody else wrote: the next look tells who
        except ApiError as error:
            _log.warning("cannot renew the Lease", extra=self._fields(error=str(error)))

    async def _is_renewed(self) -> bool:
        """Renew it as it was last seen, without a look; False where it is not as it was."""
        try:
            await self._take()
        except (Conflict, NotFound):
            return False
        return True

    async def _look(self) -> None:
        """Learn who holds it. Its age is measured here, from the last change seen: clocks may differ."""
        try:
            found = await self._request("GET", self._self)
        except NotFound:
            found = {}
        self._saw(found)
        if _holder(found) != self._identity:
            self._renewed = None

    async def _take(self) -> None:
        started = self._clock()
        body = self._body(self._identity, self._duration)
        taken = not self.is_leader
        if self._seen:
            self._saw(await self._request("PUT", self._self, body))
        else:
            self._saw(await self._request("POST", self._list, body))
        self._renewed = started
        if taken:
            _log.info("holds the Lease, and acts", extra=self._fields(identity=self._identity))

    async def _release(self) -> None:
        """Leave it to whoever stands next. Nothing depends on it but seconds.

        A renewal that was under way when this was cancelled has made another version: then once more.
        """
        if not self.is_leader:
            return
        self._renewed = None
        try:
            try:
                await self._request("PUT", self._self, self._body("", 1))
            except Conflict:
                await self._look()
                if _holder(self._seen) == self._identity:
                    await self._request("PUT", self._self, self._body("", 1))
        except ApiError as error:
            _log.warning("cannot give up the Lease", extra=self._fields(error=str(error)))

    def _body(self, holder: str, duration: float) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        before = self._seen.get("spec") or {}
        changes = _holder(self._seen) != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(duration)),
            "acquireTime": now if changes else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + bool(changes and holder),
        }
        metadata = self._seen.get("metadata") or {"name": self._name, "namespace": self._namespace}
        annotations = dict(metadata.get("annotations") or {})
        annotations.pop(self._annotation, None)
        if self._annotation and holder:
            annotations[self._annotation] = self._says()
        metadata = {**metadata, "annotations": annotations}
        return {"apiVersion": _API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}

    def _saw(self, lease: dict[str, Any]) -> None:
        if lease != self._seen:
            self._seen, self._changed = lease, self._clock()

    def _over(self) -> bool:
        return self._clock() >= self._changed + self._duration

    async def _request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = await client.request(self._api, method, path, seconds=self._duration / 3, body=body)
        if not isinstance(answer.get("metadata"), dict):
            raise Unreadable("the answer is not a Lease")
        return answer

    def _fields(self, **values: str) -> dict[str, dict[str, str]]:
        """The `extra` of a log line."""
        return {"fields": {"lease": self._name, **values}}


def _holder(lease: dict[str, Any]) -> str:
    spec = lease.get("spec")
    return str(spec.get("holderIdentity") or "") if isinstance(spec, dict) else ""
