"""The Helm chart: what it makes of values is what kustomize makes of the components that they choose."""

import asyncio
import importlib.metadata
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from keeper import leave, settings
from server import settings as server_settings
from server import smoke_test
from tests import built
from tests.cluster import Cluster
from tests.keeper.site import Site
from tests.manifests.rendering import (
    ACCESS_DIRECT,
    AUTO_KEY_REFERENCES,
    CERT_MANAGER,
    CLUSTER_WIDE,
    DIRECT,
    FLOW_SCHEMA,
    HOST_NETWORK,
    IMAGE_VOLUME,
    KEEPER,
    KEPT_NAMESPACE,
    KEPT_REFERENCES,
    LOADER,
    MONITORING,
    NAMESPACE_OPT_IN,
    NAMESPACES,
    NETWORK_POLICY,
    NO_NUDGE,
    OF_A_NAMESPACE,
    OF_THE_BASE,
    PEOPLE,
    PORT_10250,
    POSTGRESQL,
    PRIORITY_CLASS,
    PROGRAMS,
    ROOT,
    VERIFY_ARTIFACTS,
    WEBHOOK,
    container,
    environment,
    find,
    installation,
    overlay,
    render,
)
from tests.webhook.serving import api_client
from webhook import settings as webhook_settings

pytestmark = pytest.mark.slow

Json = dict[str, Any]
CHART = ROOT / "chart"
HOOK = "helm.sh/hook"
DEV = {"image": {"tag": "dev"}}
"""The image that the base names."""


