"""The Pod of a step, laid out as Argo 4.1 lays it out: `init`, `wait` and `main`.

Pure. Compared by tests with Pods that a real controller made (tests/data/pods). Left out of Argo's Pods:
tracing, progress variables, secrets of the artifact store, tolerations.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from argo import names as argo
from devcluster.images import EXECUTOR_IMAGE

COMPLETED = f"{argo.DOMAIN}/completed"
BUCKET = "artifacts"
ARTIFACTS_DIR = "/argo/artifacts"
"""Where the stand-in executor sees the artifact store, a directory of this machine."""

_STAGING = {"name": "argo-staging", "mountPath": "/argo/staging"}
_ARGO = {"name": argo.VOLUME, "mountPath": argo.DIR}
_STORE = {"name": "artifact-store", "mountPath": ARTIFACTS_DIR}
_ARGOEXEC = f"{argo.DIR}/argoexec"
_EXECUTOR = f"{EXECUTOR_IMAGE}:v4.1.2"
"""Its tag says how Argo's controller goes about outputs; ours does as that version does."""
_NO_DEADLINE = "0001-01-01T00:00:00Z"


def archive(workflow: str, pod: str) -> dict[str, Any]:
    """The template's archiveLocation: where a Pod's artifacts go, in the words of an S3 repository."""
    repository = {"endpoint": "devcluster", "bucket": BUCKET, "insecure": True}
    return {"s3": {**repository, "key": f"{workflow}/{pod}"}}


