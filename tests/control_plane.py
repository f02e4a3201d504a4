"""The real tier: starts tools/control-plane for a session, or says why it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster.api.kinds import KINDS, Kind
from tests.cluster import KUBE_APISERVER, Cluster, Object, wait_for
from tests.manifests.rendering import BASE, render
from tests.waiting import PATIENCE

EVERYTHING = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
"""The rules of an account that RBAC allows all: what is refused to it, a policy refuses."""
_PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}

_OUR_CONFIGURATION = "object.metadata.name == 'stepmemo'"
_A_TESTS = "object.metadata.name.startsWith('test-')"
"""As Cluster.namespace names them."""
TOOL = Path(__file__).parent.parent / "tools" / "control-plane"


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """An empty control plane until the block ends.

    Skips the test where nothing has been built, and fails it instead where STEPMEMO_REQUIRE_APISERVER is 1.
    """
    _see_that_it_is_built()
    command = [sys.executable, str(TOOL), "run", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"the control plane did not start: see {directory}"
            cluster = _cluster(json.loads(line))
            _define_argo_kinds(cluster)
            _install_policies(cluster)
            yield cluster
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


def _see_that_it_is_built() -> None:
    if subprocess.run([sys.executable, TOOL, "built"], check=False).returncode != 0:
        missing = "no kube-apiserver and etcd: tools/control-plane build"
        if os.environ.get("STEPMEMO_REQUIRE_APISERVER") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


def _cluster(ready: Object) -> Cluster:
    files = Path(ready["ca_file"]), Path(ready["kubeconfig"])
    return Cluster(KUBE_APISERVER, ready["url"], *files, ready["admin_token"])


def _define_argo_kinds(cluster: Cluster) -> None:
    """Our own definitions of Argo's kinds: their names, and any content, as Argo's minimal ones have it."""
    for kind in (kind for kind in KINDS if kind.custom):
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        status, body, _ = cluster.request("POST", path, _definition(kind))
        assert status == 201, body
    for kind in (kind for kind in KINDS if kind.custom):
        wait_for(lambda kind=kind: cluster.list(kind.name)[0] == 200)


def _install_policies(cluster: Cluster) -> None:
    """The policies of the manifests: whatever a test does as one of our accounts, it does under them.

    A test that installs stepmemo names the configuration like its Namespace, since that is in none; so such a
    name is taken for ours. They are in force some moments after they were made: the API server learns of them
    by a watch.
    """
    for policy in render(BASE):
        if plural := _PLURALS.get(policy["kind"]):
            path = f"/apis/admissionregistration.k8s.io/v1/{plural}"
            told = json.dumps(policy).replace(_OUR_CONFIGURATION, f"({_OUR_CONFIGURATION} || {_A_TESTS})")
            status, body, _ = cluster.request("POST", path, told.encode())
            assert status == 201, body
    namespace = "policies"
    status, body = cluster.create({"kind": "Namespace", "metadata": {"name": namespace}})
    assert status == 201, body
    token = cluster.service_account(namespace, "stepmemo-keeper", EVERYTHING)
    lease = {"kind": "Lease", "metadata": {"name": "other", "namespace": namespace}, "spec": {}}
    wait_for(lambda: cluster.create(lease, token=token, dry_run=True)[0] == 403)


def _definition(kind: Kind) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": kind.plural, "singular": kind.name.lower(), "kind": kind.name}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }
