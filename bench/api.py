"""An API server to measure against: a real kube-apiserver where one is built, else the devcluster's.

Both run in processes of their own.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from argo import names as argo
from tests import control_plane
from tests.cluster import DEVCLUSTER, KUBE_APISERVER, Cluster, Object

ROOT = Path(__file__).parents[1]
_DIRECT = ROOT / "manifests/components/direct/rbac.yaml"
_END_SECONDS = 120


@contextmanager
def scratch() -> Iterator[tuple[Cluster, Path]]:
    """An empty cluster, and a directory for what else a benchmark needs, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="stepmemo-bench-") as name:
        directory = Path(name)
        (directory / "api").mkdir()
        with running(directory / "api") as cluster:
            yield cluster, directory


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """An empty cluster until the block ends; its files lie in the directory."""
    built = subprocess.run([sys.executable, control_plane.TOOL, "built"], check=False).returncode == 0
    with (control_plane.running if built else _devcluster)(directory) as cluster:
        yield cluster


def describe(cluster: Cluster) -> str:
    """Which API server this is."""
    version = cluster.request("GET", "/version").body
    if cluster.tier == KUBE_APISERVER and isinstance(version, dict):
        return f"kube-apiserver {version['gitVersion']} with etcd"
    return f"{cluster.tier} (Python)"


def step_rules() -> list[Object]:
    """The rights of a step's service account, as manifests/components/direct ships them."""
    documents = yaml.safe_load_all(_DIRECT.read_text(encoding="utf-8"))
    return [rule for document in documents if document["kind"] == "Role" for rule in document["rules"]]


def workflow(cluster: Cluster, namespace: str, name: str = "wf") -> str:
    """A Workflow that owns what the benchmarks make; its UID."""
    template = {"name": "a", "container": {"image": "x", "command": ["x"]}}
    return create(
        cluster,
        {
            "apiVersion": argo.API_VERSION,
            "kind": "Workflow",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"entrypoint": "a", "templates": [template]},
        },
    )


def create(cluster: Cluster, obj: Object) -> str:
    """Create the object; its UID. RuntimeError where the server refuses."""
    status, body = cluster.create(obj)
    if status != 201:
        raise RuntimeError(f"cannot create a {obj['kind']}: {body}")
    return str(body["metadata"]["uid"])


@contextmanager
def _devcluster(directory: Path) -> Iterator[Cluster]:
    command = [sys.executable, "-m", "bench.devcluster_process", str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            files = Path(ready["ca_file"]), Path(ready["kubeconfig"])
            yield Cluster(DEVCLUSTER, ready["url"], *files, ready["admin_token"])
        finally:
            process.stdin.close()
            process.wait(_END_SECONDS)
