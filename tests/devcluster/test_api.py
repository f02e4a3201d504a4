"""What the devcluster's API server does beyond what tests/contract holds it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.client.exceptions import ApiException

from devcluster.api import Api, serve
from devcluster.api.errors import ApiError
from tests.cluster import Cluster, Object
from tests.contract.webhook import patching, serving


def config_map(namespace: str, name: str, **metadata: object) -> Object:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


def owner(obj: Object) -> Object:
    return {key: obj[key] for key in ("apiVersion", "kind")} | {
        key: obj["metadata"][key] for key in ("name", "uid")
    }


def test_a_new_namespace_has_what_controllers_would_put_there(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    assert cluster.get("ServiceAccount", namespace, "default")[0] == 200
    _, root_ca = cluster.get("ConfigMap", namespace, "kube-root-ca.crt")
    assert root_ca["data"]["ca.crt"] == cluster.ca_file.read_text()


def test_what_an_object_owns_goes_with_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    _, top = cluster.create(config_map(namespace, "top"))
    _, middle = cluster.create(config_map(namespace, "middle", ownerReferences=[owner(top)]))
    cluster.create(config_map(namespace, "bottom", ownerReferences=[owner(middle)]))
    cluster.create(config_map(namespace, "other", ownerReferences=[{**owner(top), "uid": "unknown"}]))
    cluster.delete("ConfigMap", namespace, "top")
    _, left = cluster.list("ConfigMap", namespace)
    assert [item["metadata"]["name"] for item in left["items"]] == ["kube-root-ca.crt", "other"]


def test_an_object_stays_while_one_of_its_owners_does(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    owners = [cluster.create(config_map(namespace, name))[1] for name in ("one", "two")]
    cluster.create(config_map(namespace, "owned", ownerReferences=[owner(obj) for obj in owners]))
    cluster.delete("ConfigMap", namespace, "one")
    assert cluster.get("ConfigMap", namespace, "owned")[0] == 200
    cluster.delete("ConfigMap", namespace, "two")
    assert cluster.get("ConfigMap", namespace, "owned")[0] == 404


def test_a_namespace_takes_everything_with_it(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    cluster.create(config_map(namespace, "a"))
    assert cluster.delete("Namespace", "", namespace)[0] == 200
    assert cluster.list("ConfigMap", namespace)[1]["items"] == []
    assert cluster.get("ServiceAccount", namespace, "default")[0] == 404


def test_a_webhook_is_reached_through_its_service(cluster: Cluster, tmp_path: Path) -> None:
    """The certificate is asked for under the Service's name, as the real API server does it."""
    namespace = cluster.namespace()
    assert cluster.services is not None
    with serving(tmp_path, ["hook.webhooks.svc"]) as webhook:
        webhook.answers["/path"] = patching({"op": "add", "path": "/data", "value": {"a": "b"}})
        service = {"name": "hook", "namespace": "webhooks", "path": "/path"}
        reach = {"service": service, "caBundle": webhook.ca_bundle}
        definition = webhook.definition(clientConfig=reach, failurePolicy="Fail")
        with webhook.installed(cluster, namespace, definition):
            status, body = cluster.create(config_map(namespace, "a"))
            assert status == 500
            assert body["message"].endswith('service "hook" not found')
            port = int(webhook.url.rpartition(":")[2])
            cluster.services["webhooks", "hook"] = ("127.0.0.1", port)
            status, body = cluster.create(config_map(namespace, "a"))
            assert (status, body["data"]) == (201, {"a": "b"})


def test_a_certificate_that_is_not_for_the_service_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.namespace()
    assert cluster.services is not None
    with serving(tmp_path) as webhook:
        cluster.services["webhooks", "nameless"] = ("127.0.0.1", int(webhook.url.rpartition(":")[2]))
        service = {"name": "nameless", "namespace": "webhooks", "path": "/"}
        reach = {"service": service, "caBundle": webhook.ca_bundle}
        with webhook.installed(cluster, namespace, webhook.definition(clientConfig=reach)):
            status, body = cluster.create(config_map(namespace, "a"))
    assert status == 500
    assert "certificate is not valid for 'nameless.webhooks.svc'" in body["message"]


