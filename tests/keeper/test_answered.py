from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from keeper import answered, identity
from keeper.actions import Actions
from keeper.answered import LISTED_AFTER, Answered
from keeper.requests import Requests
from kube.rate_limiter import RateLimiter
from memoize import names
from tests.cluster import Cluster
from tests.keeper.keepers import ACCOUNT, decided, keeping
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import PAUSED, Site
from tests.keeper.test_actions import ENTRY, WHY, acting, held
from tests.manifests.rendering import rules_of
from tests.waiting import until
from tests.webhook.serving import api_client

LIST = "GET workflowtaskresults"


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


class Ours:
    """The actions of a keeper that acts for so long that nothing of another one is on its way."""

    def __init__(self, site: Site, proxy: Proxy, actions: Actions, known: Answered) -> None:
        self.site, self.proxy, self.actions, self.known = site, proxy, actions, known

    async def release(self, *numbers: int) -> list[str]:
        """Let the Pods of these steps run; the requests that it took."""
        pods = [held(self.site, number=number) for number in numbers]
        before = len(self.proxy.calls)
        for pod in pods:
            await self.actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=False)
            assert not self.site.held(pod.name)
        return [call.says for call in self.proxy.calls[before:]]

    async def know(self) -> None:
        """Have the Workflow be one of which several steps ran, whose results are listed by now."""
        await self.release(*range(100, 100 + LISTED_AFTER + 1))
        assert LIST in [call.says for call in self.proxy.calls]


@pytest.fixture
async def ours(cluster: Cluster, site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ours]:
    monkeypatch.setattr(answered, "SETTLED", 0.0)
    token, proxy = (
        cluster.service_account(site.namespace, ACCOUNT, rules_of("stepmemo-keeper")),
        Proxy(cluster),
    )
    async with proxy.serving() as url, api_client(cluster, url=url, token=token) as api:
        requests = Requests(api, RateLimiter(1000))
        known = Answered(requests)
        yield Ours(site, proxy, Actions(requests, lambda: datetime.now(UTC), known), known)


@pytest.fixture
async def others(cluster: Cluster) -> AsyncIterator[Actions]:
    """Those of a keeper before ours, or of containers in a Pod."""
    async with api_client(cluster) as api:
        yield acting(api)


async def answer_and_delete(site: Site, actions: Actions, number: int) -> None:
    """A Pod of this step is answered, and goes before it has succeeded."""
    pod = held(site, number=number)
    await actions.post(pod, ENTRY)
    site.delete(pod.name)
    assert site.value(pod.name)


def node(number: int) -> str:
    """The node of the step with this number, and the name of its Pod."""
    return identity.node_id("wf", f"wf[{number}].step")


def reads(said: list[str]) -> int:
    """Of single results."""
    return sum(one.startswith(f"{LIST}/") for one in said)


@pytest.mark.contract
async def test_of_many_steps_of_a_workflow_each_takes_one_request_to_release(ours: Ours) -> None:
    said = await ours.release(*range(LISTED_AFTER + 10))
    assert reads(said) == LISTED_AFTER
    assert said.count(LIST) == 1
    assert all(one.startswith("PATCH pods/") for one in said[2 * LISTED_AFTER + 1 :])


@pytest.mark.contract
async def test_an_answer_that_another_keeper_has_posted_for_an_earlier_pod_goes_before_the_gate(
    ours: Ours, others: Actions
) -> None:
    await answer_and_delete(ours.site, others, 1)
    await ours.know()
    said = await ours.release(1)
    assert reads(said) >= 1
    assert not any(one == LIST for one in said)
    assert not ours.site.value(node(1))


async def test_an_answer_that_was_posted_since_by_this_keeper_goes_before_the_gate(ours: Ours) -> None:
    await ours.know()
    await answer_and_delete(ours.site, ours.actions, 1)
    await ours.release(1)
    assert not ours.site.value(node(1))


