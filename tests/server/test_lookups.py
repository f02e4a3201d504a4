import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from argo.steppod import Owner
from server.lookups import Lookups
from tests.cluster import Cluster
from tests.keeper.troubled import Answer, answering, broken, gibberish, hang, overloaded
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
    assert failed == ["namespaces", "workflows"]


async def test_metadata_alone_is_asked_for(cluster: Cluster) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, request.headers["Accept"]))
        return web.json_response({"metadata": {"uid": "u"}})

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        await Lookups(api, [].append).workflow_metadata(Owner("work", "hello", "u"))
    assert asked == [
        (
            "/apis/argoproj.io/v1alpha1/namespaces/work/workflows/hello",
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        )
    ]


async def test_a_steps_workflow_and_namespace_are_read_side_by_side(cluster: Cluster) -> None:
    both = asyncio.Barrier(2)

    async def answer(_: web.Request) -> web.StreamResponse:
        await both.wait()
        return web.json_response({"metadata": {"uid": "u", "labels": {"a": "b"}}})

    async with answering(answer) as url, api_client(cluster, url=url) as api:
        found = await Lookups(api, [].append).of_step(Owner("work", "hello", "u"))
    assert found == ({"uid": "u", "labels": {"a": "b"}}, {"a": "b"})


async def test_an_api_server_that_is_not_there_means_nothing(cluster: Cluster) -> None:
    failed: list[str] = []
    async with api_client(cluster, url="https://127.0.0.1:1") as api:
        assert await Lookups(api, failed.append).namespace_labels("work") is None
    assert failed == ["namespaces"]
