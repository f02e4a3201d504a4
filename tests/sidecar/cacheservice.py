"""The cache service itself, served for the sidecar as the webhook serves it; and Pods to ask it for."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from argo import names as argo
from keeper.api.handlers import CacheService
from memoize import names
from memoize.step import Step
from server.tls import CERTIFICATE_FILE, KEY_FILE
from tests.cluster import Cluster
from tests.keeper.api.steps import container
from tests.keeper.stores import config_maps
from tests.waiting import PATIENCE
from tests.webhook.serving import api_client, certify

HOST = "127.0.0.1"


class Served(NamedTuple):
    """Where the service is, and the PEM of its authority."""

    url: str
    ca: str


@contextmanager
def serving(cluster: Cluster, directory: Path) -> Iterator[Served]:
    """Serve it with a client of the cluster, in a thread with an event loop of its own."""
    authority = certify(directory, host=HOST)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cache-service")
    thread.start()
    stack = AsyncExitStack()
    try:
        port = asyncio.run_coroutine_threadsafe(_serve(stack, cluster, directory), loop).result(PATIENCE)
        yield Served(f"https://{HOST}:{port}", authority.ca_pem.decode())
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(stack: AsyncExitStack, cluster: Cluster, directory: Path) -> int:
    api = await stack.enter_async_context(api_client(cluster))
    store = config_maps(api)
    stack.push_async_callback(store.close)
    app = web.Application()
    service = CacheService(api, store)
    stack.push_async_callback(service.close)
    service.add_to(app)
    runner = web.AppRunner(app, access_log=None)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    port: int = runner.addresses[0][1]
    return port


def create_pod(cluster: Cluster, namespace: str, account: str, name: str, step: Step) -> str:
    """Create the Pod of a step, which nothing ever starts; returns its UID."""
    annotations = {names.KEY: step.key, names.CACHE: step.cache, argo.NODE_ID: step.node_id}
    if step.max_age:
        annotations[names.MAX_AGE] = step.max_age
    status, body = cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {argo.WORKFLOW_LABEL: step.workflow, names.RESULT: names.RESULT_IN_POD},
                "annotations": annotations,
            },
            "spec": {
                "serviceAccountName": account,
                "containers": [{"name": "main", "image": "x"}, container("-c", "2000", "-t", "2000")],
            },
        }
    )
    assert status == 201, body
    uid: str = body["metadata"]["uid"]
    return uid


def token_of(cluster: Cluster, namespace: str, account: str, name: str, uid: str) -> str:
    """The token that the kubelet would put into the Pod."""
    spec = {
        "audiences": [names.TOKEN_AUDIENCE],
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid},
    }
    path = cluster.path("ServiceAccount", namespace, account, "token")
    status, body, _ = cluster.request("POST", path, {"spec": spec})
    assert status == 201, body
    token: str = body["status"]["token"]
    return token