async def test_watches_forget_what_lies_too_far_back(tmp_path: Path) -> None:
    async with serve(tmp_path, history=5) as api, connected(api) as core:
        first = await core.create_namespaced_config_map("default", {"metadata": {"name": "first"}})
        for number in range(6):
            await core.create_namespaced_config_map("default", {"metadata": {"name": f"n{number}"}})
        version = first.metadata.resource_version
        async with watch.Watch() as watching:
            stream = watching.stream(core.list_namespaced_config_map, "default", resource_version=version)
            with pytest.raises(ApiException) as raised:
                await anext(stream)
        assert raised.value.status == 410


async def test_the_kubernetes_client_lists_patches_and_watches(tmp_path: Path) -> None:
    async with serve(tmp_path) as api, connected(api) as core:
        listed = await core.list_namespaced_config_map("default")
        version = listed.metadata.resource_version
        async with watch.Watch() as watching:
            stream = watching.stream(core.list_namespaced_config_map, "default", resource_version=version)
            await core.create_namespaced_config_map("default", {"metadata": {"name": "a"}})
            patch = {"data": {"k": "v"}}
            merge = "application/merge-patch+json"
            patched = await core.patch_namespaced_config_map("a", "default", patch, _content_type=merge)
            assert patched.data == {"k": "v"}
            await core.delete_namespaced_config_map("a", "default")
            events = [await anext(stream) for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {event["object"].metadata.name for event in events} == {"a"}


async def test_an_open_watch_does_not_hold_the_end_up(tmp_path: Path) -> None:
    # aiohttp gives a connection that is open 60 seconds.
    async with AsyncExitStack() as connection, asyncio.timeout(40), serve(tmp_path) as api:
        core = await connection.enter_async_context(connected(api))
        watching = await connection.enter_async_context(watch.Watch())
        stream = watching.stream(core.list_namespace)
        names = {(await anext(stream))["object"].metadata.name for _ in range(2)}
    assert names == {"default", "kube-system"}


async def test_a_token_is_issued_in_process_too(tmp_path: Path) -> None:
    async with serve(tmp_path) as api:
        assert api.token("default", "default") != api.token("default", "default")
        with pytest.raises(ApiError, match='serviceaccounts "nobody" not found'):
            api.token("default", "nobody")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/version", {"major": "1"}),
        ("/api", {"versions": ["v1"]}),
        ("/apis", {"kind": "APIGroupList"}),
        ("/api/v1", {"kind": "APIResourceList", "groupVersion": "v1"}),
        ("/apis/argoproj.io/v1alpha1", {"kind": "APIResourceList", "groupVersion": "argoproj.io/v1alpha1"}),
    ],
)
def test_clients_can_discover_what_is_served(cluster: Cluster, path: str, expected: dict[str, Any]) -> None:
    status, body, _ = cluster.request("GET", path)
    assert status == 200
    assert {key: body[key] for key in expected} == expected


def test_the_server_says_that_it_is_ready(cluster: Cluster) -> None:
    assert cluster.request("GET", "/readyz").status == 200


@asynccontextmanager
async def connected(api: Api) -> AsyncIterator[client.CoreV1Api]:
    """The admin's connection."""
    settings = client.Configuration(host=api.url)
    settings.ssl_ca_cert = str(api.ca_file)
    settings.api_key["BearerToken"] = f"Bearer {api.admin_token}"
    async with client.ApiClient(settings) as connection:
        yield client.CoreV1Api(connection)


async def test_the_kubeconfig_lets_the_admin_in(tmp_path: Path) -> None:
    async with serve(tmp_path) as api:
        assert api.kubeconfig.stat().st_mode & 0o077 == 0
        settings = client.Configuration()
        await config.load_kube_config(str(api.kubeconfig), client_configuration=settings)
        async with client.ApiClient(settings) as connection:
            await client.CoreV1Api(connection).list_namespace()