def build(
    workflow: Mapping[str, Any],
    template: Mapping[str, Any],
    *,
    name: str,
    node_id: str,
    node_name: str,
    include_result: bool,
    store: Path,
) -> dict[str, Any]:
    """The Pod of one node; `template` is resolved, `store` the directory of artifacts on this machine."""
    metadata, spec = workflow["metadata"], workflow["spec"]
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    account = template.get("serviceAccountName") or spec.get("serviceAccountName") or "default"
    environment = [
        {"name": "ARGO_NODE_ID", "value": node_id},
        {"name": argo.ENV_INCLUDE_SCRIPT_OUTPUT, "value": json.dumps(include_result)},
        {"name": "ARGO_DEADLINE", "value": _NO_DEADLINE},
        {"name": "ARGO_WORKFLOW_NAME", "value": metadata["name"]},
    ]
    executor_environment = [
        _field("ARGO_POD_NAME", "metadata.name"),
        _field("ARGO_POD_UID", "metadata.uid"),
        {"name": "ARGO_WORKFLOW_UID", "value": metadata["uid"]},
        *environment,
    ]
    archived = {**template, "archiveLocation": archive(metadata["name"], name)}
    artifacts = (template.get("inputs") or {}).get("artifacts") or []
    script = "script" in template
    inputs = [{"name": "input-artifacts", "mountPath": "/argo/inputs/artifacts"}] if artifacts else []
    staging = [_STAGING] if script else []
    init = {
        "name": argo.INIT_CONTAINER,
        "image": _EXECUTOR,
        "command": ["argoexec", "init"],
        "env": [
            *executor_environment,
            {"name": argo.ENV_CONTAINER_NAME, "value": argo.INIT_CONTAINER},
            {"name": argo.ENV_TEMPLATE, "value": json.dumps(archived)},
        ],
        "volumeMounts": [_STORE, *inputs, *staging, _ARGO],
    }
    wait = {
        "name": argo.WAIT_CONTAINER,
        "image": _EXECUTOR,
        "command": ["argoexec", "wait"],
        "env": [*executor_environment, {"name": argo.ENV_CONTAINER_NAME, "value": argo.WAIT_CONTAINER}],
        "volumeMounts": [
            _STORE,
            {"name": "tmp-dir-argo", "mountPath": "/tmp", "subPath": "0"},
            _ARGO,
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**labels, COMPLETED: "false", argo.WORKFLOW_LABEL: metadata["name"]},
            "annotations": {
                **annotations,
                "kubectl.kubernetes.io/default-container": argo.MAIN_CONTAINER,
                argo.NODE_ID: node_id,
                argo.NODE_NAME: node_name,
            },
            "ownerReferences": [
                {
                    "apiVersion": argo.API_VERSION,
                    "kind": "Workflow",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "volumes": _volumes(spec, template, store, artifacts=bool(artifacts), script=script),
            "initContainers": [init],
            "containers": [wait, _main(template, environment, artifacts)],
        },
    }


def _main(
    template: Mapping[str, Any], environment: list[dict[str, Any]], artifacts: list[Mapping[str, Any]]
) -> dict[str, Any]:
    """The author's container, started by the emissary."""
    own = template.get("container") or template["script"]
    script = "script" in template
    kept = {key: value for key, value in own.items() if key not in ("name", "source", "command", "args")}
    return {
        **kept,
        "name": argo.MAIN_CONTAINER,
        "command": [_ARGOEXEC, "emissary", "--", *(own.get("command") or [])],
        "args": ["/argo/staging/script"] if script else own.get("args") or [],
        "env": [
            *(own.get("env") or []),
            {"name": argo.ENV_CONTAINER_NAME, "value": argo.MAIN_CONTAINER},
            *environment,
        ],
        "volumeMounts": [
            *(own.get("volumeMounts") or []),
            *({"name": "input-artifacts", "mountPath": a["path"], "subPath": a["name"]} for a in artifacts),
            *([_STAGING] if script else []),
            _ARGO,
        ],
    }


def _volumes(
    spec: Mapping[str, Any], template: Mapping[str, Any], store: Path, *, artifacts: bool, script: bool
) -> list[dict[str, Any]]:
    empty = [argo.VOLUME, "tmp-dir-argo"]
    empty += ["input-artifacts"] if artifacts else []
    empty += ["argo-staging"] if script else []
    return [
        *({"name": name, "emptyDir": {}} for name in empty),
        {"name": _STORE["name"], "hostPath": {"path": str(store)}},
        *(spec.get("volumes") or []),
        *(template.get("volumes") or []),
    ]


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def verdict(pod: Mapping[str, Any]) -> tuple[str, str]:
    """The phase and message that a node takes from its Pod: Running, Succeeded, Failed or Error.

    The first failure counts in Argo's order: init containers, main, wait, the rest (operator.go,
    inferFailedReason); a failure of the executor's own containers is an Error.
    """
    status = pod.get("status") or {}
    match status.get("phase"):
        case "Succeeded":
            return "Succeeded", ""
        case "Failed":
            if message := status.get("message"):
                return "Failed", str(message)
            for name, ended in _endings(status):
                if ended["exitCode"] != 0:
                    phase = "Error" if name in (argo.INIT_CONTAINER, argo.WAIT_CONTAINER) else "Failed"
                    detail = f": {ended['message']}" if ended.get("message") else ""
                    return phase, f"{name}: {ended['reason']} (exit code {ended['exitCode']}){detail}"
            return "Failed", ""
    return "Running", ""


def exit_code(pod: Mapping[str, Any]) -> int | None:
    """Main's exit code, None while it has none."""
    ended = dict(_endings(pod.get("status") or {})).get(argo.MAIN_CONTAINER)
    return ended["exitCode"] if ended else None


def running(pod: Mapping[str, Any]) -> list[str]:
    """The regular containers that run now."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return [status["name"] for status in statuses if "running" in status["state"]]


def _endings(status: Mapping[str, Any]) -> list[tuple[str, Any]]:
    ranks = {argo.MAIN_CONTAINER: 0, argo.WAIT_CONTAINER: 1}
    regular = sorted(status.get("containerStatuses") or [], key=lambda each: ranks.get(each["name"], 2))
    every = [*(status.get("initContainerStatuses") or []), *regular]
    return [(each["name"], each["state"]["terminated"]) for each in every if "terminated" in each["state"]]
