import base64
import copy
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest

from devcluster.api.server import write_kubeconfig
from tests.argopods import pod_of
from tests.cluster import Cluster, wait_for
from tests.processes import MEASURED
from tests.waiting import PATIENCE
from tests.webhook.keeperstatus import lease
from tests.webhook.serving import api_client, certify, files_of, mount
from tests.webhook.test_hooks import ask
from webhook import settings
from webhook.__main__ import _prepared
from webhook.big_reviews import BYTES
from webhook.hooks import PODS_PATH
from webhook.keeper_watch import LEASE

pytestmark = pytest.mark.slow

LEASE_VERSION = "coordination.k8s.io/v1"
ROOT = Path(__file__).parents[2]
PATIENT = "from webhook import __main__, keeper_watch; keeper_watch.SETTLE = 600.0; __main__.main()"
"""The program, which waits for its first sight of the keeper for as long as a busy machine may take."""
NOWHERE = {"PATH": os.defpath, "HOME": "/nonexistent", **MEASURED}


def run(*argv: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-B", "-m", "webhook", *argv]
    return subprocess.run(
        command, cwd=ROOT, env={**NOWHERE, **environ}, capture_output=True, text=True, timeout=60, check=False
    )


class Process:
    """A running server, and what it has logged so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self._log = process, log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def metrics(self) -> str:
        """In Prometheus' text format, no older than a second."""
        pattern = re.compile(r"serving metrics\W+host\W+127\.0\.0\.1\W+port\W+(\d+)")
        wait_for(lambda: pattern.search(self.log))
        (port,) = pattern.findall(self.log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as response:
            return str(response.read().decode())

    def get(self, path: str, body: object = None) -> tuple[int, str]:
        """The status and the text of the answer; to a POST where there is a body."""
        found = re.search(r"listening\W+host\W+127\.0\.0\.1\W+port\W+(\d+)", self.log)
        if not found:
            return 0, "not listening"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        data = None if body is None else json.dumps(body).encode()
        url = urllib.request.Request(f"https://127.0.0.1:{found[1]}{path}", data)
        url.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(url, context=context, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except URLError as error:
            return 0, str(error)


@contextmanager
def running(
    directory: Path, environ: Mapping[str, str], *argv: str, program: Sequence[str] = ("-m", "webhook")
) -> Iterator[Process]:
    log = directory / "log"
    ports = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
    command = [sys.executable, "-B", *program, *ports, "--image=stepmemo:test", *argv]
    environment = {**NOWHERE, **environ}
    with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=out) as process:
        try:
            yield Process(process, log)
        finally:
            process.kill()


def test_settings_that_are_wrong_are_all_said_and_nothing_starts() -> None:
    done = run("--listen=x", STEPMEMO_VALIDATE="maybe")
    assert done.returncode == 2
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [
        ["error:", "--listen"],
        ["error:", "--validate"],
        ["error:", "--image"],
    ]


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    done = run("--image=x", f"--cert-dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot serve: ")
    assert "Traceback" not in done.stderr


def test_an_image_volume_that_may_not_be_tried_is_a_setting_that_is_wrong(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(
        kubeconfig, cluster.url, cluster.ca_file, cluster.service_account(namespace, "powerless", [])
    )
    done = run(
        "--image=x", "--injection=image-volume", KUBECONFIG=str(kubeconfig), STEPMEMO_NAMESPACE=namespace
    )
    assert done.returncode == 2
    _begins, line = done.stderr.splitlines()
    assert line.startswith('error: --injection (STEPMEMO_INJECTION): "image-volume" may not be tried: 403 ')


@pytest.mark.parametrize(
    ("argv", "waiting"),
    [
        (["--injection=image-volume"], "cannot try image volumes yet"),
        (["--image=", "--pod-name=stepmemo-1"], "cannot read the own Pod yet"),
    ],
)
def test_a_signal_ends_the_wait_for_an_api_server(tmp_path: Path, argv: list[str], waiting: str) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        write_kubeconfig(kubeconfig, f"http://127.0.0.1:{nobody.getsockname()[1]}", Path(os.devnull), "token")
        with running(tmp_path, {"KUBECONFIG": str(kubeconfig)}, *argv) as server:
            wait_for(lambda: waiting in server.log)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0
    assert "listening" not in server.log


def test_an_own_pod_that_is_not_there_is_a_setting_that_is_wrong(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    done = run("--pod-name=me", KUBECONFIG=str(cluster.kubeconfig), STEPMEMO_NAMESPACE=namespace)
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert line.startswith(f"error: cannot read the image that Pod {namespace}/me runs: 404 ")


async def test_the_image_that_is_injected_is_that_of_the_own_pod_unless_one_is_named(
    cluster: Cluster,
) -> None:
    namespace = cluster.namespace()
    spec = {"containers": [{"name": "webhook", "image": "mirror.test/memo:7"}]}
    status, body = cluster.create(
        {"kind": "Pod", "metadata": {"name": "me", "namespace": namespace}, "spec": spec}
    )
    assert status == 201, body
    given = settings.parse([], {"STEPMEMO_NAMESPACE": namespace, "STEPMEMO_POD_NAME": "me"})
    named = settings.parse(["--image=other:1"], {"STEPMEMO_POD_NAME": "nobody-asks"})
    async with api_client(cluster) as api:
        assert (await _prepared(api, given)).inject.image == "mirror.test/memo:7"
        assert await _prepared(api, named) == named


def test_an_image_volume_that_is_taken_is_served(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path / "certs")
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": cluster.namespace()}
    argv = ("--injection=image-volume", "--certs=files", f"--cert-dir={tmp_path / 'certs'}")
    with running(tmp_path, environ, *argv) as server:
        wait_for(lambda: server.get("/readyz") == (200, "ok\nkeeper: gone\n"))
    assert "the API server takes image volumes" in server.log


def test_an_address_that_is_not_ours_is_said(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path)
    argv = ("--image=x", "--certs=files", f"--cert-dir={tmp_path}", "--listen=192.0.2.1:8443")
    done = run(*argv, KUBECONFIG=str(cluster.kubeconfig))
    assert done.returncode == 1
    assert "error: cannot serve: " in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_certificates_from_files_until_the_signal(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path / "certs")
    environ = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "STEPMEMO_SHUTDOWN_DELAY": "60s",
        "STEPMEMO_LOG_FORMAT": "json",
    }
    with running(tmp_path, environ, "--certs=files", f"--cert-dir={tmp_path / 'certs'}") as server:
        wait_for(lambda: server.get("/readyz") == (200, "ok\nkeeper: gone\n"))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.get("/readyz") == (503, "shutting down\nkeeper: gone\n"))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
    messages = [json.loads(line)["message"] for line in server.log.splitlines()]
    assert "shutting down" in messages


def test_it_says_how_the_keeper_is_and_serves_without_one(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path / "certs")
    namespace, numbers = cluster.namespace(), cycle(range(60))
    metadata = {"name": LEASE, "namespace": namespace}

    def renew() -> None:
        shown = lease(next(numbers))
        body = {"metadata": {"annotations": shown["metadata"]["annotations"]}, "spec": shown["spec"]}
        assert cluster.patch("Lease", namespace, LEASE, body)[0] == 200

    created = cluster.create({"apiVersion": LEASE_VERSION, "kind": "Lease", "metadata": metadata, "spec": {}})
    assert created[0] == 201
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    with running(
        tmp_path, environ, "--certs=files", f"--cert-dir={tmp_path / 'certs'}", "--log-format=json"
    ) as server:
        wait_for(lambda: server.get("/readyz") == (200, "ok\nkeeper: gone\n"))

        def becomes_ready() -> bool:
            renew()
            return server.get("/readyz") == (200, "ok\nkeeper: ready\n")

        wait_for(becomes_ready)

        def is_shown_ready() -> bool:
            renew()
            shown = server.metrics.splitlines()
            return (
                'stepmemo_keeper_state{state="ready"} 1.0' in shown
                and 'stepmemo_keeper_state{state="gone"} 0.0' in shown
            )

        wait_for(is_shown_ready)
        assert server.get("/metrics")[0] == 404, "they have a port of their own"
        wait_for(lambda: server.get("/readyz") == (200, "ok\nkeeper: gone\n"))
        said = [json.loads(line) for line in server.log.splitlines()]
        assert "ready" in [line["state"] for line in said if "state" in line]


def test_a_replica_is_ready_only_when_it_knows_how_the_keeper_is(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path / "certs")
    namespace, numbers = cluster.namespace(), cycle(range(60))
    shown = lease(0)
    shown["metadata"] |= {"name": LEASE, "namespace": namespace}
    assert cluster.create({"apiVersion": LEASE_VERSION, "kind": "Lease", **shown})[0] == 201
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}")
    with running(tmp_path, environ, *argv, program=("-c", PATIENT)) as server:
        unknown = "the keeper's Lease was not seen renewed yet\nkeeper: gone\n"
        wait_for(lambda: server.get("/readyz") == (503, unknown))

        def becomes_ready() -> bool:
            assert cluster.patch("Lease", namespace, LEASE, {"spec": lease(next(numbers))["spec"]})[0] == 200
            return server.get("/readyz") == (200, "ok\nkeeper: ready\n")

        wait_for(becomes_ready)


def test_versions_count_in_keys_where_the_setting_says_so(cluster: Cluster, tmp_path: Path) -> None:
    certify(tmp_path / "certs")
    namespace = cluster.namespace()
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}
    pod = pod_of({"container": {"image": "x:1", "command": ["x"], "env": [secret]}})
    (owner,) = pod["metadata"]["ownerReferences"]
    metadata = {"name": owner["name"], "namespace": namespace}
    workflow = {"apiVersion": owner["apiVersion"], "kind": "Workflow", "metadata": metadata, "spec": {}}
    owner["uid"] = cluster.create(workflow)[1]["metadata"]["uid"]
    pod = {"apiVersion": "v1", "kind": "Pod", **pod}
    big = copy.deepcopy(pod)
    big["metadata"]["annotations"]["note"] = "x" * BYTES  # decided in the child
    argv = ("--certs=files", f"--cert-dir={tmp_path / 'certs'}", "--auto-key-references=resource-version")
    with running(tmp_path, {"KUBECONFIG": str(cluster.kubeconfig)}, *argv) as server:
        wait_for(lambda: server.get("/readyz")[0] == 200)
        for one in (pod, big):
            # A busy machine may not start the child within the seconds of one review.
            wait_for(lambda one=one: server.get(PODS_PATH, ask(one, namespace))[0] == 200)
            _, text = server.get(PODS_PATH, ask(one, namespace))
            patch = base64.b64decode(json.loads(text)["response"]["patch"]).decode()
            assert "ref/secret/creds" in patch.replace("~1", "/")


