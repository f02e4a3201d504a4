import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from kube.leader_election import DURATION, Lease
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper.api.asked import recorded
from tests.keeper.proxy import Proxy
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.waiting import until
from tests.webhook.serving import api_client

ANNOTATION = "test.example/says"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Looks:
    """Takes the place of `may_lead`, which is asked after every look of one who does not hold the Lease."""

    def __init__(self, *, fit: bool = True) -> None:
        self.fit, self._count = fit, 0

    def __call__(self) -> bool:
        self._count += 1
        return self.fit

    async def two_more(self) -> None:
        """One of them began after now."""
        enough = self._count + 2
        await until(lambda: self._count >= enough)


@asynccontextmanager
async def standing(
    api: ApiClient,
    namespace: str,
    identity: str,
    *,
    may_lead: Callable[[], bool] = lambda: True,
    says: Callable[[], str] = str,
    clock: Callable[[], float] = Clock(),  # noqa: B008 - each test that turns it gives its own
) -> AsyncIterator[Lease]:
    """One who stands for the Lease until the block ends, and looks often."""
    lease = Lease(
        api,
        namespace,
        "keeper",
        identity,
        may_lead=may_lead,
        annotation=ANNOTATION,
        says=says,
        renew=0.02,
        clock=clock,
    )
    async with beside(lease.run()):
        yield lease


@pytest.mark.contract
async def test_it_ends_when_it_is_cancelled_in_the_moment_that_it_is_to_check_now(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api:
        lease = Lease(api, namespace, "keeper", "a", may_lead=lambda: True, renew=3600.0)
        task = asyncio.create_task(lease.run())
        await until(lambda: lease.is_leader)
        await asyncio.sleep(0)  # it waits until it is to check
        lease.check_now()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await task
    assert task.cancelled()
    assert not cluster.get("Lease", namespace, "keeper")[1]["spec"].get("holderIdentity")


@pytest.mark.contract
async def test_one_of_two_holds_it_and_the_other_follows_when_it_is_given_up(
    cluster: Cluster,
) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api, AsyncExitStack() as stack:
        async with standing(api, namespace, "a") as first:
            await until(lambda: first.is_leader)
            looks = Looks()
            second = await stack.enter_async_context(standing(api, namespace, "b", may_lead=looks))
            await looks.two_more()
            assert (first.is_leader, second.is_leader) == (True, False)
        await until(lambda: second.is_leader)
        assert not first.is_leader
    lease = cluster.get("Lease", namespace, "keeper")[1]
    assert not lease["spec"].get("holderIdentity")


@pytest.mark.contract
async def test_it_is_taken_from_one_who_is_not_heard_of_for_its_duration(cluster: Cluster) -> None:
    namespace, clock, looks = cluster.namespace(), Clock(), Looks()
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 6, "renewTime": "2026-01-01T00:00:00.000000Z"}
    metadata = {"name": "keeper", "namespace": namespace, "annotations": {ANNOTATION: "ready", "x": "y"}}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    assert cluster.create(lease)[0] == 201
    async with (
        api_client(cluster) as api,
        standing(api, namespace, "a", may_lead=looks, says=lambda: "a", clock=clock) as standby,
    ):
        await looks.two_more()
        clock.now += DURATION - 0.1
        await looks.two_more()
        assert not standby.is_leader
        clock.now += 0.2
        await until(lambda: standby.is_leader)
        found = cluster.get("Lease", namespace, "keeper")[1]
    assert found["spec"]["leaseTransitions"] == 1
    assert found["metadata"]["annotations"] == {ANNOTATION: "a", "x": "y"}


async def test_who_is_not_fit_neither_takes_nor_renews_it(cluster: Cluster) -> None:
    namespace, clock, looks = cluster.namespace(), Clock(), Looks(fit=False)
    async with (
        api_client(cluster) as api,
        standing(api, namespace, "a", may_lead=looks, clock=clock) as lease,
    ):
        await looks.two_more()
        assert not lease.is_leader
        looks.fit = True
        await until(lambda: lease.is_leader)
        looks.fit = False
        await looks.two_more()
        clock.now += DURATION
        await looks.two_more()
        assert not lease.is_leader


