"""What our containers have in common, whichever way the entrypoint gets into a Pod."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from argo.layout import ContainerRef
from kube.quantity import quantity
from memoize import names
from memoize.configmap import MOST_BYTES
from server import values
from server.settings import setting
from webhook.inject.resources import Work, ours
from webhook.pods.decision import InjectionPlan
from webhook.pods.delivery import Delivery

Json = dict[str, Any]

WORK = ("--", *names.SIDECAR_COMMAND)
"""The end of an entrypoint's command line: the Python that it starts."""
_SIZE_LIMIT = "16Mi"
"""Of our emptyDirs: some blocks of a file system for each of a Pod's containers, or one small binary. Who
writes more into them has its Pod evicted, instead of filling the node."""
_SHARED_VOLUME: Json = {"name": names.VOLUME, "emptyDir": {"sizeLimit": _SIZE_LIMIT}}
SHARED_MOUNT: Json = {"name": names.VOLUME, "mountPath": names.SHARED_DIR}
BIN_VOLUME: Json = {"name": names.BIN_VOLUME, "emptyDir": {"sizeLimit": _SIZE_LIMIT}}
BIN_MOUNT: Json = {"name": names.BIN_VOLUME, "mountPath": names.BIN_DIR}

_TOKEN_VOLUME: Json = {
    "name": names.TOKEN_VOLUME,
    "projected": {
        "sources": [
            {
                "serviceAccountToken": {
                    "audience": names.TOKEN_AUDIENCE,
                    "expirationSeconds": 3600,
                    "path": "token",
                }
            }
        ]
    },
}
"""Of the Pod's own service account, and bound to the Pod.

No mode is said: the kubelet gives 0644, or 0600 with an owner or a group that all containers are in, ours
included: the one user that all run as, the Pod's fsGroup (collectData in pkg/volume/projected/projected.go).
"""
_TOKEN_MOUNT: Json = {"name": names.TOKEN_VOLUME, "mountPath": names.TOKEN_DIR, "readOnly": True}

_USER = 65532
"""User of our image, said aloud only where the Pod would make us root."""
_MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class CacheServiceAddress:
    """The cache service as step Pods reach it: `https://host[:port]`, and the PEM of its authority."""

    url: str
    ca: str


