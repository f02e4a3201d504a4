"""What is not stored: steps that did not succeed as a whole, and steps whose account lacks a right."""

import subprocess
import time

import pytest

from tests.e2e import server
from tests.e2e.cluster import Namespace, Rules, direct_role, grant
from tests.e2e.kube import patch, wait_for
from tests.e2e.steps import HALF, RANDOM, container, in_a_row, shell

NOWHERE = {
    "endpoint": "127.0.0.1:1",
    "insecure": True,
    "bucket": "no-such-bucket",
    "key": "x",
    "accessKeySecret": {"name": "my-minio-cred", "key": "accesskey"},
    "secretKeySecret": {"name": "my-minio-cred", "key": "secretkey"},
}
"""A location in whole, so that Argo does not fill it in from its artifact repository."""


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(container(f"{RANDOM} > /tmp/out; exit 3"), id="main fails"),
        pytest.param(
            container(
                "echo x > /tmp/a",
                outputs={"artifacts": [{"name": "a", "path": "/tmp/a", "s3": NOWHERE}]},
            ),
            id="artifact upload fails",
        ),
        pytest.param(
            container(archiveLocation={"archiveLogs": True, "s3": NOWHERE}),
            id="log upload fails",
        ),
        pytest.param(
            container(
                "dd if=/dev/zero of=/tmp/a bs=1M count=50; (while :; do echo x >> /tmp/a; done) & sleep 1",
                outputs={"artifacts": [{"name": "a", "path": "/tmp/a"}]},
            ),
            id="artifact changes while it is packed",
        ),
        pytest.param(
            container(f"{RANDOM} > /tmp/out; sleep 2", sidecars=[{"name": "db"} | shell("exit 3")]),
            id="sidecar fails",
        ),
        pytest.param(container(HALF, activeDeadlineSeconds=8), id="template deadline"),
        pytest.param(container(HALF, timeout="8s"), id="template timeout"),
    ],
)
def test_a_step_that_did_not_succeed_as_a_whole_leaves_no_entry(ns: Namespace, template: dict) -> None:
    run = ns.run(template).settled()
    assert run.phase in ("Failed", "Error"), run.said()
    assert ns.entries() == {}, run.said()


@pytest.mark.parametrize("how", ["Stop", "Terminate"])
def test_a_step_that_is_stopped_and_ends_with_0_leaves_no_entry(ns: Namespace, how: str) -> None:
    name = ns.submit(container(HALF))
    wait_for("start of main", lambda: ns.workflow(name).executions() or None)
    patch(ns.name, "workflow", name, {"spec": {"shutdown": how}})
    run = ns.finished(name).settled()
    assert ns.entries() == {}, run.said()


def test_a_killed_main_ends_the_pod_and_leaves_no_entry(ns: Namespace) -> None:
    """A main container that is killed ends the Pod and leaves no entry."""
    mark = f"sleep-{time.time_ns()}"
    name = ns.submit(container(f": {mark}; while :; do sleep 1; done"))
    wait_for("start of main", lambda: ns.workflow(name).executions() or None)
    found = subprocess.run(["pgrep", "-f", f"emissary.*{mark}"], capture_output=True, text=True)
    if not found.stdout:
        pytest.skip("the node's processes are not visible from here")
    subprocess.run(["kill", "-9", *found.stdout.split()], check=True)
    run = ns.finished(name, 40).settled()
    assert run.phase in ("Failed", "Error")
    assert ns.entries() == {}, run.said()


def lacking(verb: str, resource: str) -> Rules:
    """The direct component's rules without one verb on one resource."""
    rules = [
        rule | {"verbs": [v for v in rule["verbs"] if v != verb]} if resource in rule["resources"] else rule
        for rule in direct_role()
    ]
    return [rule for rule in rules if rule["verbs"]]


RIGHTS = [(verb, name) for rule in direct_role() for name in rule["resources"] for verb in rule["verbs"]]


@pytest.mark.parametrize(
    ("verb", "resource"),
    [pytest.param(verb, resource, id=f"{verb} {resource}") for verb, resource in RIGHTS]
    + [pytest.param("*", "*", id="all")],
)
def test_a_missing_permission_never_fails_a_step(ns: Namespace, verb: str, resource: str) -> None:
    server.needs(server.DIRECT)
    grant(ns.name, "stepmemo", [] if verb == "*" else lacking(verb, resource))
    run = ns.run(in_a_row({"template": "step"}, {"template": "step"}), container(), entrypoint="main")
    assert run.phase == "Succeeded", run.said()
    assert all(answer["out"] for answer in run.answers()), run.said()


def test_a_configmap_without_the_cache_label_is_refused(ns: Namespace) -> None:
    """A ConfigMap without the cache's label is refused."""
    ns.put("other", "{}", label=None)
    run = ns.run(container())
    assert run.phase == "Succeeded"
    assert list(ns.entries()) == ["other"], run.said()
    assert run.reasons() == {"NotACache"}
