"""kubectl, for the cluster that KUBECONFIG names."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from argo import names as argo_names

PATIENCE = float(os.environ.get("STEPMEMO_E2E_PATIENCE", "120"))
"""Seconds that a workflow may take."""

T = TypeVar("T")


SWITCH = "STEPMEMO_E2E"
"""The variable that asks for the suite. A KUBECONFIG alone does not: many people always have one."""


def is_asked_for() -> bool:
    return os.environ.get(SWITCH) == "1"


def why_not() -> str | None:
    """Why the suite cannot run here though it is asked for, or None. Reads, and writes nothing."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set"
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    for what in ("crd/workflows.argoproj.io", "mutatingwebhookconfiguration/stepmemo"):
        if kubectl("get", what, "--request-timeout=5s", check=False).returncode:
            return f"{what} is not on the cluster"
    return None


def where() -> str:
    """The cluster that KUBECONFIG names, as people tell clusters apart: its context and its server."""
    view = json.loads(kubectl("config", "view", "--minify", "-o", "json").stdout)
    server = view["clusters"][0]["cluster"]["server"]
    return f"context {view['current-context']}, server {server}"


def kubectl(*args: str, stdin: object = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """kubectl with `stdin` as JSON; raises with its own words where it fails."""
    return _run(args, None if stdin is None else json.dumps(stdin), check)


def _run(args: Sequence[str], body: str | None, check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["kubectl", *args], input=body, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done


def get(namespace: str, *what: str) -> dict[str, Any]:
    """One object, or the list of those that a selector finds."""
    found: dict[str, Any] = json.loads(kubectl("-n", namespace, "get", *what, "-o", "json").stdout)
    return found


def create(namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The object as the API server made it."""
    done = kubectl("-n", namespace, "create", "-f", "-", "-o", "json", stdin=manifest)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def create_all(namespace: str, manifests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects as the API server made them, in the same order; one call of kubectl."""
    documents = "\n".join(json.dumps(one) for one in manifests)
    text = _run(["-n", namespace, "create", "-f", "-", "-o", "json"], documents, True).stdout
    made: list[dict[str, Any]] = []
    while text := text.lstrip():  # one document after the other
        one, end = json.JSONDecoder().raw_decode(text)
        made.append(one)
        text = text[end:]
    return made


def apply(namespace: str, *manifests: dict[str, Any]) -> None:
    """Safe when several processes apply the same at once."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    kubectl("-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=listed)


def patch(namespace: str, kind: str, name: str, merge: dict[str, Any]) -> None:
    kubectl("-n", namespace, "patch", kind, name, "--type=merge", "-p", json.dumps(merge))


def argo(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """An object of Argo's API."""
    return {"apiVersion": argo_names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first value of `probe` that is not None, asked for until `seconds` are over."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        found = probe()
        if found is not None:
            return found
        # Between two looks at a remote condition: each starts a kubectl, which costs a third of a second of
        # the machine that the cluster may run on.
        time.sleep(min(max(0.2, waited / 5), 2))
    raise AssertionError(f"no {what} within {seconds:.0f} s")
