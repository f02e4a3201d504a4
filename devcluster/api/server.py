"""The API server as a whole: TLS, a kubeconfig for the admin, and everything wired together."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from devcluster.api import certificates
from devcluster.api.admission import Webhooks
from devcluster.api.handlers import Handlers
from devcluster.api.proxy import Proxy
from devcluster.api.requests import parse
from devcluster.api.routes import Routes
from devcluster.api.store import Store
from devcluster.api.tokens import ADMIN, Tokens

NAMESPACES = ("default", "kube-system")


@dataclass(frozen=True, slots=True)
class Api:
    """A running API server: where it is and how to get in."""

    url: str
    ca_file: Path
    kubeconfig: Path
    admin_token: str = field(repr=False)
    services: dict[tuple[str, str], tuple[str, int]]
    """Where webhooks, and the proxy, reach a Service (namespace, name): host and port. Set it before that."""
    _tokens: Tokens = field(repr=False)

    def token(self, namespace: str, service_account: str) -> str:
        """A bearer token of a service account that exists; ApiError 404 otherwise."""
        return self._tokens.issue(namespace, service_account)


@asynccontextmanager
async def serve(directory: Path, *, history: int = 2000) -> AsyncIterator[Api]:
    """Run an empty cluster on a free local port until the block ends.

    Its CA (`ca.crt`), serving certificate and admin `kubeconfig` lie in the directory, which must exist.
    `history` bounds the changes that watches can resume from.
    """
    store = Store(history)
    tokens = Tokens(store)
    services: dict[tuple[str, str], tuple[str, int]] = {}
    pair = certificates.create(directory)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        handlers = Handlers(store, tokens, Webhooks(store, session, services), pair.ca.read_text())
        for name in NAMESPACES:
            info = parse("POST", "/api/v1/namespaces", {})
            await handlers.create(info, ADMIN, f'{{"metadata": {{"name": "{name}"}}}}'.encode())
        routes = Routes(store, tokens, handlers, Proxy(session, services))
        runner = await _listen(routes, store, pair)
        try:
            host, port = runner.addresses[0]
            url = f"https://{host}:{port}"
            kubeconfig = directory / "kubeconfig"
            write_kubeconfig(kubeconfig, url, pair.ca, tokens.admin)
            yield Api(url, pair.ca, kubeconfig, tokens.admin, services, tokens)
        finally:
            await runner.cleanup()


async def _listen(routes: Routes, store: Store, pair: certificates.Pair) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", routes.handle)

    async def end_watches(_: web.Application) -> None:
        store.close()

    app.on_shutdown.append(end_watches)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner


def write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    """A kubeconfig with one cluster and one user; readable by its owner alone."""
    name = "devcluster"
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
