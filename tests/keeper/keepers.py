"""Keepers that run, each with a view, a writer and a connection of its own, as in a replica of the server."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from keeper.artifacts.repositories import Repository
from keeper.artifacts.verifier import Probe, Verifier
from keeper.breaker import Breaker
from keeper.cache.writer import Writer
from keeper.controller import Keeper, KeeperSettings
from keeper.store import Store
from memoize import names
from server.events import Events
from server.lookups import Lookups
from server.metrics import Metrics
from tests.conftest import PATIENT
from tests.keeper.proxy import Proxy
from tests.keeper.site import Site
from tests.keeper.stores import config_maps, in_postgresql
from tests.manifests.rendering import rules_of
from tests.waiting import until
from tests.webhook.serving import api_client

LEASE = "stepmemo-keeper"
ACCOUNT = "stepmemo-keeper"
"""The keeper's own: on the real API server it is under the policies of the manifests."""
_numbers = itertools.count()


@dataclass
class Running:
    keeper: Keeper
    proxy: Proxy
    metrics: Metrics
    tasks: list["asyncio.Task[None]"]

    async def end(self) -> None:
        """Cancel it, as SIGTERM does."""
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def kill(self) -> None:
        """Nothing of it reaches the API server any more."""
        self.proxy.cut = True
        await self.end()


@asynccontextmanager
async def keeping(
    site: Site,
    proxy: Proxy | None = None,
    *,
    gate_timeout: float = 30.0,
    single_flight_timeout: float = 600.0,
    requests_per_second: float = 200.0,
    workers: int = 32,
    controllers: Sequence[tuple[str, str]] | None = None,
    namespaces: Sequence[str] = (),
    token: str | None = None,
    dsn_file: Path | None = None,
    probes: Mapping[Repository, Probe] | None = None,
    probe_seconds: float = PATIENT,
    breaker_clock: Callable[[], float] = time.monotonic,
    wait: bool = True,
) -> AsyncIterator[Running]:
    """A keeper of the site's Namespace until the block ends; ready first, unless told otherwise.

    Entries are in ConfigMaps, or in the database that `dsn_file` names. With `probes` their artifacts are
    looked for, so many seconds at most. `breaker_clock` counts the seconds of its Breaker.
    """
    proxy = proxy or Proxy(site.cluster)
    if token is None:
        token = site.cluster.service_account(site.namespace, ACCOUNT, rules_of("stepmemo-keeper"))
    settings = KeeperSettings(
        lease_namespace=site.namespace,
        lease=LEASE,
        namespaces=tuple(namespaces) or (site.namespace,),
        gate_timeout=gate_timeout,
        single_flight_timeout=single_flight_timeout,
        requests_per_second=requests_per_second,
        workers=workers,
        controllers=None if controllers is None else tuple(controllers),
    )
    async with (
        proxy.serving() as url,
        api_client(site.cluster, url=url, token=token) as api,
        api_client(site.cluster) as aside,
    ):
        metrics = Metrics()
        store: Store
        if dsn_file is None:
            store = config_maps(api, settings.namespaces, writer=Writer(api, metrics.cache_writes))
        else:
            store = in_postgresql(api, dsn_file, settings.namespaces, on_written=metrics.cache_writes)
        # Not among the requests that a test counts.
        events = Events(aside, metrics.event_dropped, "stepmemo-keeper", "test")
        breaker = Breaker(api, metrics, events, clock=breaker_clock)
        identity = f"keeper-{next(_numbers)}"
        verifier = None
        if probes is not None:
            verifier = Verifier(store.drop, metrics.artifact_checked, seconds=probe_seconds)
            verifier.use(probes)
        keeper = Keeper(
            api,
            store,
            Lookups(api, metrics.lookup_failed),
            events,
            metrics,
            breaker,
            settings,
            identity,
            verifier,
        )
        work = (store.run(), events.run(), breaker.run(), keeper.run())
        running = Running(keeper, proxy, metrics, [asyncio.create_task(part) for part in work])
        try:
            if wait:
                await until(lambda: keeper.ready and (keeper._acted or _is_led_by_another(site, identity)))
            yield running
        finally:
            await running.end()
            if verifier is not None:
                await verifier.close()
            await store.close()


def _is_led_by_another(site: Site, identity: str) -> bool:
    """Not by this one: it acts later than it has the Lease, and what it meets before may be another's."""
    status, lease = site.cluster.get("Lease", site.namespace, LEASE)
    holder = lease["spec"].get("holderIdentity") if status == 200 else None
    return bool(holder) and holder != identity


def forget_the_lease(site: Site) -> None:
    """As if its duration were over."""
    site.cluster.delete("Lease", site.namespace, LEASE)


async def decided(site: Site, *pods: str) -> None:
    """Return once none of them is held."""
    await until(lambda: names.RESULT_GATED not in [site.label(name) for name in pods])
