"""Pods that are not like the others."""

import json

import pytest

from argo import names as argo
from tests.e2e.cluster import INSTANCE, Namespace, grant, step_rules
from tests.e2e.kube import apply, wait_for
from tests.e2e.probe import Setting
from tests.e2e.run import twice
from tests.e2e.steps import RANDOM, container, shell


def test_a_namespace_that_enforces_restricted_pods(restricted: Namespace, setting: Setting) -> None:
    secure = {
        "runAsNonRoot": True,
        "runAsUser": 8737,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    step_secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    argos = {"containers": [{"name": setting.auxiliary, "securityContext": step_secure}]}
    if setting.layout == "legacy":
        argos["initContainers"] = [{"name": "init", "securityContext": step_secure}]
    template = container(container=shell(f"{RANDOM} > /tmp/out", securityContext=step_secure))
    twice(*restricted.runs(template, securityContext=secure, podSpecPatch=json.dumps(argos)))


def test_a_pod_that_runs_as_root(ns: Namespace) -> None:
    twice(*ns.runs(container(), securityContext={"runAsUser": 0}))


def test_pods_that_are_deleted_when_they_complete(ns: Namespace) -> None:
    """`podGC: OnPodCompletion`: Pods that are deleted when they complete."""
    runs = ns.runs(container(), podGC={"strategy": "OnPodCompletion"})
    said = "".join(run.said() for run in runs)
    assert [run.phase for run in runs] == ["Succeeded"] * 2, said
    assert runs[0].output() == runs[1].output(), said  # random, if the step had run again
    assert [len(run.events("MemoizationHit")) for run in runs] == [0, 1], said
    wait_for("end of the Pods", lambda: all(not run.pods() for run in runs) or None)


def test_an_executor_with_an_account_of_its_own(ns: Namespace) -> None:
    """`executor.serviceAccountName`: the step's own service account has no token and no permission."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    token = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "executor.service-account-token",
            "annotations": {"kubernetes.io/service-account.name": "executor"},
        },
    }
    apply(ns.name, *(account | {"metadata": {"name": name}} for name in ("executor", "powerless")))
    apply(ns.name, token)
    grant(ns.name, "executors", step_rules(), account="executor")
    accounts = {"serviceAccountName": "powerless", "executor": {"serviceAccountName": "executor"}}
    twice(*ns.runs(container(), automountServiceAccountToken=False, **accounts))


def test_a_pod_spec_patch_that_touches_all_containers(ns: Namespace, setting: Setting) -> None:
    extra = {
        "env": [{"name": "EXTRA", "value": "1"}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    patch = {
        "hostAliases": [{"ip": "127.0.0.2", "hostnames": ["patched.example"]}],
        "containers": [{"name": name} | extra for name in ("main", setting.auxiliary)],
    }
    step = container(f'test "$EXTRA" = 1 && grep patched.example /etc/hosts && {RANDOM} > /tmp/out')
    twice(*ns.runs(step | {"podSpecPatch": json.dumps(patch)}))


def test_a_template_that_is_too_large_for_the_pod(ns: Namespace, setting: Setting) -> None:
    """A template over 128 KiB, which Argo puts into a ConfigMap."""
    setting.since(3, 6, "no Pod takes a template over 128 KiB")
    env = [{"name": f"V{number}", "value": "x" * 1000} for number in range(140)]
    twice(*ns.runs(container(container=shell(f"{RANDOM} > /tmp/out", env=env))))


@pytest.mark.skipif(not INSTANCE, reason="the controller has no instanceID")
def test_a_controller_with_an_instance_id_sees_the_answer(ns: Namespace) -> None:
    """A controller with an instance ID sees the hit."""
    runs = ns.runs(container())
    twice(*runs)
    assert runs[1].workflow["metadata"]["labels"][argo.INSTANCE_ID] == INSTANCE
