"""What `--access service` adds to the server: the view, the keeper, the cache service, what they share."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kubernetes_asyncio.client import ApiClient

from keeper.api.handlers import Service
from keeper.breaker import Breaker
from keeper.cache.last_hit import Hits
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.controller import Keeper, KeeperSettings
from keeper.settings import ServiceMode
from server.events import Events
from server.lookups import Lookups
from server.metrics import Metrics

_log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds until a part that ended by a bug is begun anew."""


class Wiring:
    """The parts of a server that keeps the caches; `work` is what has to run. Close it after that.

    `namespace` is the server's own, `image` that of our containers. Admission asks `view` and `keeper`.
    """

    def __init__(
        self,
        api: ApiClient,
        settings: ServiceMode,
        namespace: str,
        image: str,
        lookups: Lookups,
        events: Events,
        metrics: Metrics,
    ) -> None:
        self._writer = writer = Writer(api, metrics.cache_writes)
        self.view = View(api, settings.namespaces)
        self._hits = Hits(writer, self.view, settings.hit_interval, on_renewed=metrics.last_hit_updates)
        self._breaker = Breaker(api, metrics, events, image)
        self.keeper = Keeper(
            api,
            self.view,
            writer,
            lookups,
            events,
            self._hits,
            metrics,
            self._breaker,
            KeeperSettings(
                lease_namespace=namespace,
                namespaces=settings.namespaces,
                gate_timeout=settings.gate_timeout,
                single_flight_timeout=settings.single_flight_timeout,
                single_flight_waiters=settings.single_flight_waiters,
            ),
            # Never that of the process before: a container that is started again is another holder.
            identity=str(uuid.uuid4()),
        )
        self.service = Service(api, self.view.read, writer, metrics.service_requests)
        metrics.show_view(lambda: self.view.entries, lambda: self.view.in_sync)

    def work(self) -> list[Coroutine[Any, Any, object]]:
        """All that has to run, side by side."""
        return [_again(part.run) for part in (self.view, self._hits, self._breaker, self.keeper)]

    def refused(self, namespace: str, step: str, dry_run: bool) -> str:
        """Why a Pod of this step must not get containers of ours, "" where it may."""
        return self._breaker.admit(namespace, step, dry_run=dry_run)

    def notice(self) -> str:
        """What an admin should know though the server works; "" for nothing."""
        return f"injection stopped: {self._breaker.open}" if self._breaker.open else ""

    async def close(self) -> None:
        """Give up the entries that are still to be read or written."""
        await self.service.close()
        await self._writer.close()


async def _again(run: Callable[[], Awaitable[object]]) -> None:
    """Run for ever. A bug in one part is no reason to stop admitting; while it is down, nothing is held."""
    while True:
        try:
            await run()
        except Exception:
            _log.exception("a part of the server ended, and is begun anew")
        await asyncio.sleep(_PAUSE)