async def test_a_holder_whose_renewals_fail_stops_acting_before_others_may_take_over(
    cluster: Cluster,
) -> None:
    namespace, clock = cluster.namespace(), Clock()
    async with api_client(cluster) as api, standing(api, namespace, "a", clock=clock) as lease:
        await until(lambda: lease.is_leader)
        renewed = clock.now
        api.configuration.host = "http://127.0.0.1:9"
        clock.now = renewed + DURATION * 2 / 3 - 0.1
        assert lease.is_leader
        clock.now = renewed + DURATION * 2 / 3
        assert not lease.is_leader


async def test_a_renewal_counts_from_when_it_was_sent_and_not_from_its_answer(cluster: Cluster) -> None:
    """Others count from when they see it, which may be before the answer is here."""
    namespace, clock, proxy = cluster.namespace(), Clock(), Proxy(cluster)
    sent = clock.now

    def slow(method: str, path: str) -> None:
        if method == "POST":
            clock.now = sent + DURATION / 4

    proxy.fault_all = slow
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        lease = Lease(api, namespace, "keeper", "a", renew=3600.0, clock=clock)
        async with beside(lease.run()):
            await until(lambda: lease.is_leader)
            clock.now = sent + DURATION * 2 / 3 - 0.1
            assert lease.is_leader
            clock.now = sent + DURATION * 2 / 3
            assert not lease.is_leader


@pytest.mark.parametrize("answer", [broken, overloaded, gibberish, hang])
async def test_trouble_with_the_api_server_ends_nothing(cluster: Cluster, answer: Answer) -> None:
    asked = 0

    async def counted(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await answer(request)

    async with (
        answering(counted, "*") as url,
        api_client(cluster, url=url) as api,
        standing(api, "ns", "a") as lease,
    ):
        await until(lambda: asked >= 2)
        assert not lease.is_leader


async def test_whoever_deletes_it_ends_the_holding_until_it_is_taken_again(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api, standing(api, namespace, "a") as lease:
        await until(lambda: lease.is_leader)
        before = cluster.get("Lease", namespace, "keeper")[1]["metadata"]["uid"]
        cluster.delete("Lease", namespace, "keeper")
        await until(lambda: cluster.get("Lease", namespace, "keeper")[0] == 200)
        assert cluster.get("Lease", namespace, "keeper")[1]["metadata"]["uid"] != before
        await until(lambda: lease.is_leader)


@pytest.mark.contract
async def test_each_renewal_says_what_the_holder_says_now_and_giving_it_up_takes_it_away(
    cluster: Cluster,
) -> None:
    def said() -> str | None:
        metadata = cluster.get("Lease", namespace, "keeper")[1]["metadata"]
        return (metadata.get("annotations") or {}).get(ANNOTATION)

    namespace, word = cluster.namespace(), ["busy"]
    async with api_client(cluster) as api:
        async with standing(api, namespace, "a", says=lambda: word[0]) as lease:
            await until(lambda: lease.is_leader)
            assert said() == "busy"
            word[0] = "ready"
            await until(lambda: said() == "ready")
        assert said() is None


async def test_a_renewal_is_one_request(cluster: Cluster) -> None:
    async with api_client(cluster) as api, standing(api, cluster.namespace(), "a") as lease:
        await until(lambda: lease.is_leader)
        with recorded(api) as asked:
            await until(lambda: len(asked) >= 5)
        assert set(asked.methods()) == {"PUT"}


async def test_what_others_write_on_it_does_not_end_the_holding(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api, standing(api, namespace, "a", says=lambda: "a") as lease:
        await until(lambda: lease.is_leader)
        cluster.patch("Lease", namespace, "keeper", {"metadata": {"annotations": {ANNOTATION: "b"}}})
        assert lease.is_leader
        found = cluster.get("Lease", namespace, "keeper")[1]
        await until(lambda: cluster.get("Lease", namespace, "keeper")[1] != found)
        assert lease.is_leader
        metadata = cluster.get("Lease", namespace, "keeper")[1]["metadata"]
        assert metadata["annotations"] == {ANNOTATION: "a"}
