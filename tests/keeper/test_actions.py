from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from keeper import steppods
from keeper.actions import ActionResult, Actions
from keeper.requests import Requests
from keeper.steppods import GatedStep, InvalidStep
from keeper.task_results import PostedResult
from kube.errors import ApiError
from kube.rate_limiter import RateLimiter
from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.keepers import ACCOUNT
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import OUT, RAN, Site, outputs
from tests.manifests.rendering import rules_of
from tests.webhook.serving import api_client
from webhook.pods import room

pytestmark = pytest.mark.contract

ENTRY = Entry("wf-0", outputs(OUT), datetime(2026, 1, 1, tzinfo=UTC), None, workflow="earlier")
WHY = Outcome(Reason.MISS)


@pytest.fixture
def site(cluster: Cluster) -> Site:
    return Site.new(cluster)


@pytest.fixture
async def actions(cluster: Cluster, site: Site) -> AsyncIterator[Actions]:
    token = cluster.service_account(site.namespace, ACCOUNT, rules_of("stepmemo-keeper"))
    async with api_client(cluster, token=token) as api:
        yield acting(api)


def acting(api: ApiClient) -> Actions:
    requests = Requests(api, RateLimiter(1000))
    return Actions(requests, lambda: datetime.now(UTC))


def held(site: Site, **changes: Any) -> GatedStep:
    return seen(site, site.pod(**changes))


def seen(site: Site, name: str) -> GatedStep:
    pod = steppods.read(site.get(name))
    assert isinstance(pod, GatedStep)
    return pod


def edit(site: Site, pod: GatedStep) -> None:
    """Somebody changes the Pod otherwise: it has another version."""
    assert site.cluster.patch("Pod", site.namespace, pod.name, {"metadata": {"labels": {"a": "b"}}})[0] == 200


def free(site: Site, pod: GatedStep) -> None:
    """Somebody lets the Pod run."""
    gates = [{"op": "remove", "path": "/spec/schedulingGates"}]
    assert site.cluster.patch("Pod", site.namespace, pod.name, gates)[0] == 200


def rewrite(site: Site, pod: GatedStep, annotations: dict[str, str] | None = None) -> InvalidStep:
    """Somebody edits what says which step it is."""
    change = {"metadata": {"annotations": annotations or {names.KEY: "another"}}}
    assert site.cluster.patch("Pod", site.namespace, pod.name, change)[0] == 200
    found = steppods.read(site.get(pod.name))
    assert isinstance(found, InvalidStep)
    return found


def completed_as(site: Site, pod: GatedStep) -> str:
    """What the controller takes the result for."""
    return str((site.result(pod.name) or {})["metadata"]["labels"][argo.OUTPUTS_COMPLETED])


async def posted(actions: Actions, pod: GatedStep) -> PostedResult:
    found = await actions.post(pod, ENTRY)
    assert isinstance(found, PostedResult)
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
    assert await actions.post(pod, ENTRY) is ActionResult.NOT_GATED
    assert site.value(pod.name) == RAN


async def test_a_pod_that_changed_since_it_was_seen_is_finished_all_the_same(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    edit(site, pod)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.DONE
    assert site.succeeded(pod.name)
    assert site.label(pod.name) == names.RESULT_HIT


async def test_a_pod_is_finished_once(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.DONE
    before = site.get(pod.name)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.DONE
    assert site.get(pod.name) == before


async def test_a_pod_that_was_let_run_is_not_finished_and_loses_our_result(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    free(site, pod)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.NOT_GATED
    assert not site.succeeded(pod.name)
    assert site.result(pod.name) is None


async def test_what_the_step_reported_since_is_never_taken_back(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    free(site, pod)
    site.report(pod.name)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.NOT_GATED
    await actions.withdraw(pod, result)
    assert site.value(pod.name) == RAN


async def test_another_pod_of_the_same_name_is_not_touched(site: Site, actions: Actions) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    site.delete(pod.name)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.POD_GONE
    other = held(site)
    before = site.get(other.name)
    assert await actions.finish(pod, ENTRY, result) is ActionResult.POD_GONE
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=False) is ActionResult.POD_GONE
    await actions.label(pod, names.RESULT_STORED, WHY)
    assert site.get(other.name) == before


@pytest.mark.parametrize("result_may_exist", [True, False])
async def test_a_pod_is_let_run_once(site: Site, actions: Actions, result_may_exist: bool) -> None:
    pod = held(site)
    edit(site, pod)
    assert (
        await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=result_may_exist)
        is ActionResult.DONE
    )
    before = site.get(pod.name)
    assert (
        await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=result_may_exist)
        is ActionResult.NOT_GATED
    )
    assert site.get(pod.name) == before
    assert not site.held(pod.name)
    assert (site.label(pod.name), site.reason(pod.name)) == (names.RESULT_MISS, "Miss")


async def test_our_result_goes_before_the_gate(site: Site, actions: Actions) -> None:
    pod = held(site)
    await posted(actions, pod)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert not site.value(pod.name)
    site.report(pod.name)
    assert site.value(pod.name) == RAN


async def test_a_post_that_arrives_after_the_release_meets_a_conflict(site: Site, actions: Actions) -> None:
    pod = held(site)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert isinstance(await actions.post(pod, ENTRY), Outcome)
    assert not site.value(pod.name)
    site.report(pod.name)
    assert site.value(pod.name) == RAN


async def test_a_release_leaves_what_the_step_reported(site: Site, actions: Actions) -> None:
    pod = held(site)
    site.report(pod.name)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert site.value(pod.name) == RAN


async def test_a_pod_that_was_answered_is_not_let_run(site: Site, actions: Actions) -> None:
    pod = held(site)
    await actions.finish(pod, ENTRY, await posted(actions, pod))
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.NOT_GATED
    assert (site.value(pod.name), site.label(pod.name)) == (OUT, names.RESULT_HIT)


@pytest.mark.parametrize("result_may_exist", [True, False])
async def test_a_release_that_comes_late_leaves_the_word_on_a_pod_that_was_answered(
    site: Site, actions: Actions, result_may_exist: bool
) -> None:
    """A Pod that is over keeps its gate: the word alone tells."""
    pod = held(site)
    hit = {"metadata": {"labels": {names.RESULT: names.RESULT_HIT}}}
    assert site.cluster.patch("Pod", site.namespace, pod.name, hit)[0] == 200
    assert (
        await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=result_may_exist)
        is ActionResult.NOT_GATED
    )
    assert (site.held(pod.name), site.label(pod.name)) == (True, names.RESULT_HIT)


