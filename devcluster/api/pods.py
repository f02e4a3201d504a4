"""What the API server itself does to a Pod: defaults, the ServiceAccount plugin, first status and binding."""

import copy
from collections.abc import Callable
from typing import Any

from devcluster.api import errors, kinds
from devcluster.api.kinds import Object
from devcluster.api.naming import random_suffix, timestamp

TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_VOLUME_PREFIX = "kube-api-access-"
ROOT_CA = "kube-root-ca.crt"
"""ConfigMap in every namespace with the API server's CA under `ca.crt`."""


def admit(pod: Object, service_account: Callable[[str], Object | None]) -> Object:
    """The Pod with its service account and the token's volume and mounts.

    Done as the ServiceAccount admission plugin does it; on its own result it changes nothing.

    `service_account` looks one up in the Pod's namespace by name. ApiError 403 if it is not there.
    """
    admitted = copy.deepcopy(pod)
    spec: dict[str, Any] = admitted.setdefault("spec", {})
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    account = service_account(name)
    if account is None:
        metadata = pod["metadata"]
        where = f"{metadata.get('namespace')}/{name}"
        raise errors.forbidden(
            kinds.POD,
            metadata.get("name") or metadata.get("generateName", ""),
            f'error looking up service account {where}: serviceaccount "{name}" not found',
        )
    automount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if automount:
        _mount_token(spec)
    return admitted


def first_status(spec: Object) -> Object:
    """The status of a Pod that was just created."""
    status: Object = {"phase": "Pending"}
    if spec.get("schedulingGates"):
        why = "Scheduling is blocked due to non-empty scheduling gates"
        status["conditions"] = [_scheduled("False", reason="SchedulingGated", message=why)]
    return status


def bound(pod: Object, node: str) -> Object:
    """The Pod once a scheduler has given it a node, the subresource `binding`; ApiError 409 or 500."""
    name, spec, status = pod["metadata"]["name"], pod["spec"], pod["status"]
    resource = f"{kinds.POD.plural}/binding"
    if not node:
        raise errors.ApiError(500, "", "target.name: Required value")
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise errors.cannot_be_fulfilled(resource, name, why)
    if spec.get("schedulingGates"):
        raise errors.cannot_be_fulfilled(resource, name, f"pod {name} has non-empty .spec.schedulingGates")
    others = [each for each in status.get("conditions") or [] if each["type"] != "PodScheduled"]
    there = {**status, "conditions": [*others, _scheduled("True")]}
    return {**pod, "spec": {**spec, "nodeName": node}, "status": there}


def _scheduled(status: str, **more: str) -> Object:
    condition = {"type": "PodScheduled", "status": status}
    return {**condition, "lastProbeTime": None, "lastTransitionTime": timestamp(), **more}


def _mount_token(spec: dict[str, Any]) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    without = [c for c in containers if TOKEN_DIRECTORY not in _mount_paths(c)]
    if not without:
        return
    volumes = spec.setdefault("volumes", [])
    names = [v["name"] for v in volumes if v.get("name", "").startswith(TOKEN_VOLUME_PREFIX)]
    if not names:
        names = [TOKEN_VOLUME_PREFIX + random_suffix()]
        volumes.append(_token_volume(names[0]))
    for container in without:
        mount = {"name": names[0], "readOnly": True, "mountPath": TOKEN_DIRECTORY}
        container.setdefault("volumeMounts", []).append(mount)


def _mount_paths(container: Object) -> set[str]:
    return {mount.get("mountPath", "") for mount in container.get("volumeMounts") or []}


def _token_volume(name: str) -> Object:
    ca = {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
