"""Puts check and capture into a step Pod, as explicit JSON Patch operations.

After it the Pod has one emptyDir more, `stepmemo-check` as its first init container, `stepmemo` as its last
container, and the gate before the commands of the containers that Argo manages. Nothing else changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memoize import names
from webhook.layout import Managed
from webhook.patch import END, Op, add, replace
from webhook.pods import Plan
from webhook.qos import QoS, qos_class, quantity

_USER = 65532
"""User of our image, said aloud only where the Pod would make us root."""
_WORK = ("--", *names.SIDECAR_COMMAND)
_MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class InjectSettings:
    """What an operator chooses of the injected containers; quantities are Kubernetes'.

    `pull_secrets` name Secrets for our image in the workflow's namespace; the time-outs are milliseconds.
    """

    image: str
    image_pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    check_timeout_ms: int = 2000
    capture_timeout_ms: int = 2000
    cpu_request: str = "10m"
    memory_request: str = "32Mi"
    cpu_limit: str = "500m"
    memory_limit: str = "64Mi"

    @property
    def python_memory_mib(self) -> int:
        """What Python may take of memory_limit: less than all, so that it meets a MemoryError first."""
        return max(1, int(quantity(self.memory_limit) * 3 / 4 / _MEBIBYTE))


def inject(pod: Mapping[str, Any], plan: Plan, settings: InjectSettings) -> list[Op]:
    """The operations that carry out `plan` on the Pod it was made for.

    ValueError where a quantity of the Pod's is none.
    """
    spec = pod["spec"]
    base = _base(spec, settings)
    ops = _gate_commands(plan)
    if plan.capture:
        ops += _insert(("spec",), spec, "containers", END, [_capture_container(base, plan, settings)])
    ops += _insert(("spec",), spec, "initContainers", 0, [_check_container(base, plan, settings)])
    ops += _insert(("spec",), spec, "volumes", END, [{"name": names.VOLUME, "emptyDir": {}}])
    present = {secret.get("name") for secret in spec.get("imagePullSecrets") or ()}
    wanted = dict.fromkeys(name for name in settings.pull_secrets if name not in present)
    ops += _insert(("spec",), spec, "imagePullSecrets", END, [{"name": name} for name in wanted])
    return ops


def _gate_commands(plan: Plan) -> list[Op]:
    """The gate before every managed command; for capture alone, before those whose end must be known."""
    ops: list[Op] = []
    for place in plan.layout.managed:
        records = plan.capture and place in plan.layout.recorded
        if not plan.check and not records:
            continue
        recording = ["-r", place.name] if records else []
        command = [names.GATE, *recording, "--", *place.container["command"]]
        path = ("spec", place.kind, place.index)
        ops.append(replace((*path, "command"), command))
        ops += _insert(path, place.container, "volumeMounts", END, [_shared_mount()])
    return ops


def _check_container(base: Mapping[str, Any], plan: Plan, settings: InjectSettings) -> dict[str, Any]:
    """Delivers the gate, and looks the key up where the plan says so."""
    if not plan.check:
        return {
            "name": names.CHECK_CONTAINER,
            **base,
            "command": [names.IMAGE_GATE, "check"],
            "volumeMounts": _mounts(),
        }
    return {
        "name": names.CHECK_CONTAINER,
        **base,
        "command": [names.IMAGE_GATE, "check", *_bounds(settings.check_timeout_ms, settings), *_WORK],
        "env": _env(plan),
        "volumeMounts": _mounts(plan.layout.token_mount, plan.layout.config_mount),
    }


def _capture_container(base: Mapping[str, Any], plan: Plan, settings: InjectSettings) -> dict[str, Any]:
    """Waits for the step's end, then stores its outputs."""
    here = plan.layout
    awaited = [word for place in here.recorded for word in (_kind(place, plan), place.name)]
    bounds = _bounds(settings.capture_timeout_ms, settings)
    return {
        "name": names.CAPTURE_CONTAINER,
        **base,
        "command": [names.IMAGE_GATE, "capture", *bounds, *awaited, *_WORK],
        "env": _env(plan),
        # Argo signals a container with a binary of its own, from /argo-bin or from /var/run/argo.
        "volumeMounts": _mounts(here.token_mount, here.argo_mount, here.argo_bin_mount, here.config_mount),
    }


def _kind(place: Managed, plan: Plan) -> str:
    """What the end of a container means to the gate: `-M` and `-w` must succeed, `-s` may be signalled."""
    if place is plan.layout.auxiliary:
        return "-w"
    return "-M" if place.name in plan.mains else "-s"


def _base(spec: Mapping[str, Any], settings: InjectSettings) -> dict[str, Any]:
    """What both containers have in common; it satisfies PodSecurity `restricted`."""
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if (spec.get("securityContext") or {}).get("runAsUser") == 0:
        security["runAsUser"] = _USER
    base = {
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": security,
    }
    resources = _resources(spec, settings)
    return base | {"resources": resources} if resources else base


def _resources(spec: Mapping[str, Any], settings: InjectSettings) -> dict[str, dict[str, str]]:
    """Requests and limits that keep the Pod in its QoS class, and inside a budget set for the whole Pod."""
    requests = {"cpu": settings.cpu_request, "memory": settings.memory_request}
    limits = {"cpu": settings.cpu_limit, "memory": settings.memory_limit}
    if spec.get("resources") is not None:
        return {}
    match qos_class(spec):
        case QoS.GUARANTEED:
            return {"requests": limits, "limits": limits}
        case QoS.BURSTABLE:
            return {"requests": requests, "limits": limits}
        case QoS.BEST_EFFORT:
            return {}


def _bounds(timeout_ms: int, settings: InjectSettings) -> list[str]:
    """The gate's options that bound the Python it starts: milliseconds, MiB."""
    return ["-t", str(timeout_ms), "-m", str(settings.python_memory_mib)]


def _env(plan: Plan) -> list[dict[str, Any]]:
    fields = {
        names.ENV_POD_NAME: "metadata.name",
        names.ENV_POD_UID: "metadata.uid",
        names.ENV_NAMESPACE: "metadata.namespace",
    }
    return [
        {"name": names.ENV_STEP, "value": plan.step.to_json()},
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
    ]


def _shared_mount() -> dict[str, Any]:
    return {"name": names.VOLUME, "mountPath": names.SHARED_DIR}


def _mounts(*theirs: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Ours, and those of theirs that the Pod has, which we only read."""
    return [_shared_mount(), *({**mount, "readOnly": True} for mount in theirs if mount is not None)]


def _insert(
    at: tuple[str | int, ...], owner: Mapping[str, Any], member: str, index: str | int, items: Sequence[Any]
) -> list[Op]:
    """Operations that put items into the list `member` of the object at `at`, which may not have it yet."""
    if not items:
        return []
    if not owner.get(member):
        return [add((*at, member), list(items))]
    return [add((*at, member, index), item) for item in items]
