"""The requests behind `stepmemo doctor`, and what it prints. What has to be tried is tried by a dry run."""

import argparse
import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import webhook.settings
from argo import names as argo
from argo.shape import mapping
from cli import checks, installation, output, session
from cli.checks import Account, CheckResult, Level
from cli.installation import KEEPER, WEBHOOK
from cli.output import Field
from cli.session import DONE, FAILED, CommandError, Session
from keeper import limits
from kube import pages
from kube.errors import ApiError
from memoize import names
from webhook.inject import containers, image_volume
from webhook.inject.containers import CacheServiceAddress, InjectSettings
from webhook.inject.resources import Work
from webhook.pods.delivery import Delivery

Json = dict[str, Any]

FINDINGS = (Field("RESULT"), Field("CHECK"), Field("FOUND", yields=True))
LOOKS, PAUSE = 6, 0.5
"""How often the keeper's Lease is looked at, and seconds in between: it is renewed every second."""
MOST_ACCOUNTS = 20
PAGE = 100
_APPS = "/apis/apps/v1/namespaces"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_TEMPLATE = {
    "apiVersion": argo.API_VERSION,
    "kind": "WorkflowTemplate",
    "spec": {
        "templates": [
            {
                "name": "main",
                "metadata": {"annotations": {names.MEMOIZE: "true"}},
                "container": {"image": "busybox"},
                "memoize": {
                    "key": "doctor",
                    "maxAge": "1h",
                    "cache": {"configMap": {"name": "stepmemo-doctor", "key": ""}},
                },
            }
        ]
    },
}


async def doctor(connected: Session, args: argparse.Namespace) -> int:
    """Look at everything, and print what was found."""
    found = [finding async for finding in _findings(connected, args)]
    items = ({**finding._asdict(), "level": finding.level.value} for finding in found)
    if args.output in ("json", "yaml"):
        output.document({"items": list(items)}, args.output)
    else:
        show(found)
    return FAILED if any(finding.level is Level.FAIL for finding in found) else DONE


def show(found: Sequence[CheckResult]) -> None:
    """Print what was found, one after the other, each cure below."""
    longest = max(len(finding.check) for finding in found)
    for finding in found:
        output.hanging(
            f"{finding.level.value:7}  {finding.check:{longest}}  ", finding.said, finding.level.value
        )
        if finding.cure:
            output.line(f"         cure: {finding.cure}")


async def _findings(connected: Session, args: argparse.Namespace) -> AsyncIterator[CheckResult]:
    ours = args.stepmemo_namespace
    async for finding in _kubernetes(connected):
        yield finding
    # 1. The webhook, and how the API server comes to it.
    deployed = await _seen("webhook", installation.deployment(connected, ours, WEBHOOK))
    settings = _webhook_settings(deployed)
    yield deployed if isinstance(deployed, CheckResult) else checks.deployment(deployed, WEBHOOK)
    async for finding in _configuration(connected, ours, settings):
        yield finding
    yield await _admission(connected)
    # 2. The keeper.
    if settings.access == "direct":
        yield checks.ok("keeper", "there is none: --access direct")
    else:
        there = await _seen("keeper", installation.deployment(connected, ours, KEEPER))
        yield there if isinstance(there, CheckResult) else checks.deployment(there, KEEPER)
        async for finding in _keeper(connected, ours):
            yield finding
    yield await _policies(connected)
    # 3. Argo.
    async for finding in _argo(connected, args.argo_namespace):
        yield finding
    # 4. The Namespace of the workflows.
    async for finding in _namespace(connected, settings):
        yield finding


async def _seen(check: str, wanted: Any) -> Any:
    """What was asked for; a CheckResult where it could not be had."""
    try:
        return await wanted
    except CommandError as error:
        return CheckResult(Level.UNKNOWN, check, str(error))


def _webhook_settings(deployed: Any) -> webhook.settings.Settings:
    """The webhook's settings as its Deployment gives them; the defaults where they cannot be read."""
    found = mapping(deployed)
    image = str(installation.first_container(found).get("image") or "stepmemo")
    return installation.settings(found, webhook.settings.parse, {"STEPMEMO_IMAGE": image})


async def _kubernetes(connected: Session) -> AsyncIterator[CheckResult]:
    found = await _seen("kubernetes", connected.ask("get /version", "GET", "/version"))
    yield found if isinstance(found, CheckResult) else checks.kubernetes(found)


