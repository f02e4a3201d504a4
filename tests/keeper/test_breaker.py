import asyncio
import copy
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from argo import names as argo
from argo.steppod import Owner
from keeper import breaker
from keeper.breaker import (
    DELETE_POD_AFTER,
    GRACE,
    LONGEST_TRIAL,
    MOST_PODS,
    MOST_REMEMBERED,
    REMEMBERED,
    TRIAL,
    Breaker,
    Circuits,
)
from keeper.container_status import TROUBLES, Container, InjectedContainers, State, look
from memoize import names
from memoize.keeper_status import digest
from memoize.reasons import Reason
from server.metrics import Metrics
from tests.beside import beside
from tests.cluster import Cluster
from tests.keeper import troubled
from tests.waiting import until
from tests.webhook.serving import api_client

IMAGE = "registry.example/stepmemo:1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Json = dict[str, Any]

WAITING: Json = {"waiting": {"reason": "PodInitializing"}}
PULL: Json = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
RUNNING: Json = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}
NO_START: Json = {
    "terminated": {
        "reason": "StartError",
        "message": "exec format error",
        "exitCode": 128,
        "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": "2026-03-01T12:00:00Z",
    }
}


def pod(
    number: int = 1,
    *,
    check: Json = WAITING,
    capture: Json = WAITING,
    main: Json = WAITING,
    namespace: str = "work",
    image: str = IMAGE,
    command: str = names.IMAGE_ENTRYPOINT,
) -> Json:
    """A step Pod with our containers; by default everything still waits."""
    managed = [{"name": argo.ENV_CONTAINER_NAME, "value": "x"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"hello-{number}",
            "namespace": namespace,
            "uid": f"u-{number}",
            "resourceVersion": "7",
            "labels": {argo.WORKFLOW_LABEL: "hello", names.RESULT: names.RESULT_IN_POD},
            "annotations": {argo.NODE_ID: f"hello-{number}"},
            "ownerReferences": [
                {
                    "apiVersion": argo.API_VERSION,
                    "kind": "Workflow",
                    "name": "hello",
                    "uid": "w-1",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "initContainers": [
                {"name": names.CHECK_CONTAINER, "image": image, "command": [command, "check"]}
            ],
            "containers": [
                {"name": "wait", "image": "argoexec", "env": managed},
                {"name": "main", "image": "busybox", "env": managed},
                {"name": "istio-proxy", "image": "mesh"},
                {"name": names.CAPTURE_CONTAINER, "image": image, "command": [command, "capture"]},
            ],
        },
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [{"name": names.CHECK_CONTAINER, "state": check}],
            "containerStatuses": [
                {"name": "wait", "state": WAITING},
                {"name": "main", "state": main},
                {"name": "istio-proxy", "state": RUNNING},
                {"name": names.CAPTURE_CONTAINER, "state": capture},
            ],
        },
    }


class Table:
    """Circuits with a clock that is set by hand."""

    def __init__(self) -> None:
        self.circuits, self.time = Circuits(), 1000.0

    def see(self, seen: Json) -> None:
        self.circuits.on_pod(look(seen), self.time, lambda at: self.time - 1000 - (at - NOW).total_seconds())

    def after(self, seconds: float) -> None:
        self.time += seconds
        self.circuits.pass_time(self.time)

    def to_delete(self, most: int = 1) -> list[str]:
        """The UIDs of Pods that are to be deleted now."""
        return [found.uid for found in self.circuits.to_delete(self.time, most)]

    def refuses(self, namespace: str = "work", step: str = "other") -> str:
        """Why admission leaves such a Pod alone, by what the keeper publishes."""
        if (namespace, step) in self.circuits.troubled(1_000_000):
            return "its last Pod met trouble"
        return (
            "" if namespace in self.circuits.on_trial(self.time) else self.circuits.open().get(namespace, "")
        )


def open_table() -> Table:
    table = Table()
    table.see(pod(check=PULL))
    table.after(GRACE)
    assert table.refuses()
    return table


@pytest.mark.parametrize("reason", sorted(TROUBLES))
def test_a_trouble_that_lasts_opens_the_circuit_of_its_namespace(reason: str) -> None:
    table = Table()
    table.see(pod(check={"waiting": {"reason": reason, "message": "no such image"}}))
    table.after(GRACE - 1)
    assert table.refuses() == ""
    table.after(1)
    assert table.refuses() == f"container stepmemo-check cannot start: {reason}: no such image"
    assert table.refuses("elsewhere") == ""


@pytest.mark.parametrize("state", [WAITING, {"waiting": {"reason": "CrashLoopBackOff"}}, RUNNING])
def test_a_container_that_is_coming_or_ran_is_no_trouble(state: Json) -> None:
    table = Table()
    table.see(pod(check=state))
    table.after(3600)
    assert table.circuits.open() == {}


def test_a_second_try_that_works_leaves_the_circuit_closed() -> None:
    table = Table()
    table.see(pod(check=PULL))
    table.after(GRACE / 2)
    table.see(pod(check=RUNNING))
    table.after(3600)
    assert table.circuits.open() == {}


def test_the_trouble_goes_on_while_the_kubelet_gives_other_words_for_it() -> None:
    table = Table()
    for state in (PULL, {"waiting": {"reason": "ErrImagePull"}}, WAITING, PULL):
        table.see(pod(check=state))
        table.after(GRACE / 4)
    assert table.refuses()


def test_another_pods_container_of_the_image_closes_it_at_once_and_the_old_trouble_counts_no_more() -> None:
    table = open_table()
    table.see(pod(2))
    table.after(1)
    table.see(pod(2, check=RUNNING))
    assert table.refuses() == ""
    table.after(3600)
    table.see(pod(check=PULL))
    table.after(3600)
    assert table.circuits.open() == {}


def test_a_bad_node_does_not_open_it_where_others_start_meanwhile() -> None:
    table = Table()
    table.see(pod(check=PULL))
    table.see(pod(2))
    table.after(GRACE / 2)
    table.see(pod(2, capture=RUNNING))
    table.after(GRACE)
    assert table.refuses() == ""


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_pod_that_runs_since_before_the_trouble_says_nothing(order: tuple[int, int]) -> None:
    seen = {1: pod(1, check=PULL), 2: pod(2, check=RUNNING)}
    table = Table()
    table.after(60)  # this server starts when the one runs for a minute and the other is in trouble
    for number in order:
        table.see(seen[number])
    table.after(GRACE)
    assert table.refuses()
    table.see(seen[2])
    assert table.refuses()


def test_a_pod_that_is_first_seen_now_and_runs_since_before_the_circuit_opened_does_not_close_it() -> None:
    table = open_table()
    table.see(pod(2, check=RUNNING))
    assert table.refuses()


def test_success_in_another_namespace_says_nothing() -> None:
    table = open_table()
    table.see(pod(5, namespace="elsewhere"))
    table.see(pod(5, namespace="elsewhere", check=RUNNING))
    assert table.refuses()


def test_an_image_of_another_release_counts_as_well_since_an_upgrade_has_two() -> None:
    table = Table()
    table.see(pod(check=PULL, image="registry.example/stepmemo:0"))
    table.after(GRACE)
    assert table.refuses()
    table.see(pod(2, image="registry.example/stepmemo:2"))
    table.see(pod(2, image="registry.example/stepmemo:2", check=RUNNING))
    assert table.refuses() == ""


def test_containers_of_our_name_that_start_something_else_are_not_ours() -> None:
    table = Table()
    table.see(pod(check=PULL, command="/bin/sh"))
    table.after(DELETE_POD_AFTER)
    assert table.circuits.open() == {}
    assert table.to_delete() == []


def test_a_container_that_could_never_start_opens_it_at_once() -> None:
    table = Table()
    table.see(pod(check=NO_START))
    assert "exec format error" in table.refuses()


def test_one_that_could_not_start_long_ago_opens_nothing() -> None:
    table = Table()
    table.after(3600)
    table.see(pod(check=NO_START))
    assert table.circuits.open() == {}


def test_what_the_kubelet_ended_before_it_began_closes_nothing() -> None:
    table = open_table()
    table.see(pod(2))
    lost = {"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137, "startedAt": None}}
    table.see(pod(2, check=lost))
    assert table.refuses()


def test_trials_come_more_and_more_seldom_and_each_lasts_until_an_injected_pod_is_seen() -> None:
    table = open_table()
    waits = []
    for number in range(2, 7):
        began = table.time
        while table.refuses():
            table.after(1)
        waits.append(table.time - began)
        table.after(3600)
        assert table.circuits.on_trial(table.time) == {"work"}
        table.see(pod(1, check=PULL))  # one that was seen before is no trial
        assert not table.refuses()
        table.see(pod(number, namespace="elsewhere"))
        assert not table.refuses()
        table.see(pod(number + 100))
        assert table.circuits.on_trial(table.time) == frozenset()
        assert table.refuses()
    assert waits == [TRIAL, 2 * TRIAL, 4 * TRIAL, LONGEST_TRIAL, LONGEST_TRIAL]


def test_a_trial_that_starts_closes_it() -> None:
    table = open_table()
    table.after(TRIAL)
    table.see(pod(2))
    assert table.refuses()
    table.see(pod(2, check=RUNNING))
    assert table.circuits.open() == {}


def test_a_namespace_with_any_number_of_pods_takes_its_own_share_and_nobody_elses() -> None:
    table = Table()
    for number in range(MOST_PODS + 50):
        table.see(pod(number, check=NO_START))
    table.see(pod(10_000, namespace="other", check=NO_START))
    assert len(table.circuits.troubled(1_000_000)) == MOST_REMEMBERED + 1
    first, second, third, *_ = table.circuits.troubled(10)
    assert first == ("work", f"hello-{MOST_PODS - 1}")
    assert second == ("other", "hello-10000")
    assert third == ("work", f"hello-{MOST_PODS - 2}")
    for number in range(MOST_PODS + 50):
        table.circuits.on_deleted(f"u-{number}", table.time)
    table.see(pod(MOST_PODS + 50, namespace="third", check=NO_START))
    assert table.refuses("third")


def test_of_more_namespaces_than_there_is_room_for_those_with_the_newest_trouble_are_told() -> None:
    table = Table()
    for number in (0, 1, 2):
        table.see(pod(number, namespace=f"ns-{number}", check=NO_START))
        table.time += 1
    table.see(pod(10, namespace="ns-0", check=NO_START))
    assert table.circuits.troubled(3) == [("ns-0", "hello-10"), ("ns-2", "hello-2"), ("ns-1", "hello-1")]


def test_a_step_that_met_trouble_is_left_alone_for_an_hour_though_the_image_works_elsewhere() -> None:
    table = open_table()
    table.see(pod(2))
    table.see(pod(2, check=RUNNING))
    table.circuits.on_deleted("u-1", table.time)
    assert table.refuses(step="hello-1")
    assert table.refuses(step="hello-2") == ""
    table.after(REMEMBERED)
    assert table.refuses(step="hello-1") == ""


def test_a_step_that_meets_trouble_again_keeps_no_other_one_from_being_forgotten() -> None:
    table = Table()
    for number in (1, 2, 1):
        table.see(pod(number, check=PULL))
        table.after(GRACE)
        table.circuits.on_deleted(f"u-{number}", table.time)
    table.after(REMEMBERED - GRACE)
    assert table.circuits.troubled(3) == [("work", "hello-1")]


def test_a_pod_is_hopeless_after_two_minutes_and_then_only_now_and_then() -> None:
    table = Table()
    table.see(pod(check=PULL))
    table.after(DELETE_POD_AFTER - 1)
    assert table.to_delete() == []
    table.after(1)
    assert table.to_delete() == ["u-1"]
    assert table.to_delete() == []
    table.after(breaker.AGAIN)
    assert table.to_delete() == ["u-1"]


def test_no_namespace_waits_for_the_hopeless_pods_of_another() -> None:
    table = Table()
    for number in range(100):
        table.see(pod(number, check=PULL))
    for number in range(100, 103):
        table.see(pod(number, check=PULL, namespace=f"other-{number}"))
    table.after(DELETE_POD_AFTER)
    turns = []
    for _ in range(3):
        turns.append(table.to_delete(2))
        table.after(breaker.PACE)
    first, second, third = turns
    assert [first[1], *second] == ["u-100", "u-101", "u-102"]
    assert len({first[0], *third}) == 2, "one of its own a turn, and each another"
    assert len(table.to_delete(10)) == 1, "one of a Namespace at a time"


def changed(**status: Any) -> Json:
    """A Pod in trouble whose main container reports something more."""
    found = pod(check=PULL)
    found["status"]["containerStatuses"][1].update(status)
    return found


def without(*path: str) -> Json:
    found = copy.deepcopy(pod(check=PULL))
    inner = found
    for part in path[:-1]:
        inner = inner[part]
    del inner[path[-1]]
    return found


def ended(phase: str, **metadata: str) -> Json:
    found = pod(check=PULL)
    found["status"]["phase"] = phase
    found["metadata"].update(metadata)
    return found


@pytest.mark.parametrize(
    "seen",
    [
        changed(state=RUNNING),
        changed(state={"terminated": {"exitCode": 0}}),
        changed(lastState={"terminated": {"exitCode": 0}}),
        changed(restartCount=1),
        changed(containerID="containerd://x"),
        without("status", "containerStatuses"),
        without("metadata", "ownerReferences"),
        ended("Running"),
        ended("Failed"),
        ended("Pending", deletionTimestamp="2026-03-01T12:00:00Z"),
    ],
)
def test_a_pod_whose_main_may_have_begun_or_that_nobody_makes_anew_is_never_deleted(seen: Json) -> None:
    table = Table()
    table.see(seen)
    table.after(DELETE_POD_AFTER)
    assert table.to_delete() == []


def test_of_a_pod_that_is_known_by_its_metadata_alone_nothing_is_told() -> None:
    """So a list tells a Pod that is too large (kube.pages)."""
    seen = {"metadata": pod(check=PULL)["metadata"]}
    found = look(seen)
    assert (found.uid, found.step, found.untouched, found.containers) == ("u-1", "hello-1", False, ())
    table = Table()
    table.see(seen)
    table.after(DELETE_POD_AFTER)
    assert table.to_delete() == []
    assert table.refuses() == ""


def symptoms(uid: int, name: str, state: State) -> InjectedContainers:
    container = Container(name, state, "why")
    owner = Owner("work", "hello", "w-1")
    return InjectedContainers(str(uid), "work", f"p-{uid}", "1", owner, f"n-{uid}", True, (container,))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["see", "gone"]), st.sampled_from(State), st.integers(0, 30)
        ),
        max_size=30,
    )
)
def test_whatever_comes_a_start_closes_it_and_nothing_is_kept_of_pods_that_went(
    steps: list[tuple[int, str, State, int]],
) -> None:
    circuits, now = Circuits(), 0.0
    for uid, what, state, seconds in steps:
        now += seconds
        if what == "gone":
            circuits.on_deleted(str(uid), now)
        else:
            circuits.on_pod(symptoms(uid, "stepmemo", state), now, lambda at: 0.0)
        circuits.pass_time(now)
    circuits.on_pod(symptoms(9, "stepmemo", State.COMING), now, lambda at: 0.0)
    circuits.on_pod(symptoms(9, "stepmemo", State.STARTED), now, lambda at: 0.0)
    circuits.pass_time(now)
    assert circuits.open() == {}
    for uid in (0, 1, 2, 3, 9):
        circuits.on_deleted(str(uid), now)
    circuits.pass_time(now + REMEMBERED)
    assert not circuits._namespaces
    assert not circuits._of_pod


