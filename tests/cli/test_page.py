"""docs/cli.md: its examples are what the commands print, on a terminal of 80 columns."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from argo import names as argo
from argo.steppod import Owner
from certs import pki
from cli import checks, examination, output
from cli.checks import Account
from memoize import names, plan
from memoize.keeper_status import EVERY, KeeperStatus
from server import events
from tests.argopods import pod_of
from tests.cli.caches import argos, entry, make
from tests.cli.conftest import NOW, Stepmemo
from tests.cli.test_why import POD, REPORTER, node, step_pod, workflow
from tests.cluster import Cluster

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
EXAMPLE = re.compile(r"```console\n\$ stepmemo (.*)\n((?:.*\n)*?)```")
COMMANDS = [found[1] for found in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8"))]
DAY = timedelta(days=1)
AUTOMATIC = "greet-7hw2p-say"


def automatic_pod() -> dict[str, Any]:
    """A step's Pod whose key is `auto`."""
    container = {
        "image": "busybox:1.36",
        "command": ["sh", "-c"],
        "args": ['echo "hello $WHO" > /tmp/greeting'],
        "env": [{"name": "WHO", "value": "world"}],
    }
    written = {"name": "greeting", "valueFrom": {"path": "/tmp/greeting"}}
    pod = pod_of({"name": "say", "container": container, "outputs": {"parameters": [written]}})
    metadata = pod["metadata"] | {"name": AUTOMATIC, "namespace": "work"}
    metadata["labels"] = {argo.WORKFLOW_LABEL: "greet-7hw2p"}
    metadata["annotations"] |= {argo.NODE_NAME: "greet-7hw2p[0].say"}
    metadata["ownerReferences"][0]["name"] = "greet-7hw2p"
    return {**pod, "metadata": metadata}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 80 columns, without colours."""

    def console() -> Console:
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "color_system": None}
        return Console(file=sys.stdout, force_terminal=True, width=80, **plain)

    monkeypatch.setattr(output, "console", console)


@pytest.fixture
def shown(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, stepmemo: Stepmemo, tmp_path: Path
) -> Iterator[None]:
    """The Namespaces `work`, the one of the kubeconfig's context, and `argo`."""
    for name in ("work", "argo"):
        assert cluster.create({"kind": "Namespace", "metadata": {"name": name}})[0] == 201
    caches = {
        "greetings": {
            "greet-world": entry().dump(),
            "greet-moon": entry(
                key="greet-moon",
                last_hit=NOW - DAY,
                took=63,
                workflow="greet-a7c1q",
                pod="greet-a7c1q-say-3141592653",
            ).dump(),
            "old": argos(),
        },
        "reports": {
            f"{month}": entry(
                key=month,
                max_age="720h",
                created=NOW - age * DAY,
                last_hit=NOW - age * DAY,
                took=1800,
                outputs={"parameters": [{"name": "table", "value": "x" * 40_000}]},
            ).dump()
            for month, age in {"january": 40, "february": 12, "march": 1, "april": 0}.items()
        },
    }
    for name, data in caches.items():
        make(cluster, "work", name, data)
    theirs = {
        "greet-world": entry(created=NOW - 30 * DAY).dump(),
        "greet-sun": argos(),
        "greet-mars": argos(),
    }
    make(cluster, "argo", "greetings", theirs)
    made = workflow("work", {one["id"]: one for one in (node("2718281828", "say"), node("1", "shout"))})
    uid = cluster.create(made)[1]["metadata"]["uid"]
    pod = step_pod(names.RESULT_MISS, "Expired: older than 1h")
    pod["metadata"]["ownerReferences"][0]["uid"] = uid
    assert cluster.create(pod)[0] == 201
    assert cluster.create(automatic_pod())[0] == 201
    event = events.hit_event(Owner("work", "greet-x2k9f", uid), "greet-x2k9f-1", entry(), REPORTER, NOW)
    assert cluster.create({"apiVersion": "v1", **event})[0] == 201
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    kubeconfig["contexts"][0]["context"]["namespace"] = "work"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield
    for kind, name in (
        ("ConfigMap", "greetings"),
        ("ConfigMap", "reports"),
        ("Workflow", "greet-x2k9f"),
        ("Pod", POD),
        ("Pod", AUTOMATIC),
    ):
        cluster.delete(kind, "work", name)
    for name in ("work", "argo"):
        cluster.delete("Namespace", "", name)


def findings() -> list[checks.CheckResult]:
    """What doctor finds in a cluster with two faults."""
    ca = pki.new_ca(NOW)
    serving = pki.new_server(ca, ["stepmemo-webhook.stepmemo.svc"], NOW - 60 * DAY).certificate
    hooks = [
        {"name": name, "failurePolicy": "Ignore", "clientConfig": {"caBundle": "x"}} for name in checks.HOOKS
    ]
    deployed = {"spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    ready = KeeperStatus(ready=True, keeps=EVERY, plans=plan.READS).to_json()
    admitted = {"spec": {"templates": [{"metadata": {"annotations": {names.KEY: "doctor"}}}]}}
    return [
        checks.kubernetes({"gitVersion": "v1.35.4"}),
        checks.deployment(deployed, "stepmemo-webhook"),
        *checks.configuration({"webhooks": hooks}, "stepmemo"),
        checks.certificate(serving, [ca.certificate], NOW),
        checks.admission(admitted),
        checks.deployment(deployed, "stepmemo-keeper"),
        *checks.keeper(ready, True, "stepmemo-keeper-7f9c-x2k9f", "work"),
        checks.policies(checks.POLICIES, checks.POLICIES),
        checks.argo_version(["quay.io/argoproj/workflow-controller:v4.1.2"]),
        checks.requeue({}, "argo", "workflow-controller"),
        checks.namespace_labels({names.MEMOIZE: "true"}, "work"),
        *checks.account(Account(name="default", lacks=["create", "patch"]), "work"),
        checks.containers("", ""),
    ]


def test_the_examples_are_what_the_commands_print(
    shown: None, terminal: None, stepmemo: Stepmemo, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")

    def printed(found: re.Match[str]) -> str:
        if found[1].startswith("migrate "):  # tests/cli/test_migrate.py
            return found[0]
        if found[1] == "doctor":
            examination.show(findings())
            out, err = capsys.readouterr()
        else:
            _, out, err = stepmemo(*shlex.split(found[1]))
        return f"```console\n$ stepmemo {found[1]}\n{out}{err}```"

    true = EXAMPLE.sub(printed, text)
    if os.environ.get("STEPMEMO_UPDATE_DOCS"):
        PAGE.write_text(true, encoding="utf-8")
    assert text == true, "STEPMEMO_UPDATE_DOCS=1 pytest tests/cli/test_page.py writes docs/cli.md anew"


def test_every_line_of_an_example_fits_the_terminal() -> None:
    for found in EXAMPLE.finditer(PAGE.read_text(encoding="utf-8")):
        # A cure may be a command, which is to be copied.
        lines = [line for line in found[2].splitlines() if not line.startswith("         cure: ")]
        assert max(map(len, lines)) <= 80, found[1]
        assert [line for line in lines if line != line.rstrip()] == []
    assert {command.split()[0] for command in COMMANDS} == {
        "caches", "entries", "show", "rm", "gc", "import", "migrate", "why", "key", "doctor"
    }  # fmt: skip
