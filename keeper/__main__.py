"""`python -m keeper`: reads the settings, connects everything, keeps and serves until SIGTERM."""

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from kubernetes_asyncio.client import ApiClient

from certs import bundle
from certs.reader import CertificateReader
from keeper import settings
from keeper.api.handlers import CacheService
from keeper.api.in_flight import Bytes
from keeper.api.people import People
from keeper.artifacts.verifier import SECONDS, Verifier
from keeper.breaker import Breaker
from keeper.cache.batch import Rules
from keeper.cache.last_hit import LastHits, gathered
from keeper.cache.reporter import CacheReporter
from keeper.cache.store import ConfigMapStore
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.controller import LEASE, Keeper, KeeperSettings
from keeper.gc import CacheGC, Caches, ConfigMaps
from keeper.limits import Limits, NamespaceLimits, OfNamespace
from keeper.postgresql.database import Database
from keeper.postgresql.hits import DatabaseHits
from keeper.postgresql.store import PostgresStore
from keeper.postgresql.unused import UnusedRows
from keeper.postgresql.upkeep import Upkeep
from keeper.release_first import release_first
from keeper.settings import Settings
from keeper.starts import Starts
from keeper.store import Store
from kube import client
from kube.leader_election import Lease
from memoize import names
from server import logs
from server.events import Events
from server.listener import Listener, MetricsListener
from server.lookups import Lookups
from server.metrics import Metrics
from server.program import (
    again,
    announce,
    exit_code,
    signals,
    spare_the_collector,
    until_first_ends,
    user_agent,
)
from server.tls import ServingCertificate

