"""The keeper, killed at each of its requests: the next one ends every held Pod right, and once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest

from memoize import names
from tests.cluster import DEVCLUSTER, Cluster
from tests.keeper.keepers import forget_the_lease, keeping
from tests.keeper.proxy import Call, Proxy
from tests.keeper.site import OUT, PAUSED, RAN, SIMPLE, Site
from tests.waiting import until

WHEN = ("before", "after")
MOST = 40
"""Requests of one scenario; one that has fewer ends with a keeper that was not killed."""
AT_ONCE = 4
SECONDS = 500
"""For what takes a second or two where nothing else runs: many run at once, and each is many requests."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that is slow to show what was stored, as on a busy machine, makes nobody run."""
    for grace in ("STORED_GRACE", "ORDER_GRACE"):
        monkeypatch.setattr(f"keeper.single_flight.{grace}", timedelta(minutes=1))


@dataclass
class Scenario:
    """Pods and what a node does with them until `over`; `check` looks at what came of it."""

    site: Site
    pods: list[str]
    over: Callable[[], Awaitable[bool] | bool]
    check: Callable[[list[Call]], None]


def a_hit(site: Site, case: str = SIMPLE) -> Scenario:
    site.store()
    name = site.pod(case=case)

    def check(calls: list[Call]) -> None:
        assert site.succeeded(name)
        assert site.value(name) == OUT
        assert _count(calls, f"POST workflowtaskresults/{name}", 201) == 1
        assert _count(calls, f"PATCH pods/{name}/status", 200) == 1

    return Scenario(site, [name], lambda: site.label(name) == names.RESULT_HIT, check)


def a_hit_with_a_pause(site: Site) -> Scenario:
    return a_hit(site, PAUSED)


def a_hit_whose_entry_goes_as_soon_as_it_is_posted(site: Site) -> Scenario:
    """Another keeper finds no entry, and lets the step run: without our answer beside it."""
    site.store()
    name = site.pod(case=PAUSED)
    gone = []

    def over() -> bool:
        if site.value(name) == OUT and not gone:
            gone.append(site.cluster.delete("ConfigMap", site.namespace, "memo"))
        if not site.held(name) and not site.succeeded(name):
            assert not site.value(name), "our answer stands beside a running step"
            site.run(name)
        return site.label(name) in (names.RESULT_HIT, names.RESULT_STORED)

    def check(calls: list[Call]) -> None:
        assert site.value(name) == (OUT if site.label(name) == names.RESULT_HIT else RAN)
        assert _count(calls, f"PATCH pods/{name}/status", 200) == (site.label(name) == names.RESULT_HIT)

    return Scenario(site, [name], over, check)


def a_runner_and_its_waiters(site: Site, most_runners: int = 1) -> Scenario:
    pods = [site.pod(number) for number in range(3)]
    ran: set[str] = set()

    def over() -> bool:
        for name in pods:
            if name not in ran and not site.held(name) and not site.succeeded(name):
                ran.add(name)
                site.run(name)
        return set(site.labels(pods)) <= {names.RESULT_HIT, names.RESULT_STORED}

    def check(calls: list[Call]) -> None:
        assert 1 <= len(ran) <= most_runners
        assert [site.value(name) for name in pods] == [RAN] * 3
        for name in pods:
            # Of several requests under way, those that are cut off with the one may have been carried out.
            assert _count(calls, f"POST workflowtaskresults/{name}", 201) <= (name not in ran)
            assert _count(calls, f"PATCH pods/{name}/status", 200) <= (name not in ran)
            assert site.succeeded(name)

    return Scenario(site, pods, over, check)


def a_runner_that_fails(site: Site) -> Scenario:
    pods = [site.pod(number) for number in range(2)]

    def over() -> bool:
        for name in pods:
            if not site.held(name) and site.get(name)["status"]["phase"] == "Pending":
                site.end(name, phase="Failed", code=1)
        return set(site.labels(pods)) == {names.RESULT_SKIPPED}

    def check(calls: list[Call]) -> None:
        assert not any(site.value(name) for name in pods)
        assert site.entry() is None

    return Scenario(site, pods, over, check)


SCENARIOS = [
    a_hit,
    a_hit_with_a_pause,
    a_hit_whose_entry_goes_as_soon_as_it_is_posted,
    a_runner_and_its_waiters,
    a_runner_that_fails,
]


@pytest.mark.contract
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("make", SCENARIOS)
async def test_a_keeper_killed_at_a_request_is_followed_by_one_that_ends_it_right(
    cluster: Cluster, make: Callable[[Site], Scenario], when: str
) -> None:
    for indexes in _indexes(cluster):
        # Most of a scenario is waiting: some wait side by side, each in a Namespace of its own.
        if not all(await asyncio.gather(*(_killed_at(cluster, make, index, when) for index in indexes))):
            return
    assert cluster.tier != DEVCLUSTER, "it had more requests than expected"


async def test_two_keepers_that_act_at_once_end_every_pod_right_and_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one was stopped for a minute, and goes on before it looks at the Lease.

    Each may have let another of equal steps run by then: it knows what its own watch told it.
    """
    monkeypatch.setattr("kube.leader_election.Lease.is_leader", True)
    for make in SCENARIOS:
        of_two = partial(make, most_runners=2) if make is a_runner_and_its_waiters else make
        scenario = of_two(Site.new(cluster))
        async with keeping(scenario.site, wait=False) as one, keeping(scenario.site, wait=False) as other:
            await until(scenario.over, SECONDS)
        scenario.check([*one.proxy.calls, *other.proxy.calls])


async def _killed_at(cluster: Cluster, make: Callable[[Site], Scenario], index: int, when: str) -> bool:
    """Whether the scenario has so many requests that one keeper was killed at it, and another followed."""
    scenario = make(Site.new(cluster))
    first, second = Proxy(cluster), Proxy(cluster)
    first.stop_at(index, when)
    async with keeping(scenario.site, first, wait=False) as running:
        await until(lambda: first.stopped.is_set() or scenario.over(), SECONDS)
        await running.kill()
    if first.stopped.is_set():
        forget_the_lease(scenario.site)
        async with keeping(scenario.site, second):
            await until(scenario.over, SECONDS)
    scenario.check([*first.calls, *second.calls])
    return first.stopped.is_set()


def _indexes(cluster: Cluster) -> Iterator[range]:
    """All of them, some at a time; on the slower tier fewer, which differ from scenario to scenario."""
    indexes = range(MOST) if cluster.tier == DEVCLUSTER else range(1, MOST, 4)
    return (indexes[begin : begin + AT_ONCE] for begin in range(0, len(indexes), AT_ONCE))


def _count(calls: list[Call], says: str, status: int) -> int:
    return sum(call.says == says and call.status == status for call in calls)
