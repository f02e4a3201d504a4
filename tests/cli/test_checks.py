from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from certs import pki
from cli import checks
from cli.checks import Account, CheckResult, Level
from keeper.limits import read
from memoize import plan
from memoize.keeper_status import EVERY, KeeperStatus, Namespaces
from tests.manifests.rendering import BASE

Json = dict[str, Any]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CA = pki.new_ca(NOW)
OTHER_CA = pki.new_ca(NOW)
SERVING = pki.new_server(CA, ["stepmemo-webhook.stepmemo.svc"], NOW).certificate
READY = KeeperStatus(ready=True, keeps=EVERY, plans=plan.READS)
WORK = Namespaces.of({"work"})


def hook(name: str, **fields: Any) -> Json:
    return {"name": name, "failurePolicy": "Ignore", "clientConfig": {"caBundle": "x"}, **fields}


def configured(*hooks: Json) -> Iterator[CheckResult]:
    return checks.configuration({"webhooks": list(hooks)}, "stepmemo")


def kept(
    status: KeeperStatus | None, *, renewed: bool = True, holder: str = "keeper-0"
) -> Iterator[CheckResult]:
    return checks.keeper(status and status.to_json(), renewed, holder, "work")


def deployed(ready: int | None) -> Json:
    return {
        "metadata": {"namespace": "stepmemo"},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }


def token(volume: str, secret: str) -> Json:
    """The spec of a Pod of the account `runner` with such a volume."""
    return {"serviceAccountName": "runner", "volumes": [{"name": volume, "secret": {"secretName": secret}}]}


def limits(*, direct: bool = False, **annotations: str) -> Iterator[CheckResult]:
    said = read({f"stepmemo.dev/{name.replace('_', '-')}": text for name, text in annotations.items()})
    return checks.limits(said, "work", direct=direct)


def requeue(*values: str) -> CheckResult:
    """Of a controller whose Deployment names it so many times; the last one counts, as in Kubernetes."""
    env = [{"name": "DEFAULT_REQUEUE_TIME", "value": value} for value in values]
    return checks.requeue({"env": env}, "argo", "c")


@pytest.mark.parametrize(("release", "nudged"), [("v3.7.18", True), ("v3.7.7", False), ("v4.1.2", False)])
def test_doctor_says_where_the_requeue_time_is_not_all(release: str, nudged: bool) -> None:
    found = checks.requeue({"image": f"x/workflow-controller:{release}"}, "argo", "c")
    assert ("but for those after which the keeper nudges it" in found.said) is nudged


