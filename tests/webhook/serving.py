"""Real certificates, a real API client and real TLS for the tests of the server."""

import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from kubernetes_asyncio.client import ApiClient, Configuration

from certs import bundle, pki
from certs.bundle import Bundle
from server.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
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


def files_of(bundle: Bundle) -> dict[str, bytes]:
    """The data of a Secret with the certificate, its key and the CA."""
    pair = bundle.server
    return {CERTIFICATE_FILE: pair.certificate, KEY_FILE: pair.key, AUTHORITY_FILE: bundle.ca_pem}


def mount(directory: Path, files: Mapping[str, bytes]) -> None:
    """Show files as the kubelet shows a Secret's: links through one link, which leads to their version."""
    directory.mkdir(parents=True, exist_ok=True)
    version = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    for name, content in files.items():
        (version / name).write_bytes(content)
    data, aside = directory / "..data", directory / "..data_tmp"
    old = data.resolve() if data.is_symlink() else None
    aside.symlink_to(version.name)
    aside.replace(data)
    shown = {path.name for path in directory.iterdir() if not path.name.startswith("..")}
    for name in files.keys() - shown:
        (directory / name).symlink_to(Path("..data", name))
    for name in shown - files.keys():
        (directory / name).unlink()
    if old:
        shutil.rmtree(old)


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
