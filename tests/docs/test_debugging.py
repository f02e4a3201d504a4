"""docs/debugging.md quotes texts that are there, and has those that a person can meet most.

What our programs write is looked for among their own texts; what Kubernetes writes is listed here, with the
place in its source, and tried on a real API server where that is possible.
"""

import ast
import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from devcluster.api import certificates
from memoize import names
from tests.cluster import Cluster
from tests.contract.webhook import serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
ROOMS = ("argo", "memoize", "kube", "server", "webhook", "keeper", "sidecar", "certs", "cli")
OF_KUBERNETES = "text of Kubernetes"
"""The head of the first column where the texts are not ours."""
KUBERNETES = {
    "SchedulingGated": "pkg/apis/core/types.go; tests/contract/test_gates.py",
    "Scheduling is blocked due to non-empty scheduling gates": "pkg/registry/core/pod/strategy.go; the same",
    "ErrImagePull": "pkg/kubelet/images/types.go",
    "ImagePullBackOff": "pkg/kubelet/images/types.go",
    "exceeded quota": "plugin/pkg/admission/resourcequota/controller.go",
    'failed calling webhook "workflows.stepmemo.dev": failed to call webhook: '
    'Post "https://stepmemo-webhook.stepmemo.svc:443/mutate/workflows?timeout=5s": …': (
        "k8s.io/apiserver, pkg/util/webhook/error.go and pkg/admission/plugin/webhook/mutating/dispatcher.go"
    ),
    "tls: failed to verify certificate: x509: certificate signed by unknown authority": "Go, crypto/tls",
    "x509: certificate has expired or is not yet valid: …": "Go, crypto/x509",
    "x509: certificate is valid for …, not …": "Go, crypto/x509",
    'service "stepmemo-webhook" not found': "k8s.io/apiserver, pkg/util/webhook/serviceresolver.go's callers",
    'no endpoints available for service "stepmemo-webhook"': "k8s.io/apiserver, pkg/util/proxy/proxy.go",
    "connect: connection refused": "Go, syscall",
    "context deadline exceeded": "Go, context",
    "i/o timeout": "Go, net",
    "the server is currently unable to handle the request": "k8s.io/apimachinery, pkg/api/errors/errors.go",
    'an error on the server ("…") has prevented the request from succeeding': "the same",
    'admission webhook "workflows.stepmemo.dev" denied the request: …': (
        "k8s.io/apiserver, plugin/webhook/errors/statuserror.go; tests/contract/test_stepmemo.py"
    ),
    "ValidatingAdmissionPolicy 'stepmemo-…' with binding 'stepmemo-…' denied request: …": (
        "k8s.io/apiserver, pkg/admission/plugin/policy/validating/dispatcher.go"
    ),
}
"""Each text that the page says is of Kubernetes, and where it comes from."""
LOGGED = re.compile(r'_log\.(?:warning|exception|error)\(\s*"((?:[^"\\]|\\.)*)"')
SHORT = 12
"""A text of fewer characters is to be one of ours as a whole."""


def quoted(head: str) -> Iterator[str]:
    """What stands in backticks in the first cells of the tables whose first column has such a head."""
    inside = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if not line.startswith("|"):
            inside = False
        elif re.fullmatch(rf"\| (?:{head})", cells[0]):
            inside = True
        elif inside:
            yield from re.findall(r"`([^`]+)`", cells[0])


@cache
def texts() -> frozenset[str]:
    """The texts in our programs; what is filled in is `…`, as on the page."""
    found: set[str] = set()
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
            docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
            found |= {text for node in nodes if node not in docstrings and (text := literal(node))}
        for file in (ROOT / room).rglob("*.c"):
            for call in re.findall(
                r"say\((.*?)\(char \*\)NULL\)", file.read_text(encoding="utf-8"), re.DOTALL
            ):
                arguments = re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s,"][^,"]*)', call)
                found.add("".join(text or "…" for text, _ in arguments))
    return frozenset(found)


def literal(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str() as text):
            return re.sub("%[sdr]", "…", text)
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
    return ""


def is_ours(message: str) -> bool:
    if len(message) < SHORT:
        return message in texts()
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    return any(pattern.search(text) for text in texts())


