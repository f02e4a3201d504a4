import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

import keeper.settings
import webhook.settings
from argo import names as argo
from argo import templates
from memoize import names
from server import listener
from server.program import CANCEL_AGAIN
from tests.manifests.rendering import (
    BASE,
    CABUNDLE,
    CLUSTER_WIDE,
    KEEPER,
    PROGRAMS,
    WEBHOOK,
    container,
    environment,
    find,
    kustomized,
    permissions,
    render,
)
from webhook import admission, hooks
from webhook.__main__ import CONTAINER

Json = dict[str, Any]
SETTINGS: dict[str, Any] = {WEBHOOK: webhook.settings, KEEPER: keeper.settings}
MODULES = {WEBHOOK: "webhook", KEEPER: "keeper"}
NAMESPACE = "stepmemo"

programs = pytest.mark.parametrize("program", PROGRAMS)


def defaults(program: str) -> dict[str, str]:
    return {flag: setting.default for flag, setting in SETTINGS[program].DECLARED.items()}


def webhooks() -> dict[str, Json]:
    configuration = find(render(BASE), "MutatingWebhookConfiguration")
    return {hook["name"]: hook for hook in configuration["webhooks"]}


def pod(program: str) -> Json:
    spec: Json = find(render(BASE), "Deployment", program)["spec"]["template"]["spec"]
    return spec


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: nothing to compare our reader with"
)
def test_kustomize_makes_the_same_of_it() -> None:
    done = subprocess.run(["kubectl", "kustomize", BASE], capture_output=True, check=True)
    theirs = {(d["kind"], d["metadata"]["name"]): d for d in kustomized(done.stdout)}
    assert theirs == {(d["kind"], d["metadata"]["name"]): d for d in render(BASE)}


def test_the_image_is_written_in_one_place_and_the_webhook_injects_the_one_it_runs() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    (image,) = kustomization["images"]
    for program in PROGRAMS:
        assert container(render(BASE), program)["image"] == f"{image['newName']}:{image['newTag']}"
    assert sum(path.read_text().count(image["newName"]) for path in BASE.iterdir()) == 1
    assert "replacements" not in kustomization
    own = container(render(BASE), WEBHOOK)
    assert own["name"] == CONTAINER, "whose image it looks for in its Pod"
    fields = {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in own["env"]}
    assert fields == {
        "STEPMEMO_NAMESPACE": "metadata.namespace",
        "STEPMEMO_POD_NAME": "metadata.name",
    }


@programs
def test_each_runs_its_own_program(program: str) -> None:
    assert container(render(BASE), program)["command"] == ["python3", "-m", MODULES[program]]


@programs
def test_the_environment_is_one_that_the_program_accepts(program: str) -> None:
    variables = environment(render(BASE), program)
    assert set(variables) <= {setting.variable for setting in SETTINGS[program].DECLARED.values()}
    SETTINGS[program].parse([], variables)


def test_what_is_injected_is_pulled_as_the_programs_are() -> None:
    chosen = webhook.settings.parse([], environment(render(BASE), WEBHOOK))
    for program in PROGRAMS:
        assert container(render(BASE), program)["imagePullPolicy"] == chosen.inject.image_pull_policy


def test_names_are_the_programs_defaults() -> None:
    documents = render(BASE)
    for program in PROGRAMS:
        assert find(documents, "Namespace")["metadata"]["name"] == defaults(program)["namespace"]
    assert find(documents, "Service", defaults(WEBHOOK)["service"])
    assert find(documents, "Service", defaults(WEBHOOK)["keeper-service"])["metadata"]["name"] == KEEPER
    assert find(documents, "MutatingWebhookConfiguration", defaults(WEBHOOK)["webhook-configuration"])


def test_the_webhooks_reach_the_programs_paths_through_its_service() -> None:
    paths = {"workflows.stepmemo.dev": hooks.WORKFLOWS_PATH, "pods.stepmemo.dev": hooks.PODS_PATH}
    where = {"name": WEBHOOK, "namespace": NAMESPACE}
    assert {name: webhook["clientConfig"] for name, webhook in webhooks().items()} == {
        name: {"service": {**where, "path": path}} for name, path in paths.items()
    }


