"""Our real admission server, `python -m webhook`, as a process of the devcluster.

It runs as the service account of the manifests, makes its own certificate, writes the caBundle, and is called
by the API over TLS as the Service that the webhook configuration names. Steps call it by that name too, which
the kubelet makes known to their containers; only its port is another.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from devcluster import sandbox
from devcluster.api import Api
from devcluster.api.server import write_kubeconfig
from devcluster.client import LEASES, ApiError, Client
from devcluster.images import STEPMEMO_IMAGE
from devcluster.installation import LEASE, NAMESPACE, SERVICE, SERVICE_ACCOUNT
from devcluster.process import ContainerProcess

_CHECKOUT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.02
_START_SECONDS = 20
_IN_SYNC = "stepmemo_view_in_sync 1.0"

HOST = f"{SERVICE}.{NAMESPACE}.svc"
"""The Service's name in a cluster, which the server's certificate is for."""


class WebhookServer:
    """The running server."""

    def __init__(self, process: ContainerProcess, client: Client, port: int, log: Path) -> None:
        self._process = process
        self._client = client
        self._port = port
        self._log = log

    @classmethod
    async def start(
        cls, client: Client, server: Api, directory: Path, settings: Mapping[str, str]
    ) -> "WebhookServer":
        """Start it on a free port and make it known to the API as its Service.

        Files go to `directory`; `settings` are variables of its environment.
        """
        kubeconfig = directory / "kubeconfig"
        token = await client.token(NAMESPACE, SERVICE_ACCOUNT)
        write_kubeconfig(kubeconfig, server.url, server.ca_file, token)
        port = _free_port()
        flags = {
            "listen": f"127.0.0.1:{port}",
            "service-url": f"https://{HOST}:{port}",
            "image": STEPMEMO_IMAGE,
            "cert-dir": directory / "certs",
            "shutdown-delay": "0s",
        }
        command = [sys.executable, "-B", "-m", "webhook", *(f"--{name}={flags[name]}" for name in flags)]
        plan = {
            "kubelet": os.getpid(),
            "isolation": sandbox.NO_NAMESPACE,
            "argv": command,
            "env": {"PATH": os.defpath, "KUBECONFIG": str(kubeconfig), **settings},
            "cwd": str(_CHECKOUT),
            "pidFile": str(directory / "pid"),
        }
        server.services[NAMESPACE, SERVICE] = ("127.0.0.1", port)
        log = directory / "log"
        process = await ContainerProcess.start(plan, directory / "plan.json", log)
        return cls(process, client, port, log)

    async def run(self) -> None:
        """Until cancelled; RuntimeError with its log when the server ends by itself."""
        try:
            code = await self._process.wait()
            raise RuntimeError(f"the webhook server ended with {code}:\n{self.log()}")
        except asyncio.CancelledError:
            self._process.terminate()
            await self._process.wait()
            raise

    async def ready(self, *, keeps: bool) -> None:
        """Return once it says that reviews may come: it serves, and every webhook trusts its certificate.

        One that `keeps` the caches has to know them too, and to lead. RuntimeError with its log when that
        takes too long.
        """
        try:
            async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
                while True:
                    if await self._is_ready(session) and (not keeps or await self._leads(session)):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise RuntimeError(f"the webhook server does not get ready:\n{self.log()}") from None

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"https://127.0.0.1:{self._port}/readyz", ssl=False) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _leads(self, session: aiohttp.ClientSession) -> bool:
        """Whether its view is in sync and its keeper, the only one, holds the Lease."""
        try:
            lease = await self._client.get(LEASES, NAMESPACE, LEASE)
        except ApiError:
            return False
        async with session.get(f"https://127.0.0.1:{self._port}/metrics", ssl=False) as response:
            in_sync = _IN_SYNC in (await response.text()).splitlines()
        return in_sync and bool(lease["spec"].get("holderIdentity"))

    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
