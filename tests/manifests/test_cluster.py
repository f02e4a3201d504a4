"""The manifests against a real API server: accepted, allowed, and meaning what the code means."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from argo.steppod import Owner
from memoize.autokey import ObjectReference
from memoize.reasons import Reason
from server.bodies import BODY_LIMIT
from server.events import Events
from server.lookups import Lookups
from server.tls import ServingCertificate
from tests.beside import beside
from tests.cluster import Cluster
from tests.manifests.rendering import (
    AUTO_KEY_REFERENCES,
    BASE,
    CLUSTER_WIDE,
    IMAGE_VOLUME,
    KEPT_NAMESPACE,
    KEPT_REFERENCES,
    OF_A_NAMESPACE,
    OF_THE_BASE,
    OVERLAYS,
    POLICIES,
    PROGRAMS,
    WEBHOOK,
    find,
    installation,
    overlay,
    render,
)
from tests.waiting import until
from tests.webhook.serving import api_client, certify
from webhook.inject import preflight
from webhook.inject.containers import InjectSettings

Json = dict[str, Any]


def _relocated(made: Callable[[Path], list[Json]], directory: Path, namespace: str) -> list[Json]:
    """What is made of a component or an overlay; its objects are in another namespace."""
    documents = made(directory)
    for document in documents:
        if document["kind"] not in CLUSTER_WIDE:
            document["metadata"]["namespace"] = namespace
    return documents


PLURALS = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "ConfigMap": "configmaps",
    "Service": "services",
    "Deployment": "deployments",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "PriorityClass": "priorityclasses",
    "NetworkPolicy": "networkpolicies",
    "FlowSchema": "flowschemas",
    "PriorityLevelConfiguration": "prioritylevelconfigurations",
}


OF_OTHERS = ("monitoring.coreos.com/v1", "cert-manager.io/v1")
"""Kinds that a bare API server does not know: those of the Prometheus Operator and of cert-manager."""

INSTALLED: dict[str, Callable[[str], list[Json]]] = {
    "base": lambda namespace: render(BASE, namespace),
    **{path.name: partial(render, path) for path in OF_A_NAMESPACE},
    **{path.name: partial(_relocated, overlay, path) for path in OF_THE_BASE},
    **{f"overlays/{path.name}": partial(_relocated, installation, path) for path in OVERLAYS},
}


@pytest.mark.parametrize("what", INSTALLED)
def test_the_api_server_takes_every_object_and_knows_every_field(kube_apiserver: Cluster, what: str) -> None:
    namespace = kube_apiserver.namespace()
    for document in INSTALLED[what](namespace):
        if document["apiVersion"] in OF_OTHERS:
            continue
        if document["kind"] in POLICIES:
            document["metadata"]["name"] += "-again"  # they are in force for all tests of this tier
        version, plural = document["apiVersion"], PLURALS[document["kind"]]
        inside = "" if document["kind"] in CLUSTER_WIDE else f"/namespaces/{namespace}"
        path = f"/{'apis' if '/' in version else 'api'}/{version}{inside}/{plural}"
        strict = {"dryRun": "All", "fieldValidation": "Strict"}
        status, body, _ = kube_apiserver.request("POST", path, document, query=strict)
        assert status == 201, body


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_pod_satisfies_the_pod_security_that_its_namespace_enforces(
    kube_apiserver: Cluster, program: str
) -> None:
    ours = find(render(BASE), "Namespace")
    enforced = {k: v for k, v in ours["metadata"]["labels"].items() if k.startswith("pod-security")}
    assert enforced == {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = kube_apiserver.namespace(enforced)
    deployment = find(render(BASE), "Deployment", program)
    spec = {**deployment["spec"]["template"]["spec"], "serviceAccountName": "default"}
    pod = {"kind": "Pod", "metadata": {"name": program, "namespace": namespace}, "spec": spec}
    status, body = kube_apiserver.create(pod, dry_run=True)
    assert status == 201, body
    del spec["containers"][0]["securityContext"]
    assert kube_apiserver.create(pod, dry_run=True)[0] == 403, "or the namespace enforces nothing"


@pytest.mark.contract
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kept", [False, True], ids=["cluster-wide", "in-a-namespace"])
async def test_each_account_may_look_up_and_tell(cluster: Cluster, program: str, kept: bool) -> None:
    namespace = cluster.namespace({"a": "b"})
    given = ("Role", render(KEPT_NAMESPACE, namespace)) if kept else ("ClusterRole", render(BASE))
    token = cluster.service_account(namespace, program, find(given[1], given[0], program)["rules"])
    metadata = {"name": "hello", "namespace": namespace}
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata}
    _, created = cluster.create({**workflow, "spec": {}})
    owner = Owner(namespace, "hello", created["metadata"]["uid"])
    lost: list[str] = []
    async with api_client(cluster, token=token) as api:
        lookups = Lookups(api, lost.append, seconds=10)
        assert await lookups.workflow_metadata(owner) is not None
        if program == WEBHOOK:
            assert await lookups.namespace_labels(namespace) is not None
        events = Events(api, lambda _: lost.append("event"), program, "test")
        async with beside(events.run()):
            events.skipped(owner, "hello-1", Reason.NAME_CLASH, "")
            await until(lambda: cluster.list("Event", namespace)[1]["items"])
    assert lost == []


@pytest.mark.contract
async def test_with_the_component_it_may_try_image_volumes(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    rules = find(overlay(IMAGE_VOLUME), "Role", "stepmemo-image-volume")["rules"]
    token = cluster.service_account(namespace, WEBHOOK, rules)
    async with api_client(cluster, token=token) as api:
        await preflight.require_image_volumes(api, namespace, InjectSettings(image="stepmemo:test"))


@pytest.mark.contract
@pytest.mark.parametrize("kept", [False, True], ids=["cluster-wide", "in-a-namespace"])
async def test_with_the_component_it_may_read_versions(cluster: Cluster, kept: bool) -> None:
    namespace = cluster.namespace()
    given = (
        ("Role", render(KEPT_REFERENCES, namespace))
        if kept
        else ("ClusterRole", overlay(AUTO_KEY_REFERENCES))
    )
    rules = find(given[1], given[0], "stepmemo-references")["rules"]
    token = cluster.service_account(namespace, WEBHOOK, rules)
    references = [ObjectReference("Secret", "s"), ObjectReference("ConfigMap", "c")]
    async with api_client(cluster, token=token) as api:
        versions = await Lookups(api, [].append, seconds=10).versions(namespace, references)
    assert versions == dict.fromkeys(references, ())


# --- Which requests reach the webhooks ---------------------------------------------------------------


@asynccontextmanager
async def recording(cluster: Cluster, namespace: str, directory: Path) -> AsyncIterator[list[str]]:
    """The configuration of the manifests, leading here; `<path> <operation> <name>` of what arrives."""
    arrived: list[str] = []

    async def admit(request: web.Request) -> web.StreamResponse:
        review = json.loads(await request.read())
        question = review["request"]
        arrived.append(f"{request.path} {question['operation']} {question['name']}")
        return web.json_response({**review, "response": {"uid": question["uid"], "allowed": True}})

    authority = certify(directory, host="localhost")
    certificate = ServingCertificate(directory)
    certificate.reload()
    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post("/{path:.*}", admit)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context).start()
    configuration = find(render(BASE), "MutatingWebhookConfiguration")
    configuration["metadata"]["name"] = namespace
    for webhook in configuration["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        webhook["clientConfig"] = {
            "url": f"https://localhost:{runner.addresses[0][1]}{path}",
            "caBundle": base64.b64encode(authority.ca_pem).decode(),
        }
        webhook["failurePolicy"] = "Fail"
        here = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace]}
        webhook["namespaceSelector"]["matchExpressions"].append(here)
    status, body = await asyncio.to_thread(cluster.create, configuration)
    assert status == 201, body
    try:
        await until(lambda: _reaches(cluster, namespace, arrived))
        arrived.clear()
        yield arrived
    finally:
        await asyncio.to_thread(cluster.delete, "MutatingWebhookConfiguration", "", namespace)
        await runner.cleanup()


async def _reaches(cluster: Cluster, namespace: str, arrived: list[str]) -> bool:
    """The API server learns of a configuration by a watch: ask until it has."""
    probe = _argo("WorkflowTemplate", namespace, "probe")
    await asyncio.to_thread(cluster.create, probe, dry_run=True)
    return bool(arrived)


def _is_known_to_be_deleted(cluster: Cluster, kind: str, namespace: str, name: str) -> bool:
    """Whether the server's cache shows it: a patch starts from that, and webhooks are asked about it."""
    query = {"resourceVersion": "0"}
    found = cluster.request("GET", cluster.path(kind, namespace, name), query=query).body
    return "deletionTimestamp" in found["metadata"]