POD, WORKFLOW = checks.HOOKS


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (checks.kubernetes({"gitVersion": "v1.35.4"}), ["ok: v1.35.4"]),
        (checks.kubernetes({"gitVersion": "v1.30.0+k3s1"}), ["ok: v1.30.0+k3s1"]),
        (checks.kubernetes({"gitVersion": "v1.29.9"}), ["fail: v1.29.9 is older than 1.30"]),
        (checks.kubernetes({}), ["unknown: the API server says it is of version ''"]),
        (configured(hook(POD), hook(WORKFLOW)), ["ok: stepmemo is complete"]),
        (checks.configuration(None, "stepmemo"), ["fail: there is no MutatingWebhookConfiguration stepmemo"]),
        (configured(hook(POD)), [f"fail: stepmemo lacks the webhooks {WORKFLOW}"]),
        (
            configured(hook(POD, failurePolicy="Fail"), hook(WORKFLOW)),
            [f"fail: failurePolicy of {POD} is not Ignore"],
        ),
        (configured(hook(POD), hook(WORKFLOW, clientConfig={})), [f"fail: {WORKFLOW} has no caBundle"]),
        (checks.certificate(SERVING, [CA.certificate], NOW), ["ok: the caBundle trusts it, for 365d"]),
        (
            checks.certificate(SERVING, [OTHER_CA.certificate + CA.certificate, OTHER_CA.certificate], NOW),
            ["fail: the caBundle does not hold the CA that signed it"],
        ),
        (checks.certificate(SERVING, [CA.certificate], NOW + timedelta(days=366)), ["fail: it ended 1d ago"]),
        (checks.certificate(b"", [], NOW), ["fail: the Secret holds no certificate"]),
        (checks.deployment(deployed(2), "stepmemo-keeper"), ["ok: 2 of 2 replicas are ready"]),
        (checks.deployment(deployed(1), "stepmemo-keeper"), ["warn: 1 of 2 replicas are ready"]),
        (checks.deployment(deployed(None), "stepmemo-keeper"), ["fail: 0 of 2 replicas are ready"]),
        (checks.deployment(None, "stepmemo-keeper"), ["fail: there is no Deployment stepmemo-keeper"]),
        (
            checks.admission({"spec": {"templates": [{"name": "main"}]}}),
            ["fail: the API server let a template"],
        ),
        (
            checks.admission(
                {"spec": {"templates": [{"metadata": {"annotations": {"stepmemo.dev/key": "k"}}}]}}
            ),
            ["ok: the API server reaches it and trusts it"],
        ),
        (checks.not_there("not found", "work"), ["fail: no WorkflowTemplate can be made: not found"]),
        (kept(READY), ["ok: keeper-0 acts, and is ready"]),
        (kept(READY, renewed=False), ["fail: no keeper acts"]),
        (kept(READY, holder=""), ["fail: no keeper acts"]),
        (kept(None), ["fail: keeper-0 acts, and says nothing of itself"]),
        (kept(KeeperStatus(keeps=EVERY, plans=plan.READS)), ["warn: keeper-0 acts, but is not in sync"]),
        (kept(KeeperStatus(ready=True, keeps=EVERY)), ["fail: keeper-0 acts, but is of another release"]),
        (
            kept(KeeperStatus(ready=True, keeps=Namespaces.of({"other"}), plans=plan.READS)),
            ["fail: keeper-0 acts, but not for the Namespace work"],
        ),
        (
            kept(KeeperStatus(ready=True, keeps=EVERY, plans=plan.READS, backlogged=WORK, stopped=WORK)),
            ["warn: keeper-0 acts, and is behind", "fail: stepmemo's image could not be started"],
        ),
        (checks.argo_version(["quay.io/argoproj/workflow-controller:v4.1.2"]), ["ok: v4.1.2"]),
        (checks.argo_version(["x/workflow-controller:v3.5.1"]), ["fail: v3.5.1 is older than 3.5.2"]),
        (checks.argo_version(["x/workflow-controller:v4.2.0"]), ["warn: v4.2.0 is newer than 4.1"]),
        (
            checks.argo_version(["x/workflow-controller:latest"]),
            ["unknown: the tag of x/workflow-controller:latest"],
        ),
        (requeue(), ["warn: DEFAULT_REQUEUE_TIME is not set, so 10s"]),
        (requeue(""), ["warn: DEFAULT_REQUEUE_TIME is not set, so 10s"]),
        (requeue("100ms"), ["ok: DEFAULT_REQUEUE_TIME 100ms"]),
        (requeue("1s"), ["ok: DEFAULT_REQUEUE_TIME 1s"]),
        (requeue("2s"), ["ok: DEFAULT_REQUEUE_TIME 2s"]),
        (requeue("1m"), ["warn: DEFAULT_REQUEUE_TIME 1m"]),
        (requeue("10"), ["fail: DEFAULT_REQUEUE_TIME '10' lacks a unit"]),
        (requeue("1s", "1m"), ["warn: DEFAULT_REQUEUE_TIME 1m"]),
        (
            checks.requeue({"env": [{"name": "DEFAULT_REQUEUE_TIME", "valueFrom": {}}]}, "argo", "c"),
            ["unknown: DEFAULT_REQUEUE_TIME comes from another object, or may"],
        ),
        (
            checks.requeue({"envFrom": [{"configMapRef": {"name": "x"}}]}, "argo", "c"),
            ["unknown: DEFAULT_REQUEUE_TIME comes from another object, or may"],
        ),
        (checks.namespace_labels(None, "work"), ["fail: there is no Namespace work"]),
        (checks.namespace_labels({}, "work"), ["ok: work: workflows and templates opt in themselves"]),
        (
            checks.namespace_labels({"stepmemo.dev/memoize": "true"}, "work"),
            ["ok: work: all templates with a memoize block are opted in; Pod Security: not enforced"],
        ),
        (limits(), []),
        (
            limits(weight="50", max_bytes="8Ki"),
            ["ok: weight 50, max-bytes 8Ki; what else there is, the keeper's flags say"],
        ),
        (
            limits(weight="50", max_bytes="8"),
            [
                "ok: weight 50; what else there is",
                'warn: annotation stepmemo.dev/max-bytes: "8" must be at least "4Ki"; it is ignored',
            ],
        ),
        (
            limits(direct=True, weight="50"),
            ["warn: weight 50: with --access direct nobody reads the Namespace's limits"],
        ),
        (
            checks.account(Account(name="default", lacks=()), "work"),
            ["ok: may create and patch workflowtaskresults"],
        ),
        (
            checks.account(Account(name="default", lacks=["patch"]), "work"),
            ["fail: may not patch workflowtask"],
        ),
        (
            checks.account(Account(name="default", lacks=(), direct=True), "work"),
            ["ok: may create and patch workflowtaskresults, and get, create and patch configmaps"],
        ),
        (
            checks.account(
                Account(name="default", lacks=["create"], lacks_caches=["get", "patch"], direct=True), "work"
            ),
            ["fail: may not create workflowtask", "fail: may not get and patch configmaps"],
        ),
        (checks.containers("", ""), ["ok: a Pod with containers of ours is allowed"]),
        (checks.containers("", "quota"), ["fail: a Pod with containers of ours is refused"]),
        (checks.containers("quota", ""), ["unknown: even a plain Pod is refused here"]),
        (checks.policies(checks.POLICIES, checks.POLICIES), ["ok: all 7 are in force"]),
        (checks.policies(checks.POLICIES, checks.POLICIES[1:]), ["warn: stepmemo-creates not in force"]),
    ],
)
def test_what_was_read_is_judged(found: CheckResult | Iterable[CheckResult], said: list[str]) -> None:
    findings = [found] if isinstance(found, CheckResult) else list(found)
    assert len(findings) == len(said)
    for finding, beginning in zip(findings, said, strict=True):
        assert f"{finding.level}: {finding.said}".startswith(beginning)
        assert finding.level is not Level.FAIL or finding.cure


