"""`python -m webhook`: reads the settings, connects everything, answers admission reviews until SIGTERM."""

import asyncio
import os
import socket
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubernetes_asyncio.client import ApiClient

from certs import bundle, pki
from certs.cluster import Certificates
from kube import client
from server import logs
from server.child import Child
from server.events import Events
from server.listener import Listener, MetricsListener
from server.lookups import Lookups
from server.metrics import Metrics
from server.own_image import own_image
from server.program import announce, exit_code, signals, spare_the_collector, until_first_ends, user_agent
from server.tls import Authorities, ServingCertificate
from webhook import in_child, settings
from webhook.admission import Admission, LocalShares
from webhook.big_reviews import UNKNOWN, BigReviews
from webhook.hooks import Hooks
from webhook.in_child import Given
from webhook.inject import preflight
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.keeper_watch import STATES, KeeperWatch
from webhook.pods.delivery import Delivery
from webhook.settings import Settings

CONTAINER = "webhook"
"""Its container in its Pod, in manifests/base."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 when it cannot serve, 2 for settings that are wrong."""

    def serve() -> None:
        chosen = settings.parse(sys.argv[1:] if argv is None else argv, os.environ)
        logs.setup(chosen.log_format, level=chosen.log_level)
        announce("webhook")
        asyncio.run(_serve(chosen))

    return exit_code(serve)


async def _serve(given: Settings) -> None:
    stop, stop_now = signals()
    metrics = Metrics()
    async with await client.connect(user_agent("webhook"), on_request=metrics.api_request) as api:
        chosen = await until_first_ends(_prepared(api, given), stop.wait())
        if not isinstance(chosen, Settings):
            return
        lookups = Lookups(api, metrics.lookup_failed)
        events = Events(
            api, metrics.event_dropped, "stepmemo-webhook", socket.gethostname(), workflows=lookups
        )
        certificates = _certificates(api, chosen) if chosen.certs == "cluster" else None
        serving = ServingCertificate(
            chosen.cert_dir, meanwhile=bundle.provisional(), on_flaw=metrics.certificate_flawed
        )
        serving.reload()  # nobody is to see the other one where there is a certificate
        authorities = Authorities(chosen.cert_dir, on_flaw=metrics.certificate_flawed)
        metrics.show_certificate(lambda: serving.expiry)
        service = chosen.access == "service"
        keeper = KeeperWatch(api, chosen.namespace) if service else None

        def problem() -> str:
            serving.reload()  # ready means: with what the Secret holds now, not a second later
            if certificates and certificates.problem:
                return certificates.problem
            if serving.unready:
                return serving.unready
            if service and not authorities.pem:
                return f"{authorities.problem}, and steps could not trust the keeper"
            # Admission goes on without a keeper, so that is no problem of ours; but whoever is still asked in
            # our place knows how it is.
            return "the keeper's Lease was not seen renewed yet" if keeper and keeper.settling else ""

        def notice() -> str:
            state = f"keeper: {keeper.state}" if keeper else ""
            return "\n".join(filter(None, [state, serving.notice, authorities.notice]))

        def injected() -> InjectSettings:
            if not service:
                return chosen.inject
            return replace(
                chosen.inject, service=CacheServiceAddress(chosen.cache_service_url, authorities.pem)
            )

        status = (lambda: keeper.status) if keeper else None
        shares, child = LocalShares(), Child(in_child.__name__, anybody=UNKNOWN)
        counted = chosen.count_versions
        admission = Admission(
            lookups, events, chosen.validate, injected, status, shares, count_versions=counted
        )

        def round_of(webhook: str, facts: Mapping[Hashable, Any]) -> Given:
            keeper_says = (status(),) if status else None
            return Given(webhook, chosen.validate, injected(), keeper_says, counted, facts)

        listener = Listener(metrics, problem, notice)
        big = BigReviews(child, lookups, events, shares, round_of)
        Hooks(admission.workflow, admission.pod, metrics, listener, big)
        if keeper:
            metrics.show_keeper_state(STATES, lambda: keeper.state)
        background = [
            events.run(),
            MetricsListener(metrics).run(chosen.metrics_listen),
            serving.follow(),
            *([certificates.run()] if certificates else []),
            *([keeper.run()] if keeper else []),
        ]
        listening = listener.run(*chosen.listen, serving.context, stop, stop_now, chosen.shutdown_delay)
        spare_the_collector()
        try:
            await until_first_ends(listening, *background)
        finally:
            await child.close()


async def _prepared(api: ApiClient, chosen: Settings) -> Settings:
    """The settings with the server's own image in them, tried where the API server has to know a feature."""
    inject = chosen.inject
    if not inject.image:
        inject = replace(inject, image=await own_image(api, chosen.namespace, chosen.pod_name, CONTAINER))
    if inject.injection is Delivery.IMAGE_VOLUME:
        await preflight.require_image_volumes(api, chosen.namespace, inject)
    return replace(chosen, inject=inject)


def _certificates(api: ApiClient, chosen: Settings) -> Certificates:
    return Certificates(
        api,
        namespace=chosen.namespace,
        secret=chosen.secret,
        ca_secret=chosen.ca_secret,
        configuration=chosen.webhook_configuration,
        names=[
            name
            for service in (chosen.service, chosen.keeper_service)
            for name in pki.service_names(service, chosen.namespace)
        ],
        directory=chosen.cert_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
