import itertools
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from argo import names as argo
from argo import templates
from certs import cluster
from memoize import names
from tests.manifests.rendering import BASE, CLUSTER_WIDE, kustomized, render
from webhook import admission, server, settings
from webhook.__main__ import CONTAINER

Json = dict[str, Any]
DEFAULTS = {flag: setting.default for flag, setting in settings.DECLARED.items()}


KEEPER = "stepmemo-keeper"


def find(kind: str, name: str = "stepmemo") -> Json:
    (found,) = (d for d in render(BASE) if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def webhooks() -> dict[str, Json]:
    return {webhook["name"]: webhook for webhook in find("MutatingWebhookConfiguration")["webhooks"]}


def container() -> Json:
    (found,) = find("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: nothing to compare our reader with"
)
def test_kustomize_makes_the_same_of_it() -> None:
    done = subprocess.run(["kubectl", "kustomize", BASE], capture_output=True, check=True)
    theirs = {(d["kind"], d["metadata"]["name"]): d for d in kustomized(done.stdout)}
    assert theirs == {(d["kind"], d["metadata"]["name"]): d for d in render(BASE)}


def test_the_image_is_written_in_one_place_and_the_server_injects_the_one_it_runs() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    (image,) = kustomization["images"]
    assert container()["image"] == f"{image['newName']}:{image['newTag']}"
    assert sum(path.read_text().count(image["newName"]) for path in BASE.iterdir()) == 1
    assert "replacements" not in kustomization
    assert container()["name"] == CONTAINER, "whose image the server looks for in its Pod"
    env = {variable["name"]: variable for variable in container()["env"]}
    assert "STEPMEMO_IMAGE" not in env
    assert {name: variable["valueFrom"]["fieldRef"]["fieldPath"] for name, variable in env.items()} == {
        "STEPMEMO_NAMESPACE": "metadata.namespace",
        "STEPMEMO_POD_NAME": "metadata.name",
    }


def test_the_servers_environment_is_one_that_the_server_accepts() -> None:
    environment = {v["name"]: v.get("value", "stepmemo") for v in container()["env"]}
    assert set(environment) <= {setting.variable for setting in settings.DECLARED.values()}
    chosen = settings.parse([], environment)
    assert chosen.inject.image_pull_policy == container()["imagePullPolicy"]


def test_names_are_the_servers_defaults() -> None:
    assert find("Namespace")["metadata"]["name"] == DEFAULTS["namespace"]
    assert find("Service")["metadata"]["name"] == DEFAULTS["service"]
    assert find("MutatingWebhookConfiguration")["metadata"]["name"] == DEFAULTS["webhook-configuration"]


def test_the_webhooks_reach_the_servers_paths_through_the_service() -> None:
    paths = {"workflows.stepmemo.dev": server.WORKFLOWS_PATH, "pods.stepmemo.dev": server.PODS_PATH}
    where = {"name": DEFAULTS["service"], "namespace": DEFAULTS["namespace"]}
    assert {name: webhook["clientConfig"] for name, webhook in webhooks().items()} == {
        name: {"service": {**where, "path": path}} for name, path in paths.items()
    }


def test_the_service_leads_to_the_port_that_the_server_listens_on() -> None:
    (port,) = find("Service")["spec"]["ports"]
    (listening,) = container()["ports"]
    assert port["port"] == 443, "what an admission webhook is called at unless it says otherwise"
    assert port["targetPort"] == listening["name"]
    assert DEFAULTS["listen"] == f":{listening['containerPort']}"


def test_every_selector_selects_the_servers_pods() -> None:
    labels = find("Deployment")["spec"]["template"]["metadata"]["labels"]
    spec = find("Deployment")["spec"]
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        find("Service")["spec"]["selector"],
        spec["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
        find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert selectors[0] == selectors[1] == selectors[2] == selectors[3]


def test_the_probes_and_the_scraper_ask_what_the_server_answers() -> None:
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert probes["liveness"]["path"] == server.HEALTH_PATH
    assert probes["readiness"]["path"] == server.READY_PATH
    assert {probe["scheme"] for probe in probes.values()} == {"HTTPS"}
    annotations = find("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == server.METRICS_PATH


def test_the_certificates_have_a_place_that_can_be_written() -> None:
    (mount,) = container()["volumeMounts"]
    assert str(DEFAULTS["cert-dir"]).startswith(mount["mountPath"] + "/")
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True


def test_there_is_time_to_drain() -> None:
    grace = find("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    delay = settings.parse(["--image=x"], {}).shutdown_delay
    assert grace > delay + server.CLOSING_SECONDS


def test_a_webhook_that_is_away_or_slow_stops_nobody() -> None:
    for webhook in webhooks().values():
        assert webhook["failurePolicy"] == "Ignore"
        assert webhook["timeoutSeconds"] == 5
        assert webhook["reinvocationPolicy"] == "IfNeeded"
        assert webhook["matchPolicy"] == "Equivalent"
        assert webhook["sideEffects"] == "NoneOnDryRun"
        assert webhook["admissionReviewVersions"] == ["v1"]
        assert "caBundle" not in webhook["clientConfig"]


def test_our_own_namespace_and_kube_system_are_left_alone() -> None:
    for webhook in webhooks().values():
        (expression,) = webhook["namespaceSelector"]["matchExpressions"]
        assert expression["key"] == "kubernetes.io/metadata.name"
        assert expression["operator"] == "NotIn"
        assert expression["values"] == [DEFAULTS["namespace"], "kube-system"]


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
    conditions = json.dumps([webhook["matchConditions"] for webhook in webhooks().values()])
    found = set(re.findall(r"'([\w.]+\.[\w.]+/[\w-]+)'", conditions))
    assert found == {names.MEMOIZE, names.MODE, names.KEY, argo.WORKFLOW_LABEL}


def test_every_object_is_labelled_and_in_its_namespace() -> None:
    for document in render(BASE):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "stepmemo"
        assert labels["app.kubernetes.io/part-of"] == "stepmemo"
        if document["kind"] not in CLUSTER_WIDE:
            assert document["metadata"]["namespace"] == DEFAULTS["namespace"]


def test_rights_are_those_that_are_used_and_no_others() -> None:
    def permissions(kind: str, name: str = "stepmemo") -> dict[str, Any]:
        return {
            "/".join([*rule["apiGroups"], *rule["resources"], *rule.get("resourceNames", ())]): rule["verbs"]
            for rule in find(kind, name)["rules"]
        }

    assert permissions("ClusterRole") == {
        "/namespaces": ["get"],
        "argoproj.io/workflows/workflowtemplates/clusterworkflowtemplates": ["get"],
        "/events": ["create"],
        "admissionregistration.k8s.io/mutatingwebhookconfigurations/stepmemo": ["list", "watch", "patch"],
    }
    assert permissions("Role") == {
        f"/secrets/{DEFAULTS['secret']}": ["get", "update"],
        "/secrets": ["create"],
        "/pods": ["get"],
    }
    assert cluster.CONFIGURATIONS.endswith("/mutatingwebhookconfigurations")
    assert permissions("ClusterRole", KEEPER) == {
        "/configmaps": ["get", "list", "watch", "create", "patch"],
        "/pods": ["get", "list", "watch", "patch", "delete"],
        "/pods/status": ["patch"],
        "argoproj.io/workflowtaskresults": ["get", "create", "patch", "delete"],
        "authentication.k8s.io/tokenreviews": ["create"],
    }
    assert permissions("Role", KEEPER) == {
        f"coordination.k8s.io/leases/{KEEPER}": ["get", "update"],
        "coordination.k8s.io/leases": ["create"],
    }


def test_the_bindings_bind_our_account_to_our_roles() -> None:
    account = {"kind": "ServiceAccount", "name": "stepmemo", "namespace": "stepmemo"}
    assert find("ServiceAccount")["metadata"]["name"] == account["name"]
    assert find("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    for kind, name in itertools.product(("Role", "ClusterRole"), ("stepmemo", KEEPER)):
        binding = find(f"{kind}Binding", name)
        assert binding["subjects"] == [account]
        assert binding["roleRef"]["kind"] == kind
        assert binding["roleRef"]["name"] == find(kind, name)["metadata"]["name"]
