"""What `stepmemo doctor` looks at: from what was read, what is well and what is not, with its cure; pure."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from argo import names as argo
from argo import version
from argo.shape import mapping
from certs import pki
from keeper.limits import Said
from memoize import duration, names, plan
from memoize.event import brief
from memoize.keeper_status import KeeperStatus

APPLY = "kubectl apply -k manifests/base (or your overlay of it)"
HOOKS = ("pods.stepmemo.dev", "workflows.stepmemo.dev")
POLICIES = (
    "stepmemo-creates",
    "stepmemo-keeper-caches",
    "stepmemo-keeper-deletes",
    "stepmemo-keeper-pods",
    "stepmemo-keeper-results",
    "stepmemo-keeper-workflows",
    "stepmemo-webhook-cabundle",
)
"""ValidatingAdmissionPolicies of manifests/base."""
OLDEST_KUBERNETES = (1, 30)
NEWEST_ARGO = (4, 1)
"""The newest line of releases that stepmemo was run with."""
REQUEUE_VARIABLE = "DEFAULT_REQUEUE_TIME"
DEFAULT_REQUEUE = "10s"
"""Where that is not set, or empty (docs/environment-variables.md of Argo)."""
SLOW_REQUEUE = 2.0
"""Seconds; more than that is worth a word."""
HITS_IN_A_ROW = 5
_LOOKS_AGAIN = "Argo looks at a workflow again so long after a step has ended"


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and could be better."""
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be looked at, for want of a right most often."""


class CheckResult(NamedTuple):
    """What one check found."""

    level: Level
    check: str
    said: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a step's service account may not do with objects that its containers write."""

    name: str
    lacks: Sequence[str]
    """Verbs on workflowtaskresults: create, patch."""
    lacks_caches: Sequence[str] = ()
    """Verbs on configmaps, get, create, patch, where steps reach their caches themselves."""
    direct: bool = False
    """Whether they do."""


def ok(check: str, said: str) -> CheckResult:
    """All is well."""
    return CheckResult(Level.OK, check, said)


def kubernetes(found: Mapping[str, Any]) -> CheckResult:
    """The API server's version (`/version`)."""
    said = str(found.get("gitVersion") or "")
    numbers = re.match(r"v([0-9]+)\.([0-9]+)", said)
    if numbers is None:
        return CheckResult(Level.UNKNOWN, "kubernetes", f"the API server says it is of version {said!r}")
    if (int(numbers[1]), int(numbers[2])) < OLDEST_KUBERNETES:
        return CheckResult(
            Level.FAIL,
            "kubernetes",
            f"{said} is older than 1.30, which stepmemo needs",
            "upgrade the cluster",
        )
    return ok("kubernetes", said)


def configuration(found: Mapping[str, Any] | None, name: str) -> Iterator[CheckResult]:
    """The MutatingWebhookConfiguration."""
    check = "webhook configuration"
    if found is None:
        said = f"there is no MutatingWebhookConfiguration {name}: nobody asks stepmemo about anything"
        yield CheckResult(Level.FAIL, check, said, APPLY)
        return
    hooks = {str(hook.get("name")): hook for hook in map(mapping, found.get("webhooks") or ())}
    if missing := [hook for hook in HOOKS if hook not in hooks]:
        yield CheckResult(Level.FAIL, check, f"{name} lacks the webhooks {', '.join(missing)}", APPLY)
    wrong = [one for one, hook in hooks.items() if hook.get("failurePolicy") != "Ignore"]
    if wrong:
        said = f"failurePolicy of {', '.join(wrong)} is not Ignore: without stepmemo nothing could be created"
        yield CheckResult(Level.FAIL, check, said, f"set failurePolicy: Ignore; {APPLY}")
    bare = [one for one, hook in hooks.items() if not mapping(hook.get("clientConfig")).get("caBundle")]
    if bare:
        said = f"{', '.join(bare)} has no caBundle: the API server cannot trust the webhook"
        log = "kubectl -n stepmemo logs -l app.kubernetes.io/component=webhook"
        cure = f"the webhook writes it itself, or cert-manager does: see why not in its log ({log})"
        yield CheckResult(Level.FAIL, check, said, cure)
    if not (missing or wrong or bare):
        yield ok(check, f"{name} is complete, failurePolicy Ignore")


