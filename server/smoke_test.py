"""`python -m server.smoke_test`: whether an installation works for steps and the API server (`helm test`).

1. Each program's Service answers, with a certificate that whoever has `ca.crt` trusts, and is ready.
2. The API server calls the webhook, and does what that says: of a dry run the memoize block comes back as
   annotations.

What is not so yet is looked at again until time is up.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from argo.shape import mapping
from kube import client
from kube.errors import ApiError, NotFound
from memoize import names
from server import values
from server.listener import READY_PATH
from server.program import ProgramError, run_once
from server.settings import setting
from server.tls import AUTHORITY_FILE

_PAUSE = 1.0
_REQUEST_SECONDS = 10.0
_NAME = "stepmemo-smoke-test"
"""Of what is never stored."""

Json = dict[str, Any]


class SmokeTestError(ProgramError):
    """What does not work, as one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What this program is told. Times are in seconds."""

    namespace: str = setting("namespace", values.LABEL, "stepmemo", "the Namespace of both programs")
    services: tuple[str, ...] = setting(
        "services", values.LABELS, "stepmemo-webhook,stepmemo-keeper", "the Services to ask"
    )
    cert_dir: Path = setting(
        "cert-dir", values.DIRECTORY, "/etc/stepmemo/certs", "where ca.crt is, which both are trusted by"
    )
    timeout: float = setting(
        "timeout", values.seconds("1s", "10m"), "1m", "how long to wait for what does not work yet"
    )


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit code: 0 where all works, 1 where something does not, which is told, 2 for wrong settings."""

    async def work(api: ApiClient, chosen: Settings) -> None:
        await smoke_test(
            api,
            [f"https://{service}.{chosen.namespace}.svc" for service in chosen.services],
            chosen.cert_dir / AUTHORITY_FILE,
            chosen.timeout,
        )

    return run_once(
        Settings,
        work,
        argv,
        environ,
        name="smoke-test",
        program="python -m server.smoke_test",
        description="Tries whether an installation of stepmemo works.",
    )


async def smoke_test(
    api: ApiClient,
    urls: Sequence[str],
    authority: Path,
    timeout: float,  # noqa: ASYNC109
) -> None:
    """Return once all works; SmokeTestError says what does not after `timeout` seconds."""
    problem = "nothing was answered yet"
    try:
        async with asyncio.timeout(timeout):
            while problem := await _problem(api, urls, authority):  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise SmokeTestError(f"{problem} (for {timeout:g} s)") from None


async def _problem(api: ApiClient, urls: Sequence[str], authority: Path) -> str:
    for url in urls:
        if unready := await _unready(f"{url}{READY_PATH}", authority):
            return f"{url}: {unready}"
    return await _unseen(api)


async def _unready(url: str, authority: Path) -> str:
    """Why a program is not ready, or cannot be asked; empty where it is."""
    limits = aiohttp.ClientTimeout()  # none for the whole: kube.client says why
    try:
        context = ssl.create_default_context(cafile=authority)
        async with (
            asyncio.timeout(_REQUEST_SECONDS),
            aiohttp.ClientSession(timeout=limits) as session,
            session.get(url, ssl=context) as answer,
        ):
            said = (await answer.text()).strip()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{type(error).__name__} {error}".rstrip()
    return "" if answer.status == 200 else said or f"HTTP status {answer.status}"


async def _unseen(api: ApiClient) -> str:
    """Why the webhook was not asked about a template, or not heeded; empty where it was."""
    block = {"key": _NAME, "maxAge": "1h", "cache": {"configMap": {"name": _NAME}}}
    template = {
        "name": "main",
        "metadata": {"annotations": {names.MEMOIZE: "true"}},
        "memoize": block,
        "container": {"image": "busybox", "command": ["true"]},
    }
    sent = {
        "apiVersion": argo.API_VERSION,
        "kind": "ClusterWorkflowTemplate",
        "metadata": {"name": _NAME},
        "spec": {"entrypoint": "main", "templates": [template]},
    }
    path = f"/apis/{argo.API_VERSION}/clusterworkflowtemplates"
    try:
        found = await client.request(
            api, "POST", path, seconds=_REQUEST_SECONDS, body=sent, query=[("dryRun", "All")]
        )
    except NotFound:
        return "the API server knows no ClusterWorkflowTemplates: Argo Workflows is not installed"
    except ApiError as error:
        return f"a dry run of a ClusterWorkflowTemplate: {error}: {error.message}"
    (made,) = found["spec"]["templates"]
    if names.KEY in mapping(mapping(made.get("metadata")).get("annotations")):
        return ""
    return "the API server does not call the webhook, or cannot reach it: a memoize block stayed as it was"


if __name__ == "__main__":
    sys.exit(main())