def _argo(kind: str, namespace: str, name: str) -> Json:
    metadata = {"name": name, "namespace": namespace, "labels": {}, "annotations": {}}
    spec = {"entrypoint": "main"}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _pod(namespace: str, name: str, labels: Json, annotations: Json) -> Json:
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "main", "image": "i"}]}}


async def test_only_pods_of_workflows_with_a_key_reach_us(kube_apiserver: Cluster, tmp_path: Path) -> None:
    namespace = kube_apiserver.namespace()
    label, key = {"workflows.argoproj.io/workflow": "w"}, {"stepmemo.dev/key": ""}
    async with recording(kube_apiserver, namespace, tmp_path) as arrived:
        for name, labels, annotations in (
            ("plain", {}, {}),
            ("no-key", label, {"other": "x"}),
            ("no-label", {"other": "x"}, key),
            ("step", label, key),
        ):
            pod = _pod(namespace, name, labels, annotations)
            assert (await asyncio.to_thread(kube_apiserver.create, pod))[0] == 201
    assert arrived == ["/mutate/pods CREATE step"]


async def test_workflows_reach_us_when_they_are_made_and_never_again(
    kube_apiserver: Cluster, tmp_path: Path
) -> None:
    namespace = kube_apiserver.namespace()
    async with recording(kube_apiserver, namespace, tmp_path) as arrived:
        await asyncio.to_thread(kube_apiserver.create, _argo("Workflow", namespace, "hello"))
        change = {"spec": {"entrypoint": "other"}, "status": {"phase": "Running"}}
        await asyncio.to_thread(kube_apiserver.patch, "Workflow", namespace, "hello", change)
    assert arrived == ["/mutate/workflows CREATE hello"]


