from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.webhook.holds.site import OUT, RAN, Site, outputs
from tests.webhook.serving import api_client
from webhook.holds import tended
from webhook.holds.actions import Actions, Ended, Posted
from webhook.holds.pace import Bucket
from webhook.holds.tended import Tended

pytestmark = pytest.mark.contract

ENTRY = Entry("wf-0", outputs(OUT), datetime(2026, 1, 1, tzinfo=UTC), None, workflow="earlier")
WHY = Outcome(Reason.MISS)


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


@pytest.fixture
async def actions(cluster: Cluster) -> AsyncIterator[Actions]:
    async with api_client(cluster) as api:
        yield Actions(api, Bucket(1000), lambda: datetime.now(UTC))


def held(site: Site, **changes: Any) -> Tended:
    return seen(site, site.pod(**changes))


def seen(site: Site, name: str) -> Tended:
    pod = tended.read(site.get(name))
    assert isinstance(pod, Tended)
    return pod


def edit(site: Site, pod: Tended) -> None:
    """Somebody changes the Pod otherwise: it has another version."""
    assert site.cluster.patch("Pod", site.namespace, pod.name, {"metadata": {"labels": {"a": "b"}}})[0] == 200


def free(site: Site, pod: Tended) -> None:
    """Somebody lets the Pod run."""
    gates = [{"op": "remove", "path": "/spec/schedulingGates"}]
    assert site.cluster.patch("Pod", site.namespace, pod.name, gates)[0] == 200


async def posted(actions: Actions, pod: Tended) -> Posted:
    found = await actions.post(pod, ENTRY)
    assert isinstance(found, Posted)
    return found


async def test_a_result_is_posted_once_however_often(site: Site, actions: Actions) -> None:
    pod = held(site)
    first = await posted(actions, pod)
    assert await posted(actions, pod) == first
    result = site.result(pod.name)
    assert result is not None
    assert result["metadata"]["annotations"][names.POSTED_FOR] == pod.uid
    assert site.value(pod.name) == OUT


async def test_a_result_that_was_posted_for_an_earlier_pod_of_the_node_is_replaced(
    site: Site, actions: Actions
) -> None:
    earlier = held(site)
    first = await posted(actions, earlier)
    site.delete(earlier.name)
    pod = held(site)
    assert pod.uid != earlier.uid
    assert await posted(actions, pod) != first
    result = site.result(pod.name)
    assert result is not None
    assert result["metadata"]["annotations"][names.POSTED_FOR] == pod.uid


async def test_a_result_that_the_step_reported_is_left_alone(site: Site, actions: Actions) -> None:
    pod = held(site)
    site.report(pod.name)
    outcome = await actions.post(pod, ENTRY)
    assert isinstance(outcome, Outcome)
    assert site.value(pod.name) == RAN


async def test_nothing_is_made_of_our_result_for_a_pod_that_was_let_run_since(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    await posted(actions, pod)
    free(site, pod)
    site.report(pod.name)
    assert await actions.post(pod, ENTRY) is Ended.LEFT
    assert site.value(pod.name) == RAN


async def test_a_pod_that_changed_since_it_was_seen_is_finished_all_the_same(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    edit(site, pod)
    assert await actions.finish(pod, ENTRY, result) is Ended.DONE
    assert site.succeeded(pod.name)
    assert site.word(pod.name) == names.RESULT_HIT


async def test_a_pod_is_finished_once(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    assert await actions.finish(pod, ENTRY, result) is Ended.DONE
    before = site.get(pod.name)
    assert await actions.finish(pod, ENTRY, result) is Ended.DONE
    assert site.get(pod.name) == before


async def test_a_pod_that_was_let_run_is_not_finished_and_loses_our_result(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    free(site, pod)
    assert await actions.finish(pod, ENTRY, result) is Ended.LEFT
    assert not site.succeeded(pod.name)
    found = site.result(pod.name)
    assert found is not None
    assert found["metadata"]["labels"][names.OUTPUTS_COMPLETED] == "false"
    assert "outputs" not in found


async def test_what_the_step_reported_since_is_never_taken_back(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    free(site, pod)
    site.report(pod.name)
    assert await actions.finish(pod, ENTRY, result) is Ended.LEFT
    await actions.withdraw(pod, result)
    assert site.value(pod.name) == RAN


async def test_another_pod_of_the_same_name_is_not_touched(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    site.delete(pod.name)
    assert await actions.finish(pod, ENTRY, result) is Ended.GONE
    other = held(site)
    before = site.get(other.name)
    assert await actions.finish(pod, ENTRY, result) is Ended.GONE
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=False) is Ended.GONE
    await actions.mark(pod, names.RESULT_STORED, WHY)
    assert site.get(other.name) == before


@pytest.mark.parametrize("doubtful", [True, False])
async def test_a_pod_is_let_run_once(site: Site, actions: Actions, doubtful: bool) -> None:
    pod = held(site)
    edit(site, pod)
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=doubtful) is Ended.DONE
    before = site.get(pod.name)
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=doubtful) is Ended.LEFT
    assert site.get(pod.name) == before
    assert not site.held(pod.name)
    assert (site.word(pod.name), site.reason(pod.name)) == (names.RESULT_MISS, "Miss")


async def test_our_result_goes_before_the_gate(site: Site, actions: Actions) -> None:
    pod = held(site)
    await posted(actions, pod)
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=True) is Ended.DONE
    assert not site.value(pod.name)
    site.report(pod.name)
    assert site.value(pod.name) == RAN


async def test_a_post_that_arrives_after_the_release_meets_a_conflict(site: Site, actions: Actions) -> None:
    pod = held(site)
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=True) is Ended.DONE
    assert isinstance(await actions.post(pod, ENTRY), Outcome)
    assert not site.value(pod.name)
    site.report(pod.name)
    assert site.value(pod.name) == RAN


async def test_a_release_leaves_what_the_step_reported(site: Site, actions: Actions) -> None:
    pod = held(site)
    site.report(pod.name)
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=True) is Ended.DONE
    assert site.value(pod.name) == RAN


async def test_a_pod_that_was_answered_is_not_let_run(site: Site, actions: Actions) -> None:
    pod = held(site)
    await actions.finish(pod, ENTRY, await posted(actions, pod))
    assert await actions.release(pod, names.RESULT_MISS, WHY, doubtful=True) is Ended.DONE
    assert site.value(pod.name) == OUT


async def test_the_last_word_is_written_on_a_pod_that_changed_or_has_gone(
    site: Site, actions: Actions
) -> None:
    pod = held(site, held=False)
    edit(site, pod)
    await actions.mark(pod, names.RESULT_STORED, Outcome(Reason.STORED, "9 bytes"))
    assert (site.word(pod.name), site.reason(pod.name)) == (names.RESULT_STORED, "Stored")
    site.delete(pod.name)
    await actions.mark(pod, names.RESULT_STORED, WHY)
