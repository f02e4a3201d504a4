import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from tests.certs.installation import SECRET, Installation, Replica
from tests.cluster import Cluster
from tests.waiting import until

pytestmark = pytest.mark.contract


def in_step(installation: Installation, *replicas: Replica) -> bool:
    """The Secret, everybody's files and every webhook agree."""
    data = installation.secret().get("data")
    return bool(data) and (
        all(replica.ready for replica in replicas)
        and {replica.served for replica in replicas} == {base64.b64decode(data["tls.crt"])}
        and {replica.ca for replica in replicas} == {base64.b64decode(data["ca.crt"])}
        and installation.ca_bundles() == {data["ca.crt"]}
    )


async def test_the_first_start_makes_the_secret_the_files_and_the_trust(installation: Installation) -> None:
    before = installation.webhooks()
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
    assert installation.secret()["type"] == "kubernetes.io/tls"
    after = installation.webhooks()
    for webhook in after:
        del webhook["clientConfig"]["caBundle"]
    assert after == before, "nothing but caBundle changes"


async def test_replicas_that_start_at_once_agree_on_one_certificate(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(installation.replica()) for _ in range(4)]
        for replica in replicas:
            await replica.becomes_ready()
        assert in_step(installation, *replicas)
    assert "answered 409" not in caplog.text, "to be second is no trouble"


async def test_a_restart_serves_what_the_secret_holds_and_writes_nothing(installation: Installation) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
    before = installation.secret(), installation.webhooks()
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
    assert (installation.secret(), installation.webhooks()) == before


async def test_a_configuration_written_over_gets_its_ca_bundle_back(installation: Installation) -> None:
    async with installation.replica() as one, installation.replica() as other:
        await one.becomes_ready()
        await other.becomes_ready()
        assert installation.configure()["webhooks"][0]["clientConfig"].get("caBundle") is None
        await until(lambda: in_step(installation, one, other))


async def test_without_a_configuration_it_is_not_ready_and_says_so_until_there_is_one(
    bare: Installation,
) -> None:
    bare.grant()
    async with bare.replica() as replica:
        await until(lambda: "there is no MutatingWebhookConfiguration" in replica.certificates.problem)
        bare.configure()
        await replica.becomes_ready()
        bare.unconfigure()
        await until(lambda: not replica.ready)
        bare.configure()
        await until(lambda: in_step(bare, replica))


async def test_without_rights_it_is_not_ready_and_says_which_until_it_gets_them(bare: Installation) -> None:
    bare.configure()
    async with bare.replica() as replica:
        await until(lambda: "answered 403" in replica.certificates.problem)
        assert "mutatingwebhookconfigurations" in replica.certificates.problem
        bare.grant()
        await replica.becomes_ready()
        assert in_step(bare, replica)


async def test_a_deleted_secret_comes_back_as_it_was(installation: Installation) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        before = installation.secret()["data"]
        installation.delete_secret()
        installation.configure()  # any change of the configuration makes it look
        await until(lambda: in_step(installation, replica))
        assert installation.secret()["data"] == before


async def test_a_secret_made_anew_by_another_replica_is_taken_over(installation: Installation) -> None:
    async with installation.replica() as old:
        await old.becomes_ready()
        installation.delete_secret()
        async with installation.replica() as new:
            await until(lambda: in_step(installation, old, new))


