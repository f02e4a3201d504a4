import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from kubernetes_asyncio.client import ApiClient

from kube.leader_election import DURATION, Lease
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.waiting import until
from tests.webhook.serving import api_client


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def standing(
    api: ApiClient,
    namespace: str,
    identity: str,
    *,
    may_lead: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = Clock(),  # noqa: B008 - each test that turns it gives its own
) -> AsyncIterator[Lease]:
    """One who stands for the Lease until the block ends, and looks often."""
    lease = Lease(api, namespace, "keeper", identity, may_lead=may_lead, renew=0.02, clock=clock)
    task = asyncio.create_task(lease.run())
    try:
        yield lease
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


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
async def test_one_of_two_holds_it_and_both_know_and_the_other_follows_when_it_is_given_up(
    cluster: Cluster,
) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api, standing(api, namespace, "b") as second:
        async with standing(api, namespace, "a") as first:
            await until(lambda: first.has_leader and second.has_leader)
            assert first.is_leader != second.is_leader
            if not first.is_leader:
                return
        await until(lambda: second.is_leader)
        assert not first.is_leader
    lease = cluster.get("Lease", namespace, "keeper")[1]
    assert not lease["spec"].get("holderIdentity")


@pytest.mark.contract
async def test_it_is_taken_from_one_who_is_not_heard_of_for_its_duration(cluster: Cluster) -> None:
    namespace, clock = cluster.namespace(), Clock()
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    metadata = {"name": "keeper", "namespace": namespace}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    assert cluster.create(lease)[0] == 201
    async with api_client(cluster) as api, standing(api, namespace, "a", clock=clock) as standby:
        await until(lambda: standby.has_leader)
        clock.now += DURATION - 0.1
        last = standby.last_contact
        await until(lambda: standby.last_contact > last)
        assert not standby.is_leader
        clock.now += 0.2
        await until(lambda: standby.is_leader)
    assert cluster.get("Lease", namespace, "keeper")[1]["spec"]["leaseTransitions"] == 1


async def test_who_is_not_fit_neither_takes_nor_renews_it(cluster: Cluster) -> None:
    namespace, clock, fit = cluster.namespace(), Clock(), [False]
    async with (
        api_client(cluster) as api,
        standing(api, namespace, "a", may_lead=lambda: fit[0], clock=clock) as lease,
    ):
        await until(lambda: lease.last_contact > 0)
        assert not lease.has_leader
        fit[0] = True
        await until(lambda: lease.is_leader)
        fit[0] = False
        clock.now += DURATION
        await until(lambda: lease.last_contact == clock.now)
        assert not lease.is_leader
        assert not lease.has_leader


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
        clock.now = renewed + DURATION
        assert not lease.has_leader


@pytest.mark.parametrize("answer", [broken, overloaded, gibberish, hang])
async def test_trouble_with_the_api_server_ends_nothing(cluster: Cluster, answer: Answer) -> None:
    async with (
        answering(answer, "*") as url,
        api_client(cluster, url=url) as api,
        standing(api, "ns", "a") as lease,
    ):
        await asyncio.sleep(0.1)
        assert not lease.is_leader
        assert not lease.has_leader


async def test_whoever_deletes_it_ends_the_holding_until_it_is_taken_again(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    async with api_client(cluster) as api, standing(api, namespace, "a") as lease:
        await until(lambda: lease.is_leader)
        before = cluster.get("Lease", namespace, "keeper")[1]["metadata"]["uid"]
        cluster.delete("Lease", namespace, "keeper")
        await until(lambda: cluster.get("Lease", namespace, "keeper")[0] == 200)
        assert cluster.get("Lease", namespace, "keeper")[1]["metadata"]["uid"] != before
        await until(lambda: lease.is_leader)