def helm(*arguments: str, given: str = "", chart: Path = CHART) -> str:
    done = built.run("helm", *arguments, str(chart), "--kube-version=1.35.0", given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(values: Json, *, namespace: str = "stepmemo", chart: Path = CHART) -> list[Json]:
    """All objects of a release but those of hooks."""
    everything = made({**DEV, **values}, namespace, chart)
    return [one for one in everything if HOOK not in one["metadata"].get("annotations", {})]


def hooks(values: Json, namespace: str = "stepmemo") -> list[Json]:
    """Those of hooks."""
    everything = made({**DEV, **values}, namespace, CHART)
    return [one for one in everything if HOOK in one["metadata"].get("annotations", {})]


def made(values: Json, namespace: str, chart: Path) -> list[Json]:
    found: list[Json] = json.loads(_template(json.dumps(values), namespace, chart))
    return found


@cache
def _template(values: str, namespace: str, chart: Path) -> str:
    """As JSON: rendered and read once."""
    command = ("template", "memo", f"--namespace={namespace}", "--values=-")
    text = helm(*command, given=values, chart=chart)
    return json.dumps(list(filter(None, yaml.load_all(text, Loader=LOADER))))


def refused(values: Json) -> str:
    """What Helm says of values that it does not take."""
    command = ("template", "memo", str(CHART), "--kube-version=1.35.0", "--values=-")
    done = built.run("helm", *command, given=json.dumps({**DEV, **values}))
    assert done.returncode != 0
    return done.stderr


def by_name(documents: list[Json]) -> dict[tuple[str, str, str], Json]:
    named = {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}
    assert len(named) == len(documents), "two objects of one name"
    return named


def kustomized(*components: Path) -> list[Json]:
    """Of an overlay; the Namespace is Helm's own to make."""
    return [document for document in overlay(*components) if document["kind"] != "Namespace"]


def with_variable(documents: list[Json], program: str, name: str, value: str) -> list[Json]:
    """As a patch of an overlay adds it."""
    deployment = find(documents, "Deployment", program)
    deployment["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})
    return documents


def highly_available() -> list[Json]:
    return [
        document for document in installation(ROOT / "overlays" / "ha") if document["kind"] != "Namespace"
    ]


def kept() -> list[Json]:
    documents = with_variable(kustomized(NAMESPACES), KEEPER, "STEPMEMO_NAMESPACES", "one,two")
    return [*documents, *render(KEPT_NAMESPACE, "one"), *render(KEPT_NAMESPACE, "two")]


def kept_references() -> list[Json]:
    documents = with_variable(kept(), WEBHOOK, "STEPMEMO_AUTO_KEY_REFERENCES", "resource-version")
    return [*documents, *render(KEPT_REFERENCES, "one"), *render(KEPT_REFERENCES, "two")]


def direct() -> list[Json]:
    of_a_namespace = [render(DIRECT, namespace) for namespace in ("one", "two")]
    (binding,) = (document for document in of_a_namespace[1] if document["kind"] == "RoleBinding")
    binding["subjects"][0]["name"] = "runner"
    return [*kustomized(ACCESS_DIRECT), *of_a_namespace[0], *of_a_namespace[1]]


ENABLED = {"enabled": True}
CHOICES: dict[str, tuple[Json, Callable[[], list[Json]]]] = {
    "nothing": ({}, kustomized),
    "access-direct": ({"access": "direct"}, lambda: kustomized(ACCESS_DIRECT)),
    "auto-key-references": (
        {"autoKeyReferences": "resource-version"},
        lambda: kustomized(AUTO_KEY_REFERENCES),
    ),
    "cert-manager": ({"certManager": ENABLED}, lambda: kustomized(CERT_MANAGER)),
    "direct": (
        {
            "access": "direct",
            "directNamespaces": [{"namespace": "one"}, {"namespace": "two", "serviceAccount": "runner"}],
        },
        direct,
    ),
    "flow-schema": ({"flowSchema": True}, lambda: kustomized(FLOW_SCHEMA)),
    "ha": ({"highAvailability": True}, highly_available),
    "host-network": ({"hostNetwork": True}, lambda: kustomized(HOST_NETWORK)),
    "image-volume": ({"injection": "image-volume"}, lambda: kustomized(IMAGE_VOLUME)),
    "kept-namespace": ({"namespaces": ["one", "two"]}, kept),
    "kept-references": (
        {"namespaces": ["one", "two"], "autoKeyReferences": "resource-version"},
        kept_references,
    ),
    "monitoring": ({"monitoring": ENABLED}, lambda: kustomized(MONITORING)),
    "namespace-opt-in": ({"namespaceOptIn": True}, lambda: kustomized(NAMESPACE_OPT_IN)),
    "network-policy": ({"networkPolicy": ENABLED}, lambda: kustomized(NETWORK_POLICY)),
    "no-nudge": ({"nudge": False}, lambda: kustomized(NO_NUDGE)),
    "people": ({"people": ["stepmemo-people"]}, lambda: kustomized(PEOPLE)),
    "port-10250": ({"port": 10250}, lambda: kustomized(PORT_10250)),
    "postgresql": ({"store": "postgresql"}, lambda: kustomized(POSTGRESQL)),
    "priority-class": ({"priorityClass": {"create": True}}, lambda: kustomized(PRIORITY_CLASS)),
    "verify-artifacts": ({"verifyArtifacts": True}, lambda: kustomized(VERIFY_ARTIFACTS)),
    "many": (
        {
            "autoKeyReferences": "resource-version",
            "certManager": ENABLED,
            "flowSchema": True,
            "hostNetwork": True,
            "injection": "image-volume",
            "monitoring": ENABLED,
            "namespaceOptIn": True,
            "networkPolicy": ENABLED,
            "nudge": False,
            "people": ["stepmemo-people"],
            "store": "postgresql",
            "priorityClass": {"create": True},
            "verifyArtifacts": True,
        },
        lambda: kustomized(
            AUTO_KEY_REFERENCES,
            CERT_MANAGER,
            FLOW_SCHEMA,
            HOST_NETWORK,
            IMAGE_VOLUME,
            MONITORING,
            NAMESPACE_OPT_IN,
            NETWORK_POLICY,
            NO_NUDGE,
            PEOPLE,
            POSTGRESQL,
            PRIORITY_CLASS,
            VERIFY_ARTIFACTS,
        ),
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_helm_makes_what_kustomize_makes_for_the_same_choice(choice: str) -> None:
    values, theirs = CHOICES[choice]
    assert by_name(rendered(values)) == by_name(theirs())


def test_every_component_is_a_choice() -> None:
    text = (CHART / "templates" / "_objects.tpl").read_text(encoding="utf-8")
    chosen = set(re.findall(r'^  "([a-z0-9-]+)" ', text, re.MULTILINE))
    assert chosen == {path.name for path in OF_THE_BASE}
    assert chosen | {path.name for path in OF_A_NAMESPACE} <= CHOICES.keys() | {"namespaces"}


def test_helm_finds_no_fault_with_it() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict")


def test_a_package_holds_what_the_links_lead_to(tmp_path: Path) -> None:
    done = built.run("helm", "package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert rendered({}, chart=package) == rendered({})
    with tarfile.open(package) as packed:
        assert all(member.isfile() for member in packed), "a link would lead nowhere"


def test_a_copy_without_them_says_what_to_do(tmp_path: Path) -> None:
    """As some tools make one that read charts from Git."""
    for path in CHART.rglob("*"):
        if path.is_file() and not path.is_symlink():
            copy = tmp_path / path.relative_to(CHART)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    done = built.run("helm", "template", "--kube-version=1.35.0", str(tmp_path))
    assert done.returncode != 0
    assert "base/kustomization.yaml is missing in this copy of the chart" in done.stderr
    assert "helm package manifests/chart" in done.stderr


def test_its_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == importlib.metadata.version("stepmemo")
    default = made({}, "stepmemo", CHART)
    assert container(default, WEBHOOK)["image"] == f"localhost/stepmemo:{chart['appVersion']}"


def every_value() -> Json:
    return {**CHOICES["many"][0], "namespaces": ["one"]}


def test_in_another_namespace_nothing_speaks_of_stepmemos() -> None:
    usual, moved = (rendered(every_value(), namespace=name) for name in ("stepmemo", "elsewhere"))
    assert list(places(moved)) == [place.replace("stepmemo", "elsewhere") for place in places(usual)]
    assert json.dumps(moved).replace("elsewhere", "stepmemo") == json.dumps(usual)
    for document in hooks(every_value(), "elsewhere"):
        assert set(places([document])) <= {"elsewhere", "one"}


def places(found: Any) -> Iterator[str]:
    """Every namespace that is named, in the order of the objects."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "namespace" and isinstance(value, str):
                yield value
            elif name == "matchExpressions":
                yield from (one for expression in value for one in expression.get("values", ()))
            elif name == "dnsNames":
                yield from (one.split(".")[1] for one in value)
            elif name == "cert-manager.io/inject-ca-from":
                yield value.partition("/")[0]
            else:
                yield from places(value)
    elif isinstance(found, list):
        for each in found:
            yield from places(each)


def test_an_upgrade_leaves_what_the_programs_write_to_them() -> None:
    """Helm's patch changes what differs between two renderings, and nothing that is in neither."""
    documents = rendered(every_value())
    configuration = find(documents, "MutatingWebhookConfiguration")
    assert all("caBundle" not in hook["clientConfig"] for hook in configuration["webhooks"])
    assert not {"Secret", "Lease"} & {document["kind"] for document in documents}


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({"registry": "r.example/team", "tag": "1.2"}, "r.example/team/stepmemo:1.2"),
        ({"registry": "", "name": "memo", "tag": "x"}, "memo:x"),
        (
            {"registry": "r.example", "tag": "1", "digest": f"sha256:{'a' * 64}"},
            f"r.example/stepmemo@sha256:{'a' * 64}",
        ),
    ],
    ids=["registry", "name", "digest"],
)
def test_the_image_is_that_of_programs_and_hooks(values: Json, image: str) -> None:
    documents = rendered({"image": values})
    assert {container(documents, program)["image"] for program in PROGRAMS} == {image}
    assert {pod["containers"][0]["image"] for pod in pods(hooks({"image": values}))} == {image}


def pods(documents: list[Json]) -> Iterator[Json]:
    for document in documents:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif document["kind"] in ("Job", "Deployment"):
            yield document["spec"]["template"]["spec"]


def test_how_it_is_pulled_goes_for_programs_hooks_and_what_is_injected() -> None:
    values = {"image": {"pullPolicy": "Always", "pullSecrets": ["mine"], "tag": "dev"}}
    documents = rendered(values)
    found = list(pods([*documents, *hooks(values)]))
    assert len(found) == 4
    for pod in found:
        assert pod["containers"][0]["imagePullPolicy"] == "Always"
        assert pod["imagePullSecrets"] == [{"name": "mine"}]
    assert environment(documents, WEBHOOK)["STEPMEMO_IMAGE_PULL_POLICY"] == "Always"
    assert "STEPMEMO_IMAGE_PULL_POLICY" not in environment(documents, KEEPER)


def test_each_program_is_placed_and_sized_and_set_by_its_own_values() -> None:
    webhook = {
        "replicas": 3,
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "settings": {"validate": "warn", "check-timeout": "3s"},
    }
    documents = rendered({"webhook": webhook, "priorityClass": {"name": "system-cluster-critical"}})
    deployment = find(documents, "Deployment", WEBHOOK)["spec"]
    spec = deployment["template"]["spec"]
    assert deployment["replicas"] == 3
    assert container(documents, WEBHOOK)["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": "1Gi"},
    }
    assert (spec["nodeSelector"], spec["tolerations"]) == (webhook["nodeSelector"], webhook["tolerations"])
    chosen = webhook_settings.parse([], environment(documents, WEBHOOK))
    assert chosen.validate == "warn"
    assert chosen.inject.check_timeout_ms == 3000
    assert spec["priorityClassName"] == "system-cluster-critical"
    keeper = find(documents, "Deployment", KEEPER)["spec"]["template"]["spec"]
    assert keeper.pop("priorityClassName") == "system-cluster-critical"
    assert keeper == find(rendered({}), "Deployment", KEEPER)["spec"]["template"]["spec"]


def test_the_kept_namespaces_are_the_keepers_setting() -> None:
    variables = environment(rendered({"namespaces": ["one", "two"]}), KEEPER)
    assert settings.parse([], variables).namespaces == ("one", "two")


def test_sources_and_labels_and_groups_and_issuer_are_those_of_the_values() -> None:
    webhook, keeper, metrics = ([{"ipBlock": {"cidr": f"10.{n}.0.0/16"}}] for n in range(3))
    issuer = {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "mine"}
    documents = rendered(
        {
            "networkPolicy": {
                **ENABLED,
                "webhookFrom": webhook,
                "keeperFrom": keeper,
                "metricsFrom": metrics,
            },
            "monitoring": {**ENABLED, "labels": {"release": "mine"}},
            "people": ["developers", "admins"],
            "certManager": {**ENABLED, "issuerRef": issuer},
        }
    )
    for program, sources in ((WEBHOOK, webhook), (KEEPER, keeper)):
        rules = find(documents, "NetworkPolicy", program)["spec"]["ingress"]
        assert [rule["from"] for rule in rules] == [sources, metrics]
    names = {name for kind, _, name in by_name(documents) if kind == "Certificate"}
    assert names == {"stepmemo-issuer", *PROGRAMS}
    for program in PROGRAMS:
        assert find(documents, "Certificate", program)["spec"]["issuerRef"] == issuer
    for kind in ("PodMonitor", "PrometheusRule"):
        assert find(documents, kind)["metadata"]["labels"]["release"] == "mine"
    subjects = find(documents, "RoleBinding", "stepmemo-people")["subjects"]
    assert [(one["kind"], one["name"]) for one in subjects] == [("Group", "developers"), ("Group", "admins")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "replicas"),
        ({"webhook": {"replica": 3}}, "replica"),
        ({"webhook": {"replicas": 0}}, "replicas"),
        ({"access": "directly"}, "access"),
        ({"namespaces": ["A_b"]}, "namespaces"),
        ({"image": {"digest": "sha256:1"}}, "digest"),
        ({"keeper": {"settings": {"gc-unused-for": 720}}}, "gc-unused-for"),
        (
            {"access": "direct", "store": "postgresql"},
            "`access: direct` does not go with `store: postgresql`",
        ),
        ({"access": "direct", "namespaces": ["one"]}, "`access: direct` does not go with `namespaces`"),
        ({"access": "direct", "verifyArtifacts": True}, "does not go with `verifyArtifacts`"),
        ({"access": "direct", "people": ["us"]}, "`access: direct` does not go with `people`"),
        ({"directNamespaces": [{"namespace": "one"}]}, "`directNamespaces` goes with `access: direct` alone"),
        ({"priorityClass": {"create": True, "name": "x"}}, "`priorityClass.name` names a class"),
        ({"priorityClass": {"name": "x"}, "highAvailability": True}, "`priorityClass.name` names a class"),
        ({"hostNetwork": True, "port": 10250}, "`hostNetwork` does not go with `port: 10250`"),
        ({"port": 443}, "port"),
        ({"webhook": {"settings": {"access": "direct", "pod-name": "x"}}}, "`webhook.settings.pod-name`"),
        ({"store": "postgresql", "keeper": {"settings": {"store": "configmap"}}}, "`keeper.settings.store`"),
        ({"namespaces": ["a"], "keeper": {"settings": {"namespaces": "b"}}}, "`keeper.settings.namespaces`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_wrong_or_do_not_go_together_are_told(values: Json, said: str) -> None:
    assert said in refused(values)


# --- hooks


def of_hook(documents: list[Json], event: str) -> list[Json]:
    return [one for one in documents if one["metadata"]["annotations"][HOOK] == event]


def arguments(pod: Json, module: str) -> list[str]:
    """The arguments that the one container gives to this module."""
    command = pod["containers"][0]["command"]
    assert command[:3] == ["python3", "-m", module]
    return list(command[3:])


def test_before_anything_is_deleted_gated_pods_are_let_run_within_the_time_that_helm_waits() -> None:
    job = find(of_hook(hooks({}), "pre-delete"), "Job", "stepmemo-leave")
    chosen = server_settings.parse(
        leave.Settings,
        arguments(job["spec"]["template"]["spec"], "keeper.leave"),
        {},
        lambda _: (),
        program="",
        description="",
    )
    assert chosen.namespaces == ()
    assert chosen.timeout < job["spec"]["activeDeadlineSeconds"] < 300, "Helm's own time-out"


def test_where_some_namespaces_are_kept_it_has_rights_in_these_alone() -> None:
    documents = of_hook(hooks({"namespaces": ["one", "two"]}), "pre-delete")
    (role,) = (d["rules"] for d in documents if d["kind"] == "ClusterRole")
    assert [rule["resources"] for rule in role] == [["mutatingwebhookconfigurations"]]
    assert [d["metadata"]["namespace"] for d in documents if d["kind"] == "Role"] == ["one", "two"]
    job = find(documents, "Job", "stepmemo-leave")["spec"]["template"]["spec"]
    assert "--namespaces=one,two" in arguments(job, "keeper.leave")


@pytest.mark.parametrize("event", ["pre-delete", "test"])
def test_the_rights_of_a_hook_are_there_while_it_runs_and_no_longer(event: str) -> None:
    for document in of_hook(hooks({"namespaces": ["one"]}), event):
        policy = document["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
        rights = [] if document["kind"] in ("Job", "Pod") else ["hook-failed"]  # these have a log to be read
        assert policy == ["before-hook-creation", "hook-succeeded", *rights]


@pytest.mark.contract
async def test_they_are_enough_to_leave(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(leave, "_PAUSE", 0.05)
    site = Site.new(cluster)
    (rules,) = (d["rules"] for d in hooks({"namespaces": [site.namespace]}) if d["kind"] == "Role")
    token = await asyncio.to_thread(cluster.service_account, site.namespace, "stepmemo-leave", rules)
    name = site.pod()
    async with api_client(cluster, token=token) as api:
        found = await leave.gated.find(api, site.namespace)
        assert [(one.ending, one.why) async for one in leave.gated.release(api, found)] == [
            (leave.gated.Ending.RELEASED, "")
        ]
    assert not site.held(name)


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ({}, "stepmemo-certs"),
        ({"access": "direct"}, "stepmemo-certs"),
        ({"certManager": ENABLED}, "stepmemo-webhook-tls"),
    ],
    ids=["service", "direct", "cert-manager"],
)
def test_the_smoke_test_asks_the_programs_that_there_are_by_the_ca_that_there_is(
    values: Json, secret: str
) -> None:
    (pod,) = (d["spec"] for d in of_hook(hooks(values), "test") if d["kind"] == "Pod")
    chosen = server_settings.parse(
        smoke_test.Settings,
        arguments(pod, "server.smoke_test"),
        {},
        lambda _: (),
        program="",
        description="",
    )
    documents = rendered(values)
    services = {
        d["metadata"]["name"]: d["metadata"]["namespace"] for d in documents if d["kind"] == "Service"
    }
    assert services == dict.fromkeys(chosen.services, chosen.namespace)
    (mount,), (volume,) = pod["containers"][0]["volumeMounts"], pod["volumes"]
    assert mount["mountPath"] == str(chosen.cert_dir)
    assert volume["secret"]["secretName"] == secret
    assert [item["path"] for item in volume["secret"]["items"]] == ["ca.crt"], "and no key"


def test_the_api_server_takes_hooks_and_their_pods_where_the_bases_pod_security_is_enforced(
    kube_apiserver: Cluster,
) -> None:
    namespace = kube_apiserver.namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    documents = hooks({"namespaces": [namespace]}, namespace)
    specs = [{**spec, "serviceAccountName": "default"} for spec in pods(documents)]
    named = {"name": "hook", "namespace": namespace}
    run = [{"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec} for spec in specs]
    for document in [*(one for one in documents if one["kind"] != "Pod"), *run]:
        version, plural = document["apiVersion"], f"{document['kind'].lower()}s"
        inside = "" if document["kind"] in CLUSTER_WIDE else f"/namespaces/{namespace}"
        path = f"/{'apis' if '/' in version else 'api'}/{version}{inside}/{plural}"
        strict = {"dryRun": "All", "fieldValidation": "Strict"}
        status, body, _ = kube_apiserver.request("POST", path, document, query=strict)
        assert status == 201, body


def test_hooks_are_labelled_and_in_their_namespace() -> None:
    for document in hooks({"namespaces": ["one"]}):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "stepmemo"
        assert ("namespace" in document["metadata"]) != (document["kind"] in CLUSTER_WIDE)
