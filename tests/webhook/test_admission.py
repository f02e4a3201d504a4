"""Where a step is decided: outside of its Pod or inside it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from argo.steppod import StepPod
from memoize import autokey, names
from memoize.autokey import AutoKey, ObjectReference
from memoize.event import EVENT_AT_ADMISSION
from memoize.keeper_status import KeeperStatus, Namespaces, digest
from memoize.key import data_key
from memoize.reasons import Reason
from server.events import Events
from server.lookups import Lookups
from tests.cluster import Cluster
from tests.webhook.keeperstatus import GONE, READY
from tests.webhook.serving import api_client
from webhook.admission import GATED_BURST, GATED_RATE, Admission, AdmissionOutcome, LocalShares
from webhook.inject.containers import InjectSettings
from webhook.pods import room
from webhook.review import AdmissionRequest

Json = dict[str, Any]


class Installed:
    """Admission in front of a cluster with one Workflow in it, and a step Pod of that."""

    def __init__(self, cluster: Cluster, namespace: str, pod: Json) -> None:
        self.cluster, self.namespace, self.pod = cluster, namespace, pod
        self.status: KeeperStatus | None = READY
        self.now = 100.0
        self.count_versions = False
        pod["metadata"]["namespace"] = namespace
        (reference,) = pod["metadata"]["ownerReferences"]
        workflow = {
            "apiVersion": reference["apiVersion"],
            "kind": "Workflow",
            "metadata": {
                "name": reference["name"],
                "namespace": namespace,
                "labels": {"workflows.argoproj.io/phase": "Running"},
            },
            "spec": {},
        }
        reference["uid"] = cluster.create(workflow)[1]["metadata"]["uid"]

    @asynccontextmanager
    async def deciding(
        self, token: str | None = None, **request: Any
    ) -> AsyncIterator[Callable[[], Awaitable[AdmissionOutcome]]]:
        """The decision on the Pod, with the rights of that token."""
        async with api_client(self.cluster, token=token) as api:
            admission = Admission(
                Lookups(api, lambda _: None, seconds=10),
                Events(api, lambda _: None, "stepmemo-webhook", "test"),
                "enforce",
                lambda: InjectSettings(image="stepmemo:test"),
                lambda: self.status,
                LocalShares(lambda: self.now),
                count_versions=self.count_versions,
            )
            yield lambda: admission.pod(replace(self.request(), **request))

    def request(self) -> AdmissionRequest:
        return AdmissionRequest(
            uid="u",
            group="",
            kind="Pod",
            subresource="",
            operation="CREATE",
            namespace=self.namespace,
            name=self.pod["metadata"]["name"],
            object=self.pod,
            old_object=None,
            dry_run=False,
        )

    def after(self, outcome: AdmissionOutcome) -> Json:
        """The Pod as it would be admitted."""
        return dict(jsonpatch.apply_patch(self.pod, list(outcome.ops)))

    def result(self, outcome: AdmissionOutcome) -> str | None:
        """The label that the Pod would get."""
        found: str | None = self.after(outcome)["metadata"]["labels"].get(names.RESULT)
        return found

    @property
    def only_here(self) -> Namespaces:
        return Namespaces.of([self.namespace])


@pytest.fixture
def installed(cluster: Cluster, pod: Json) -> Installed:
    return Installed(cluster, cluster.namespace(), pod)


@pytest.mark.contract
async def test_a_step_is_gated_by_a_keeper_that_is_ready(installed: Installed) -> None:
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.GATED, names.RESULT_GATED)


async def test_a_step_that_is_not_shared_is_gated_for_its_answer(installed: Installed) -> None:
    installed.pod["metadata"]["annotations"][names.SINGLE_FLIGHT] = "false"
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.GATED, names.RESULT_GATED)
    assert outcome.detail == f"{names.SINGLE_FLIGHT} is false"


async def test_a_step_is_decided_inside_its_pod_beside_a_keeper_that_is_busy(installed: Installed) -> None:
    installed.status = replace(READY, ready=False)
    async with installed.deciding() as decide:
        outcome = await decide()
    assert outcome.reason is Reason.INJECTED


async def test_a_step_is_left_alone_in_a_namespace_that_the_keeper_does_not_keep(
    installed: Installed,
) -> None:
    installed.status = replace(READY, keeps=Namespaces.of(["another"]))
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, list(outcome.ops)) == (Reason.NAMESPACE_NOT_KEPT, [])


@pytest.mark.parametrize("status", [READY, replace(READY, ready=False), GONE], ids=["gate", "inject", "run"])
async def test_a_computed_key_is_written_on_the_pod_whatever_becomes_of_it(
    installed: Installed, status: KeeperStatus | None
) -> None:
    installed.status = status
    annotations = installed.pod["metadata"]["annotations"]
    annotations[names.KEY] = "auto"
    async with installed.deciding() as decide:
        outcome = await decide()
    assert outcome.reason in (Reason.GATED, Reason.INJECTED, Reason.NOT_GATED)
    written = installed.after(outcome)["metadata"]["annotations"]
    step = StepPod.parse(installed.pod, installed.namespace)
    assert isinstance(step, StepPod)
    key = autokey.of_pod(step)
    assert isinstance(key, AutoKey)
    assert written[names.KEY] == key.key
    assert json.loads(written[names.KEY_PARTS]) == key.short


@pytest.fixture
def referring(installed: Installed) -> Installed:
    """A step whose key is computed and counts the version of a Secret `creds`, which is not there yet."""
    installed.count_versions = True
    installed.pod["metadata"]["annotations"][names.KEY] = "auto"
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}
    next(c for c in installed.pod["spec"]["containers"] if c["name"] == "main")["env"].append(secret)
    return installed


def without_secrets(installed: Installed) -> str:
    """A token with the webhook's rights in the Namespace, and none to Secrets."""
    rules = [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get"]},
    ]
    return installed.cluster.service_account(installed.namespace, "webhook", rules)


