"""Requests to stepmemo's cache service as a sidecar makes them, over a port that kubectl forwards."""

import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from memoize import names
from tests.e2e import server
from tests.e2e.kube import kubectl

_HOST = f"{server.KEEPER}.{server.NAMESPACE}.svc"
"""Whom the certificate is for."""

Answer = tuple[int, dict[str, Any]]


def token(namespace: str, pod: dict[str, Any], audience: str = names.TOKEN_AUDIENCE) -> str:
    """What the kubelet would project into this Pod."""
    bound = {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    words = [f"--bound-object-{name}={value}" for name, value in bound.items()]
    account = pod["spec"]["serviceAccountName"]
    made = kubectl("-n", namespace, "create", "token", account, f"--audience={audience}", *words)
    return made.stdout.strip()


@dataclass(frozen=True)
class Service:
    """One replica, by way of a local port."""

    port: int
    context: ssl.SSLContext

    def look_up(self, bearer: str, **body: str) -> Answer:
        return self.ask("/v1/lookup", bearer, body)

    def store(self, bearer: str, entry: str, **body: str) -> Answer:
        return self.ask("/v1/entries", bearer, {"entry": entry} | body)

    def ask(self, path: str, bearer: str, body: dict[str, str]) -> Answer:
        """Status and JSON. The certificate is verified, for the Service's name."""
        connection = http.client.HTTPSConnection(_HOST, self.port, context=self.context, timeout=20)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sock = self.context.wrap_socket(plain, server_hostname=_HOST)
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {bearer}"} if bearer else {}
        )
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@contextmanager
def forwarded() -> Iterator[Service]:
    """The service until the block ends."""
    command = ["kubectl", "-n", server.NAMESPACE, "port-forward", f"service/{server.KEEPER}", ":443"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forward:
        assert forward.stdout is not None
        try:
            said = forward.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, said
            yield Service(int(found[1]), ssl.create_default_context(cadata=server.ca()))
        finally:
            forward.kill()
