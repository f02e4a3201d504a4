import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from argo import names as argo
from keeper import steppods
from keeper.capture import GATHER, Capture, End, Later, ended, ended_inside
from keeper.requests import Requests
from keeper.steppods import GatedStep
from keeper.store import NOT_NOW
from kube.cost import Cost, metered
from kube.errors import Unavailable
from kube.rate_limiter import RateLimiter
from memoize import names
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.reasons import Reason
from tests.cluster import Cluster
from tests.keeper.proxy import Proxy, refusing
from tests.keeper.site import RAN, Site, outputs
from tests.keeper.stores import config_maps
from tests.webhook.serving import api_client

Json = dict[str, Any]

BEGUN, OVER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"


def over(*, init: Json | None = None, **containers: int | None) -> Json:
    """A Pod that is over, its containers with these exit codes; None for one that never ended."""
    codes = {"main": 0, "wait": 0, **containers}
    return {
        "metadata": {},
        "spec": {"initContainers": [{"name": "init"}, {"name": "mesh", "restartPolicy": "Always"}]},
        "status": {
            "phase": "Failed" if any(codes.values()) else "Succeeded",
            "initContainerStatuses": [_status(name, code) for name, code in (init or {"init": 0}).items()],
            "containerStatuses": [_status(name, code) for name, code in codes.items()],
        },
    }


def _status(name: str, code: int | None) -> Json:
    if code is None:
        return {"name": name, "state": {"waiting": {"reason": "PodInitializing"}}}
    return {
        "name": name,
        "state": {"terminated": {"exitCode": code, "startedAt": BEGUN, "finishedAt": OVER}},
    }


def reason(pod: Json, deadline: str = "", declared: Declared | None = None) -> str:
    end = ended(pod, declared or Declared(), deadline)
    return end.failed.reason if end.failed else ""


def test_a_step_whose_containers_ended_with_0_is_stored_with_the_time_that_it_took() -> None:
    assert ended(over(), Declared(), "") == End(None, 5.0)


@pytest.mark.parametrize("code", [1, 2, 64, 137, 143, None])
def test_a_main_container_must_end_with_0(code: int | None) -> None:
    assert reason(over(main=code)) == Reason.STEP_FAILED


@pytest.mark.parametrize("unknown", ["startedAt", "finishedAt"])
def test_a_main_container_of_which_a_time_is_not_known_is_not_stored(unknown: str) -> None:
    pod = over()
    (main,) = (one for one in pod["status"]["containerStatuses"] if one["name"] == "main")
    main["state"]["terminated"][unknown] = None
    assert reason(pod) == Reason.STEP_FAILED


@pytest.mark.parametrize("code", [1, 64, 137, 143, None])
@pytest.mark.parametrize("name", ["wait", "supervisor"])
def test_argos_own_container_must_end_with_0(name: str, code: int | None) -> None:
    assert reason(over(**{name: code})) == Reason.OUTPUTS_FAILED


@pytest.mark.parametrize(("code", "kept"), [(0, True), (137, True), (143, True), (1, False), (None, False)])
def test_a_sidecar_may_end_by_a_signal(code: int | None, kept: bool) -> None:
    pod = over(helper=code)
    pod["status"]["phase"] = "Failed"
    assert (reason(pod) == "") is kept


@pytest.mark.parametrize(("code", "kept"), [(0, True), (137, False), (1, False)])
def test_an_init_container_must_end_with_0(code: int, kept: bool) -> None:
    pod = over(init={"init": code})
    pod["status"]["phase"] = "Failed" if code else "Succeeded"
    assert (reason(pod) == "") is kept


def test_a_native_sidecar_may_end_as_it_likes_where_the_pod_succeeded() -> None:
    pod = over(init={"init": 0, "mesh": 1})
    assert reason(pod) == ""
    pod["status"]["phase"] = "Failed"
    assert reason(pod) == Reason.STEP_FAILED


