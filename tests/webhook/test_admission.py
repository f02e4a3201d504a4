"""Where a step is decided: outside of its Pod or inside it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest

from argo import names as argo
from keeper.cache.view import View
from memoize import names
from memoize.entry import Entry
from memoize.key import data_key
from memoize.reasons import Reason
from server.events import Events
from server.lookups import Lookups
from tests.cluster import Cluster
from tests.waiting import until
from tests.webhook.serving import api_client
from webhook.admission import Admission, Outcome, Outside
from webhook.inject.containers import InjectSettings
from webhook.pods import room
from webhook.review import Request

Json = dict[str, Any]


@dataclass
class Keeper:
    """What admission knows of it."""

    ready: bool = True


class Installed:
    """Admission in front of a cluster with one Workflow in it, and a step Pod of that."""

    def __init__(self, cluster: Cluster, namespace: str, pod: Json) -> None:
        self.cluster, self.namespace, self.pod = cluster, namespace, pod
        self.keeper, self.broken = Keeper(), ""
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

    def store(self, created: datetime) -> None:
        """Put an entry for the Pod's key into its cache."""
        annotations = self.pod["metadata"]["annotations"]
        entry = Entry(node_id="n", outputs=None, created=created, last_hit=created)
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": annotations[names.CACHE],
                "namespace": self.namespace,
                "labels": {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE},
            },
            "data": {annotations[names.KEY]: entry.dump()},
        }
        assert self.cluster.create(config_map)[0] == 201

    @asynccontextmanager
    async def deciding(self, *, watch: bool = True) -> AsyncIterator[Callable[[], Any]]:
        """The decision on the Pod; without `watch` the view never comes in sync."""
        async with api_client(self.cluster) as api:
            view = View(api, [self.namespace])
            watching = asyncio.create_task(view.run())
            admission = Admission(
                Lookups(api, lambda _: None, seconds=10),
                Events(api, lambda _: None, "test"),
                "enforce",
                lambda: InjectSettings(image="stepmemo:test"),
                lambda *_: self.broken,
                Outside(view, self.keeper, timedelta(minutes=10)),
            )
            if watch:
                await until(lambda: view.in_sync)
            else:
                watching.cancel()
            try:
                yield lambda: admission.pod(self.request())
            finally:
                watching.cancel()

    def request(self) -> Request:
        return Request(
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

    def result(self, outcome: Outcome) -> str | None:
        """The label that the Pod would get."""
        after = jsonpatch.apply_patch(self.pod, list(outcome.ops))
        found: str | None = after["metadata"]["labels"].get(names.RESULT)
        return found


@pytest.fixture
def installed(cluster: Cluster, pod: Json) -> Installed:
    return Installed(cluster, cluster.namespace(), pod)


@pytest.mark.contract
async def test_a_step_with_an_entry_is_held(installed: Installed) -> None:
    installed.store(datetime.now(UTC))
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.GATED, names.RESULT_GATED)


async def test_a_step_without_one_is_held_to_be_shared(installed: Installed) -> None:
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.GATED, names.RESULT_GATED)


async def test_a_step_that_is_not_shared_runs_as_it_is(installed: Installed) -> None:
    installed.pod["metadata"]["annotations"][names.SINGLE_FLIGHT] = "false"
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, installed.result(outcome)) == (Reason.NOT_GATED, names.RESULT_MISS)
    assert jsonpatch.apply_patch(installed.pod, list(outcome.ops))["spec"] == installed.pod["spec"]


async def test_what_the_view_cannot_tell_is_decided_inside_the_pod(installed: Installed) -> None:
    async with installed.deciding(watch=False) as decide:
        outcome = await decide()
    assert outcome.reason == Reason.INJECTED


async def test_nothing_is_held_without_a_keeper_that_would_decide_it(installed: Installed) -> None:
    installed.keeper.ready = False
    async with installed.deciding() as decide:
        outcome = await decide()
    assert outcome.reason == Reason.INJECTED


async def test_an_image_that_does_not_start_is_not_injected(installed: Installed) -> None:
    installed.keeper.ready, installed.broken = False, "ErrImagePull in Pod x"
    async with installed.deciding() as decide:
        outcome = await decide()
    assert (outcome.reason, outcome.detail) == (Reason.IMAGE_BROKEN, installed.broken)
    assert not outcome.ops


async def test_a_step_decided_outside_needs_no_image_that_starts(installed: Installed) -> None:
    installed.broken = "ErrImagePull in Pod x"
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
