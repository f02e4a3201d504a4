"""A server behind a Service, for whoever comes by the API server's proxy."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from server.tls import ServingCertificate
from tests.cluster import DEVCLUSTER, MERGE, Cluster
from tests.webhook.serving import certify

PORT = 443


@asynccontextmanager
async def behind_a_service(
    cluster: Cluster, app: web.Application, directory: Path, namespace: str, name: str
) -> AsyncIterator[None]:
    """Serve the app over TLS, and have the API server find it as that Service's port `https`.

    A real API server proxies to no loopback address (IsProxyableIP), and asks no controller for endpoints.
    """
    address = reachable_address(cluster)
    certify(directory)
    serving = ServingCertificate(directory)
    serving.reload()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0, ssl_context=serving.context).start()
        port = runner.addresses[0][1]
        await asyncio.to_thread(tell, cluster, namespace, name, address, port)
        yield
    finally:
        await runner.cleanup()


def reachable_address(cluster: Cluster) -> str:
    """An address of this machine to which the API server proxies; skips the test where there is none."""
    if cluster.tier == DEVCLUSTER:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("198.51.100.1", 9))  # nothing is sent for it
        except OSError:
            pytest.skip("this machine has no address but loopback")
        found: str = asked.getsockname()[0]
        return found


def tell(cluster: Cluster, namespace: str, name: str, address: str, port: int) -> None:
    """Have the API server find what listens there as that Service's port `https`."""
    if cluster.tier == DEVCLUSTER:
        assert cluster.services is not None
        cluster.services[namespace, name] = (address, port)
        return
    # Only an address of a Pod that is there is taken (isValidAddress in registry/core/service).
    metadata = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}}
    pod = {"spec": {"containers": [{"name": "keeper", "image": "x"}]}}
    where = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
    spec = {"ports": [{"name": "https", "port": PORT}]}
    target = {"name": "https", "port": port, "protocol": "TCP"}
    reference = {"kind": "Pod", "namespace": namespace, "name": name}
    subset = {"addresses": [{"ip": address, "targetRef": reference}], "ports": [target]}
    endpoint = {"addresses": [address], "targetRef": reference}
    slices = {"addressType": "IPv4", "endpoints": [endpoint], "ports": [target]}
    within = f"namespaces/{namespace}"
    for method, path, obj in (
        ("POST", f"/api/v1/{within}/pods", {**pod, "metadata": metadata}),
        ("PATCH", f"/api/v1/{within}/pods/{name}/status", where),
        ("POST", f"/api/v1/{within}/services", {"spec": spec, "metadata": metadata}),
        ("POST", f"/api/v1/{within}/endpoints", {"subsets": [subset], "metadata": metadata}),
        ("POST", f"/apis/discovery.k8s.io/v1/{within}/endpointslices", {**slices, "metadata": metadata}),
    ):
        kind = MERGE if method == "PATCH" else "application/json"
        status, body, _ = cluster.request(method, path, obj, content_type=kind)
        assert status in (200, 201), body
