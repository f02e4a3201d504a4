"""What a step waits for while another Namespace has the keeper work all the time, by a count of work."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from keeper.artifacts.repositories import Repository
from keeper.artifacts.verifier import Probe, Verifier
from keeper.breaker import Breaker
from keeper.cache.last_hit import LastHits
from keeper.cache.store import ConfigMapStore
from keeper.cache.view import View
from keeper.cache.writer import Writer
from keeper.controller import Keeper, KeeperSettings
from memoize import names
from server.events import Events
from server.lookups import Lookups
from server.metrics import Metrics
from tests.beside import beside
from tests.keeper.site import Site
from tests.virtual import Server, run

pytestmark = pytest.mark.slow

SERVICE = 0.01
"""Seconds for a request."""
BUSY, OVERLOADED = 0.0002, 0.0015
"""Seconds for a callback: with the one the loop has time left, with the other more to do than it can."""
ENDS = 130
"""Steps that end in a second."""


@asynccontextmanager
async def keeping(server: Server, probes: Mapping[Repository, Probe] | None = None) -> AsyncIterator[None]:
    """A keeper of all Namespaces that acts, with the loop's clock; with `probes` it looks for artifacts."""
    clock, api, metrics = asyncio.get_running_loop().time, server.api, Metrics()
    begun, start = datetime.now(UTC), clock()

    def now() -> datetime:
        return begun + timedelta(seconds=clock() - start)

    assert server.cluster.create({"kind": "Namespace", "metadata": {"name": "stepmemo"}})[0] == 201
    view, writer = View(api, clock=clock), Writer(api, clock=clock)
    store = ConfigMapStore(api, view, writer, LastHits(writer, view, now=now))
    events = Events(api, metrics.event_dropped, "stepmemo-keeper", "test", clock=clock)
    breaker = Breaker(api, metrics, events, clock=clock, now=now)
    verifier = Verifier(store.drop, clock=clock)
    verifier.use(probes or {})
    keeper = Keeper(
        api,
        store,
        Lookups(api, metrics.lookup_failed, clock=clock),
        events,
        metrics,
        breaker,
        KeeperSettings(lease_namespace="stepmemo"),
        "this",
        verifier if probes else None,
        clock=clock,
        now=now,
    )
    try:
        async with beside(*(part.run() for part in (view, events, breaker, keeper))):
            await so_that(lambda: keeper.ready and keeper.acts)
            yield
    finally:
        await verifier.close()
        await writer.close()


async def so_that(condition: Callable[[], object]) -> float:
    """The seconds until the condition holds."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        if condition():
            return clock() - begun
        await asyncio.sleep(0.02)


async def every(seconds: float, times: int, work: Callable[[int], object]) -> None:
    """Do it so often, whatever that takes."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    for number in range(times):
        await asyncio.sleep(max(0.0, begun + number * seconds - clock()))
        work(number)


@pytest.mark.parametrize("per_callback", [BUSY, OVERLOADED])
def test_a_step_waits_a_second_at_most_while_another_namespaces_steps_end_all_the_time(
    per_callback: float,
) -> None:
    async def waits() -> list[float]:
        server = Server(SERVICE)
        tenant, neighbour = Site.new(server.cluster), Site.new(server.cluster)
        neighbour.store()
        pods = [tenant.pod(number, held=False, key=f"key-{number}") for number in range(4 * ENDS)]
        hits: list[asyncio.Task[float]] = []

        def hit(number: int) -> None:
            name = neighbour.pod(number)
            hits.append(asyncio.create_task(so_that(lambda: neighbour.succeeded(name))))

        async with keeping(server):
            ending = every(1 / ENDS, len(pods), lambda number: tenant.run(pods[number]))
            await asyncio.gather(ending, every(0.5, 8, hit))
            return await asyncio.gather(*hits)

    assert max(run(waits(), per_callback)) <= 1


@pytest.mark.parametrize("per_callback", [BUSY, OVERLOADED])
def test_a_step_waits_a_second_at_most_behind_hundreds_of_another_namespace(per_callback: float) -> None:
    async def waits() -> float:
        server = Server(SERVICE)
        tenant, neighbour = Site.new(server.cluster), Site.new(server.cluster)
        neighbour.store()
        async with keeping(server):
            pods = [tenant.pod(number, key=f"key-{number}") for number in range(500)]
            name = neighbour.pod()
            waited = await so_that(lambda: neighbour.succeeded(name))
            assert tenant.labels(pods).count(names.RESULT_GATED) > 300, "or nobody was in its way"
            return waited

    assert run(waits(), per_callback) <= 1


def test_a_step_that_is_stored_costs_four_requests_and_its_part_of_what_is_asked_for_all() -> None:
    steps = 100

    async def asked() -> Counter[str]:
        server = Server(SERVICE)
        site = Site.new(server.cluster)
        async with keeping(server):
            server.calls.clear()
            pods = [site.pod(number, key=f"key-{number}") for number in range(steps)]
            await so_that(lambda: not any(site.held(name) for name in pods))
            for name in pods:
                site.run(name)
            await so_that(lambda: site.labels(pods) == [names.RESULT_STORED] * steps)
        within = (path.partition(f"/namespaces/{site.namespace}/")[2] for _, path in server.calls)
        return Counter(rest.partition("/")[0] for rest in within)

    found = run(asked(), BUSY)
    del found[""]
    assert found.pop("events") <= 20 * 10, "of which so many a second are written"
    assert (found.pop("pods"), found.pop("workflowtaskresults")) == (2 * steps, 2 * steps)
    assert found.total() <= 0.25 * steps, found