@pytest.mark.contract
async def test_with_versions_a_secret_that_changes_is_another_key_and_one_that_does_not_is_the_same(
    referring: Installed,
) -> None:
    async def key() -> tuple[str, str | None]:
        async with referring.deciding() as decide:
            outcome = await decide()
        assert outcome.reason is Reason.GATED
        written = referring.after(outcome)["metadata"]["annotations"]
        return written[names.KEY], json.loads(written[names.KEY_PARTS]).get("ref/secret/creds")

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "creds"}, "stringData": {"k": "1"}}
    secret["metadata"]["namespace"] = referring.namespace  # type: ignore[index]
    absent = await key()
    status, made = referring.cluster.create(secret)
    assert status == 201, made
    there = await key()
    assert await key() == there
    step = StepPod.parse(referring.pod, referring.namespace)
    assert isinstance(step, StepPod)
    version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    expected = autokey.of_pod(step, {ObjectReference("Secret", "creds"): version})
    assert isinstance(expected, AutoKey)
    assert there == (expected.key, expected.short["ref/secret/creds"])
    made["data"] = {"k": "Mg=="}
    assert referring.cluster.update(made)[0] == 200
    changed = await key()
    assert len({absent, there, changed}) == 3
    referring.count_versions = False
    assert (await key())[1] is None


@pytest.mark.contract
async def test_without_the_right_to_a_secret_the_step_runs_and_why_is_said(referring: Installed) -> None:
    async with referring.deciding(without_secrets(referring)) as decide:
        outcome = await decide()
    assert (outcome.reason, list(outcome.ops)) == (Reason.NO_AUTO_KEY, [])
    assert outcome.detail.startswith("a Secret that it refers to could not be read: ")


@pytest.mark.parametrize("change", ["opted out", "its own key", "no reference"])
async def test_no_secret_is_looked_at_for_a_step_that_does_not_count_it(
    referring: Installed, change: str
) -> None:
    annotations = referring.pod["metadata"]["annotations"]
    if change == "opted out":
        annotations[names.MODE] = "off"
    elif change == "its own key":
        annotations[names.KEY] = "mine"
    else:
        annotations[names.KEY_IGNORE] = "env/S"
    async with referring.deciding(without_secrets(referring)) as decide:
        outcome = await decide()
    assert outcome.reason is (Reason.MODE_OFF if change == "opted out" else Reason.GATED)


async def test_a_pod_that_is_left_alone_keeps_what_its_author_wrote(installed: Installed) -> None:
    installed.status = replace(READY, keeps=Namespaces.of(["another"]))
    installed.pod["metadata"]["annotations"][names.KEY] = "auto"
    async with installed.deciding() as decide:
        assert list((await decide()).ops) == []


@pytest.mark.parametrize("spec", [{}, {"nodeName": "here"}], ids=["could be gated", "could not"])
async def test_without_a_keeper_a_step_runs_as_it_is_and_is_left_to_the_next(
    installed: Installed, spec: Json
) -> None:
    installed.status = GONE
    installed.pod["spec"] |= spec
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.NOT_GATED, names.RESULT_MISS)
    assert outcome.detail == "no keeper renews its Lease"
    assert installed.after(outcome)["spec"] == installed.pod["spec"]


async def test_without_a_keeper_a_step_that_it_could_do_nothing_for_is_left_alone_and_its_author_told(
    installed: Installed,
) -> None:
    installed.status = GONE
    installed.pod["metadata"]["annotations"][names.MODE] = "readonly"
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, list(outcome.ops)) == (Reason.KEEPER_UNAVAILABLE, [])
    assert outcome.detail == "no keeper renews its Lease, and mode is readonly"
    assert outcome.reason in EVENT_AT_ADMISSION