def test_every_main_container_of_a_container_set_counts() -> None:
    declared = Declared(mains=("a", "b"))
    pod = over(a=0, b=0)
    assert reason(pod, declared=declared) == ""
    assert reason(over(a=0, b=137), declared=declared) == Reason.STEP_FAILED
    assert reason(over(a=0), declared=declared) == Reason.STEP_FAILED


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource"},
        {"phase": "Failed", "reason": "DeadlineExceeded"},
        {"phase": "Failed", "message": "Pod was terminated in response to imminent node shutdown."},
        {"conditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ],
)
def test_a_pod_that_was_ended_as_a_whole_is_not_stored(status: Json) -> None:
    pod = over()
    pod["status"] |= status
    assert reason(pod) == Reason.STEP_FAILED


@pytest.mark.parametrize(
    ("deletion", "grace", "kept"),
    [
        ("2026-01-01T00:00:34Z", 30, False),
        ("2026-01-01T00:00:35Z", 30, False),
        ("2026-01-01T00:00:36Z", 30, True),
        ("2026-01-01T00:00:36Z", None, True),
        ("2026-01-01T00:00:04Z", 0, False),
        ("nonsense", 0, False),
    ],
)
def test_a_pod_that_was_deleted_before_its_step_ended_is_not_stored(
    deletion: str, grace: int | None, kept: bool
) -> None:
    pod = over()
    pod["metadata"] = {"deletionTimestamp": deletion, "deletionGracePeriodSeconds": grace}
    assert (reason(pod) == "") is kept


def test_a_deletion_with_a_grace_period_of_ages_is_a_deletion() -> None:
    pod = over()
    pod["metadata"] |= {"deletionTimestamp": OVER, "deletionGracePeriodSeconds": 10**11}
    assert reason(pod) == Reason.STEP_FAILED


@pytest.mark.parametrize(
    ("deadline", "kept"),
    [("2026-01-01T00:00:06Z", True), (OVER, False), ("2026-01-01T00:00:04Z", False), ("soon", False)],
)
def test_a_step_that_ended_after_its_deadline_is_not_stored(deadline: str, kept: bool) -> None:
    assert (reason(over(), deadline) == "") is kept


@pytest.mark.parametrize(
    "broken", [{}, {"status": None}, {"status": {"containerStatuses": "x"}}, {"spec": []}]
)
def test_a_pod_that_makes_no_sense_is_not_stored(broken: Json) -> None:
    assert reason({**over(main=1), **broken}) == Reason.STEP_FAILED


def said(reason: str, detail: str = "") -> str:
    return json.dumps({"reason": reason, "detail": detail, "ms": 3})


@pytest.mark.parametrize(
    ("check", "capture", "label", "outcome"),
    [
        (said("Hit", "from n"), None, names.RESULT_HIT, Outcome(Reason.HIT, "from n")),
        (said("Miss"), said("Stored", "9 bytes"), names.RESULT_STORED, Outcome(Reason.STORED, "9 bytes")),
        (said("Miss"), said("CacheFull"), names.RESULT_SKIPPED, Outcome(Reason.CACHE_FULL)),
        (None, said("Stored"), names.RESULT_STORED, Outcome(Reason.STORED)),
        (said("Miss"), None, names.RESULT_SKIPPED, Outcome(Reason.MISS)),
    ],
)
def test_the_last_words_of_our_containers_tell_how_a_step_ended(
    check: str | None, capture: str | None, label: str, outcome: Outcome
) -> None:
    pod = _with_words(check, capture)
    assert ended_inside(pod) == (label, outcome)


@pytest.mark.parametrize(
    "words", ["", "nonsense", "[]", "{}", '{"reason": 7}', '{"reason": "Unheard"}', "[" * 5000]
)
def test_words_that_make_no_sense_are_none(words: str) -> None:
    assert ended_inside(_with_words(words, words)) == (
        names.RESULT_SKIPPED,
        Outcome(Reason.STOPPED, "our containers left no termination message"),
    )


def _with_words(check: str | None, capture: str | None) -> Json:
    def status(name: str, words: str | None) -> Json:
        return {"name": name, "state": {"terminated": {"exitCode": 0, "message": words}}}

    return {
        "status": {
            "initContainerStatuses": [status(names.CHECK_CONTAINER, check)],
            "containerStatuses": [status(names.CAPTURE_CONTAINER, capture)],
        }
    }


# --- storing ---------------------------------------------------------------------------------------------


