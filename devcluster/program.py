"""One of our real programs, `python -m webhook` or `python -m keeper`, as a process of the devcluster.

It runs as the service account that its Deployment names, and is reached over TLS as its Service: by the API,
where the webhook configuration names that, and by steps, whose containers are told of it by the kubelet. Only
the port is another.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from devcluster import sandbox
from devcluster.api import Api
from devcluster.api.server import write_kubeconfig
from devcluster.client import Client
from devcluster.images import STEPMEMO_IMAGE
from devcluster.installation import KEEPER, NAMESPACE, WEBHOOK, Workload
from devcluster.ports import free_port
from devcluster.process import ContainerProcess

_CHECKOUT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.02
_START_SECONDS = 120

READY = ("ok\n", "ok\nkeeper: ready\n")
"""What the keeper says, or a webhook that has none; and a webhook that has seen its keeper ready."""

KEEPER_HOST = f"{KEEPER}.{NAMESPACE}.svc"
"""The name by which steps reach the cache service, which the certificate is for."""


class Program:
    """A running one."""

    def __init__(self, name: str, process: ContainerProcess, port: int, log: Path) -> None:
        self._name = name
        self._process = process
        self._port = port
        self._log = log

    @classmethod
    async def start(
        cls,
        workload: Workload,
        client: Client,
        server: Api,
        directory: Path,
        port: int,
        flags: Mapping[str, object],
        settings: Mapping[str, str],
    ) -> "Program":
        """Start it on this port and make it known to the API as its Service.

        Files go to `directory`, which is there. `flags` are given besides those that say where it is, and
        `settings` are variables of its environment besides those of its Deployment.
        """
        kubeconfig = directory / "kubeconfig"
        token = await client.token(NAMESPACE, workload.account)
        write_kubeconfig(kubeconfig, server.url, server.ca_file, token)
        flags = {
            "listen": f"127.0.0.1:{port}",
            "metrics-listen": "off",
            "cert-dir": directory / "certs",
            "shutdown-delay": "0s",
            **flags,
        }
        _, *module = workload.command  # the image's Python is the one that runs here
        words = [f"--{name}={value}" for name, value in flags.items()]
        plan = {
            "kubelet": os.getpid(),
            "isolation": sandbox.NO_NAMESPACE,
            "argv": [sys.executable, "-B", *module, *words],
            "env": {"PATH": os.defpath, "KUBECONFIG": str(kubeconfig), **workload.variables, **settings},
            "cwd": str(_CHECKOUT),
            "pidFile": str(directory / "pid"),
        }
        server.services[NAMESPACE, workload.name] = ("127.0.0.1", port)
        log = directory / "log"
        process = await ContainerProcess.start(plan, directory / "plan", log)
        return cls(workload.name, process, port, log)

    async def run(self) -> None:
        """Until cancelled; RuntimeError with its log when the program ends by itself."""
        try:
            code = await self._process.wait()
            raise RuntimeError(f"{self._name} ended with {code}:\n{self.log()}")
        except asyncio.CancelledError:
            self._process.terminate()
            await self._process.wait()
            raise

    async def ready(self) -> None:
        """Return once it says that it is ready, and the webhook that its keeper is too.

        RuntimeError with its log when that takes too long.
        """
        said = ""
        try:
            async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
                while (said := await self._says(session)) not in READY:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise RuntimeError(f"{self._name} does not get ready: {said}\n{self.log()}") from None

    async def _says(self, session: aiohttp.ClientSession) -> str:
        try:
            async with session.get(f"https://127.0.0.1:{self._port}/readyz", ssl=False) as response:
                return await response.text()
        except aiohttp.ClientError as error:
            return str(error)

    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")


async def start_all(
    workloads: Mapping[str, Workload],
    client: Client,
    server: Api,
    directory: Path,
    settings: Mapping[str, str],
) -> list[Program]:
    """Start every program that the manifests have a Deployment of; `settings` are variables of them all."""
    ports = {name: free_port() for name in workloads}
    flags: dict[str, dict[str, object]] = {
        WEBHOOK: {"image": STEPMEMO_IMAGE},
        KEEPER: {"state-dir": directory / "state"},
    }
    if KEEPER in workloads:
        flags[WEBHOOK]["keeper-url"] = f"https://{KEEPER_HOST}:{ports[KEEPER]}"
    return [
        await Program.start(workload, client, server, directory / name, ports[name], flags[name], settings)
        for name, workload in workloads.items()
    ]
