"""What the components add to the base and change of it, one by one."""

from itertools import chain
from pathlib import Path

import pytest

from cli import asking, installation
from keeper import settings
from memoize import names
from tests.manifests.rendering import (
    ACCESS_DIRECT,
    AUTO_KEY_REFERENCES,
    BASE,
    FLOW_SCHEMA,
    HOST_NETWORK,
    KEEPER,
    KEPT_NAMESPACE,
    KEPT_REFERENCES,
    NAMESPACE_OPT_IN,
    NAMESPACES,
    NETWORK_POLICY,
    NO_NUDGE,
    NUDGE,
    OF_THE_BASE,
    PEOPLE,
    PORT_10250,
    POSTGRESQL,
    PRIORITY_CLASS,
    PROGRAMS,
    VERIFY_ARTIFACTS,
    WEBHOOK,
    Json,
    container,
    environment,
    find,
    overlay,
    render,
)
from webhook import settings as webhook_settings


def rights(documents: list[Json], kind: str, name: str) -> set[tuple[str, str, str, str]]:
    """Each verb on each resource, with the name where one is demanded."""
    return {
        (group, resource, name, verb)
        for rule in find(documents, kind, name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("component", OF_THE_BASE, ids=lambda path: path.name)
def test_every_object_is_labelled(component: Path) -> None:
    for document in overlay(component):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "stepmemo"


@pytest.mark.parametrize("program", PROGRAMS)
def test_roles_of_the_namespaces_give_what_the_cluster_role_gave(program: str) -> None:
    cluster_wide = rights(overlay(NAMESPACES), "ClusterRole", program)
    inside = rights(render(KEPT_NAMESPACE, "work"), "Role", program)
    assert cluster_wide | inside == rights(render(BASE), "ClusterRole", program)
    assert cluster_wide & inside == set()


def test_without_cluster_wide_rights_only_objects_of_no_namespace_are_reached_everywhere() -> None:
    documents = overlay(NAMESPACES)
    roles = [d["metadata"]["name"] for d in documents if d["kind"] == "ClusterRole"]
    left = chain.from_iterable(rights(documents, "ClusterRole", name) for name in roles)
    assert {resource for _, resource, _, _ in left} == {
        "clusterworkflowtemplates",
        "mutatingwebhookconfigurations",
        "tokenreviews",
    }


def test_the_accounts_stay_where_they_are_when_a_namespace_binds_them() -> None:
    documents = render(KEPT_NAMESPACE, "work")
    assert {document["metadata"]["namespace"] for document in documents} == {"work"}
    for program in PROGRAMS:
        binding = find(documents, "RoleBinding", program)
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": program, "namespace": "stepmemo"}]
        assert binding["roleRef"]["name"] == program


def test_the_variable_that_the_component_names_is_the_keepers() -> None:
    text = (NAMESPACES / "kustomization.yaml").read_text(encoding="utf-8")
    assert settings.DECLARED["namespaces"].variable in text


def test_the_api_server_calls_for_labelled_namespaces_only() -> None:
    before = find(render(BASE), "MutatingWebhookConfiguration")["webhooks"]
    after = find(overlay(NAMESPACE_OPT_IN), "MutatingWebhookConfiguration")["webhooks"]
    label = {"key": names.MEMOIZE, "operator": "Exists"}
    for old, new in zip(before, after, strict=True):
        expressions = old["namespaceSelector"]["matchExpressions"]
        assert new == {**old, "namespaceSelector": {"matchExpressions": [*expressions, label]}}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_network_policy_admits_anybody_to_the_programs_ports_alone(program: str) -> None:
    spec = find(overlay(NETWORK_POLICY), "NetworkPolicy", program)["spec"]
    deployment = find(render(BASE), "Deployment", program)["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    ports = [port["name"] for port in container["ports"]]
    assert spec["podSelector"] == deployment["selector"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [{"ports": [{"protocol": "TCP", "port": port}]} for port in ports]


def test_both_programs_have_their_own_share_of_the_api_server() -> None:
    documents = overlay(FLOW_SCHEMA)
    accounts = {(program, "stepmemo") for program in PROGRAMS}
    for name in ("stepmemo", "stepmemo-lease"):
        (rule,) = find(documents, "FlowSchema", name)["spec"]["rules"]
        subjects = [subject["serviceAccount"] for subject in rule["subjects"]]
        assert {(subject["name"], subject["namespace"]) for subject in subjects} == accounts
    lease, rest = (find(documents, "FlowSchema", name)["spec"] for name in ("stepmemo-lease", "stepmemo"))
    assert lease["matchingPrecedence"] < rest["matchingPrecedence"], "else the Lease waits with the rest"
    level = rest["priorityLevelConfiguration"]["name"]
    assert find(documents, "PriorityLevelConfiguration", level)["spec"]["type"] == "Limited"


def test_both_programs_have_the_priority_class() -> None:
    documents = overlay(PRIORITY_CLASS)
    name = find(documents, "PriorityClass")["metadata"]["name"]
    for program in (WEBHOOK, KEEPER):
        spec = find(documents, "Deployment", program)["spec"]["template"]["spec"]
        assert spec["priorityClassName"] == name


def test_the_keeper_reads_the_databases_secret_where_its_flag_says_and_runs_without_one() -> None:
    documents = overlay(POSTGRESQL)
    for program in PROGRAMS:
        spec = find(documents, "Deployment", program)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        declared = (settings if program == KEEPER else webhook_settings).DECLARED["store"]
        assert {"name": declared.variable, "value": "postgresql"} in container["env"]
    spec = find(documents, "Deployment", KEEPER)["spec"]["template"]["spec"]
    mount = spec["containers"][0]["volumeMounts"][-1]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert str(settings.parse([], {}).dsn_file) == f"{mount['mountPath']}/dsn"
    assert (mount["readOnly"], volume["secret"]["optional"]) == (True, True)


def test_the_keeper_reads_the_repositories_where_its_flag_says_and_runs_without_the_secret() -> None:
    documents = overlay(VERIFY_ARTIFACTS)
    spec = find(documents, "Deployment", KEEPER)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (file,) = [
        variable["value"]
        for variable in container["env"]
        if variable["name"] == settings.DECLARED["verify-artifacts"].variable
    ]
    mount = container["volumeMounts"][-1]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert file == f"{mount['mountPath']}/repositories.yaml"
    assert (mount["readOnly"], volume["secret"]["optional"]) == (True, True)


def test_the_webhook_counts_versions_where_it_may_read_them_and_may_do_nothing_else_with_them() -> None:
    documents = overlay(AUTO_KEY_REFERENCES)
    added = {("", resource, "", "get") for resource in ("secrets", "configmaps")}
    assert rights(documents, "ClusterRole", "stepmemo-references") == added
    assert rights(render(KEPT_REFERENCES, "work"), "Role", "stepmemo-references") == added
    for kind, of in (("ClusterRole", documents), ("Role", render(KEPT_REFERENCES, "work"))):
        binding = find(of, f"{kind}Binding", "stepmemo-references")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": WEBHOOK, "namespace": "stepmemo"}]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, "stepmemo-references")
    assert webhook_settings.parse([], environment(documents, WEBHOOK)).count_versions
    assert not webhook_settings.parse([], environment(render(BASE), WEBHOOK)).count_versions
    variable = webhook_settings.DECLARED["auto-key-references"].variable
    assert variable in (KEPT_REFERENCES / "kustomization.yaml").read_text(encoding="utf-8")


def test_people_reach_the_keepers_service_by_the_name_that_the_command_line_asks_for_and_nothing_else() -> (
    None
):
    documents = overlay(PEOPLE)
    assert rights(documents, "Role", "stepmemo-people") == {
        ("", "services/proxy", asking.SERVICE, "create"),
        ("apps", "deployments", installation.KEEPER, "get"),
    }
    scheme, name, port = asking.SERVICE.split(":")
    service = find(documents, "Service", name)
    assert scheme == "https"
    assert [one["name"] for one in service["spec"]["ports"]] == [port]
    assert find(documents, "Role", "stepmemo-people")["metadata"]["namespace"] == "stepmemo"
    binding = find(documents, "RoleBinding", "stepmemo-people")
    assert binding["roleRef"]["name"] == "stepmemo-people"
    assert [subject["kind"] for subject in binding["subjects"]] == ["Group"]


def test_the_right_to_nudge_is_the_keepers_and_a_role_of_its_own() -> None:
    documents = render(BASE)
    assert rights(documents, "ClusterRole", NUDGE) == {("argoproj.io", "workflows", "", "patch")}
    (subject,) = find(documents, "ClusterRoleBinding", NUDGE)["subjects"]
    assert subject["name"] == KEEPER
    for program in PROGRAMS:
        verbs = {
            verb
            for _, resource, _, verb in rights(documents, "ClusterRole", program)
            if resource == "workflows"
        }
        assert verbs == {"get"}


@pytest.mark.parametrize("component", [NO_NUDGE, NAMESPACES, ACCESS_DIRECT], ids=lambda path: path.name)
def test_components_that_take_it_away_switch_it_off(component: Path) -> None:
    documents = overlay(component)
    assert NUDGE not in {document["metadata"]["name"] for document in documents}
    if component != ACCESS_DIRECT:  # which has no keeper
        assert settings.parse([], environment(documents, KEEPER)).nudge == "off"


@pytest.mark.parametrize("program", PROGRAMS)
def test_on_port_10250_both_programs_listen_where_their_services_lead(program: str) -> None:
    documents = overlay(PORT_10250)
    declared = settings if program == KEEPER else webhook_settings
    https, metrics = container(documents, program)["ports"]
    assert (https["name"], https["containerPort"]) == ("https", 10250)
    assert declared.parse([], environment(documents, program)).listen == ("", 10250)
    assert metrics == container(render(BASE), program)["ports"][1]
    assert find(documents, "Service", program)["spec"]["ports"][0]["targetPort"] == "https"


def test_in_the_nodes_network_the_webhook_has_ports_that_nobody_else_has() -> None:
    documents = overlay(HOST_NETWORK)
    deployment = find(documents, "Deployment", WEBHOOK)["spec"]
    pod, chosen = deployment["template"]["spec"], webhook_settings.parse([], environment(documents, WEBHOOK))
    https, metrics = container(documents, WEBHOOK)["ports"]
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert chosen.listen == ("", https["containerPort"])
    assert chosen.metrics_listen == ("", metrics["containerPort"])
    scraped = deployment["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert scraped == str(metrics["containerPort"])
    assert {https["containerPort"], metrics["containerPort"]} & {8080, 8443, 10250} == set()
    rolling = deployment["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 1, "maxSurge": 0}, "a second one finds no node with the port free"
    labels = find(documents, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert find(documents, "Deployment", KEEPER) == find(render(BASE), "Deployment", KEEPER)
