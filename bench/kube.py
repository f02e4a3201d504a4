"""The cluster that KUBECONFIG names, by way of `kubectl proxy`, which knows every kind of credentials."""

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

JSON = "application/json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
Object = dict[str, Any]


class KubeError(Exception):
    """The API server refused, or there is none."""


@dataclass(frozen=True, slots=True)
class Kube:
    """Requests as plain JSON."""

    port: int

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = JSON, **query: str
    ) -> Object:
        """The answer's object; KubeError for anything but a 2xx."""
        status, found = self._ask(method, path, body, content_type, query)
        answer = json.loads(found)
        if status >= 300:
            raise KubeError(f"{method} {path}: {answer.get('message', status)}")
        return dict(answer)

    def text(self, path: str) -> str:
        """What is at `path`, where it is no object; KubeError for anything but a 2xx."""
        status, found = self._ask("GET", path, None, JSON, {})
        if status >= 300:
            raise KubeError(f"GET {path}: {status}")
        return found.decode()

    def _ask(
        self, method: str, path: str, body: object, content_type: str, query: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, _with(path, query), content, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def watch(self, path: str, *, seconds: float, **query: str) -> Iterator[Object]:
        """Objects at `path` as they change, those that are there first, until the time is over; KubeError."""
        query |= {"watch": "1", "timeoutSeconds": str(int(seconds))}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds + 10)
        try:
            connection.request("GET", _with(path, query))
            response = connection.getresponse()
            while line := response.readline():
                event = json.loads(line)
                if event.get("type") == "ERROR" or response.status != 200:
                    raise KubeError(f"watch {path}: {event}")
                yield event["object"]
        finally:
            connection.close()


@contextmanager
def connected() -> Iterator[Kube]:
    """A proxy until the block ends; KubeError where no cluster is named or it does not answer."""
    if not os.environ.get("KUBECONFIG"):
        raise KubeError("KUBECONFIG is not set")
    if shutil.which("kubectl") is None:
        raise KubeError("kubectl is not installed")
    with subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as proxy:
        try:
            yield Kube(_port(proxy))
        finally:
            proxy.kill()


def _port(proxy: "subprocess.Popen[str]") -> int:
    assert proxy.stdout is not None
    said = ""
    for line in proxy.stdout:  # warnings may come first
        if found := re.search(r"serve on \S+:(\d+)", line):
            return int(found[1])
        said += line
    raise KubeError(f"kubectl proxy: {said}")


def _with(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