async def test_an_answer_cannot_be_finished_once_its_pod_was_told_to_run(
    site: Site, cluster: Cluster, actions: Actions
) -> None:
    """Another keeper posted it, was stopped, and goes on while ours is about to take the gate away."""
    pod = held(site)
    answer = await posted(actions, pod)
    proxy = Proxy(cluster)
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        ours = acting(api)
        patches = []

        def stop_before_the_gate(method: str, path: str) -> web.Response | None:
            patches.extend([path] if method == "PATCH" else [])
            return web.json_response({"code": 503}, status=503) if len(patches) == 2 else None

        proxy.fault = stop_before_the_gate
        with pytest.raises(ApiError):
            await ours.release(pod, names.RESULT_MISS, WHY, result_may_exist=True)
        assert await actions.finish(pod, ENTRY, answer) is ActionResult.CHANGED
        told = seen(site, pod.name)
        assert told.release_reason == WHY
        assert await ours.release(told, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert not site.succeeded(pod.name)
    assert not site.value(pod.name)


async def test_an_answer_of_an_earlier_pod_of_the_node_goes_before_the_gate(
    site: Site, actions: Actions
) -> None:
    earlier = held(site)
    await posted(actions, earlier)
    site.delete(earlier.name)
    pod = held(site)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=False) is ActionResult.DONE
    assert site.result(pod.name) is None


async def test_a_pod_that_is_deleted_leaves_no_answer_behind(site: Site, actions: Actions) -> None:
    withdrawn, finished, released = [held(site, number=number) for number in range(3)]
    answers = [await posted(actions, pod) for pod in (withdrawn, finished, released)]
    for pod in (withdrawn, finished, released):
        site.delete(pod.name)
    await actions.withdraw(withdrawn, answers[0])
    assert await actions.finish(finished, ENTRY, answers[1]) is ActionResult.POD_GONE
    assert (
        await actions.release(released, names.RESULT_MISS, WHY, result_may_exist=True)
        is ActionResult.POD_GONE
    )
    assert site.cluster.list("WorkflowTaskResult", site.namespace)[1]["items"] == []


