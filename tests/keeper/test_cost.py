"""What a step costs in requests to the API server, Events and the Lease aside."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest

from keeper.state import Records
from memoize import names
from tests.cluster import Cluster
from tests.keeper.keepers import decided, keeping
from tests.keeper.proxy import Call
from tests.keeper.site import Site
from tests.waiting import until

MANY = 20


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


def kinds(calls: Iterable[Call]) -> Counter[str]:
    """The requests by method and resource."""
    parts = [(call.method, call.path.split("/")) for call in calls]
    return Counter(f"{method} {path[0]}{'/status' if path[-1] == 'status' else ''}" for method, path in parts)


async def all_are(site: Site, label: str) -> None:
    """Return once every Pod has this label; the keeper, in the same loop, is not held up by the question."""

    def they_are() -> bool:
        pods = site.cluster.list("Pod", site.namespace)[1]["items"]
        return all(pod["metadata"]["labels"][names.RESULT] == label for pod in pods)

    await until(lambda: asyncio.to_thread(they_are))


async def test_a_hit_takes_its_two_writes_and_many_share_the_rest(site: Site) -> None:
    site.store()
    async with keeping(site) as running:
        for number in range(MANY):
            await asyncio.to_thread(site.pod, number)
        await all_are(site, names.RESULT_HIT)
    cost = kinds(running.proxy.calls)
    assert cost.pop("POST workflowtaskresults") == MANY
    assert cost.pop("PATCH pods/status") == MANY
    assert cost.keys() == {"GET configmaps", "GET workflows"}
    assert max(cost.values()) < MANY / 2, "a machine that takes seconds for these hits reads them again"


async def test_a_step_that_is_stored_takes_four_requests_and_its_write_and_many_share_the_rest(
    site: Site,
) -> None:
    async with keeping(site) as running:
        pods = [await asyncio.to_thread(site.pod, number, key=f"key-{number}") for number in range(MANY)]
        await all_are(site, names.RESULT_MISS)
        for name in pods:
            await asyncio.to_thread(site.run, name)
        await all_are(site, names.RESULT_STORED)
    cost = kinds(running.proxy.calls)
    assert cost.pop("PATCH pods") == 2 * MANY, "let run, and labelled"
    assert cost.pop("GET workflowtaskresults") == 2 * MANY, "read before it runs, and as it ends"
    written = cost.pop("PATCH configmaps") + cost.pop("POST configmaps")
    assert written <= MANY + 1, "gathered, as far as they come together"
    assert cost.keys() == {"GET workflows", "GET configmaps"}
    assert max(cost.values()) <= MANY


async def test_a_step_alone_that_is_stored_reads_its_workflow_and_its_cache_as_well(site: Site) -> None:
    async with keeping(site) as running:
        name = site.pod()
        await decided(site, name)
        site.run(name)
        await until(lambda: site.label(name) == names.RESULT_STORED)
    assert kinds(running.proxy.calls) == {
        "GET configmaps": 1,
        "GET workflowtaskresults": 2,
        "PATCH pods": 2,
        "GET workflows": 1,
        "PATCH configmaps": 1,
        "POST configmaps": 1,
    }


async def test_a_pod_that_changes_while_it_is_labelled_is_labelled_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argo's controller labels it `completed` at about that time."""
    monkeypatch.setattr(Records, "drop", lambda self, uid: None)  # the watch is late with the label
    async with keeping(site) as running:
        name = site.pod()
        await decided(site, name)

        def change(method: str, path: str) -> None:
            if f"{method} {path}" == f"PATCH pods/{name}" and site.succeeded(name):
                running.keeper.on_pod(site.get(name), new=False)  # as the watch does

        running.proxy.fault = change
        await asyncio.to_thread(site.run, name)
        await until(lambda: site.label(name) == names.RESULT_STORED)
        queue = running.keeper._queue
        await until(lambda: not queue and not queue._working)
    assert kinds(running.proxy.calls)["PATCH pods"] == 2, "let run, and labelled"