@pytest.mark.parametrize(
    ("container", "is_one"),
    [
        ({"name": "workflow-controller", "image": "x"}, True),
        ({"name": "controller", "image": "quay.io/argoproj/workflow-controller:v4.1.2"}, True),
        ({"name": "controller", "image": "x", "command": ["workflow-controller"]}, True),
        ({"name": "argo-server", "image": "quay.io/argoproj/argocli:v4.1.2", "args": ["server"]}, False),
    ],
)
def test_argos_controller_is_known_by_its_name_image_or_command(container: Json, is_one: bool) -> None:
    assert checks.is_controller(container) is is_one


@pytest.mark.parametrize(
    ("spec", "account"),
    [
        ({"serviceAccountName": "runner"}, "runner"),
        ({}, ""),
        (token("other", "x.service-account-token"), "runner"),
        (token("exec-sa-token", "a.b.service-account-token"), "a.b"),
        (token("exec-sa-token", "mine"), ""),
        ({"serviceAccountName": "runner", "volumes": [{"name": "exec-sa-token", "emptyDir": {}}]}, ""),
    ],
)
def test_the_account_that_reports_is_that_of_the_executor_where_it_has_one(spec: Json, account: str) -> None:
    assert checks.reporting_account(spec) == account


def test_the_policies_are_those_of_the_manifests() -> None:
    documents = yaml.safe_load_all((BASE / "policies.yaml").read_text(encoding="utf-8"))
    names = [one["metadata"]["name"] for one in documents if one["kind"] == "ValidatingAdmissionPolicy"]
    assert sorted(names) == sorted(checks.POLICIES)


def test_the_webhooks_are_those_of_the_manifests() -> None:
    text = (BASE / "webhook-configuration.yaml").read_text(encoding="utf-8")
    (found,) = yaml.safe_load_all(text)
    assert sorted(one["name"] for one in found["webhooks"]) == sorted(checks.HOOKS)


@given(st.text())
def test_any_text_may_stand_in_a_version_or_a_duration(text: str) -> None:
    checks.kubernetes({"gitVersion": text})
    checks.argo_version([text])
    requeue(text)
    list(checks.keeper(text, True, "keeper-0", "work"))