def certificate(serving: bytes, bundles: Collection[bytes], now: datetime) -> CheckResult:
    """The serving certificate (PEM), and whether every caBundle trusts it."""
    check = "certificate"
    try:
        ends = pki.ends_at(serving)
    except ValueError:
        return CheckResult(Level.FAIL, check, "the Secret holds no certificate", "see the webhook's log")
    if ends <= now:
        said = f"it ended {brief((now - ends).total_seconds())} ago"
        return CheckResult(Level.FAIL, check, said, "see in the webhook's log why it is not renewed")
    if not all(pki.issuer(serving, pki.authorities(bundle)) for bundle in bundles):
        said = "the caBundle does not hold the CA that signed it"
        return CheckResult(
            Level.FAIL,
            check,
            said,
            "the webhook writes the caBundle within seconds: see its log; or whether a GitOps tool "
            "overwrites it",
        )
    return ok(check, f"the caBundle trusts it, for {brief((ends - now).total_seconds())} more")


def deployment(found: Mapping[str, Any] | None, name: str) -> CheckResult:
    """One of our two Deployments."""
    if found is None:
        return CheckResult(Level.FAIL, name, f"there is no Deployment {name}", APPLY)
    status, spec = mapping(found.get("status")), mapping(found.get("spec"))
    ready, wanted = status.get("readyReplicas") or 0, spec.get("replicas", 1)
    said = f"{ready} of {wanted} replicas are ready"
    if not ready:
        cure = f"kubectl -n {mapping(found.get('metadata')).get('namespace')} describe pods; see their logs"
        return CheckResult(Level.FAIL, name, said, cure)
    return CheckResult(Level.OK if ready >= wanted else Level.WARN, name, said)


def admission(dry_run: Mapping[str, Any]) -> CheckResult:
    """What came back when a template with a memoize block that opts in was created by a dry run."""
    check = "webhook"
    templates = mapping(dry_run.get("spec")).get("templates")
    first = mapping(templates[0]) if isinstance(templates, list) and templates else {}
    if names.KEY in mapping(mapping(first.get("metadata")).get("annotations")):
        return ok(check, "the API server reaches it and trusts it (a template was tried by a dry run)")
    return CheckResult(
        Level.FAIL,
        check,
        "the API server let a template through that the webhook should have changed (tried by a dry run): "
        "it is not reached, not trusted, or not asked about this Namespace",
        "see above; else whether a NetworkPolicy or firewall keeps the API server from port 8443 of its "
        "Pods, and whether the configuration's namespaceSelector takes this Namespace",
    )


def not_there(said: str, namespace: str) -> CheckResult:
    """The answer to that dry run was 404."""
    cure = f"install Argo Workflows with its CRDs; or see whether there is a Namespace {namespace}"
    return CheckResult(Level.FAIL, "argo", f"no WorkflowTemplate can be made: {said}", cure)


def keeper(status: str | None, renewed: bool, holder: str, namespace: str) -> Iterator[CheckResult]:
    """The keeper's Lease: its status annotation, and whether it was renewed while it was looked at."""
    check = "keeper"
    said = KeeperStatus.from_json(status) if status else None
    if not holder or not renewed:
        yield CheckResult(
            Level.FAIL,
            check,
            "no keeper acts: its Lease stepmemo-keeper is not renewed. Steps run without a lookup, and "
            "Pods that are gated wait",
            "see the keeper's Pods and their log; `stepmemo release --all` lets gated Pods run meanwhile",
        )
        return
    if said is None:
        cure = "webhook, keeper and this command are to be of one release"
        yield CheckResult(
            Level.FAIL, check, f"{holder} acts, and says nothing of itself that is known here", cure
        )
        return
    if namespace not in said.keeps:
        yield CheckResult(
            Level.FAIL,
            check,
            f"{holder} acts, but not for the Namespace {namespace}",
            "add it to the keeper's --namespaces",
        )
    elif not said.ready:
        yield CheckResult(
            Level.WARN,
            check,
            f"{holder} acts, but is not in sync: steps are looked up inside their Pods",
            "if it stays so, see in the keeper's log why its watch fails",
        )
    elif not said.plans & plan.READS:
        cure = "bring webhook and keeper to the same release"
        yield CheckResult(Level.FAIL, check, f"{holder} acts, but is of another release", cure)
    elif namespace in said.backlogged:
        yield CheckResult(
            Level.WARN,
            check,
            f"{holder} acts, and is behind with this Namespace: steps are looked up inside their Pods",
            "raise the keeper's --requests-per-second, or bound the workflow's parallelism",
        )
    else:
        yield ok(check, f"{holder} acts, and is ready")
    if namespace in said.stopped or namespace in said.trial:
        yield CheckResult(
            Level.FAIL,
            "image",
            "stepmemo's image could not be started in this Namespace, so nothing is put into Pods here",
            "make the image available to all nodes (registry, pull secret, architecture): see the keeper's "
            "log",
        )