async def test_a_pod_that_became_another_step_is_not_finished_and_loses_our_result_before_it_runs(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    answer = await posted(actions, pod)
    stray = rewrite(site, pod)
    assert await actions.finish(pod, ENTRY, answer) is ActionResult.CHANGED
    assert site.held(pod.name)
    assert (
        await actions.release(stray, names.RESULT_MISS, WHY, result_may_exist=True, valid=pod)
        is ActionResult.DONE
    )
    assert site.result(pod.name) is None
    assert not site.held(pod.name)


async def test_a_stray_loses_no_answer_but_its_own(site: Site, actions: Actions) -> None:
    """It may name any node."""
    other = held(site)
    await posted(actions, other)
    stray = rewrite(site, held(site, number=1), {argo.NODE_ID: other.name})
    assert await actions.release(stray, names.RESULT_SKIPPED, WHY, result_may_exist=True) is ActionResult.DONE
    assert site.value(other.name) == OUT


async def test_a_result_that_kept_answers_out_is_closed_when_the_step_reported_nothing(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert completed_as(site, pod) == "false"
    site.end(pod.name, phase="Failed", code=1)
    await actions.close(pod)
    assert completed_as(site, pod) == "true"
    assert not site.value(pod.name)


async def test_a_result_that_is_not_of_this_pods_release_is_not_closed(site: Site, actions: Actions) -> None:
    reported, later = held(site), held(site, number=1)
    for pod in (reported, later):
        await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=True)
    site.report(reported.name)
    before = site.result(reported.name)
    await actions.close(reported)
    assert site.result(reported.name) == before
    site.delete(later.name)
    held(site, number=1)
    await actions.close(later)
    assert completed_as(site, later) == "false"


async def test_the_last_word_is_written_on_a_pod_that_changed_or_has_gone(
    site: Site, actions: Actions
) -> None:
    pod = held(site, held=False)
    edit(site, pod)
    await actions.label(pod, names.RESULT_STORED, Outcome(Reason.STORED, "9 bytes"))
    assert (site.label(pod.name), site.reason(pod.name)) == (names.RESULT_STORED, "Stored")
    site.delete(pod.name)
    await actions.label(pod, names.RESULT_STORED, WHY)


def fill(site: Site, pod: GatedStep) -> GatedStep:
    """Somebody fills the Pod's annotations to the last byte; the Pod as it is then."""
    found = site.get(pod.name)["metadata"]["annotations"]
    used = sum(len(f"{name}{text}".encode()) for name, text in found.items())
    change = {"metadata": {"annotations": {"a": "x" * (room.ANNOTATIONS - used - 1)}}}
    assert site.cluster.patch("Pod", site.namespace, pod.name, change)[0] == 200
    change["metadata"]["annotations"]["b"] = ""
    assert site.cluster.patch("Pod", site.namespace, pod.name, change)[0] == 422
    return seen(site, pod.name)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_pod_whose_annotations_are_full_is_let_run_without_a_reason(
    site: Site, actions: Actions, answered: bool
) -> None:
    pod = held(site)
    if answered:
        await posted(actions, pod)
    pod = fill(site, pod)
    assert await actions.release(pod, names.RESULT_MISS, WHY, result_may_exist=answered) is ActionResult.DONE
    assert not site.held(pod.name)
    assert site.label(pod.name) == names.RESULT_MISS
    assert names.REASON not in site.get(pod.name)["metadata"]["annotations"]
    if answered:
        assert completed_as(site, pod) == "false"


async def test_a_pod_whose_annotations_are_full_is_answered_all_the_same(
    site: Site, actions: Actions
) -> None:
    pod = held(site)
    result = await posted(actions, pod)
    assert await actions.finish(fill(site, pod), ENTRY, result) is ActionResult.DONE
    assert site.succeeded(pod.name)
    assert site.label(pod.name) == names.RESULT_HIT


async def test_a_pod_whose_annotations_are_full_is_marked_without_a_reason(
    site: Site, actions: Actions
) -> None:
    pod = fill(site, held(site, held=False))
    await actions.label(pod, names.RESULT_STORED, Outcome(Reason.STORED))
    assert site.label(pod.name) == names.RESULT_STORED


@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_where_label_and_reason_are_refused_the_gate_goes_alone(
    site: Site, cluster: Cluster, status: int
) -> None:
    proxy = Proxy(cluster)
    pod = held(site)
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        proxy.fault = refusing(status, f"PATCH pods/{pod.name}", times=2)
        behind = acting(api)
        assert await behind.release(pod, names.RESULT_MISS, WHY, result_may_exist=False) is ActionResult.DONE
    assert not site.held(pod.name)
    assert site.label(pod.name) == names.RESULT_GATED


@pytest.mark.parametrize("answered", [False, True])
async def test_the_gate_goes_alone_from_a_pod_that_may_not_be_told_to_run(
    site: Site, cluster: Cluster, actions: Actions, answered: bool
) -> None:
    """Else a Pod that may be answered hangs where a policy lets nobody change its labels and annotations."""
    proxy = Proxy(cluster)
    pod = held(site)
    if answered:
        await posted(actions, pod)
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        proxy.fault = refusing(403, f"PATCH pods/{pod.name}", times=4)
        behind = acting(api)
        assert await behind.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert not site.held(pod.name)
    assert site.label(pod.name) == names.RESULT_GATED
    assert site.result(pod.name) is None or completed_as(site, pod) == "false", "no answer is beside it"


async def test_a_pod_that_no_request_may_change_is_tried_again_later(site: Site, cluster: Cluster) -> None:
    proxy = Proxy(cluster)
    pod = held(site)
    async with proxy.serving() as url, api_client(cluster, url=url) as api:
        proxy.fault = refusing(403, f"PATCH pods/{pod.name}")
        behind = acting(api)
        with pytest.raises(ApiError):
            await behind.release(pod, names.RESULT_MISS, WHY, result_may_exist=True)
        proxy.fault = lambda method, path: None
        assert await behind.release(pod, names.RESULT_MISS, WHY, result_may_exist=True) is ActionResult.DONE
    assert not site.held(pod.name)