def watched(site: Site, name: str) -> GatedStep:
    pod = steppods.read(site.get(name))
    assert isinstance(pod, GatedStep)
    return pod


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def capturing(site: Site, proxy: Proxy, clock: Clock | None = None) -> AsyncIterator[Capture]:
    async with proxy.serving() as url, api_client(site.cluster, url=url) as api:
        store = config_maps(api)
        requests = Requests(api, RateLimiter(1000))
        try:
            yield Capture(requests, store, lambda: datetime.now(UTC), clock or Clock())
        finally:
            await store.close()


async def captured(site: Site, pod: GatedStep, proxy: Proxy) -> Outcome:
    async with capturing(site, proxy) as capture:
        outcome = await capture.run(pod, End(None, 5.0), 0.0)
    assert isinstance(outcome, Outcome)
    return outcome


def reads(proxy: Proxy) -> int:
    """Of the Workflow."""
    return sum(call.says == "GET workflows/wf" for call in proxy.calls)


async def test_what_a_step_reported_is_stored_under_its_key(cluster: Cluster) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    outcome = await captured(site, watched(site, name), Proxy(cluster))
    assert outcome.reason is Reason.STORED
    entry = site.entry()
    assert entry is not None
    assert (entry.outputs, entry.pod, entry.took) == (outputs(RAN), name, 5.0)


async def test_steps_that_end_at_once_share_one_read_of_their_workflow(cluster: Cluster) -> None:
    site, proxy, clock = Site.new(cluster), Proxy(cluster), Clock()
    name = site.pod(held=False)
    site.run(name)
    pod, end = watched(site, name), End(None, 5.0)
    async with capturing(site, proxy, clock) as capture:
        outcomes = await asyncio.gather(*(capture.run(pod, end, clock.now) for _ in range(20)))
        clock.now += 100
        outcomes.append(await capture.run(pod, end, 99.0))
    assert all(isinstance(outcome, Outcome) and outcome.reason is Reason.STORED for outcome in outcomes)
    assert reads(proxy) == 1


async def test_a_step_that_ends_after_that_read_began_is_gathered_for_the_next(cluster: Cluster) -> None:
    """Its Workflow may have been told to stop before it ended, and after it was read."""
    site, proxy, clock = Site.new(cluster), Proxy(cluster), Clock()
    name = site.pod(held=False)
    site.run(name)
    pod, end = watched(site, name), End(None, 5.0)
    async with capturing(site, proxy, clock) as capture:
        assert isinstance(await capture.run(pod, end, clock.now), Outcome)
        site.shut_down()
        seen = clock.now = clock.now + GATHER / 4
        later = await capture.run(pod, end, seen)
        assert isinstance(later, Later)
        assert later.seconds == pytest.approx(GATHER * 3 / 4)
        assert reads(proxy) == 1
        clock.now += later.seconds
        last = await capture.run(pod, end, seen)
    assert isinstance(last, Outcome)
    assert (last.reason, last.detail) == (Reason.STEP_FAILED, "its Workflow is shut down")
    assert reads(proxy) == 2


async def test_a_read_that_failed_is_not_what_the_workflow_said(cluster: Cluster) -> None:
    site, proxy, clock = Site.new(cluster), Proxy(cluster), Clock()
    name = site.pod(held=False)
    site.run(name)
    pod, end = watched(site, name), End(None, 5.0)
    proxy.fault = refusing(500, "GET workflows", times=1)
    async with capturing(site, proxy, clock) as capture:
        seen = clock.now
        with pytest.raises(Unavailable):
            await capture.run(pod, end, seen)
        assert await capture.run(pod, end, seen) == Later(GATHER)
        clock.now += GATHER
        outcome = await capture.run(pod, end, seen)
    assert isinstance(outcome, Outcome)
    assert outcome.reason is Reason.STORED


async def test_who_reads_a_workflow_is_charged_for_its_bytes(cluster: Cluster) -> None:
    site, cost = Site.new(cluster), Cost()
    name = site.pod(held=False)
    site.run(name)
    large = {"metadata": {"annotations": {"a": "x" * 200_000}}}
    assert cluster.patch("Workflow", site.namespace, "wf", large)[0] == 200
    async with capturing(site, Proxy(cluster)) as capture:
        await metered(cost, capture.run(watched(site, name), End(None, 5.0), 0.0))
    assert cost.bytes > 200_000
    assert cost.requests >= 2