@programs
def test_the_service_leads_to_the_port_that_the_program_listens_on(program: str) -> None:
    (port,) = find(render(BASE), "Service", program)["spec"]["ports"]
    listening, _ = container(render(BASE), program)["ports"]
    assert port["port"] == 443, "what an admission webhook is called at unless it says otherwise"
    assert port["targetPort"] == listening["name"]
    assert defaults(program)["listen"] == f":{listening['containerPort']}"


@programs
def test_every_selector_selects_the_programs_pods_and_not_the_other_ones(program: str) -> None:
    spec = find(render(BASE), "Deployment", program)["spec"]
    selectors = [
        find(render(BASE), "Service", program)["spec"]["selector"],
        spec["selector"]["matchLabels"],
        find(render(BASE), "PodDisruptionBudget", program)["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod(program)["topologySpreadConstraints"]),
    ]
    assert all(selector == selectors[0] for selector in selectors)
    for other in PROGRAMS:
        labels = find(render(BASE), "Deployment", other)["spec"]["template"]["metadata"]["labels"]
        assert (selectors[0].items() <= labels.items()) == (other == program)


@programs
def test_replicas_are_spread_over_zones_and_hosts_where_that_can_be(program: str) -> None:
    constraints = pod(program)["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in constraints} == {
        "topology.kubernetes.io/zone": "ScheduleAnyway",
        "kubernetes.io/hostname": "ScheduleAnyway",
    }


@programs
def test_the_probes_and_the_scraper_ask_what_the_program_answers(program: str) -> None:
    own = container(render(BASE), program)
    probes = {name: own[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": listener.HEALTH_PATH,
        "liveness": listener.HEALTH_PATH,
        "readiness": listener.READY_PATH,
    }
    assert {probe["scheme"] for probe in probes.values()} == {"HTTPS"}
    template = find(render(BASE), "Deployment", program)["spec"]["template"]
    _, metrics = own["ports"]
    assert defaults(program)["metrics-listen"] == f":{metrics['containerPort']}"
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(metrics["containerPort"]),
        "prometheus.io/path": listener.METRICS_PATH,
    }


def test_what_is_written_has_a_place_that_can_be_written() -> None:
    for program, flag in ((WEBHOOK, "cert-dir"), (KEEPER, "cert-dir"), (KEEPER, "state-dir")):
        own = container(render(BASE), program)
        (mount,) = own["volumeMounts"]
        assert str(defaults(program)[flag]).startswith(mount["mountPath"] + "/")
        assert own["securityContext"]["readOnlyRootFilesystem"] is True


@programs
def test_there_is_time_to_drain_and_then_to_cancel_twice(program: str) -> None:
    assert CANCEL_AGAIN > listener.CLOSING_SECONDS
    delay = SETTINGS[program].parse(["--image=x"] if program == WEBHOOK else [], {}).shutdown_delay
    assert pod(program)["terminationGracePeriodSeconds"] > delay + listener.CLOSING_SECONDS + CANCEL_AGAIN


def test_a_webhook_that_is_away_or_slow_stops_nobody() -> None:
    for hook in webhooks().values():
        assert hook["failurePolicy"] == "Ignore"
        assert hook["timeoutSeconds"] == 5
        assert hook["reinvocationPolicy"] == "IfNeeded"
        assert hook["matchPolicy"] == "Equivalent"
        assert hook["sideEffects"] == "NoneOnDryRun"
        assert hook["admissionReviewVersions"] == ["v1"]
        assert "caBundle" not in hook["clientConfig"]


def test_our_own_namespace_and_kube_system_are_left_alone() -> None:
    for hook in webhooks().values():
        (expression,) = hook["namespaceSelector"]["matchExpressions"]
        assert expression["key"] == "kubernetes.io/metadata.name"
        assert expression["operator"] == "NotIn"
        assert expression["values"] == [NAMESPACE, "kube-system"]


def test_the_rules_send_the_workflow_webhook_what_its_code_looks_at() -> None:
    plurals = {kind.lower() + "s": kind for kind in templates.KINDS}
    seen: dict[str, set[str]] = {}
    for rule in webhooks()["workflows.stepmemo.dev"]["rules"]:
        assert [f"{rule['apiGroups'][0]}/{rule['apiVersions'][0]}"] == [argo.API_VERSION]
        for plural in rule["resources"]:
            kind = plurals[plural]
            assert rule["scope"] == (
                "Cluster" if kind == templates.CLUSTER_WORKFLOW_TEMPLATE else "Namespaced"
            )
            seen.setdefault(kind, set()).update(rule["operations"])
    assert seen == {kind: set(operations) for kind, operations in admission.WORKFLOW_OPERATIONS.items()}


def test_the_rules_send_the_pod_webhook_the_creation_of_pods() -> None:
    (rule,) = webhooks()["pods.stepmemo.dev"]["rules"]
    assert rule == {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["pods"],
        "operations": ["CREATE"],
        "scope": "Namespaced",
    }


def test_the_match_conditions_speak_of_the_contracts_names() -> None:
    conditions = json.dumps([hook["matchConditions"] for hook in webhooks().values()])
    found = set(re.findall(r"'([\w.]+\.[\w.]+/[\w-]+)'", conditions))
    assert found == {names.MEMOIZE, names.MODE, names.KEY, argo.WORKFLOW_LABEL}


def test_every_object_is_labelled_and_in_its_namespace() -> None:
    for document in render(BASE):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "stepmemo"
        assert labels["app.kubernetes.io/part-of"] == "stepmemo"
        if document["kind"] not in CLUSTER_WIDE:
            assert document["metadata"]["namespace"] == NAMESPACE


def test_the_webhook_has_the_rights_that_it_uses_and_no_others() -> None:
    assert permissions(render(BASE), "ClusterRole", WEBHOOK) == {
        "/namespaces": ["get"],
        "argoproj.io/workflows/workflowtemplates/clusterworkflowtemplates": ["get"],
        "/events": ["create"],
    }
    assert permissions(render(BASE), "ClusterRole", CABUNDLE) == {
        "admissionregistration.k8s.io/mutatingwebhookconfigurations/stepmemo": ["list", "watch", "patch"]
    }
    certs = f"/secrets/{defaults(WEBHOOK)['secret']}/{defaults(WEBHOOK)['ca-secret']}"
    assert permissions(render(BASE), "Role", f"{WEBHOOK}-certs") == {
        certs: ["list", "watch", "update"],
        "/secrets": ["create"],
    }
    assert permissions(render(BASE), "Role", WEBHOOK) == {
        f"coordination.k8s.io/leases/{KEEPER}": ["list", "watch"],
        "/pods": ["get"],
    }


def test_the_keeper_has_the_rights_that_it_uses_and_no_others() -> None:
    assert permissions(render(BASE), "ClusterRole", KEEPER) == {
        "/configmaps": ["get", "list", "watch", "create", "patch"],
        "/namespaces": ["get"],
        "/pods": ["get", "list", "watch", "patch", "delete"],
        "/pods/status": ["patch"],
        "argoproj.io/workflowtaskresults": ["get", "create", "patch", "delete"],
        "argoproj.io/workflows": ["get"],
        "/events": ["create"],
        "authentication.k8s.io/tokenreviews": ["create"],
    }
    assert permissions(render(BASE), "Role", KEEPER) == {
        f"coordination.k8s.io/leases/{KEEPER}": ["get", "update"],
        "coordination.k8s.io/leases": ["create"],
    }
    assert permissions(render(BASE), "Role", f"{KEEPER}-certs") == {
        f"/secrets/{defaults(KEEPER)['secret']}": ["list", "watch"]
    }


@programs
def test_the_bindings_bind_each_account_to_its_own_roles(program: str) -> None:
    account = {"kind": "ServiceAccount", "name": program, "namespace": NAMESPACE}
    assert find(render(BASE), "ServiceAccount", program)
    assert pod(program)["serviceAccountName"] == program
    roles = [("Role", program), ("ClusterRole", program), ("Role", f"{program}-certs")]
    for kind, name in [*roles, *([("ClusterRole", CABUNDLE)] if program == WEBHOOK else [])]:
        binding = find(render(BASE), f"{kind}Binding", name)
        assert binding["subjects"] == [account]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, name)
        assert find(render(BASE), kind, name)