@dataclass(frozen=True, slots=True)
class InjectSettings:
    """The settings of the injected containers, and the cache service that they ask.

    Without a `service` each step reaches its ConfigMaps with its own permissions.
    """

    image: str = setting(
        "image",
        values.IMAGE,
        "",
        "the image of the injected containers; empty: the server's own, read from its Pod at the start",
    )
    image_pull_policy: str = setting(
        "image-pull-policy",
        values.one_of("Always", "IfNotPresent", "Never"),
        "IfNotPresent",
        "the imagePullPolicy of the injected containers",
    )
    pull_secrets: tuple[str, ...] = setting(
        "image-pull-secrets",
        values.SUBDOMAINS,
        "",
        "Secrets in the workflows' own Namespaces, added to the Pods' imagePullSecrets",
    )
    injection: Delivery = setting(
        "injection",
        values.member(Delivery),
        Delivery.INIT_CONTAINER,
        "how the entrypoint gets into a Pod: by an init container or an image volume (Kubernetes 1.35)",
    )
    check_timeout_ms: int = setting(
        "check-timeout",
        values.milliseconds("100ms", "60s"),
        "2s",
        "how long a step waits for its lookup inside the Pod before it runs",
    )
    capture_timeout_ms: int = setting(
        "capture-timeout",
        values.milliseconds("100ms", "60s"),
        "2s",
        "how long storing a step's outputs from inside the Pod may take",
    )
    requests: Mapping[str, str] = setting(
        "sidecar-requests", values.RESOURCES, "cpu=10m,memory=32Mi", "what an injected container requests"
    )
    limits: Mapping[str, str] = setting(
        "sidecar-limits", values.LIMITS, "cpu=500m,memory=64Mi", "what an injected container may use"
    )
    cache_max_bytes: int = setting(
        "cache-max-bytes",
        values.CACHE_BYTES,
        "1Mi",
        "with --access direct, how many bytes a cache may hold; else the keeper's own setting says so",
    )
    service: CacheServiceAddress | None = None

    @property
    def python_memory_mib(self) -> int:
        """What Python may take of the memory: less than the limit, so that it meets a MemoryError first."""
        return max(1, int(quantity(self.limits["memory"])) * 3 // 4 // _MEBIBYTE)


@dataclass(frozen=True, slots=True)
class Parts:
    """What one way of delivery puts into a Pod.

    `entrypoint` and `entrypoint_mounts` go to every wrapped container: the words before its recording option
    and its command, and the volumeMounts that they need. `first` and `last` are containers, by their place
    among the Pod's own.
    """

    entrypoint: tuple[str, ...]
    entrypoint_mounts: tuple[Json, ...]
    volumes: tuple[Json, ...]
    init: tuple[Json, ...] = ()
    first: tuple[Json, ...] = ()
    last: tuple[Json, ...] = ()


def base(spec: Mapping[str, Any], settings: InjectSettings, work: Work) -> Json:
    """The part of a container of ours that every one has; it satisfies PodSecurity `restricted`.

    ValueError where a quantity of the Pod's is none.
    """
    security: Json = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if (spec.get("securityContext") or {}).get("runAsUser") == 0:
        security["runAsUser"] = _USER
    common = {
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": security,
    }
    resources = ours(spec, work, settings.requests, settings.limits)
    return common | {"resources": resources} if resources else common


def memory(settings: InjectSettings) -> list[str]:
    """The entrypoint's option that bounds the Python it starts, in MiB."""
    return ["-m", str(settings.python_memory_mib)]


def awaited(plan: InjectionPlan) -> list[str]:
    """The entrypoint's options that name the containers whose end decides whether the outputs are stored."""
    mains = frozenset(plan.mains)

    def kind(ref: ContainerRef) -> str:
        """How it must end, for the entrypoint: `-M` and `-w` with 0, `-s` also by a signal."""
        if ref is plan.layout.auxiliary:
            return "-w"
        return "-M" if ref.name in mains else "-s"

    return [word for ref in plan.layout.recorded for word in (kind(ref), ref.name)]


def env(plan: InjectionPlan, settings: InjectSettings) -> list[Json]:
    """The sidecar's variables: the step, which Pod it is in, and the cache service where there is one."""
    service = settings.service
    told = {}
    if service is not None:
        told = {names.ENV_SERVICE: service.url, names.ENV_SERVICE_CA: service.ca}
    elif settings.cache_max_bytes < MOST_BYTES:
        told = {names.ENV_CACHE_MAX_BYTES: str(settings.cache_max_bytes)}
    fields = {
        names.ENV_POD_NAME: "metadata.name",
        names.ENV_POD_UID: "metadata.uid",
        names.ENV_NAMESPACE: "metadata.namespace",
    }
    return [
        {"name": names.ENV_STEP, "value": plan.variable},
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        *({"name": name, "value": value} for name, value in told.items()),
    ]


def volumes(settings: InjectSettings) -> tuple[Json, ...]:
    """What our containers need of volumes, whichever way the entrypoint is delivered."""
    return (_SHARED_VOLUME,) if settings.service is None else (_SHARED_VOLUME, _TOKEN_VOLUME)


def mounts(settings: InjectSettings, *theirs: Mapping[str, Any] | None) -> list[Json]:
    """Of a container that runs the sidecar: our own, and those of theirs that the Pod has, read-only."""
    own = [SHARED_MOUNT] if settings.service is None else [SHARED_MOUNT, _TOKEN_MOUNT]
    return [*own, *({**mount, "readOnly": True} for mount in theirs if mount is not None)]


def capture_mounts(plan: InjectionPlan, settings: InjectSettings) -> list[Json]:
    """What storing a step's outputs needs.

    Argo signals a container with a binary of its own, from /argo-bin or from /var/run/argo.
    """
    here = plan.layout
    return mounts(settings, here.token_mount, here.argo_mount, here.argo_bin_mount, here.config_mount)