async def _configuration(
    connected: Session, namespace: str, settings: webhook.settings.Settings
) -> AsyncIterator[CheckResult]:
    name = settings.webhook_configuration
    path = f"{_ADMISSION}/mutatingwebhookconfigurations/{quote(name, safe='')}"
    found = await _seen("webhook configuration", connected.find("get mutatingwebhookconfigurations", path))
    if isinstance(found, CheckResult):
        yield found
        return
    for finding in checks.configuration(found, name):
        yield finding
    hooks = map(mapping, mapping(found).get("webhooks") or ())
    bundles = [str(mapping(hook.get("clientConfig")).get("caBundle") or "") for hook in hooks]
    if not all(bundles) or not bundles:
        return
    if settings.certs == "files":
        said = "it is in files (--certs files): `webhook` below says whether the API server trusts it"
        yield CheckResult(Level.UNKNOWN, "certificate", said)
        return
    path = f"/api/v1/namespaces/{namespace}/secrets/{settings.secret}"
    secret = await _seen("certificate", connected.find(f"get secrets in {namespace}", path))
    if isinstance(secret, CheckResult):
        yield secret
    elif secret is None:
        yield CheckResult(Level.UNKNOWN, "certificate", f"there is no Secret {settings.secret}")
    else:
        serving = base64.b64decode(str(mapping(secret.get("data")).get("tls.crt") or ""))
        yield checks.certificate(serving, [base64.b64decode(one) for one in bundles], session.now())


async def _admission(connected: Session) -> CheckResult:
    path = f"/apis/{argo.API_VERSION}/namespaces/{connected.namespace}/workflowtemplates"
    body = {**_TEMPLATE, "metadata": {"name": "stepmemo-doctor", "namespace": connected.namespace}}
    query = [("dryRun", "All"), ("fieldValidation", "Ignore")]
    doing = "try the webhook by a dry run (create workflowtemplates)"
    try:
        return checks.admission(await connected.ask(doing, "POST", path, body=body, query=query))
    except CommandError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return checks.not_there(error.said, connected.namespace)
        return CheckResult(Level.UNKNOWN, "webhook", str(error))


async def _keeper(connected: Session, namespace: str) -> AsyncIterator[CheckResult]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{KEEPER}"
    versions, lease = set[str](), None
    for look in range(LOOKS):
        if look:
            await asyncio.sleep(PAUSE)
        lease = await _seen("keeper", connected.find(f"get leases in {namespace}", path))
        if isinstance(lease, CheckResult):
            yield lease
            return
        metadata = mapping(mapping(lease).get("metadata"))
        versions.add(str(metadata.get("resourceVersion")))
        if lease is None or len(versions) > 1:
            break
    found = mapping(lease)
    status = mapping(mapping(found.get("metadata")).get("annotations")).get(names.KEEPER_STATUS)
    holder = str(mapping(found.get("spec")).get("holderIdentity") or "")
    for finding in checks.keeper(status, len(versions) > 1, holder, connected.namespace):
        yield finding


async def _policies(connected: Session) -> CheckResult:
    async def listed(plural: str, name: Callable[[Json], object]) -> set[str]:
        query = [("labelSelector", "app.kubernetes.io/part-of=stepmemo")]
        found = await connected.ask(f"list {plural}", "GET", f"{_ADMISSION}/{plural}", query=query)
        return {str(name(one)) for one in found.get("items") or ()}

    try:
        present = await listed("validatingadmissionpolicies", lambda one: one["metadata"]["name"])
        bound = await listed("validatingadmissionpolicybindings", lambda one: one["spec"]["policyName"])
    except CommandError as error:
        return CheckResult(Level.UNKNOWN, "policies", str(error))
    return checks.policies(present, bound)


async def _argo(connected: Session, namespace: str) -> AsyncIterator[CheckResult]:
    found = await _seen(
        "argo", connected.ask(f"list deployments in {namespace}", "GET", f"{_APPS}/{namespace}/deployments")
    )
    if isinstance(found, CheckResult):
        yield found
        return
    controllers = [
        (one["metadata"]["name"], container)
        for one in found.get("items") or ()
        for container in map(mapping, one["spec"]["template"]["spec"].get("containers") or ())
        if checks.is_controller(container)
    ]
    if not controllers:
        said = f"no Deployment in {namespace} is Argo's controller"
        yield CheckResult(Level.UNKNOWN, "argo", said, "say by --argo-namespace where it runs")
        return
    yield checks.argo_version([str(container.get("image")) for _, container in controllers])
    for name, container in controllers:
        yield checks.requeue(container, namespace, name)