def argo_version(images: Sequence[str]) -> CheckResult:
    """The version of Argo's controller, by its image's tag."""
    check = "argo"
    known = [one for image in images if (one := version.image_version(image, version.CONTROLLER))]
    if not known:
        return CheckResult(Level.UNKNOWN, check, f"the tag of {', '.join(images)} tells no version")
    found = min(known)
    said = f"v{found.major}.{found.minor}.{found.patch}"
    if not version.REPORTS_COMPLETION.holds_in(found):
        return CheckResult(
            Level.FAIL,
            check,
            f"{said} is older than 3.5.2: nothing is stored with it",
            "upgrade Argo Workflows",
        )
    if found[:2] > NEWEST_ARGO:
        newest = ".".join(map(str, NEWEST_ARGO))
        return CheckResult(
            Level.WARN, check, f"{said} is newer than {newest}, the newest that stepmemo was run with"
        )
    return ok(check, said)


def is_controller(container: Mapping[str, Any]) -> bool:
    """Whether this container of a Deployment is Argo's controller: by its name, image or command."""
    image = str(container.get("image")).rpartition("/")[2].partition(":")[0]
    return version.CONTROLLER in (container.get("name"), image, *(container.get("command") or ()))


def requeue(container: Mapping[str, Any], namespace: str, controller: str) -> CheckResult:
    """The DEFAULT_REQUEUE_TIME of the controller, whose container this is, of the Deployment `controller`."""
    check = "requeue time"
    entries = [one for one in map(mapping, container.get("env") or ()) if one.get("name") == REQUEUE_VARIABLE]
    entry = entries[-1] if entries else {}
    if "valueFrom" in entry or (not entry and container.get("envFrom")):
        said = f"{REQUEUE_VARIABLE} comes from another object, or may: {_LOOKS_AGAIN}"
        return CheckResult(Level.UNKNOWN, check, said)
    value = entry.get("value")
    text = str(value or DEFAULT_REQUEUE)
    try:
        seconds = duration.parse(text) / 1_000_000_000
    except duration.DurationError as error:
        said = f"{REQUEUE_VARIABLE} {text!r} {error}: the controller does not start with it"
        return CheckResult(Level.FAIL, check, said, "correct it")
    where = REQUEUE_VARIABLE if value else f"{REQUEUE_VARIABLE} is not set, so"
    said = (
        f"{where} {text}: {_LOOKS_AGAIN}, so {HITS_IN_A_ROW} hits in a row take about "
        f"{brief(HITS_IN_A_ROW * seconds)}"
    )
    runs = version.image_version(str(container.get("image")), version.CONTROLLER)
    if version.TAKES_UPDATES_AT_ONCE.holds_in(runs):
        said += ", but for those after which the keeper nudges it"
    if seconds <= SLOW_REQUEUE:
        return ok(check, said)
    cure = f"kubectl -n {namespace} set env deployment/{controller} {REQUEUE_VARIABLE}=1s"
    return CheckResult(Level.WARN, check, said, cure)


def namespace_labels(labels: Mapping[str, Any] | None, namespace: str) -> CheckResult:
    """The Namespace of the workflows."""
    check = "namespace"
    if labels is None:
        return CheckResult(Level.FAIL, check, f"there is no Namespace {namespace}", "say another one by -n")
    word = labels.get(names.MEMOIZE)
    said = {
        "true": f"{namespace}: all templates with a memoize block are opted in",
        "false": f"{namespace}: templates are opted out, but for those that say otherwise",
    }.get(str(word), f"{namespace}: workflows and templates opt in themselves")
    level = labels.get("pod-security.kubernetes.io/enforce")
    return ok(check, f"{said}; Pod Security: {level or 'not enforced'}")