class Told:
    """Takes the place of Events: what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[Owner, str, Reason, str]] = []

    def skipped(self, *what: Any) -> None:
        self.said.append(what)


class Ticking:
    def __init__(self) -> None:
        self.time = 1000.0

    def clock(self) -> float:
        return self.time

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.time - 1000)

    async def sleep(self, _: float) -> None:
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(cluster: Cluster, url: str = "") -> AsyncIterator[tuple[Breaker, Ticking, Told, Metrics]]:
    ticking, told, metrics = Ticking(), Told(), Metrics()
    async with api_client(cluster, url=url) as api:
        found = Breaker(api, metrics, told, clock=ticking.clock, now=ticking.now, sleep=ticking.sleep)
        async with beside(found.run()):
            yield found, ticking, told, metrics


def created(cluster: Cluster, namespace: str = "") -> Json:
    """The Pod as the API server keeps it, its check in trouble."""
    made = pod(check=PULL, namespace=namespace or cluster.namespace())
    status, found = cluster.create(
        {**made, "metadata": {**made["metadata"], "uid": "", "resourceVersion": ""}}
    )
    assert status == 201, found
    namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
    status, found = cluster.patch("Pod", namespace, name, {"status": made["status"]}, subresource="status")
    assert status == 200, found
    return found


@pytest.mark.contract
async def test_a_pod_that_would_hang_is_deleted_and_its_workflow_is_told(cluster: Cluster) -> None:
    seen = created(cluster)
    namespace = seen["metadata"]["namespace"]
    async with running(cluster) as (found, ticking, told, metrics):
        found.on_pod(seen)
        ticking.time += DELETE_POD_AFTER
        await until(lambda: told.said)
        assert cluster.get("Pod", namespace, "hello-1")[0] == 404
        assert found.troubled == (digest(namespace, "hello-1"),)
        assert found.stopped == {namespace}
        assert found.trial == frozenset()
        ticking.time += TRIAL
        assert found.stopped == frozenset()
        assert found.trial == {namespace}
    ((owner, step, reason, detail),) = told.said
    assert (owner, step, reason) == (Owner(namespace, "hello", "w-1"), "hello-1", Reason.IMAGE_BROKEN)
    assert detail == "its Pod is made anew without containers of ours: stepmemo-check could not start"
    assert b"stepmemo_breaker_deleted_pods_total 1.0" in metrics.render()


@pytest.mark.contract
async def test_a_pod_that_changed_since_it_was_seen_is_not_deleted(cluster: Cluster) -> None:
    seen = created(cluster)
    namespace = seen["metadata"]["namespace"]
    cluster.patch("Pod", namespace, "hello-1", {"metadata": {"labels": {"x": "y"}}})
    other = created(cluster)  # is deleted after the first was tried
    async with running(cluster) as (found, ticking, told, _):
        found.on_pod(seen)
        found.on_pod(other)
        ticking.time += DELETE_POD_AFTER
        await until(lambda: told.said)
    assert [said[0].namespace for said in told.said] == [other["metadata"]["namespace"]]
    assert cluster.get("Pod", namespace, "hello-1")[0] == 200


async def test_the_deletion_is_tried_again_while_the_api_server_is_in_trouble(cluster: Cluster) -> None:
    tries: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        tries.append(await request.json())
        return await troubled.broken(request)

    async with (
        troubled.answering(answer, "DELETE") as url,
        running(cluster, url) as (found, ticking, told, _),
    ):
        found.on_pod(pod(check=PULL))
        ticking.time += DELETE_POD_AFTER
        await until(lambda: len(tries) == 1)
        ticking.time += breaker.AGAIN
        await until(lambda: len(tries) == 2)
    assert told.said == []
    assert tries[0]["preconditions"] == {"uid": "u-1", "resourceVersion": "7"}
    assert tries[0]["gracePeriodSeconds"] == 0


async def test_a_deletion_that_hangs_keeps_no_other_from_being_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "TIMEOUT", 3600.0)
    paths: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return await (troubled.hang if "/slow/" in request.path else troubled.broken)(request)

    async with (
        troubled.answering(answer, "DELETE") as url,
        running(cluster, url) as (found, ticking, _, __),
    ):
        found.on_pod(pod(1, check=PULL, namespace="slow"))
        found.on_pod(pod(2, check=PULL, namespace="other"))
        ticking.time += DELETE_POD_AFTER
        await until(lambda: len(paths) == 2)


async def test_it_is_said_once_when_injection_stops_and_once_when_it_goes_on(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(cluster) as (found, ticking, *_):
        found.on_pod(pod(check=PULL))
        assert (found.notice, found.is_open) == ("", False)
        ticking.time += GRACE
        await until(lambda: found.is_open)
        assert found.notice.startswith(
            "injection stopped: namespace work: container stepmemo-check cannot start: ImagePullBackOff"
        )
        found.on_pod(pod(2))
        found.on_pod(pod(2, check=RUNNING))
        await until(lambda: not found.is_open and len(caplog.records) == 2)
    assert [record.message for record in caplog.records] == ["injection stops", "injection goes on"]