def problems() -> Iterator[tuple[str, str]]:
    """What the programs log of something that is not as it should be, and where."""
    for room in ("webhook", "keeper", "server", "certs", "kube"):
        for file in (ROOT / room).rglob("*.py"):
            for text in LOGGED.findall(file.read_text(encoding="utf-8")):
                yield re.sub("%[sdr]", "…", text), str(file.relative_to(ROOT))


OURS = list(dict.fromkeys(quoted("text|label|reason of the Event")))


def test_a_text_that_is_quoted_is_one_of_ours() -> None:
    """One test for all: to read our programs takes a second."""
    assert [message for message in OURS if not is_ours(message)] == []
    assert not is_ours("the flux capacitor is … again")
    assert not is_ours("decidedly")
    assert is_ours("decided")


def test_the_texts_of_kubernetes_are_those_whose_source_is_known() -> None:
    assert set(quoted(OF_KUBERNETES)) == set(KUBERNETES)


def test_every_value_of_the_label_is_explained() -> None:
    values = {value for name, value in vars(names).items() if name.startswith("RESULT_")}
    assert values <= set(quoted("label"))


def test_every_kind_of_event_is_explained() -> None:
    source = (ROOT / "memoize" / "event.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(Memoization\w+)"', source)) == set(quoted("reason of the Event"))


def test_every_problem_that_is_logged_is_explained() -> None:
    """A line whose text comes from elsewhere (`%s`) is explained by that text."""
    explained = set(quoted("text"))
    missing = {(text, file) for text, file in problems() if text != "…" and text not in explained}
    assert missing == set()


def test_every_name_of_a_webhook_is_ours() -> None:
    configuration = (ROOT / "manifests" / "base" / "webhook-configuration.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[a-z]+\.stepmemo\.dev\b", PAGE))
    assert named
    assert all(f"name: {name}" in configuration for name in named)


def test_a_real_api_server_says_of_webhooks_what_the_page_says(
    kube_apiserver: Cluster, tmp_path: Path
) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    for directory in (ours, others):
        directory.mkdir()
    other = b64encode(certificates.create(others).ca.read_bytes()).decode()
    namespace = kube_apiserver.namespace()
    with serving(ours) as webhook, socket.socket() as silent, socket.socket() as closed:
        for sock in (silent, closed):
            sock.bind(("127.0.0.1", 0))
        silent.listen()  # and nobody accepts
        webhook.answers = {"/busy": lambda _: (503, "no"), "/broken": lambda _: (500, "no")}
        there = {"url": f"{webhook.url}/", "caBundle": webhook.ca_bundle}
        cases = {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority": {
                **there,
                "caBundle": other,
            },
            'service "stepmemo-webhook" not found': {
                "service": {"name": "stepmemo-webhook", "namespace": namespace, "path": "/"}
            },
            "connect: connection refused": {"url": f"https://127.0.0.1:{closed.getsockname()[1]}/"},
            "context deadline exceeded": {"url": f"https://127.0.0.1:{silent.getsockname()[1]}/"},
            "the server is currently unable to handle the request": {**there, "url": f"{webhook.url}/busy"},
            'an error on the server ("…") has prevented the request from succeeding': {
                **there,
                "url": f"{webhook.url}/broken",
            },
        }
        definitions = [
            webhook.definition(
                name=f"case-{number}.test.stepmemo.dev",
                clientConfig=config,
                failurePolicy="Fail",
                timeoutSeconds=1,
                objectSelector={"matchLabels": {"case": str(number)}},
            )
            for number, config in enumerate(cases.values())
        ]
        said = {}
        with webhook.installed(kube_apiserver, namespace, *definitions):
            for number, text in enumerate(cases):
                metadata = {"name": "one", "namespace": namespace, "labels": {"case": str(number)}}
                status, body = kube_apiserver.create(
                    {"kind": "ConfigMap", "metadata": metadata}, dry_run=True
                )
                assert status == 500, body
                said[text] = body["message"]
    calling = re.compile('failed calling webhook "[^"]+": failed to call webhook: ')
    for text, message in said.items():
        assert text in KUBERNETES
        assert calling.search(message), message
        assert re.search(".*".join(map(re.escape, text.split("…"))), message), message
