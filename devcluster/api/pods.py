"""What the API server does to a new Pod before webhooks see it: defaults and the ServiceAccount plugin."""

import copy
from collections.abc import Callable
from typing import Any

from devcluster.api import errors, kinds
from devcluster.api.kinds import Object
from devcluster.api.naming import random_suffix

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