async def test_an_answer_that_may_have_been_posted_since_by_containers_of_ours_goes_before_the_gate(
    ours: Ours, others: Actions
) -> None:
    await ours.know()
    await answer_and_delete(ours.site, others, 1)
    ours.known.note(ours.site.namespace, "wf", node(1))
    await ours.release(1)
    assert not ours.site.value(node(1))


async def test_what_others_may_have_posted_meanwhile_is_looked_for_again(ours: Ours, others: Actions) -> None:
    await ours.know()
    await answer_and_delete(ours.site, others, 1)
    ours.known.forget()
    await ours.release(1)
    assert not ours.site.value(node(1))


@pytest.mark.parametrize("status", [403, 404, 429, 500])
async def test_where_the_results_cannot_be_listed_each_is_read_and_the_list_is_not_tried_each_time(
    ours: Ours, others: Actions, status: int
) -> None:
    await answer_and_delete(ours.site, others, 1)

    def fault(method: str, path: str):
        return refusing(status, "GET")(method, path) if path == "workflowtaskresults" else None

    ours.proxy.fault = fault
    await ours.know()
    said = await ours.release(1, 2, 3)
    assert reads(said) >= 3
    assert LIST not in said
    assert not ours.site.value(node(1))


async def test_of_a_workflow_with_more_results_than_are_listed_each_is_read(
    ours: Ours, others: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answered, "MOST_LISTED", 1)
    for number in (1, 2):
        await answer_and_delete(ours.site, others, number)
    await ours.know()
    await ours.release(1, 2)
    assert not any(ours.site.value(node(number)) for number in (1, 2))


async def test_things_are_remembered_for_a_while_and_then_listed_anew(cluster: Cluster, site: Site) -> None:
    now, proxy = [1000.0], Proxy(cluster)
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        known = Answered(Requests(api, RateLimiter(1000)), lambda: now[0])
        pod = held(site)
        assert [await known.may_be(pod) for _ in range(2 * LISTED_AFTER)] == [True] * 2 * LISTED_AFTER
        assert proxy.calls == [], "another keeper may have sent what has not arrived yet"
        for _ in range(2):
            now[0] += max(answered.SETTLED, answered.REMEMBERED)
            asked = [await known.may_be(pod) for _ in range(LISTED_AFTER + 5)]
            assert asked == [True] * LISTED_AFTER + [False] * 5
    assert [call.says for call in proxy.calls] == [LIST] * 2


async def test_a_keeper_knows_of_pods_with_containers_of_ours_that_have_gone(
    site: Site, others: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answered, "SETTLED", 0.0)
    async with keeping(site) as running:
        first = [site.pod(number, key=f"k{number}") for number in range(2, LISTED_AFTER + 3)]
        await decided(site, *first)
        assert LIST in [call.says for call in running.proxy.calls]
        inside = site.pod(1, held=False)
        in_pod = {"metadata": {"labels": {names.RESULT: names.RESULT_IN_POD}}}
        assert site.cluster.patch("Pod", site.namespace, inside, in_pod)[0] == 200
        uid = site.get(inside)["metadata"]["uid"]
        await until(lambda: running.keeper._records.get(uid) is not None)
        site.delete(inside)
        await until(lambda: running.keeper._records.get(uid) is None)
        await answer_and_delete(site, others, 1)
        name = site.pod(1)
        await decided(site, name)
    assert site.label(name) == names.RESULT_MISS
    assert not site.value(name)


async def test_who_gets_the_lease_does_not_go_by_what_was_listed_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answered, "SETTLED", 0.0)
    async with keeping(site) as running:
        pods = [site.pod(number, case=PAUSED, key=f"k{number}") for number in range(LISTED_AFTER + 2)]
        await decided(site, *pods)
        keeper = running.keeper
        assert any(known.listed for known in keeper._answered._known.values())
        keeper._enqueue_all()
        assert not keeper._answered._known
