import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from argo.steppod import Owner
from memoize.autokey import ObjectReference
from server.lookups import (
    BURST,
    FRESH,
    FRESH_VERSION,
    MOST,
    MOST_OF_ONE,
    NAMESPACE_BURST,
    NAMESPACE_RATE,
    WHOLE_NAMESPACE_BURST,
    Lookups,
)
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
from tests.virtual import Response, client_of
from tests.webhook.serving import api_client


@asynccontextmanager
async def looking(cluster: Cluster, token: str | None = None) -> AsyncIterator[tuple[Lookups, list[str]]]:
    failed: list[str] = []
    async with api_client(cluster, token=token) as api:
        yield Lookups(api, failed.append, seconds=10), failed


def workflow(cluster: Cluster, namespace: str, name: str, spec: dict[str, Any] | None = None) -> Owner:
    status, body = cluster.create(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"stepmemo.dev/mode": "refresh"},
                "annotations": {"note": "long"},
            },
            "spec": {"entrypoint": "main"} if spec is None else spec,
        }
    )
    assert status == 201, body
    return Owner(namespace, name, body["metadata"]["uid"])


@pytest.mark.contract
async def test_a_namespaces_labels_are_read(cluster: Cluster) -> None:
    name = cluster.namespace({"stepmemo.dev/memoize": "true"})
    async with looking(cluster) as (lookups, failed):
        labels = await lookups.namespace_labels(name)
    assert labels is not None
    assert labels["stepmemo.dev/memoize"] == "true"
    assert failed == []


@pytest.mark.contract
async def test_it_is_read_when_a_namespace_was_created(cluster: Cluster) -> None:
    name = cluster.namespace()
    async with looking(cluster) as (lookups, _):
        created = await lookups.namespace_created(name)
        assert await lookups.namespace_created("not-there") is None
    _, body = cluster.get("Namespace", "", name)
    assert created is not None
    assert created.strftime("%Y-%m-%dT%H:%M:%SZ") == body["metadata"]["creationTimestamp"]


async def test_when_a_namespace_was_created_is_known_while_it_cannot_be_read_and_is_read_anew(
    cluster: Cluster,
) -> None:
    answers: list[dict[str, Any] | None] = [
        {"creationTimestamp": "2026-07-01T10:00:00Z"},
        None,
        {"creationTimestamp": "2026-07-02T10:00:00Z"},
        {"creationTimestamp": "yesterday"},
    ]
    now, found = 100.0, list[datetime | None]()

    async def answer(_: web.Request) -> web.StreamResponse:
        metadata = answers.pop(0)
        return web.json_response({"metadata": metadata}, status=500 if metadata is None else 200)

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        lookups = Lookups(api, lambda resource: None, clock=lambda: now)
        while answers:
            found.append(await lookups.namespace_created("work"))
            now += FRESH
    first, second = (datetime(2026, 7, day, 10, tzinfo=UTC) for day in (1, 2))
    assert found == [first, first, second, second]


@pytest.mark.contract
async def test_a_workflows_metadata_are_read(cluster: Cluster) -> None:
    owner = workflow(cluster, cluster.namespace(), "hello")
    async with looking(cluster) as (lookups, _):
        metadata = await lookups.workflow_metadata(owner)
    assert metadata is not None
    assert metadata["uid"] == owner.uid
    assert metadata["labels"]["stepmemo.dev/mode"] == "refresh"


@pytest.mark.contract
async def test_another_workflow_of_the_same_name_is_not_the_owner(cluster: Cluster) -> None:
    owner = workflow(cluster, cluster.namespace(), "hello")
    async with looking(cluster) as (lookups, failed):
        assert await lookups.workflow_metadata(Owner(owner.namespace, owner.name, "another")) is None
    assert failed == [], "it could be read"


@pytest.mark.contract
async def test_what_is_not_there_is_nothing(cluster: Cluster) -> None:
    async with looking(cluster) as (lookups, failed):
        assert await lookups.workflow_metadata(Owner(cluster.namespace(), "nobody", "u")) is None
        assert await lookups.namespace_labels("nowhere") is None
    assert failed == ["workflows", "namespaces"]