def limits(said: Said, namespace: str, *, direct: bool) -> Iterator[CheckResult]:
    """What the Namespace's annotations say of its limits; `direct`: no keeper is there to read them."""
    check = "limits"
    if said.texts and direct:
        unread = f"{_listed(said.texts)}: with --access direct nobody reads the Namespace's limits"
        yield CheckResult(Level.WARN, check, unread, "take these annotations away")
    elif said.texts:
        yield ok(check, f"{_listed(said.texts)}; what else there is, the keeper's flags say")
    for problem in said.problems:
        yield CheckResult(Level.WARN, check, problem, f"kubectl edit namespace {namespace}")


def _listed(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def reporting_account(pod_spec: Mapping[str, Any]) -> str:
    """The account that reports the outputs of a step's Pod; "" where that cannot be told from it."""
    for volume in map(mapping, pod_spec.get("volumes") or ()):
        if volume.get("name") == argo.EXECUTOR_TOKEN_VOLUME:
            name, suffix, _ = str(mapping(volume.get("secret")).get("secretName")).rpartition(
                argo.TOKEN_SECRET_SUFFIX
            )
            return name if suffix else ""
    return str(pod_spec.get("serviceAccountName") or "")


def account(found: Account, namespace: str) -> Iterator[CheckResult]:
    """A service account that steps run as: what lacks, each with its cure."""
    check = f"account {found.name}"
    if not found.lacks and not found.lacks_caches:
        caches = ", and get, create and patch configmaps" if found.direct else ""
        yield ok(check, f"may create and patch workflowtaskresults{caches}")
    if found.lacks:
        yield CheckResult(
            Level.FAIL,
            check,
            f"may not {' and '.join(found.lacks)} workflowtaskresults, so Argo loses its steps' outputs, and "
            "nothing is stored",
            _granted(
                namespace, found.name, "stepmemo-executor", "create,patch", "workflowtaskresults.argoproj.io"
            ),
        )
    if found.lacks_caches:
        yield CheckResult(
            Level.FAIL,
            check,
            f"may not {' and '.join(found.lacks_caches)} configmaps, which with --access direct is how its "
            "steps reach their caches: they run, and nothing is found or stored",
            _granted(namespace, found.name, "stepmemo-caches", "get,create,patch", "configmaps"),
        )


def _granted(namespace: str, account: str, role: str, verbs: str, resource: str) -> str:
    return (
        f"kubectl -n {namespace} create role {role} --verb={verbs} --resource={resource}; "
        f"kubectl -n {namespace} create rolebinding {role} --role={role} "
        f"--serviceaccount={namespace}:{account}"
    )


def containers(plain: str, ours: str) -> CheckResult:
    """Why a Pod was refused by a dry run, without and with containers of ours in it; "" where it was not."""
    check = "containers"
    if plain:
        return CheckResult(
            Level.UNKNOWN, check, f"even a plain Pod is refused here, so ours could not be tried: {plain}"
        )
    if ours:
        return CheckResult(
            Level.FAIL,
            check,
            "a Pod with containers of ours is refused in this Namespace (tried by a dry run), and Argo would "
            f"fail its step: {ours}",
            "let the quota, LimitRange or policy that this names allow them; or set --sidecar-requests and "
            "--sidecar-limits; or take the opt-in off the Namespace",
        )
    return ok(check, "a Pod with containers of ours is allowed here (tried by a dry run)")


def policies(present: Collection[str], bound: Collection[str]) -> CheckResult:
    """Our ValidatingAdmissionPolicies and their bindings, by name."""
    check = "policies"
    missing = [name for name in POLICIES if name not in present or name not in bound]
    if missing:
        said = f"{', '.join(missing)} not in force: they bound what a stolen token of stepmemo's could do"
        return CheckResult(Level.WARN, check, said, APPLY)
    return ok(check, f"all {len(POLICIES)} are in force")