async def test_a_result_of_ours_is_not_stored_again(cluster: Cluster) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    patch = {"metadata": {"annotations": {names.POSTED_FOR: "some-uid"}}}
    site.cluster.patch("WorkflowTaskResult", site.namespace, name, patch)
    outcome = await captured(site, watched(site, name), Proxy(cluster))
    assert outcome.reason is Reason.OUTPUTS_INCOMPLETE
    assert site.entry() is None


async def test_an_entry_that_an_earlier_keeper_stored_counts_when_the_result_is_gone(
    cluster: Cluster,
) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    await captured(site, watched(site, name), Proxy(cluster))
    stored = site.entry()
    site.cluster.delete("WorkflowTaskResult", site.namespace, name)
    outcome = await captured(site, watched(site, name), Proxy(cluster))
    assert outcome.reason is Reason.STORED
    assert site.entry() == stored


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_where_it_cannot_be_read_whether_an_earlier_keeper_stored_it_that_is_tried_again(
    cluster: Cluster, status: int
) -> None:
    site, proxy = Site.new(cluster), Proxy(cluster)
    name = site.pod(held=False)
    site.run(name)
    site.cluster.delete("WorkflowTaskResult", site.namespace, name)
    proxy.fault = refusing(status, "GET configmaps")
    outcome = await captured(site, watched(site, name), proxy)
    assert outcome.reason in NOT_NOW


@pytest.mark.parametrize(("phase", "kept"), [("Succeeded", True), ("Running", False)])
async def test_outputs_whose_result_is_gone_are_taken_from_the_workflow_that_succeeded(
    cluster: Cluster, phase: str, kept: bool
) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    site.cluster.delete("WorkflowTaskResult", site.namespace, name)
    node = {"phase": phase, "outputs": outputs(RAN)}
    site.cluster.patch("Workflow", site.namespace, "wf", {"status": {"nodes": {name: node}}})
    outcome = await captured(site, watched(site, name), Proxy(cluster))
    assert (outcome.reason is Reason.STORED) is kept
    entry = site.entry()
    assert (entry is not None and entry.outputs == outputs(RAN)) is kept


async def test_an_entry_of_an_earlier_pod_of_that_name_is_not_this_ones(cluster: Cluster) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    pod = watched(site, name)
    await captured(site, pod, Proxy(cluster))
    site.cluster.delete("WorkflowTaskResult", site.namespace, name)
    retried = replace(pod, created_at=datetime.now(UTC) + timedelta(seconds=5))
    outcome = await captured(site, retried, Proxy(cluster))
    assert outcome.reason is Reason.OUTPUTS_INCOMPLETE


async def test_a_workflow_of_another_uid_is_not_the_pods(cluster: Cluster) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.run(name)
    pod = watched(site, name)
    again = deepcopy(site.workflow)
    again["metadata"] = {"name": "wf", "namespace": site.namespace}
    site.cluster.delete("Workflow", site.namespace, "wf")
    assert cluster.create(again)[0] == 201
    outcome = await captured(site, pod, Proxy(cluster))
    assert outcome.reason is Reason.OUTPUTS_INCOMPLETE


async def test_artifacts_that_the_workflow_will_delete_are_not_stored(cluster: Cluster) -> None:
    site = Site.new(cluster)
    name = site.pod(held=False)
    site.report(name)
    artifact = {"name": "art", "s3": {"key": "k", "bucket": "b", "endpoint": "e"}}
    patch = {"outputs": {"artifacts": [artifact]}}
    site.cluster.patch("WorkflowTaskResult", site.namespace, name, patch)
    site.end(name)
    finalizer = {"metadata": {"finalizers": [argo.ARTIFACT_GC_FINALIZER]}}
    site.cluster.patch("Workflow", site.namespace, "wf", finalizer)
    outcome = await captured(site, watched(site, name), Proxy(cluster))
    assert outcome.reason is Reason.ARTIFACT_GC