@pytest.mark.contract
async def test_what_is_forbidden_is_nothing(cluster: Cluster) -> None:
    owner = workflow(cluster, cluster.namespace(), "hello")
    token = cluster.service_account(owner.namespace, "powerless", [])
    async with looking(cluster, token) as (lookups, failed):
        assert await lookups.workflow_metadata(owner) is None
        assert await lookups.namespace_labels(owner.namespace) is None
    assert failed == ["workflows", "namespaces"]


SECRET, CONFIG_MAP = ObjectReference("Secret", "s"), ObjectReference("ConfigMap", "c")


@pytest.mark.contract
async def test_of_secrets_and_configmaps_the_versions_are_read_and_of_what_is_not_there_that(
    cluster: Cluster,
) -> None:
    namespace, made = cluster.namespace(), {}
    for one in (SECRET, CONFIG_MAP):
        metadata = {"name": one.name, "namespace": namespace}
        status, body = cluster.create({"apiVersion": "v1", "kind": one.kind, "metadata": metadata})
        assert status == 201, body
        made[one] = body["metadata"]["uid"], body["metadata"]["resourceVersion"]
    absent = ObjectReference("Secret", "c")
    async with looking(cluster) as (lookups, failed):
        found = await lookups.versions(namespace, [SECRET, CONFIG_MAP, absent])
    assert (found, failed) == ({**made, absent: ()}, [])


