"""Puts check and capture into a step Pod, as explicit JSON Patch operations.

What goes in depends on how the entrypoint is delivered (init_container.py, image_volume.py); here it is put
in its place: containers and volumes of ours, and the entrypoint before the commands of the containers that
Argo manages. With `--access service` a label makes the keeper watch the Pod. Nothing else changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kube.jsonpatch import END, Op, add, put, replace
from memoize import names
from webhook.inject import image_volume, init_container
from webhook.inject.containers import InjectSettings, Parts
from webhook.pods.decision import InjectionPlan
from webhook.pods.delivery import Delivery

_PARTS = {Delivery.INIT_CONTAINER: init_container.parts, Delivery.IMAGE_VOLUME: image_volume.parts}


def inject(pod: Mapping[str, Any], plan: InjectionPlan, settings: InjectSettings) -> list[Op]:
    """The operations that carry out `plan` on the Pod it was made for.

    ValueError where a quantity of the Pod's is none.
    """
    spec = pod["spec"]
    parts = _PARTS[plan.delivery](spec, plan, settings)
    # Before anything is inserted: the operations name containers by their index.
    ops = _wrap_commands(plan, parts)
    ops += _insert(("spec",), spec, "containers", END, parts.last)
    ops += _insert(("spec",), spec, "containers", 0, parts.first)
    ops += _insert(("spec",), spec, "initContainers", 0, parts.init)
    ops += _insert(("spec",), spec, "volumes", END, parts.volumes)
    present = {secret.get("name") for secret in spec.get("imagePullSecrets") or ()}
    wanted = dict.fromkeys(name for name in settings.pull_secrets if name not in present)
    ops += _insert(("spec",), spec, "imagePullSecrets", END, [{"name": name} for name in wanted])
    if settings.service is not None:
        labels = pod["metadata"].get("labels")
        ops.append(put(("metadata", "labels"), names.RESULT, names.RESULT_IN_POD, there=labels))
    return ops


def _wrap_commands(plan: InjectionPlan, parts: Parts) -> list[Op]:
    """The entrypoint before every wrapped command, recording the end where that must be known."""
    ops: list[Op] = []
    recorded = {(ref.kind, ref.index) for ref in plan.layout.recorded} if plan.capture else set()
    for ref in plan.wrapped:
        recording = ["-r", ref.name] if (ref.kind, ref.index) in recorded else []
        path = ("spec", ref.kind, ref.index)
        ops.append(
            replace((*path, "command"), [*parts.entrypoint, *recording, "--", *ref.container["command"]])
        )
        ops += _insert(path, ref.container, "volumeMounts", END, parts.entrypoint_mounts)
    return ops


def _insert(
    at: tuple[str | int, ...], owner: Mapping[str, Any], member: str, index: str | int, items: Sequence[Any]
) -> list[Op]:
    """Operations that put items into the list `member` of the object at `at`, which may not have it yet."""
    if not items:
        return []
    if not owner.get(member):
        return [add((*at, member), list(items))]
    return [add((*at, member, index), item) for item in items]