async def test_more_pods_than_a_namespace_may_have_gated_run_and_are_stored(installed: Installed) -> None:
    async with installed.deciding() as decide:
        burst = [(await decide()).reason for _ in range(GATED_BURST)]
        beyond = await decide()
        installed.now += 1
        later = [(await decide()).reason for _ in range(int(GATED_RATE) + 1)]
    assert set(burst) == {Reason.GATED}
    assert (beyond.reason, installed.result(beyond)) == (Reason.NOT_GATED, names.RESULT_MISS)
    assert beyond.detail == "the Namespace has more than 50 Pods gated in a second"
    assert later == [Reason.GATED] * int(GATED_RATE) + [Reason.NOT_GATED]


async def test_one_namespace_uses_up_no_others_share_and_a_dry_run_nobodys(installed: Installed) -> None:
    async with installed.deciding(dry_run=True) as decide:
        assert {(await decide()).reason for _ in range(GATED_BURST + 1)} == {Reason.GATED}
    another = Installed(installed.cluster, installed.cluster.namespace(), deepcopy(installed.pod))
    async with installed.deciding() as decide:
        for _ in range(GATED_BURST + 1):
            last = await decide()
        assert last.reason is Reason.NOT_GATED
        installed.pod, installed.namespace = another.pod, another.namespace
        assert (await decide()).reason is Reason.GATED


async def test_where_containers_of_ours_cannot_start_none_is_injected(installed: Installed) -> None:
    installed.status = replace(READY, ready=False, stopped=installed.only_here)
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, list(outcome.ops)) == (Reason.IMAGE_BROKEN, [])
    assert outcome.detail == "containers of ours cannot start in this Namespace; the keeper's log says why"


async def test_a_step_whose_last_pod_had_trouble_is_left_alone_and_no_other(installed: Installed) -> None:
    node = installed.pod["metadata"]["annotations"][argo.NODE_ID]
    async with installed.deciding() as decide:
        for step, reason in ((node, Reason.IMAGE_BROKEN), ("another", Reason.INJECTED)):
            troubled = (digest(installed.namespace, step),)
            installed.status = replace(READY, ready=False, troubled=troubled)
            assert (await decide()).reason is reason


async def test_where_they_are_on_trial_one_pod_in_ten_seconds_is_injected(installed: Installed) -> None:
    installed.status = replace(READY, ready=False, trial=installed.only_here)
    found = []
    async with installed.deciding() as decide:
        for seconds in (0.0, 0.0, 9.9, 0.2, 60.0, 0.0):
            installed.now += seconds
            found.append((await decide()).reason is Reason.INJECTED)
    assert found == [True, False, False, True, True, False]


async def test_a_dry_run_is_no_trial(installed: Installed) -> None:
    installed.status = replace(READY, ready=False, trial=installed.only_here)
    async with installed.deciding(dry_run=True) as decide:
        assert [(await decide()).reason for _ in range(3)] == [Reason.INJECTED] * 3


async def test_a_step_decided_outside_needs_no_image_that_starts(installed: Installed) -> None:
    installed.status = replace(READY, stopped=installed.only_here)
    async with installed.deciding() as decide:
        assert (await decide()).reason == Reason.GATED


async def test_containers_that_nothing_may_stand_before_are_no_obstacle_outside(installed: Installed) -> None:
    for container in installed.pod["spec"]["containers"]:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    async with installed.deciding() as decide:
        assert (await decide()).reason == Reason.GATED


async def test_a_step_without_room_for_our_annotations_is_left_alone(installed: Installed) -> None:
    installed.pod["metadata"]["annotations"]["a"] = "x" * (room.ANNOTATIONS - 1000)
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, list(outcome.ops)) == (Reason.NO_ROOM, [])


@pytest.mark.parametrize("word", ["use", "off"])
async def test_a_key_that_no_annotation_holds_gives_way_whatever_becomes_of_the_step(
    installed: Installed, word: str
) -> None:
    key = "x" * room.ANNOTATIONS
    installed.pod["metadata"]["annotations"] |= {names.KEY: key, names.MODE: word}
    async with installed.deciding() as decide:
        outcome = await decide()
    assert outcome.reason is (Reason.GATED if word == "use" else Reason.MODE_OFF)
    annotations = jsonpatch.apply_patch(installed.pod, list(outcome.ops))["metadata"]["annotations"]
    assert annotations[names.KEY_DIGEST] == data_key(key)
    assert names.KEY not in annotations


async def test_a_pod_that_lost_a_part_of_what_it_got_is_made_what_it_was_and_decided_anew(
    installed: Installed, load: Callable[[str], Json]
) -> None:
    golden = load("v4.1.2-legacy/container.golden")["spec"]
    original, installed.pod["spec"] = installed.pod["spec"], golden
    golden["initContainers"] = [c for c in golden["initContainers"] if c["name"] != names.CHECK_CONTAINER]
    async with installed.deciding() as decide:
        outcome = await decide()
    after = jsonpatch.apply_patch(installed.pod, list(outcome.ops))
    assert (outcome.reason, installed.result(outcome)) == (Reason.GATED, names.RESULT_GATED)
    assert after["spec"].pop("schedulingGates") == [{"name": names.SCHEDULING_GATE}]
    assert after["spec"] == original
