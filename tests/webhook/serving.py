"""Real certificates, a real API client and real TLS for the tests of the server."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kubernetes_asyncio.client import ApiClient, Configuration

from certs import bundle, pki
from certs.bundle import Bundle
from tests.cluster import Cluster

HOST = "stepmemo.test.svc"


def certify(directory: Path, *, host: str = HOST, authority: Bundle | None = None) -> Bundle:
    """Write a fresh certificate for the host into the directory, by a new authority unless one is given."""
    now = datetime.now(UTC)
    fresh = bundle.new([host], now)
    if authority is not None:
        fresh = replace(authority, server=pki.new_server(authority.signers[0], [host], now))
    bundle.write(fresh, directory)
    return fresh


def trusting(authority: Bundle) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.ca_pem.decode())


@asynccontextmanager
async def api_client(
    cluster: Cluster, *, url: str = "", token: str | None = None
) -> AsyncIterator[ApiClient]:
    """A client of the cluster, as the admin unless a token is given."""
    configuration = Configuration()
    configuration.host = url or cluster.url
    configuration.ssl_ca_cert = str(cluster.ca_file)
    bearer = cluster.admin_token if token is None else token
    configuration.api_key["BearerToken"] = f"Bearer {bearer}"
    async with ApiClient(configuration) as api:
        yield api
