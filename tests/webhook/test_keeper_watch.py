"""The keeper's Lease as it is followed: on an API server, and on one that is in trouble."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

import pytest
from aiohttp import web

from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, broken, gibberish, hang, overloaded
from tests.waiting import until
from tests.webhook.keeperstatus import READY, lease
from tests.webhook.serving import api_client
from webhook.keeper_state import KeeperState
from webhook.keeper_watch import LEASE, SETTLE, KeeperWatch

Json = dict[str, Any]
IDLE = 2.0
"""Seconds of silence that end a watch, where one is to end so: no busy machine is silent so long."""


@asynccontextmanager
async def following(
    cluster: Cluster, url: str = "", namespace: str = "n", **options: Any
) -> AsyncIterator[KeeperWatch]:
    async with api_client(cluster, url=url, token=options.pop("token", None)) as api:
        watch = KeeperWatch(api, namespace, **options)
        async with beside(watch.run()):
            yield watch


async def shortly(_: float) -> None:
    await asyncio.sleep(0.01)


def named(number: int, namespace: str, name: str = LEASE, **options: Any) -> Json:
    shown = lease(number, **options)
    del shown["metadata"]["uid"]
    metadata = {**shown["metadata"], "name": name, "namespace": namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **shown, "metadata": metadata}


@pytest.mark.contract
async def test_a_keeper_is_followed_from_its_first_renewal_to_its_end(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [LEASE],
            "verbs": ["get", "list", "watch"],
        }
    ]
    token = cluster.service_account(namespace, "webhook", rules)
    numbers = cycle(range(60))

    def renew(**options: Any) -> None:
        change = named(next(numbers), namespace, **options)
        body = {"metadata": {"annotations": change["metadata"]["annotations"]}, "spec": change["spec"]}
        status, answer = cluster.patch("Lease", namespace, LEASE, body)
        assert status == 200, answer

    # No time passes, and no silence ends the watch: what it shows last is what ends the keeper, at once.
    patient: Json = {"clock": lambda: 100.0, "idle_timeout": 600.0}
    async with following(cluster, namespace=namespace, token=token, **patient) as watch:
        assert cluster.create(named(next(numbers), namespace))[0] == 201
        assert cluster.create(named(next(numbers), namespace, name="another"))[0] == 201

        async def renewed_until(state: KeeperState, **options: Any) -> None:
            async with asyncio.timeout(60):
                while watch.state is not state:
                    renew(**options)
                    await asyncio.sleep(0.02)

        await renewed_until(KeeperState.READY)
        assert watch.status == READY
        await renewed_until(KeeperState.GONE, holder="")
        await renewed_until(KeeperState.READY)
        assert cluster.delete("Lease", namespace, LEASE)[0] == 200
        await until(lambda: watch.state is KeeperState.GONE)


class Leases:
    """An API server with one Lease that is renewed every 10 ms; `on_list` and `on_watch` answer before."""

    def __init__(self) -> None:
        self.on_list: list[Answer] = []
        self.on_watch: list[Answer] = []
        self.lists = self.watches = 0
        self.renewal = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/apis/coordination.k8s.io/v1/namespaces/n/leases", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def event(self) -> bytes:
        self.renewal = (self.renewal + 1) % 60
        return json.dumps({"type": "MODIFIED", "object": lease(self.renewal)}).encode() + b"\n"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.query["fieldSelector"] == f"metadata.name={LEASE}"
        if "watch" in request.query:
            assert request.query["resourceVersion"] == "7"
            self.watches += 1
            return await (self.on_watch.pop(0) if self.on_watch else self._watch)(request)
        self.lists += 1
        if self.on_list:
            return await self.on_list.pop(0)(request)
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": [lease(self.renewal)]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = await begun(request)
        while True:
            await response.write(self.event())
            await asyncio.sleep(0.01)


async def begun(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await begun(request)
    await asyncio.Event().wait()
    raise AssertionError


async def not_a_list(_: web.Request) -> web.StreamResponse:
    return web.json_response({"kind": "Status"})


async def over_at_once(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"")


def refusing(code: int) -> Answer:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"code": code, "reason": "Expired"}, status=code)

    return refuse


async def gone_as_an_event(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}\n')


TROUBLES: dict[str, Answer] = {
    "forbidden": refusing(403),
    "not found": refusing(404),
    "conflict": refusing(409),
    "gone": refusing(410),
    "invalid": refusing(422),
    "overloaded": overloaded,
    "broken": broken,
    "gibberish": gibberish,
    "not a list": not_a_list,
    "slow": hang,
    "gone as an event": gone_as_an_event,
    "over at once": over_at_once,
    "silent": silent,
}


@pytest.mark.parametrize("where", ["on_list", "on_watch"])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_whatever_is_in_the_way_is_got_over(cluster: Cluster, trouble: Answer, where: str) -> None:
    leases = Leases()
    getattr(leases, where).append(trouble)
    options: Json = {"idle_timeout": IDLE if trouble in (hang, silent) else 600.0, "sleep": shortly}
    async with leases.serving() as url, following(cluster, url, **options) as watch:
        assert watch.status is None
        await until(lambda: watch.state is KeeperState.READY)
    assert leases.lists == 2


async def test_how_the_keeper_is_counts_as_unknown_until_a_renewal_is_seen(cluster: Cluster) -> None:
    leases, shown = Leases(), asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        await shown.wait()
        return await leases._watch(request)

    leases.on_watch.append(late)
    options: Json = {"clock": lambda: 100.0, "idle_timeout": 600.0}
    async with leases.serving() as url, following(cluster, url, **options) as watch:
        await until(lambda: leases.watches)
        assert watch.settling
        assert watch.state is KeeperState.GONE
        shown.set()
        await until(lambda: not watch.settling)
        assert watch.state is KeeperState.READY


@pytest.mark.parametrize("where", ["on_list", "on_watch"])
@pytest.mark.parametrize("trouble", [hang, refusing(403), silent], ids=["hang", "forbidden", "silent"])
async def test_a_keeper_that_cannot_be_seen_is_waited_for_some_seconds(
    cluster: Cluster, trouble: Answer, where: str
) -> None:
    leases, now = Leases(), [100.0]
    getattr(leases, where).extend([trouble] * 1000)
    options: Json = {"clock": lambda: now[0], "idle_timeout": 600.0}
    async with leases.serving() as url, following(cluster, url, **options) as watch:
        await until(lambda: leases.watches if where == "on_watch" else leases.lists)
        now[0] += SETTLE - 0.1
        assert watch.settling
        now[0] += 0.2
        assert not watch.settling


async def test_where_nobody_holds_the_lease_nobody_is_waited_for(cluster: Cluster) -> None:
    async def nobody(_: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    leases = Leases()
    leases.on_list.append(nobody)
    leases.on_watch.append(silent)
    options: Json = {"clock": lambda: 100.0, "idle_timeout": 600.0}
    async with leases.serving() as url, following(cluster, url, **options) as watch:
        assert watch.settling
        await until(lambda: not watch.settling)
        assert watch.state is KeeperState.GONE


async def test_a_watch_that_says_nothing_is_opened_anew(cluster: Cluster) -> None:
    leases = Leases()

    async def falls_silent(request: web.Request) -> web.StreamResponse:
        response = await begun(request)
        await response.write(leases.event())
        return await silent(request)

    leases.on_watch += [falls_silent, silent]
    async with leases.serving() as url, following(cluster, url, idle_timeout=IDLE) as watch:
        await until(lambda: leases.watches == 3)
        await until(lambda: watch.status == READY)
    assert leases.lists == 3


async def test_what_fails_at_once_is_tried_again_after_longer_and_longer_pauses(cluster: Cluster) -> None:
    leases, pauses = Leases(), []
    leases.on_list += [refusing(403)] * 8

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await shortly(seconds)

    async with leases.serving() as url, following(cluster, url, sleep=sleep) as watch:
        await until(lambda: watch.state is KeeperState.READY)
    assert leases.lists == 9
    longest = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


async def test_the_log_says_each_state_and_each_trouble_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    leases, now = Leases(), [100.0]
    leases.on_list += [refusing(403)] * 2

    def said(field: str) -> list[str]:
        lines = [getattr(one, "fields", {}) for one in caplog.records if one.name == "webhook.keeper_watch"]
        return [line[field] for line in lines if field in line]

    async with leases.serving() as url, following(cluster, url, clock=lambda: now[0], sleep=shortly) as watch:
        await until(lambda: watch.state is KeeperState.READY)
        leases.on_list += [refusing(403)] * 100
        leases.event = lambda: b"no event\n"  # type: ignore[method-assign]
        await until(lambda: leases.lists >= 5)
        now[0] += 10
        await until(lambda: said("state") == ["gone", "ready", "gone"])
    assert said("error") == ["403 Forbidden", "the answer is not JSON", "403 Forbidden"]
