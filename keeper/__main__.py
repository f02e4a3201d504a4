"""`python -m keeper`: reads the settings, connects everything, keeps and serves until SIGTERM."""

import asyncio
import gc
import logging
import os
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from kubernetes_asyncio.client import ApiClient

from certs.reader import CertificateReader
from keeper import settings
from keeper.api.handlers import Service
from keeper.breaker import Breaker
from keeper.cache.batch import Rules
from keeper.cache.last_hit import Hits, gathered
from keeper.cache.reporter import CacheReporter
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.controller import LEASE, Keeper, KeeperSettings
from keeper.gc import CacheGC
from keeper.release_first import release_first
from keeper.settings import Settings
from keeper.starts import Starts
from kube import client
from kube.errors import ApiError
from kube.leader_election import Lease
from memoize import names
from server import logs
from server.events import Events
from server.listener import Listener
from server.lookups import Lookups
from server.metrics import Metrics
from server.program import signals, until_first_ends
from server.settings import SettingsError
from server.tls import ServingCertificate

_log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds until a part that ended by a bug is begun anew."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 when it cannot serve, 2 for settings that are wrong."""
    try:
        chosen = settings.parse(sys.argv[1:] if argv is None else argv, os.environ)
        logs.setup(chosen.log_format)
        starts = Starts(chosen.state_dir)
        asyncio.run(_serve(chosen, starts.begin()))
        starts.end()
    except SettingsError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except (ApiError, OSError) as error:
        print(f"error: cannot serve: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(chosen: Settings, were_killed: bool) -> None:
    stop, stop_now = signals()
    metrics = Metrics()
    # Never that of the process before: a container that is started again is another holder of the Lease.
    identity = str(uuid.uuid4())
    async with await client.connect("stepmemo-keeper") as api:
        # 1. What the keeper is made of.
        events = Events(api, metrics.event_dropped, "stepmemo-keeper", socket.gethostname())
        lookups = Lookups(api, metrics.lookup_failed)
        view = View(api, chosen.namespaces)
        rules = Rules(chosen.cache_max_bytes, timedelta(seconds=gathered(chosen.hit_interval)))
        reporter = CacheReporter(metrics, events)
        writer = Writer(api, metrics.cache_writes, rules=rules, on_cache=reporter)
        hits = Hits(writer, view, chosen.hit_interval, on_renewed=metrics.last_hit_updates)
        breaker = Breaker(api, metrics, events)
        keeper = Keeper(
            api, view, writer, lookups, events, hits, metrics, breaker, _keeper_settings(chosen), identity
        )
        parts = [view.run, hits.run, breaker.run, keeper.run]
        if chosen.gc_unused_for:
            unused_for = chosen.gc_unused_for
            gc_ = CacheGC(api, chosen.namespaces, writer, lookups, unused_for, lambda: keeper.acts)
            parts.append(gc_.run)
        metrics.show_view(lambda: view.kept_bytes, lambda: view.in_sync)
        metrics.show_keeper(lambda: keeper.acts, lambda: keeper.ready)

        # 2. What it serves. Ready means that sidecars are served, and who stands by does that as well.
        certificates = _certificates(api, chosen)
        serving = ServingCertificate(chosen.cert_dir)
        metrics.show_certificate(lambda: serving.expiry)

        def problem() -> str:
            serving.reload()
            if certificates and certificates.problem:
                return certificates.problem
            return serving.unready

        listener = Listener(metrics, problem, lambda: breaker.notice)
        service = Service(
            api, view.read, writer, metrics.service_requests, hits.hit, namespaces=chosen.namespaces
        )
        service.add_to(listener.app)
        listening = listener.run(*chosen.listen, serving.context, stop, stop_now, chosen.shutdown_delay)

        # 3. All of it, side by side, until the listener ends by a signal.
        async def keep() -> None:
            if were_killed:  # and what killed them may kill this one, as soon as it looks at the Pods
                lease = Lease(
                    api, chosen.namespace, LEASE, identity, annotation=names.KEEPER_STATUS, says=str
                )
                await release_first(api, lease, chosen.namespaces, metrics, events)
            await until_first_ends(*map(_again, parts))

        certified = [certificates.run()] if certificates else []
        # A full collection walks all that was imported, some 50 ms in which nothing is decided. None of it
        # will ever be garbage.
        gc.collect()
        gc.freeze()
        try:
            await until_first_ends(listening, events.run(), serving.follow(), *certified, keep())
        finally:
            await service.close()
            await writer.close()


def _keeper_settings(chosen: Settings) -> KeeperSettings:
    return KeeperSettings(
        lease_namespace=chosen.namespace,
        namespaces=chosen.namespaces,
        gate_timeout=chosen.gate_timeout,
        single_flight_timeout=chosen.single_flight_timeout,
        single_flight_waiters=chosen.single_flight_waiters,
        requests_per_second=chosen.requests_per_second,
    )


def _certificates(api: ApiClient, chosen: Settings) -> CertificateReader | None:
    if chosen.certs == "files":
        return None
    return CertificateReader(api, namespace=chosen.namespace, secret=chosen.secret, directory=chosen.cert_dir)


async def _again(run: Callable[[], Awaitable[object]]) -> None:
    """Run for ever. A bug in one part is no reason to end the others; meanwhile nothing is gated."""
    while True:
        try:
            await run()
        except Exception:
            _log.exception("a part of the keeper ended, and is begun anew")
        await asyncio.sleep(_PAUSE)


if __name__ == "__main__":
    sys.exit(main())