async def test_a_certificate_near_its_end_is_renewed_by_one_replica_under_the_same_ca(
    installation: Installation,
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        expiring, ca = replica.served, replica.ca
    later = datetime.now(UTC) + timedelta(days=350)
    async with installation.replica(now=lambda: later) as one, installation.replica(now=lambda: later) as two:
        await until(lambda: one.ready and two.ready and one.served == two.served)
        assert in_step(installation, one, two)
        assert one.served != expiring
        assert one.ca == ca


@pytest.mark.parametrize(
    "broken",
    [{"tls.crt": "anVuaw=="}, {"ca.key": "anVuaw=="}, {"ca.crt": None, "tls.key": None, "more": "QQ=="}],
)
async def test_a_secret_that_somebody_broke_is_mended(
    installation: Installation, broken: dict[str, str | None]
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
    opaque = installation.secret()
    assert installation.cluster.delete("Secret", installation.namespace, SECRET)[0] == 200
    data = {name: value for name, value in {**opaque["data"], **broken}.items() if value is not None}
    created = {"kind": "Secret", "metadata": {"name": SECRET, "namespace": installation.namespace}}
    assert installation.cluster.create({**created, "type": "Opaque", "data": data})[0] == 201
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
    assert installation.secret()["data"].get("more") == broken.get("more"), "what is not ours stays"


# --- An API server in trouble ------------------------------------------------------------------------

Trouble = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Proxy:
    """Stands before the cluster and lets every request through, unless told what to do instead."""

    cluster: Cluster
    session: aiohttp.ClientSession
    url: str = ""
    on_watch: list[Trouble] = field(default_factory=list)
    on_everything: Trouble | None = None
    watches: int = 0
    watching: list[asyncio.Transport] = field(default_factory=list)

    def cut_watches(self) -> None:
        for transport in self.watching:
            transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.on_everything:
            return await self.on_everything(request)
        if "watch" in request.query:
            self.watches += 1
            assert request.transport is not None
            self.watching.append(request.transport)
            if self.on_watch:
                return await self.on_watch.pop(0)(request)
        kept = ("Authorization", "Accept", "Content-Type")
        asked = self.session.request(
            request.method,
            f"{self.cluster.url}{request.path_qs}",
            data=await request.read(),
            headers={name: request.headers[name] for name in kept if name in request.headers},
            ssl=self.cluster.context(),
        )
        async with asked as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            finally:
                # Closed in the middle, TLS would say goodbye for longer than this test's loop lives.
                if answer.connection and answer.connection.transport:
                    answer.connection.transport.abort()
            return response


@asynccontextmanager
async def proxy(installation: Installation) -> AsyncIterator[Proxy]:
    async with aiohttp.ClientSession() as session:
        found = Proxy(installation.cluster, session)
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", found.handle)
        # A watch let through ends when its client leaves, before the session that it runs in does.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield found
        finally:
            await runner.cleanup()


async def gone_as_an_event(request: web.Request) -> web.StreamResponse:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    return web.json_response({"type": "ERROR", "object": status})


async def gone_as_an_answer(request: web.Request) -> web.StreamResponse:
    return web.json_response({"kind": "Status", "code": 410, "message": "too old"}, status=410)


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b'{"type": "MODI')
    assert request.transport is not None
    request.transport.abort()
    return response


async def gibberish(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>a gateway's opinion</html>\n")


async def unavailable(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text="overloaded")


@pytest.mark.parametrize("trouble", [gone_as_an_event, gone_as_an_answer, cut_off, gibberish, unavailable])
async def test_a_watch_that_breaks_is_begun_anew(installation: Installation, trouble: Trouble) -> None:
    async with proxy(installation) as between, installation.replica(url=between.url) as replica:
        between.on_watch += [trouble, trouble]
        await until(lambda: between.watches >= 3)
        installation.configure()
        await until(lambda: in_step(installation, replica))


async def test_an_api_server_that_is_away_takes_no_readiness_away(installation: Installation) -> None:
    async with proxy(installation) as between:
        between.on_everything = unavailable
        async with installation.replica(url=between.url) as replica:
            await until(lambda: "answered 503" in replica.certificates.problem)
            assert replica.served, "there is something to serve probes with from the first moment"
            between.on_everything = None
            await replica.becomes_ready()
            refused = asyncio.Event()

            async def refuse(request: web.Request) -> web.StreamResponse:
                refused.set()
                return await unavailable(request)

            between.on_everything = refuse
            between.cut_watches()
            await asyncio.wait_for(refused.wait(), 60)
            assert replica.ready