def test_steps_that_reach_their_config_maps_themselves_need_no_keeper(
    cluster: Cluster, tmp_path: Path
) -> None:
    certify(tmp_path / "certs")
    token = cluster.service_account(cluster.namespace(), "powerless", [])
    write_kubeconfig(tmp_path / "kubeconfig", cluster.url, cluster.ca_file, token)
    environ = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    argv = ("--access=direct", "--certs=files", f"--cert-dir={tmp_path / 'certs'}")
    with running(tmp_path, environ, *argv) as server:
        wait_for(lambda: server.get("/readyz") == (200, "ok\n"))
        assert "keeper_state" not in server.metrics
    assert "Lease" not in server.log


def test_files_that_come_later_are_served_and_a_flaw_of_newer_ones_is_said_and_counted(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace, certs = cluster.namespace(), tmp_path / "certs"
    kubeconfig = tmp_path / "kubeconfig"
    powerless = cluster.service_account(namespace, "powerless", [])
    write_kubeconfig(kubeconfig, cluster.url, cluster.ca_file, powerless)
    environ = {"KUBECONFIG": str(kubeconfig), "STEPMEMO_NAMESPACE": namespace}
    with running(tmp_path, environ, "--certs=files", f"--cert-dir={certs}") as server:
        waits = f"no certificate in {certs} yet: there is no tls.crt\nkeeper: gone\n"
        wait_for(lambda: server.get("/readyz") == (503, waits))
        assert server.get("/healthz") == (200, "ok\n"), "the kubelet has no reason to start it anew"
        issued = files_of(certify(tmp_path / "aside"))
        mount(certs, {"tls.crt": issued["tls.crt"], "tls.key": issued["tls.key"]})
        untrusted = f"no ca.crt in {certs} yet: there is no ca.crt, and steps could not trust the keeper\n"
        wait_for(lambda: server.get("/readyz") == (503, f"{untrusted}keeper: gone\n"))
        mount(certs, issued)
        wait_for(lambda: server.get("/readyz") == (200, "ok\nkeeper: gone\n"))
        assert "\nstepmemo_certificate_flaws_total 0.0" in server.metrics
        mount(certs, {**issued, "tls.key": files_of(certify(tmp_path / "other"))["tls.key"]})
        wait_for(lambda: f"cannot serve {certs / 'tls.crt'}" in server.get("/readyz")[1])
        assert server.get("/readyz")[0] == 200
        wait_for(lambda: "\nstepmemo_certificate_flaws_total 1.0" in server.metrics)


def test_it_makes_its_own_certificate_and_waits_for_its_configuration(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace()
    with running(
        tmp_path,
        {"KUBECONFIG": str(cluster.kubeconfig), "STEPMEMO_NAMESPACE": namespace},
        f"--cert-dir={tmp_path / 'certs'}",
        "--webhook-configuration=nobody-made-it",
        "--shutdown-delay=0s",
    ) as server:
        missing = "there is no MutatingWebhookConfiguration nobody-made-it\nkeeper: gone\n"
        wait_for(lambda: server.get("/readyz") == (503, missing))
        assert server.get("/healthz") == (200, "ok\n")
        assert cluster.get("Secret", namespace, "stepmemo-certs")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log
