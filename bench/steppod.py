"""Step Pods without a cluster: the real entrypoint and sidecar, installed as in the image, as processes.

What is missing is the container around them; its cost is the same for every container (see `bench cluster`).
"""

import compileall
import itertools
import json
import py_compile
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from argo import names as argo
from bench import api
from bench.inotify import Watch
from bench.steps import CACHE, step
from memoize import names
from memoize.reasons import Reason
from memoize.step import Step
from sidecar.entrypoint.build import path_for_host
from tests.cluster import Cluster

PYTHON = str(Path(sys.executable).resolve())
"""The interpreter itself: a virtual environment's would read its configuration first."""
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Decided:
    """One check: milliseconds from the start of the entrypoint to the decision, and to its end."""

    reason: Reason
    to_decision: float
    to_end: float


@dataclass
class Installation:
    """Our packages and the entrypoint as the image has them, compiled, in a directory of their own."""

    directory: Path

    def __post_init__(self) -> None:
        for package in ("argo", "memoize", "sidecar"):
            source = api.ROOT / package
            ignored = shutil.ignore_patterns("__pycache__", "entrypoint")
            shutil.copytree(source, self.directory / package, ignore=ignored)
        # As the Containerfile does: the file system is read-only there, and times are not looked at.
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(self.directory, quiet=1, invalidation_mode=unchecked)
        self.entrypoint = shutil.copy(path_for_host(), self.directory / "entrypoint")

    @property
    def sidecar(self) -> list[str]:
        """What the entrypoint runs."""
        return [PYTHON, *names.SIDECAR_COMMAND[1:]]


@dataclass
class Workload:
    """Step Pods of one namespace, whose service account has the rights that the manifests give."""

    cluster: Cluster
    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.installation = Installation(self.directory / "image")
        self.namespace = self.cluster.namespace()
        self.workflow_uid = api.workflow(self.cluster, self.namespace)
        self.credentials = self.directory / "serviceaccount"
        self.credentials.mkdir()
        shutil.copy(self.cluster.ca_file, self.credentials / "ca.crt")
        token = self.cluster.service_account(self.namespace, "step", api.step_rules())
        (self.credentials / "token").write_text(token)

    def check(self, key: str, cache: str = CACHE) -> Decided:
        """The entrypoint's and the sidecar's check of a fresh Pod, up to the decision and to the end."""
        number = next(self._numbers)
        shared = self.directory / f"pod-{number}"
        shared.mkdir()
        command = [self.installation.entrypoint, "check", "-t", "60000", "-m", "56", "--"]
        environment = self._environment(shared, self._step(key, cache, f"wf-{number}"))
        with Watch(shared) as watch:
            began = time.perf_counter()
            process = subprocess.Popen(
                [*command, *self.installation.sidecar],
                cwd=self.installation.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            decided = watch.wait_for(names.DECISION_FILE, _PATIENCE)
            process.wait(_PATIENCE)
            ended = time.perf_counter()
        assert process.stderr is not None
        with process.stderr as stream:
            said = stream.read()
        shutil.rmtree(shared)
        reason = Reason(said.removeprefix("stepmemo: reason=").split()[0])
        return Decided(reason, 1000 * (decided - began), 1000 * (ended - began))

    def have_cache(self, name: str, data: dict[str, str]) -> str:
        """Make a cache with these entries; its path."""
        labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        api.create(
            self.cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )
        return self.cluster.path("ConfigMap", self.namespace, name)

    def _step(self, key: str, cache: str, node_id: str) -> Step:
        return step(key, cache, node_id, self.workflow_uid)

    def _environment(self, shared: Path, step: Step) -> dict[str, str]:
        where = urlsplit(self.cluster.url)
        return {
            "KUBERNETES_SERVICE_HOST": str(where.hostname),
            "KUBERNETES_SERVICE_PORT": str(where.port),
            names.ENV_STEP: step.to_json(),
            names.ENV_NAMESPACE: self.namespace,
            names.ENV_POD_NAME: step.node_id,
            names.ENV_POD_UID: f"uid-{step.node_id}",
            names.ENV_SHARED_DIR: str(shared),
            names.ENV_BIN_DIR: str(shared),
            names.ENV_SERVICEACCOUNT_DIR: str(self.credentials),
        }


def tls_get(workload: Workload, path: str) -> "TlsGet":
    """The smallest Python program that gets the object at `path` as a step Pod would; see TlsGet."""
    where = urlsplit(workload.cluster.url)
    arguments = [str(where.hostname), str(where.port), str(workload.credentials), path]
    return TlsGet([PYTHON, "-S", "-E", "-B", "-c", _GET, *arguments])


@dataclass(frozen=True, slots=True)
class TlsGet:
    """One TLS GET with JSON decoded, in a process of its own, nothing but the standard library."""

    command: list[str]

    def __call__(self) -> tuple[float, float]:
        """Milliseconds of the GET alone (the process told them), and of the whole process."""
        began = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True, check=True, env={})
        return json.loads(done.stdout), 1000 * (time.perf_counter() - began)


_GET = """
import http.client, json, ssl, sys, time
began = time.perf_counter()
host, port, credentials, path = sys.argv[1:]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.load_verify_locations(credentials + "/ca.crt")
with open(credentials + "/token") as file:
    token = file.read()
connection = http.client.HTTPSConnection(host, int(port), context=tls)
connection.request("GET", path, headers={"Authorization": "Bearer " + token, "Accept": "application/json"})
response = connection.getresponse()
found = json.loads(response.read())
print(1000 * (time.perf_counter() - began), flush=True)
if response.status != 200:
    sys.exit(f"{response.status} {found}")
import os
os._exit(0)
"""
"""Ends as the sidecar does: without taking the interpreter apart."""


def bare_python() -> float:
    """Milliseconds of `python3 -S -c pass`, start to end."""
    began = time.perf_counter()
    subprocess.run([PYTHON, "-S", "-c", "pass"], check=True, env={})
    return 1000 * (time.perf_counter() - began)