async def _namespace(connected: Session, settings: webhook.settings.Settings) -> AsyncIterator[CheckResult]:
    namespace = connected.namespace
    path = f"/api/v1/namespaces/{namespace}"
    found = await _seen("namespace", connected.find("get namespaces", path))
    if isinstance(found, CheckResult):
        yield found
    else:
        metadata = mapping(mapping(found).get("metadata"))
        labels = None if found is None else mapping(metadata.get("labels"))
        yield checks.namespace_labels(labels, namespace)
        if found is None:
            return
        said = limits.read(mapping(metadata.get("annotations")))
        for finding in checks.limits(said, namespace, direct=settings.access == "direct"):
            yield finding
    async for finding in _accounts(connected, direct=settings.access == "direct"):
        yield finding
    through_service = (
        None if settings.access == "direct" else CacheServiceAddress("https://stepmemo-keeper", "")
    )
    plain, ours = _pods(replace(settings.inject, service=through_service))
    refused = await _seen("containers", _refused(connected, plain))
    of_ours = "" if refused else await _seen("containers", _refused(connected, ours))
    unknown = next((one for one in (refused, of_ours) if isinstance(one, CheckResult)), None)
    yield unknown or checks.containers(refused, of_ours)


async def _accounts(connected: Session, *, direct: bool) -> AsyncIterator[CheckResult]:
    """The service accounts that report for the steps whose Pods are there, or `default`."""
    accounts = set[str]()
    query = [("labelSelector", argo.WORKFLOW_LABEL)]
    path = f"/api/v1/namespaces/{connected.namespace}/pods"
    try:
        async for page in pages.pages(connected.api, path, query, name="pods", most=PAGE):
            steps = (mapping(one.get("spec")) for one in page.get("items") or ())
            accounts |= {name for step in steps if (name := checks.reporting_account(step))}
            if len(accounts) >= MOST_ACCOUNTS:
                break
    except ApiError as error:
        yield CheckResult(Level.UNKNOWN, "accounts", str(session.failure("list pods", error)))
    for name in sorted(accounts or {"default"})[:MOST_ACCOUNTS]:
        found = await _seen(f"account {name}", _account(connected, name, direct=direct))
        if isinstance(found, CheckResult):
            yield found
            continue
        for finding in checks.account(found, connected.namespace):
            yield finding


async def _account(connected: Session, name: str, *, direct: bool) -> Account:
    return Account(
        name=name,
        lacks=await _lacks(connected, name, argo.GROUP, "workflowtaskresults", ("create", "patch")),
        lacks_caches=await _lacks(connected, name, "", "configmaps", ("get", "create", "patch"))
        if direct
        else (),
        direct=direct,
    )


async def _lacks(
    connected: Session, account: str, group: str, resource: str, verbs: Sequence[str]
) -> list[str]:
    """The verbs on a resource of the Namespace that the account is not allowed."""
    lacks = []
    for verb in verbs:
        asked = {"namespace": connected.namespace, "verb": verb, "group": group, "resource": resource}
        user = f"system:serviceaccount:{connected.namespace}:{account}"
        groups = [
            "system:serviceaccounts",
            f"system:serviceaccounts:{connected.namespace}",
            "system:authenticated",
        ]
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await connected.ask("create subjectaccessreviews", "POST", path, body=body)
        if not mapping(answer.get("status")).get("allowed"):
            lacks.append(verb)
    return lacks


async def _refused(connected: Session, spec: Json) -> str:
    """Why a Pod of this spec is refused, "" where it is not; CommandError where that is not known."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "stepmemo-doctor-", "namespace": connected.namespace},
        "spec": spec,
    }
    path = f"/api/v1/namespaces/{connected.namespace}/pods"
    try:
        await connected.ask("create pods by a dry run", "POST", path, body=body, query=[("dryRun", "All")])
    except CommandError as error:
        by_quota_or_policy = (HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
        # What a webhook denies without a code of its own gets 400 (apiserver's webhook/errors).
        by_webhook = error.status == HTTPStatus.BAD_REQUEST and "denied the request" in error.said
        if by_webhook or (error.status in by_quota_or_policy and "cannot create resource" not in str(error)):
            return error.said
        raise
    return ""


def _pods(settings: InjectSettings) -> tuple[Json, Json]:
    """The spec of a plain Pod that asks for nothing, and the same with containers of ours in it."""
    small = {"cpu": "10m", "memory": "16Mi"}
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    main = {
        "name": argo.MAIN_CONTAINER,
        "image": "busybox",
        "resources": {"requests": small, "limits": small},
        "securityContext": secure,
    }
    plain: Json = {"restartPolicy": "Never", "containers": [main]}
    if settings.injection is Delivery.IMAGE_VOLUME:
        theirs = image_volume.specimen(settings)
        sidecar, _ = theirs["containers"]
        return plain, {**plain, "containers": [sidecar, main], "volumes": theirs["volumes"]}
    check = {"name": names.CHECK_CONTAINER, **containers.base(plain, settings, Work.LOOK_UP)}
    capture = {"name": names.CAPTURE_CONTAINER, **containers.base(plain, settings, Work.CAPTURE)}
    volumes = [*containers.volumes(settings), containers.BIN_VOLUME]
    return plain, {**plain, "initContainers": [check], "containers": [main, capture], "volumes": volumes}