@pytest.mark.parametrize("kind", ["WorkflowTemplate", "CronWorkflow", "ClusterWorkflowTemplate"])
async def test_an_update_reaches_us_when_the_spec_or_an_opt_in_changed(
    kube_apiserver: Cluster, tmp_path: Path, kind: str
) -> None:
    namespace = kube_apiserver.namespace()
    name = namespace  # a cluster-scoped object needs a name of its own
    of_concern: list[Json] = [
        {"spec": {"entrypoint": "other"}},
        {"spec": None},
        {"metadata": {"annotations": {"stepmemo.dev/memoize": "true"}}},
        {"metadata": {"annotations": {"stepmemo.dev/memoize": "false"}}},
        {"metadata": {"annotations": None}},
        {"metadata": {"labels": {"stepmemo.dev/memoize": "true"}}},
        {"metadata": {"labels": {"stepmemo.dev/mode": "off"}}},
        {"metadata": {"annotations": {"stepmemo.dev/mode": "off"}}},
        {"metadata": {"labels": None}},
    ]
    of_none: list[Json] = [
        {"status": {"phase": "Running"}},
        {"metadata": {"annotations": {"other": "x"}}},
        {"metadata": {"labels": {"other": "x"}}},
        {"metadata": {"finalizers": ["test.stepmemo.dev/wait"]}},
    ]
    where = "" if kind == "ClusterWorkflowTemplate" else namespace

    async def update(change: Json) -> None:
        status, body = await asyncio.to_thread(kube_apiserver.patch, kind, where, name, change)
        assert status == 200, body

    async with recording(kube_apiserver, namespace, tmp_path) as arrived:
        created = _argo(kind, where, name)
        assert (await asyncio.to_thread(kube_apiserver.create, created))[0] == 201
        assert arrived.pop() == f"/mutate/workflows CREATE {name}"
        for change in of_concern:
            await update(change)
            # Once or more: an API server begins a patch anew where its cache was behind.
            assert set(arrived) == {f"/mutate/workflows UPDATE {name}"}, change
            arrived.clear()
        for change in of_none:
            await update(change)
            assert arrived == [], change
        await asyncio.to_thread(kube_apiserver.delete, kind, where, name)
        await until(lambda: asyncio.to_thread(_is_known_to_be_deleted, kube_apiserver, kind, where, name))
        await update({"spec": {"entrypoint": "third"}})  # it waits for its finalizer
        await update({"metadata": {"finalizers": None}})
        assert arrived == []


async def test_requests_for_a_deep_and_wide_spec_still_reach_us(
    kube_apiserver: Cluster, tmp_path: Path
) -> None:
    """CEL has a budget, and an expression that goes beyond it fails open: nothing would be validated."""
    namespace = kube_apiserver.namespace()
    template = _argo("WorkflowTemplate", namespace, "large")
    template["spec"]["templates"] = [
        {"name": f"t{n}", "container": {"args": ["x" * 100] * 20}} for n in range(500)
    ]
    async with recording(kube_apiserver, namespace, tmp_path) as arrived:
        status, body = await asyncio.to_thread(kube_apiserver.create, template)
        assert status == 201, body
        change = {"metadata": {"labels": {"stepmemo.dev/memoize": "true"}}}
        await asyncio.to_thread(kube_apiserver.patch, "WorkflowTemplate", namespace, "large", change)
    assert arrived == ["/mutate/workflows CREATE large", "/mutate/workflows UPDATE large"]
