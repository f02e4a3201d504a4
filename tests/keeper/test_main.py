import json
import signal
from pathlib import Path

import pytest

from keeper.api.handlers import ENTRIES_PATH, LOOKUP_PATH
from keeper.api.people import CACHES_PATH
from keeper.controller import LEASE
from keeper.starts import FILE
from memoize import names
from server.tls import AUTHORITY_FILE
from tests.cluster import Cluster, wait_for
from tests.keeper.program import run, running
from tests.keeper.site import Site
from tests.waiting import PATIENCE
from tests.webhook.serving import certify

pytestmark = pytest.mark.slow


def holder(cluster: Cluster, namespace: str) -> str:
    status, lease = cluster.get("Lease", namespace, LEASE)
    return str(lease["spec"].get("holderIdentity") or "") if status == 200 else ""


def test_settings_that_are_wrong_are_all_said_and_nothing_starts() -> None:
    done = run("--listen=x", STEPMEMO_GATE_TIMEOUT="never")
    assert done.returncode == 2
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [
        ["error:", "--listen"],
        ["error:", "--gate-timeout"],
    ]


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    done = run(f"--cert-dir={tmp_path}", f"--state-dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot serve: ")
    assert "Traceback" not in done.stderr


def test_on_a_first_install_it_acts_and_waits_for_the_secret_to_serve(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    argv = (f"--cert-dir={tmp_path / 'served'}", f"--namespaces={namespace}")
    with running(tmp_path, environ, *argv) as server:
        wait_for(lambda: server.get("/readyz")[0] == 503)
        assert "stepmemo-certs" in server.get("/readyz")[1]
        assert server.get("/healthz") == (200, "ok\n")
        wait_for(lambda: holder(cluster, namespace))
        made = certify(tmp_path / "made")
        metadata = {"name": "stepmemo-certs", "namespace": namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": made.to_data()}
        status, body = cluster.create({**secret, "type": "kubernetes.io/tls"})
        assert status == 201, body
        wait_for(lambda: server.get("/readyz") == (200, "ok\n"))
        served, its = (tmp_path / name / AUTHORITY_FILE for name in ("served", "made"))
        assert served.read_bytes() == its.read_bytes()


def test_what_its_namespace_says_of_its_limits_is_read_once_a_pod_is_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site.new(cluster)
    certify(tmp_path / "certs")
    change = {"metadata": {"annotations": {names.WEIGHT: "heavy", names.SINGLE_FLIGHT_WAITERS: "0"}}}
    assert cluster.patch("Namespace", "", site.namespace, change)[0] == 200
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": site.namespace}
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", f"--namespaces={site.namespace}")
    with running(tmp_path, environ, *argv) as server:
        runner = site.pod(0)
        wait_for(lambda: site.label(runner) == names.RESULT_MISS)
        told = f'annotation {names.WEIGHT}: "heavy" must be a number'
        wait_for(lambda: told in (tmp_path / "log").read_text().replace("\\", ""))
        beside = site.pod(1)
        wait_for(lambda: site.label(beside) == names.RESULT_MISS)
        assert server.process.poll() is None
    assert site.reason(beside) == "Miss"


def test_one_that_stands_by_is_ready_too_and_takes_over_from_one_that_is_told_to_stop(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    certify(tmp_path / "certs")
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", f"--namespaces={namespace}")
    repositories = tmp_path / "repositories"
    repositories.write_text("repositories: []")
    argv += ("--gc-unused-for=720h", "--cache-max-bytes=512Ki", f"--verify-artifacts={repositories}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with running(tmp_path / "a", environ, *argv) as first:
        wait_for(lambda: first.get("/readyz") == (200, "ok\n"))
        wait_for(lambda: "\nstepmemo_keeper_acts 1.0" in first.metrics)
        wait_for(lambda: "\nstepmemo_keeper_ready 1.0" in first.metrics)
        # Served, though not by a GET.
        assert {first.get(path)[0] for path in (LOOKUP_PATH, ENTRIES_PATH)} == {405}
        assert first.get(CACHES_PATH)[0] == 404, "who may see ConfigMaps is said by RBAC"
        with running(tmp_path / "b", environ, *argv) as second:
            wait_for(lambda: second.get("/readyz") == (200, "ok\n"))
            assert "\nstepmemo_keeper_acts 0.0" in second.metrics
            repositories.write_text("repositories: [{}]")
            notice = f"artifacts are not looked for as {repositories} says: "
            wait_for(lambda: notice in second.get("/readyz")[1])
            before = holder(cluster, namespace)
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(PATIENCE) == 0
            wait_for(lambda: "\nstepmemo_keeper_acts 1.0" in second.metrics)
            assert holder(cluster, namespace) not in ("", before)
            second.process.send_signal(signal.SIGTERM)
            assert second.process.wait(PATIENCE) == 0
    assert holder(cluster, namespace) == ""
    for name in "ab":
        assert json.loads((tmp_path / name / "state" / FILE).read_text()) == {"runs": False, "unclean": []}
        assert "Traceback" not in (tmp_path / name / "log").read_text()
