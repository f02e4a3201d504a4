"""A handle on a running cluster for tests: plain, synchronous HTTP, usable from any thread."""

import contextlib
import http.client
import itertools
import json
import os
import select
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from devcluster.api.kinds import by_name
from tests.waiting import PATIENCE, rest

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

DEVCLUSTER = "devcluster"
KUBE_APISERVER = "kube-apiserver"

Object = dict[str, Any]


class Answer(NamedTuple):
    """A whole response: for what the helpers' `(status, body)` does not tell."""

    status: int
    body: Any
    headers: list[tuple[str, str]]

    @property
    def warnings(self) -> list[str]:
        return [value for name, value in self.headers if name.lower() == "warning"]


class _Connection(http.client.HTTPSConnection):
    """Closes with the last thread or test that has it."""

    def __del__(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the server has not hung up: between two requests it has nothing to say."""
        return self.sock is not None and not select.select([self.sock], [], [], 0)[0]


@dataclass(frozen=True)
class Cluster:
    """An API server and the admin's way in. `tier` is `devcluster` or `kube-apiserver`.

    Every helper asks as the admin unless it is given a `token` ("" asks anonymously).
    """

    tier: str
    url: str
    ca_file: Path
    kubeconfig: Path
    admin_token: str = field(repr=False)
    services: dict[tuple[str, str], tuple[str, int]] | None = None
    """Only on the devcluster: where its webhooks reach a Service (namespace, name)."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _kept: threading.local = field(default_factory=threading.local, compare=False)
    """A connection of each thread: the time of a test would else go to handshakes."""

    def context(self) -> ssl.SSLContext:
        """Trusts this cluster's CA alone."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        """One request; a `bytes` body goes as it is, anything else as JSON. JSON answers come decoded."""
        connection: _Connection | None = self._kept.__dict__.pop("connection", None)
        if connection is None or not connection.is_open:
            connection = self._connect()
        response = self._ask(connection, method, path, body, token, query, content_type, accept)
        text = response.read().decode()
        self._kept.connection = connection
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        return Answer(response.status, answer, response.getheaders())

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self.context()

    def _connect(self) -> _Connection:
        where = urlsplit(self.url)
        assert where.hostname is not None
        return _Connection(where.hostname, where.port, context=self._context, timeout=30)

    def _ask(
        self,
        connection: _Connection,
        method: str,
        path: str,
        body: Any,
        token: str | None,
        query: Mapping[str, str] | None,
        content_type: str,
        accept: str,
    ) -> http.client.HTTPResponse:
        headers = {"Accept": accept}
        if (bearer := self.admin_token if token is None else token) != "":
            headers["Authorization"] = f"Bearer {bearer}"
        if body is not None:
            headers["Content-Type"] = content_type
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, f"{path}?{urlencode(query)}" if query else path, body, headers)
        return connection.getresponse()

    def path(self, kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The API path of a kind, of one namespace, of one object."""
        found = by_name(kind)
        parts = ["/apis" if found.group else "/api", found.api_version]
        if found.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, found.plural, *filter(None, (name, subresource))])

    def get(self, kind: str, namespace: str, name: str, *, token: str | None = None) -> tuple[int, Any]:
        return self.request("GET", self.path(kind, namespace, name), token=token)[:2]

    def list(
        self, kind: str, namespace: str = "", selector: str = "", *, token: str | None = None
    ) -> tuple[int, Any]:
        query = {"labelSelector": selector} if selector else None
        return self.request("GET", self.path(kind, namespace), token=token, query=query)[:2]

    def create(self, obj: Object, *, token: str | None = None, dry_run: bool = False) -> tuple[int, Any]:
        """Create the object where its kind and metadata.namespace say."""
        path = self.path(obj["kind"], obj["metadata"].get("namespace", ""))
        query = {"dryRun": "All"} if dry_run else None
        return self.request("POST", path, obj, token=token, query=query)[:2]

    def update(self, obj: Object, *, token: str | None = None) -> tuple[int, Any]:
        metadata = obj["metadata"]
        path = self.path(obj["kind"], metadata.get("namespace", ""), metadata["name"])
        return self.request("PUT", path, obj, token=token)[:2]

    def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        token: str | None = None,
    ) -> tuple[int, Any]:
        """A list is sent as JSON Patch, an object as merge patch."""
        path = self.path(kind, namespace, name, subresource)
        content_type = JSON_PATCH if isinstance(patch, list) else MERGE
        return self.request("PATCH", path, patch, token=token, content_type=content_type)[:2]

    def delete(self, kind: str, namespace: str, name: str, *, token: str | None = None) -> tuple[int, Any]:
        return self.request("DELETE", self.path(kind, namespace, name), token=token)[:2]

    def watch(
        self, kind: str, namespace: str, resource_version: str = "", *, seconds: int = 10
    ) -> Generator[tuple[str, Object], None, None]:
        """The events of a watch that the server ends after some seconds: take what you wait for and leave."""
        query = {"watch": "1", "timeoutSeconds": str(seconds)}
        if resource_version:
            query["resourceVersion"] = resource_version
        yield from self.events(kind, namespace, query)

    def events(
        self, kind: str, namespace: str, query: Mapping[str, str]
    ) -> Generator[tuple[str, Object], None, None]:
        """The events of a watch with this query, to its end."""
        path, accept = self.path(kind, namespace), "application/json"
        with (
            contextlib.closing(self._connect()) as connection,
            self._ask(connection, "GET", path, None, None, query, accept, accept) as response,
        ):
            for line in response:
                event = json.loads(line)
                yield event["type"], event["object"]

    def namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """A fresh Namespace with its default ServiceAccount; returns its name."""
        name = f"test-{os.getpid()}-{next(self._numbers)}"
        created = {"kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}
        status, body = self.create(created)
        assert status == 201, body
        self._ensure({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}})
        return name

    def service_account(self, namespace: str, name: str, rules: "list[Object]") -> str:
        """A ServiceAccount (made if it is not there) bound to a Role of exactly these rules; its token."""
        metadata = {"name": name, "namespace": namespace}
        self._ensure({"kind": "ServiceAccount", "metadata": metadata})
        group = by_name("Role").group
        self._ensure({"kind": "Role", "metadata": metadata, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        reference = {"apiGroup": group, "kind": "Role", "name": name}
        binding = {"kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": [subject]}
        self._ensure(binding)
        self.set_rules(namespace, name, rules)
        path = self.path("ServiceAccount", namespace, name, "token")
        status, body, _ = self.request("POST", path, {"spec": {}})
        assert status == 201, body
        token: str = body["status"]["token"]
        return token

    def set_rules(self, namespace: str, name: str, rules: "list[Object]") -> None:
        """Give a service account of ours exactly these rights; returns when they hold.

        The real API server's authorizer learns of Roles by a watch, so a rule of no other use is added and
        asked for until it is there.
        """
        marker = f"rules-{next(self._numbers)}"
        told = {"apiGroups": ["test.stepmemo.dev"], "resources": [marker], "verbs": ["get"]}
        status, body = self.patch("Role", namespace, name, {"rules": [*rules, told]})
        assert status == 200, body
        if self.tier == DEVCLUSTER:
            return
        asked = {"namespace": namespace, "verb": "get", "group": "test.stepmemo.dev", "resource": marker}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": f"system:serviceaccount:{namespace}:{name}", "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        wait_for(lambda: self.request("POST", path, review).body["status"]["allowed"])

    def _ensure(self, obj: Object) -> None:
        status, body = self.create(obj)
        assert status in (201, 409), body


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once the condition holds; AssertionError if it does not within the time."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        assert began < deadline, "waited in vain"
        time.sleep(rest(began))