@pytest.mark.contract
async def test_versions_that_may_not_be_read_are_left_out_and_the_others_are_not(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    token = cluster.service_account(namespace, "webhook", rules)
    async with looking(cluster, token) as (lookups, failed):
        found = await lookups.versions(namespace, [SECRET, CONFIG_MAP])
    assert (found, failed) == ({CONFIG_MAP: ()}, ["secrets"])


COLLECTED = {"artifactGC": {"strategy": "OnWorkflowDeletion"}}
KEPT = {"artifactGC": {"strategy": "Never"}}
REFERENCE = {"workflowTemplateRef": {"name": "template"}}


def template(cluster: Cluster, namespace: str | None, spec: dict[str, Any]) -> None:
    """A WorkflowTemplate, or without a namespace a ClusterWorkflowTemplate, called `template`."""
    metadata = {"name": "template"} | ({"namespace": namespace} if namespace else {})
    kind = "WorkflowTemplate" if namespace else "ClusterWorkflowTemplate"
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    status, said = cluster.create(body)
    assert status in (201, 409), said


@pytest.mark.contract
@pytest.mark.parametrize(
    ("own", "referenced", "deleted"),
    [
        ({}, None, False),
        (KEPT, None, False),
        (COLLECTED, None, True),
        (REFERENCE, {}, False),
        (REFERENCE, COLLECTED, True),
        (REFERENCE | KEPT, COLLECTED, False),
        (REFERENCE | COLLECTED, KEPT, True),
    ],
)
async def test_the_specs_tell_whether_artifacts_will_be_deleted(
    cluster: Cluster, own: dict[str, Any], referenced: dict[str, Any] | None, deleted: bool
) -> None:
    namespace = cluster.namespace()
    if referenced is not None:
        template(cluster, namespace, referenced)
    owner = workflow(cluster, namespace, "hello", own)
    async with looking(cluster) as (lookups, failed):
        assert await lookups.deletes_artifacts(owner) is deleted
    assert failed == []


@pytest.mark.contract
async def test_a_cluster_workflow_template_tells_it_too(cluster: Cluster) -> None:
    template(cluster, None, COLLECTED)
    spec = {"workflowTemplateRef": {"name": "template", "clusterScope": True}}
    owner = workflow(cluster, cluster.namespace(), "hello", spec)
    async with looking(cluster) as (lookups, _):
        assert await lookups.deletes_artifacts(owner) is True


@pytest.mark.contract
async def test_whether_artifacts_will_be_deleted_is_unknown_where_a_spec_cannot_be_read(
    cluster: Cluster,
) -> None:
    owner = workflow(cluster, cluster.namespace(), "hello", REFERENCE)
    another = Owner(owner.namespace, owner.name, "another")
    async with looking(cluster) as (lookups, failed):
        assert await lookups.deletes_artifacts(owner) is None
        assert await lookups.deletes_artifacts(another) is None
    assert failed == ["workflowtemplates"]


@pytest.mark.parametrize("name", ["..", "../../../../v1/secrets", "a/b", "a?b=c", "UPPER", "", "x" * 254])
async def test_a_name_that_is_no_name_is_not_asked_for(cluster: Cluster, name: str) -> None:
    async with looking(cluster) as (lookups, failed):
        assert await lookups.workflow_metadata(Owner("default", name, "u")) is None
        references = [ObjectReference(kind, name) for kind in ("Secret", "ConfigMap")]
        assert await lookups.versions("default", references) == dict.fromkeys(references, ())
        assert await lookups.versions(name, [SECRET]) == {}
    assert failed == []


# --- an API server in trouble ------------------------------------------------------------------------


async def another_shape(_: web.Request) -> web.StreamResponse:
    return web.json_response({"metadata": ["no"]})


@pytest.mark.parametrize("trouble", [hang, overloaded, broken, gibberish, another_shape])
async def test_an_api_server_in_trouble_means_nothing_in_good_time(cluster: Cluster, trouble: Answer) -> None:
    failed: list[str] = []
    async with answering(trouble) as url, api_client(cluster, url=url) as api, asyncio.timeout(5):
        lookups = Lookups(api, failed.append, seconds=0.2)
        assert await lookups.namespace_labels("work") is None
        assert await lookups.workflow_metadata(Owner("work", "hello", "u")) is None
        assert await lookups.versions("work", [SECRET]) == {}
    assert failed == ["namespaces", "workflows", "secrets"]


async def test_metadata_alone_is_asked_for(cluster: Cluster) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, request.headers["Accept"]))
        return web.json_response({"metadata": {"uid": "u"}})

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        lookups = Lookups(api, [].append)
        await lookups.workflow_metadata(Owner("work", "hello", "u"))
        assert await lookups.versions("work", [SECRET]) == {}, "without a resourceVersion"
    paths = [
        "/apis/argoproj.io/v1alpha1/namespaces/work/workflows/hello",
        "/api/v1/namespaces/work/secrets/s",
    ]
    assert asked == [(path, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1") for path in paths]


async def test_a_steps_workflow_and_namespace_are_read_side_by_side(cluster: Cluster) -> None:
    both = asyncio.Barrier(2)

    async def answer(_: web.Request) -> web.StreamResponse:
        await both.wait()
        return web.json_response({"metadata": {"uid": "u", "labels": {"a": "b"}}})

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        found = await Lookups(api, [].append).of_step(Owner("work", "hello", "u"))
    assert found.metadata is not None
    assert found.metadata["uid"] == "u"
    assert found.labels == {"a": "b"}
    assert not found.limited


async def test_an_api_server_that_is_not_there_means_nothing(cluster: Cluster) -> None:
    failed: list[str] = []
    async with api_client(cluster, url="https://127.0.0.1:1") as api:
        assert await Lookups(api, failed.append).namespace_labels("work") is None
    assert failed == ["namespaces"]


# --- floods ------------------------------------------------------------------------------------------


class Asked:
    """An API server that counts what it is asked; `there` holds the uids of Workflows by name.

    Every Namespace is there whose name does not begin with `made-up`.
    """

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.paths: list[str] = []
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    async def request(self, _: str, path: str, **__: object) -> Response:
        self.paths.append(path)
        await asyncio.sleep(0)
        if "/secrets/" in path or "/configmaps/" in path:
            return Response.of(200, {"metadata": {"uid": "v", "resourceVersion": "1"}})
        if "/workflows/" not in path and "/made-up" not in path:
            return Response.of(200, {"metadata": {"labels": {"a": "b"}}})
        if uid := self.there.get(path.rpartition("/")[2]):
            return Response.of(200, {"metadata": {"uid": uid}, "spec": {}})
        return Response.of(404, {"message": "not found"})

    def count(self, part: str = "/workflows/") -> int:
        return sum(part in path for path in self.paths)


def flooded() -> tuple[Asked, Lookups]:
    asked = Asked()
    return asked, Lookups(client_of(asked), lambda _: None, seconds=30, clock=asked.clock)


def forged(number: int, namespace: str = "work") -> Owner:
    return Owner(namespace, f"forged-{number}", "u")


@pytest.mark.slow
async def test_three_thousand_forged_names_of_one_namespace_are_a_bounded_number_of_requests() -> None:
    asked, lookups = flooded()
    found = [await lookups.of_step(forged(number)) for number in range(3_000)]
    assert asked.count() == NAMESPACE_BURST
    assert found[-1] == (None, {"a": "b"}, True)
    assert not found[0].limited
    for number in range(3_000, 6_000):
        asked.now += 0.01
        await lookups.of_step(forged(number))
    assert asked.count() <= NAMESPACE_BURST + 30 * NAMESPACE_RATE
    asked.there["hello"] = "u"
    assert await lookups.workflow_metadata(Owner("quiet", "hello", "u")) is not None


@pytest.mark.slow
async def test_versions_are_a_bounded_number_of_requests_and_take_nothing_from_workflows() -> None:
    asked, lookups = flooded()
    asked.there = {f"real-{number}": "u" for number in range(300)}
    await lookups.namespace_labels("work")
    references = [ObjectReference("Secret", f"s-{number}") for number in range(3_000)]
    found = await lookups.versions("work", references)
    assert asked.count("/secrets/") == len(found) == NAMESPACE_BURST
    owners = [Owner("work", f"real-{number}", "u") for number in range(NAMESPACE_BURST)]
    assert all([await lookups.workflow_metadata(owner) for owner in owners])
    await lookups.namespace_labels("quiet")
    assert await lookups.versions("quiet", references[:20]) == dict.fromkeys(references[:20], ("v", "1"))


async def test_a_fan_out_reads_a_version_once_a_second() -> None:
    asked, lookups = flooded()
    for _ in range(3):
        await asyncio.gather(*(lookups.versions("work", [SECRET, CONFIG_MAP]) for _ in range(50)))
        asked.now += FRESH_VERSION
    assert (asked.count("/secrets/s"), asked.count("/configmaps/c")) == (3, 3)


async def test_workflows_that_are_there_have_a_bound_of_their_own() -> None:
    asked, lookups = flooded()
    asked.there = {f"real-{number}": "u" for number in range(300)}
    found = [await lookups.of_step(Owner("work", name, "u")) for name in asked.there]
    assert asked.count() == NAMESPACE_BURST
    assert not found[0].limited
    assert found[-1].limited
    asked.now += 1
    await lookups.of_step(Owner("work", "real-299", "u"))
    assert asked.count() == NAMESPACE_BURST + 1


async def test_forged_names_hide_no_labels_of_their_namespace() -> None:
    _, lookups = flooded()
    for number in range(NAMESPACE_BURST + 10):
        await lookups.workflow_metadata(forged(number))
    assert await lookups.namespace_labels("work") == {"a": "b"}


async def test_beside_forged_names_within_the_rate_each_new_workflow_is_read() -> None:
    owners = [Owner("work", f"real-{number}", "u") for number in range(200)]
    asked, lookups = flooded()
    asked.there = {owner.name: "u" for owner in owners}
    for number in range(NAMESPACE_BURST):
        await lookups.of_step(forged(number))
    found = []
    for number, owner in enumerate(owners, start=NAMESPACE_BURST):
        asked.now += 2.5 / NAMESPACE_RATE
        await lookups.of_step(forged(number))
        found.append(await lookups.of_step(owner))
    assert all(one.metadata is not None for one in found)


@pytest.mark.slow
async def test_forged_names_of_many_namespaces_are_a_bounded_number_of_requests_too() -> None:
    asked, lookups = flooded()
    for number in range(3_000):
        await lookups.of_step(forged(number, f"made-up-{number}"))
        await lookups.namespace_labels(f"made-up-too-{number}")
    assert BURST / 2 < len(asked.paths) <= BURST


@pytest.mark.slow
@pytest.mark.parametrize(
    "forge",
    [
        lambda number: forged(number, f"made-up-{number}"),
        lambda number: forged(number, f"there-{number % 50}"),
        lambda number: forged(number, "there-0" if number % 2 else f"made-up-{number}"),
    ],
    ids=["Namespaces that are made up", "Namespaces that are there", "both"],
)
async def test_beside_forged_names_of_other_namespaces_each_new_workflow_of_a_known_one_is_read(
    forge: Callable[[int], Owner],
) -> None:
    owners = [Owner("work", f"real-{number}", "u") for number in range(15)]
    asked, lookups = flooded()
    asked.there = {owner.name: "u" for owner in owners}
    for name in ("work", *(f"there-{number}" for number in range(50))):
        await lookups.namespace_labels(name)
    asked.now += 600
    found = []
    for number, owner in enumerate(owners):
        for each in range(300):
            asked.now += 1 / 600
            await lookups.of_step(forge(300 * number + each))
        found.append(await lookups.of_step(owner))
    assert all(one.metadata is not None and one.labels == {"a": "b"} for one in found)


@pytest.mark.slow
async def test_a_namespace_whose_labels_cannot_be_read_is_known_by_its_workflows() -> None:
    asked, lookups = flooded()
    asked.there = {"first": "u", "second": "u"}
    await lookups.of_step(Owner("made-up", "first", "u"))
    for number in range(3_000):
        await lookups.of_step(forged(number, f"made-up-{number}"))
    assert (await lookups.of_step(Owner("made-up", "second", "u"))).metadata is not None


@pytest.mark.slow
async def test_a_workflow_that_was_there_is_read_again_in_the_midst_of_a_flood() -> None:
    owner = Owner("work", "hello", "u")
    asked, lookups = flooded()
    asked.there["hello"] = "u"
    assert await lookups.workflow_metadata(owner) is not None
    for number in range(NAMESPACE_BURST + 10):
        await lookups.of_step(forged(number))
    asked.now += FRESH + 1
    for number in range(3_000):
        await lookups.of_step(forged(number, f"work-{number % 100}"))
    before = asked.count("/hello")
    found = await lookups.of_step(owner)
    assert found.metadata is not None
    assert found.labels == {"a": "b"}
    assert asked.count("/hello") == before + 1


@pytest.mark.slow
async def test_forged_names_push_nothing_out_of_what_is_remembered() -> None:
    owner = Owner("work", "hello", "u")
    asked, lookups = flooded()
    asked.there["hello"] = "u"
    await lookups.of_step(owner)
    for number in range(MOST + 10):
        await lookups.of_step(forged(number, f"work-{number % 7}" if number % 2 else "work"))
    before = len(asked.paths)
    assert (await lookups.of_step(owner)).metadata is not None
    assert len(asked.paths) == before


async def test_the_workflows_of_one_namespace_push_out_their_own() -> None:
    asked, lookups = flooded()
    asked.there = {f"real-{number}": "u" for number in range(MOST_OF_ONE + 1)}
    await lookups.workflow_metadata(Owner("quiet", "real-0", "u"))
    for name in asked.there:
        asked.now += 1 / NAMESPACE_RATE
        await lookups.workflow_metadata(Owner("work", name, "u"))
    assert not lookups.has_read(Owner("work", "real-0", "u"))
    assert lookups.has_read(Owner("quiet", "real-0", "u"))


async def test_whole_objects_are_read_more_seldom() -> None:
    asked, lookups = flooded()
    asked.there = {f"real-{number}": "u" for number in range(100)}
    known = [await lookups.deletes_artifacts(Owner("work", name, "u")) for name in asked.there]
    assert asked.count() == WHOLE_NAMESPACE_BURST
    assert (known[0], known[-1]) == (False, None)


async def test_of_a_workflows_metadata_little_is_kept(cluster: Cluster) -> None:
    owner = workflow(cluster, cluster.namespace(), "hello")
    async with looking(cluster) as (lookups, _):
        metadata = await lookups.workflow_metadata(owner)
    assert metadata == {
        "uid": owner.uid,
        "finalizers": [],
        "labels": {"stepmemo.dev/mode": "refresh"},
        "annotations": {},
    }


@pytest.mark.parametrize("namespace", ["..", "../../v1/secrets", "a/b", "a.b", "UPPER", "", "x" * 64])
async def test_a_namespace_that_is_none_is_not_asked_for(namespace: str) -> None:
    asked, lookups = flooded()
    found = await lookups.of_step(Owner(namespace, "hello", "u"))
    assert found == (None, None, False)
    assert asked.paths == []
