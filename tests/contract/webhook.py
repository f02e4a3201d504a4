"""A mutating webhook for tests: answers as it is told, over TLS, and remembers what it was asked."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from devcluster.api import certificates
from tests.cluster import Cluster, Object, wait_for

Answerer = Callable[[Object], Any]
"""From a review's request to the response (without uid), or to a raw answer: status and text."""


def allow(request: Object) -> Object:
    return {"allowed": True}


def patching(*operations: Object) -> Answerer:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


@dataclass
class Webhook:
    """`answers` may be set by path; `requests` are the reviews' requests in order, with their `path`."""

    url: str
    ca_bundle: str
    answers: dict[str, Answerer] = field(default_factory=dict)
    requests: list[Object] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [request["path"] for request in self.requests]

    def definition(self, path: str = "/", **options: Any) -> Object:
        """One entry of `webhooks`; `options` replace its fields."""
        rule = {"operations": ["*"], "apiGroups": ["", "argoproj.io"], "apiVersions": ["*"]}
        return {
            "name": f"{path.strip('/') or 'hook'}.test.stepmemo.dev",
            "clientConfig": {"url": self.url + path, "caBundle": self.ca_bundle},
            "rules": [{**rule, "resources": ["configmaps", "workflows", "pods"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **options,
        }

    @contextmanager
    def installed(self, cluster: Cluster, namespace: str, *definitions: Object) -> Iterator[None]:
        """Put webhooks (one plain one if none is given) before a namespace, and before no other."""
        live = self.definition("/live", objectSelector={"matchLabels": {"live": "probe"}})
        here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        webhooks = [{**here, **entry} for entry in (live, *(definitions or (self.definition(),)))]
        configuration = {
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": webhooks,
        }
        status, body = cluster.create(configuration)
        assert status == 201, body
        metadata = {"name": "probe", "namespace": namespace, "labels": {"live": "probe"}}
        probe = {"kind": "ConfigMap", "metadata": metadata}

        def is_live() -> bool:
            cluster.create(probe, dry_run=True)
            return "/live" in self.paths()

        answers, self.answers = self.answers, {}
        try:
            wait_for(is_live)
            self.requests.clear()
            self.answers = answers
            yield
        finally:
            cluster.delete("MutatingWebhookConfiguration", "", namespace)


@contextmanager
def serving(directory: Path, names: Sequence[str] = ()) -> Iterator[Webhook]:
    """A webhook on a free local port until the block ends, with a certificate for other names too."""
    pair = certificates.create(directory, names)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    ca_bundle = base64.b64encode(pair.ca.read_bytes()).decode()
    webhook = Webhook(f"https://127.0.0.1:{server.server_port}", ca_bundle)
    server.webhook = webhook  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield webhook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        webhook: Webhook = self.server.webhook  # type: ignore[attr-defined]
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        path = self.path.partition("?")[0]
        webhook.requests.append({**request, "path": path, "query": self.path.partition("?")[2]})
        answer = webhook.answers.get(path, allow)(request)
        if isinstance(answer, tuple):
            status, text = answer
        else:
            response = {"uid": request["uid"], **answer}
            status, text = 200, json.dumps({**review, "request": None, "response": response})
        body = text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the API server had no more patience: a test of that

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
