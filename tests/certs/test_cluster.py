import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from certs import bundle as bundles
from certs import pki
from certs.bundle import Bundle
from server.tls import ServingCertificate
from tests.beside import beside
from tests.certs.installation import CA_SECRET, SECRET, Installation, Replica
from tests.cluster import Cluster
from tests.waiting import until

pytestmark = pytest.mark.contract


def in_step(installation: Installation, *replicas: Replica, still: Sequence[bytes] = ()) -> bool:
    """The Secrets, everybody's files and every webhook agree. `still`: what is trusted beside `ca.crt`."""
    data = installation.secret().get("data")
    if not data:
        return False
    signers = bundles.signers_from_data(installation.secret(CA_SECRET).get("data"))
    stored = Bundle.from_data(data, signers)
    trusted = b"".join(pki.authorities(b"".join([*stored.trusted, *still])))
    return (
        all(replica.ready for replica in replicas)
        and {replica.served for replica in replicas} == {stored.server.certificate}
        and {replica.ca for replica in replicas} == installation.ca_bundles() == {trusted}
        and bundles.renewed(stored, installation.names, pki.made_at(stored.server.certificate))
        == (stored, "")
    )


async def test_the_first_start_makes_the_secret_the_files_and_the_trust(installation: Installation) -> None:
    before = installation.webhooks()
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
    assert installation.secret()["type"] == "kubernetes.io/tls"
    assert set(installation.secret()["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert installation.secret(CA_SECRET)["type"] == "Opaque"
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


async def test_a_replica_that_was_overtaken_while_it_made_a_ca_takes_the_other_ones(
    installation: Installation,
) -> None:
    overtaken = asyncio.Event()
    async with proxy(installation) as between:

        async def hold_the_clock(request: web.Request) -> web.StreamResponse:
            if request.path == "/version":
                await overtaken.wait()
            return await between.passed_on(request)

        between.on_everything = hold_the_clock
        async with installation.replica(url=between.url) as slow, installation.replica() as quick:
            await quick.becomes_ready()
            ca = quick.ca
            await until(lambda: between.told.count(b'"ADDED"') == 2)
            overtaken.set()
            await slow.becomes_ready()
            assert in_step(installation, slow, quick)
            assert slow.ca == ca


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


@pytest.mark.parametrize("names", [[SECRET], [CA_SECRET], [SECRET, CA_SECRET]])
async def test_a_deleted_secret_comes_back_as_it_was(installation: Installation, names: list[str]) -> None:
    async with installation.replica() as one, installation.replica() as other:
        await one.becomes_ready()
        await other.becomes_ready()
        before = [installation.secret(name)["data"] for name in (SECRET, CA_SECRET)]
        for name in names:
            installation.delete_secret(name)
        await until(lambda: all(installation.secret(name).get("data") for name in names))
        assert [installation.secret(name)["data"] for name in (SECRET, CA_SECRET)] == before
        assert in_step(installation, one, other)


async def test_without_its_secret_a_restart_makes_another_certificate_of_the_same_ca(
    installation: Installation,
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        before = replica
    served, ca = before.served, before.ca
    installation.delete_secret()
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
        assert (replica.served != served, replica.ca) == (True, ca)


async def test_a_lost_key_brings_a_next_ca_and_no_other_certificate(installation: Installation) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        served, ca = replica.served, replica.ca
    installation.delete_secret(CA_SECRET)
    async with installation.replica() as replica:
        await until(lambda: in_step(installation, replica))
        assert replica.served == served
        assert len(pki.authorities(replica.ca)) == 2
        assert pki.authorities(ca)[0] in pki.authorities(replica.ca)


async def test_a_certificate_of_another_ca_is_served_only_when_every_api_server_has_heard_of_that_one(
    installation: Installation,
) -> None:
    seconds, looks = [1000.0], [0]

    def clock() -> float:
        looks[0] += 1
        return seconds[0]

    async with installation.replica(clock=clock) as running:
        await running.becomes_ready()
        served, ca = running.served, running.ca
        restored = bundles.new(installation.names, datetime.now(UTC))
        installation.restore(restored)
        both = b"".join(pki.authorities(ca + restored.ca_pem))
        await until(lambda: installation.ca_bundles() == {both} == {running.ca})
        async with installation.replica(clock=lambda: seconds[0]) as started:
            await until(lambda: started.served == restored.server.certificate)
            await until(lambda: started.ready), "it was there when this one first looked"
            seconds[0] += 4.9
            enough = looks[0] + 4  # of two at a time, one pair was after now
            await until(lambda: looks[0] >= enough or running.served != served)
            assert running.served == served
            assert running.ready
            seconds[0] += 0.2
            await until(lambda: in_step(installation, running, started, still=[ca]))
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica, still=[ca]), "who still serves by the old one is trusted"


async def test_whoever_trusts_the_ca_bundle_of_a_moment_ago_gets_through_while_the_ca_changes(
    installation: Installation,
) -> None:
    seconds = [1000.0]

    async def serial(port: int, trusted: bytes) -> int:
        """The certificate that a client sees who trusts this; an SSLError for one that he does not."""
        context, name = ssl.create_default_context(cadata=trusted.decode()), installation.names[0]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return x509.load_der_x509_certificate(shown).serial_number

    async def replaced(port: int, trusted: bytes, old: int) -> bool:
        return await serial(port, trusted) != old

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with installation.replica(clock=lambda: seconds[0]) as replica:
        await replica.becomes_ready()
        serving = ServingCertificate(replica.directory)
        async with beside(serving.follow()):
            server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=serving.context)
            async with server:
                port = server.sockets[0].getsockname()[1]
                (before,) = installation.ca_bundles()
                old = await serial(port, before)
                installation.restore(bundles.new(installation.names, datetime.now(UTC)))
                # Until all API servers have heard of it, those get through that have and those that have not.
                await until(lambda: len(pki.authorities(*installation.ca_bundles())) == 2)
                (both,) = installation.ca_bundles()
                async with installation.replica() as another:
                    await another.becomes_ready()
                serving.reload()
                assert [await serial(port, trusted) for trusted in (before, both)] == [old, old]
                seconds[0] += 5
                await until(lambda: replaced(port, both, old))
                with pytest.raises(ssl.SSLCertVerificationError):
                    await serial(port, before)


async def test_a_restart_with_another_ca_is_not_ready_before_every_api_server_has_heard_of_it(
    installation: Installation,
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        ca = replica.ca
    for name in (SECRET, CA_SECRET):
        installation.delete_secret(name)
    seconds = [1000.0]
    async with installation.replica(clock=lambda: seconds[0]) as replica:
        await until(lambda: "may not have heard of our CA yet" in replica.certificates.problem)
        assert len(pki.authorities(*installation.ca_bundles())) == 2
        seconds[0] += 5
        await until(lambda: in_step(installation, replica, still=[ca]))


async def test_what_nobody_may_trust_any_more_leaves_the_ca_bundle(installation: Installation) -> None:
    ended = pki.new_ca(datetime.now(UTC) - timedelta(days=4000)).certificate
    text = base64.b64encode(ended + b"a remark").decode()
    patch = [{"op": "add", "path": f"/webhooks/{n}/clientConfig/caBundle", "value": text} for n in (0, 1)]
    kind = "MutatingWebhookConfiguration"
    assert installation.cluster.patch(kind, "", installation.configuration, patch)[0] == 200
    async with installation.replica() as replica:
        await until(lambda: in_step(installation, replica))


@pytest.mark.parametrize(
    "broken",
    [{"tls.crt": "anVuaw=="}, {"ca.crt": "anVuaw=="}, {"ca.crt": None, "tls.key": None, "more": "QQ=="}],
)
async def test_a_secret_that_somebody_broke_is_mended(
    installation: Installation, broken: dict[str, str | None]
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        before = replica.ca
    opaque = installation.secret()
    installation.delete_secret()
    data = {name: value for name, value in {**opaque["data"], **broken}.items() if value is not None}
    created = {"kind": "Secret", "metadata": {"name": SECRET, "namespace": installation.namespace}}
    assert installation.cluster.create({**created, "type": "Opaque", "data": data})[0] == 201
    async with installation.replica() as replica:
        await replica.becomes_ready()
        assert in_step(installation, replica)
        assert replica.ca == before
    assert installation.secret()["data"].get("more") == broken.get("more"), "what is not ours stays"


async def test_a_ca_that_somebody_broke_while_it_is_in_use_is_written_back(
    installation: Installation,
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        before = installation.secret(CA_SECRET)["data"]
        broken = {"data": {**before, "ca.key": "anVuaw=="}}
        assert installation.cluster.patch("Secret", installation.namespace, CA_SECRET, broken)[0] == 200
        await until(lambda: installation.secret(CA_SECRET)["data"] == before)
        assert in_step(installation, replica)


# --- Clocks ------------------------------------------------------------------------------------------


async def test_a_certificate_near_its_end_is_renewed_by_one_replica_under_the_same_ca(
    installation: Installation,
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        expiring, ca = replica.served, replica.ca
    later = datetime.now(UTC) + timedelta(days=350)
    async with proxy(installation) as between, AsyncExitStack() as stack:
        between.date = later
        one, two = [
            await stack.enter_async_context(installation.replica(now=lambda: later, url=between.url))
            for _ in range(2)
        ]
        await until(lambda: one.ready and two.ready and one.served == two.served != expiring)
        assert in_step(installation, one, two)
        assert one.ca == ca


async def test_what_may_not_be_renewed_is_served_and_kept_trusted(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
        expiring = replica.served
    later = datetime.now(UTC) + timedelta(days=350)
    async with proxy(installation) as between:

        async def refuse_updates(request: web.Request) -> web.StreamResponse:
            return await (refusal(403) if request.method == "PUT" else between.passed_on)(request)

        between.date, between.on_everything = later, refuse_updates
        async with installation.replica(now=lambda: later, url=between.url) as replica:
            await replica.becomes_ready()
            assert replica.served == expiring
            assert "answered 403" in caplog.text
            installation.configure()
            await until(lambda: installation.ca_bundles() == {replica.ca})
            between.on_everything = None
            await until(lambda: replica.served != expiring)
            assert in_step(installation, replica)


@pytest.mark.parametrize("days", [350, 5000, -30])
async def test_time_alone_changes_nothing_unless_the_api_servers_clock_says_so_too(
    installation: Installation, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    async with installation.replica() as replica:
        await replica.becomes_ready()
    before = installation.secret(), installation.secret(CA_SECRET)
    elsewhen = datetime.now(UTC) + timedelta(days=days)
    async with installation.replica(now=lambda: elsewhen) as replica:
        await replica.becomes_ready()
        assert "not so by the API server's clock" in caplog.text
        assert (installation.secret(), installation.secret(CA_SECRET)) == before


async def test_a_certificate_is_made_by_the_api_servers_clock(installation: Installation) -> None:
    elsewhen = datetime.now(UTC) + timedelta(days=5000)
    async with installation.replica(now=lambda: elsewhen) as replica:
        await replica.becomes_ready()
        age = datetime.now(UTC) - pki.made_at(replica.served)
        assert abs(age) < timedelta(minutes=10)


# --- An API server in trouble ------------------------------------------------------------------------

Trouble = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Proxy:
    """Stands before the cluster and lets every request through, unless told what to do instead."""

    cluster: Cluster
    session: aiohttp.ClientSession
    url: str = ""
    date: datetime | None = None
    """What it says that the time is, if not what is so."""
    on_first: Trouble | None = None
    """For the first request of each method to each path, and the first watch of each."""
    on_watch: list[Trouble] = field(default_factory=list)
    on_everything: Trouble | None = None
    watches: int = 0
    watching: list[asyncio.Transport] = field(default_factory=list)
    told: bytearray = field(default_factory=bytearray)
    """What its watches have told so far."""
    asked: set[tuple[str, str, bool]] = field(default_factory=set)

    def cut_watches(self) -> None:
        for transport in self.watching:
            transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.on_everything:
            return await self.on_everything(request)
        what = (request.method, request.path, "watch" in request.query)
        if self.on_first and what not in self.asked:
            self.asked.add(what)
            return await self.on_first(request)
        if "watch" in request.query:
            self.watches += 1
            assert request.transport is not None
            self.watching.append(request.transport)
            if self.on_watch:
                return await self.on_watch.pop(0)(request)
        return await self.passed_on(request)

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
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
            response.headers["Date"] = (
                format_datetime(self.date, usegmt=True) if self.date else answer.headers["Date"]
            )
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                    if "watch" in request.query:
                        self.told += chunk
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


def refusal(status: int) -> Trouble:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "code": status, "message": "no"}, status=status)

    return refuse


async def slow(request: web.Request) -> web.StreamResponse:
    """Lists and watches wait for longer than this test does; what is asked for once does not."""
    if request.method == "GET" and request.path != "/version":
        return await unavailable(request)
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("trouble", [*map(refusal, (403, 404, 409, 410, 422, 429, 500)), slow])
async def test_whatever_the_first_request_of_each_kind_is_answered_with_it_comes_right(
    installation: Installation, trouble: Trouble
) -> None:
    async with proxy(installation) as between:
        between.on_first = trouble
        async with installation.replica(url=between.url) as replica:
            await replica.becomes_ready()
            assert in_step(installation, replica)
            assert {method for method, *_ in between.asked} == {"GET", "POST", "PATCH"}


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


async def test_rights_that_are_taken_away_take_no_readiness_away(installation: Installation) -> None:
    async with proxy(installation) as between, installation.replica(url=between.url) as replica:
        await replica.becomes_ready()
        refused = asyncio.Event()

        async def refuse(request: web.Request) -> web.StreamResponse:
            refused.set()
            return await refusal(403)(request)

        between.on_everything = refuse
        between.cut_watches()
        await asyncio.wait_for(refused.wait(), 60)
        assert replica.ready


async def test_a_ca_bundle_that_may_not_be_written_is_told_while_nobody_trusts_us(
    installation: Installation,
) -> None:
    async with proxy(installation) as between:

        async def refuse_patches(request: web.Request) -> web.StreamResponse:
            return await (refusal(403) if request.method == "PATCH" else between.passed_on)(request)

        between.on_everything = refuse_patches
        async with installation.replica(url=between.url) as replica:
            said = f"MutatingWebhookConfiguration {installation.configuration} does not trust our CA"
            await until(lambda: replica.certificates.problem.startswith(said))
            assert replica.certificates.problem.endswith("the API server answered 403 Forbidden: no")
            between.on_everything = None
            await replica.becomes_ready()