if TYPE_CHECKING:
    from keeper.artifacts.source import Source


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 when it cannot serve, 2 for settings that are wrong."""

    def serve() -> None:
        chosen = settings.parse(sys.argv[1:] if argv is None else argv, os.environ)
        logs.setup(chosen.log_format, level=chosen.log_level)
        announce("keeper")
        starts = Starts(chosen.state_dir)
        asyncio.run(_serve(chosen, starts.begin()))
        starts.end()

    return exit_code(serve)


async def _serve(chosen: Settings, were_killed: bool) -> None:
    stop, stop_now = signals()
    metrics = Metrics(chosen.metrics_namespaces)
    # Never that of the process before: a container that is started again is another holder of the Lease.
    identity = str(uuid.uuid4())
    async with await client.connect(user_agent("keeper"), on_request=metrics.api_request) as api:
        # 1. What the keeper is made of.
        events = Events(api, metrics.event_dropped, "stepmemo-keeper", socket.gethostname())
        lookups = Lookups(api, metrics.lookup_failed)
        limits = NamespaceLimits(api, _limits(chosen), metrics.lookup_failed)
        store = _store(api, chosen, limits.of, lookups, metrics, events, lambda: keeper.acts)
        verifier, repositories = _artifacts(chosen, store, metrics)
        breaker = Breaker(api, metrics, events)
        keeper = Keeper(
            api,
            store,
            lookups,
            events,
            metrics,
            breaker,
            _keeper_settings(chosen),
            identity,
            verifier,
            limits=limits.of,
        )
        metrics.show_view(lambda: store.kept_bytes, lambda: store.in_sync)
        metrics.show_caches(store.fills)
        metrics.show_keeper(lambda: keeper.acts, lambda: keeper.ready)

        # 2. What it serves. Ready means that sidecars are served, and who stands by does that as well.
        certificates = _certificates(api, chosen)
        serving = ServingCertificate(
            chosen.cert_dir, meanwhile=bundle.provisional(), on_flaw=metrics.certificate_flawed
        )
        serving.reload()  # nobody is to see the other one where there is a certificate
        metrics.show_certificate(lambda: serving.expiry)

        def problem() -> str:
            serving.reload()
            if certificates and certificates.problem:
                return certificates.problem
            return serving.unready

        def notice() -> str:
            noticed = [breaker.notice, serving.notice, repositories.notice if repositories else ""]
            return "\n".join(filter(None, noticed))

        listener = Listener(metrics, problem, notice)
        in_flight = Bytes()
        service = CacheService(
            api,
            store,
            metrics.service_requests,
            in_flight=in_flight,
            namespaces=chosen.namespaces,
            verifier=verifier,
        )
        service.add_to(listener.app)
        held = [in_flight]
        if chosen.store == "postgresql":  # of ConfigMaps RBAC says who may see them
            people = People(api, store, chosen.store, metrics.service_requests, namespaces=chosen.namespaces)
            people.add_to(listener.app)
            held.append(people.in_flight)
        metrics.show_body_bytes(lambda: sum(one.held for one in held))
        listening = listener.run(*chosen.listen, serving.context, stop, stop_now, chosen.shutdown_delay)

        # 3. All of it, side by side, until the listener ends by a signal.
        async def keep() -> None:
            if were_killed:  # and what killed them may kill this one, as soon as it looks at the Pods
                lease = Lease(
                    api, chosen.namespace, LEASE, identity, annotation=names.KEEPER_STATUS, says=str
                )
                await release_first(api, lease, chosen.namespaces, metrics, events)
            await until_first_ends(*(again(part.run) for part in (store, breaker, keeper, limits)))

        certified = [certificates.run()] if certificates else []
        verified = [repositories.run()] if repositories else []
        scraped = MetricsListener(metrics).run(chosen.metrics_listen)
        spare_the_collector()
        try:
            await until_first_ends(
                listening, scraped, events.run(), serving.follow(), *certified, *verified, keep()
            )
        finally:
            await service.close()
            if verifier:
                await verifier.close()
            await store.close()


def _store(
    api: ApiClient,
    chosen: Settings,
    limits: OfNamespace,
    lookups: Lookups,
    metrics: Metrics,
    events: Events,
    acts: Callable[[], bool],
) -> Store:
    view = View(api, chosen.namespaces, most_bytes=lambda namespace: limits(namespace).max_bytes)
    unused_for = chosen.gc_unused_for
    caches: Caches
    if chosen.store == "postgresql":
        database = Database(chosen.dsn_file, chosen.postgresql_connections)
        metrics.show_database(lambda: database.is_well)
        upkeep = Upkeep(database, view, lambda namespace: limits(namespace).max_total_bytes, metrics.evicted)
        caches = UnusedRows(api, database, upkeep, chosen.namespaces, unused_for)
        return PostgresStore(
            database,
            view,
            DatabaseHits(database, chosen.hit_interval, metrics.last_hit_updates),
            upkeep,
            lookups.namespace_created,
            chosen.postgresql_connections,
            metrics.cache_writes,
            CacheGC(api, caches, acts) if unused_for else None,
        )
    settled = timedelta(seconds=gathered(chosen.hit_interval))
    writer = Writer(
        api,
        metrics.cache_writes,
        rules=lambda namespace: Rules(limits(namespace).max_bytes, settled),
        on_cache=CacheReporter(metrics, events),
    )
    hits = LastHits(writer, view, chosen.hit_interval, on_renewed=metrics.last_hit_updates)
    caches = ConfigMaps(api, chosen.namespaces, writer, unused_for)
    return ConfigMapStore(api, view, writer, hits, CacheGC(api, caches, acts) if unused_for else None)


def _limits(chosen: Settings) -> Limits:
    """Those of a Namespace that says none."""
    return Limits(
        single_flight_waiters=chosen.single_flight_waiters,
        max_bytes=chosen.cache_max_bytes,
        max_total_bytes=chosen.postgresql_max_bytes_per_namespace,
    )


def _artifacts(
    chosen: Settings, store: Store, metrics: Metrics
) -> "tuple[Verifier, Source] | tuple[None, None]":
    """What looks for artifacts, and what tells it where."""
    if chosen.verify_artifacts is None:
        return None, None
    from keeper.artifacts.source import Source  # what it needs is installed only where it is wanted

    verifier = Verifier(
        store.drop,
        metrics.artifact_checked,
        lambda size: metrics.evicted("verify", "gone", 1, size),
        seconds=min(SECONDS, chosen.gate_timeout / 2),
    )
    source = Source(chosen.verify_artifacts, verifier.use)
    source.reload()  # before anybody asks
    return verifier, source


def _keeper_settings(chosen: Settings) -> KeeperSettings:
    return KeeperSettings(
        lease_namespace=chosen.namespace,
        namespaces=chosen.namespaces,
        gate_timeout=chosen.gate_timeout,
        single_flight_timeout=chosen.single_flight_timeout,
        requests_per_second=chosen.requests_per_second,
        controllers=chosen.controllers if chosen.nudge == "on" else None,
    )


def _certificates(api: ApiClient, chosen: Settings) -> CertificateReader | None:
    if chosen.certs == "files":
        return None
    return CertificateReader(api, namespace=chosen.namespace, secret=chosen.secret, directory=chosen.cert_dir)


if __name__ == "__main__":
    sys.exit(main())
