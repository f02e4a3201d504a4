"""Step Pods and their tokens, as the kubelet would get them."""

import json
from typing import Any

from argo import names as argo
from memoize import names
from tests.cluster import Cluster

Object = dict[str, Any]
KEY, CACHE, NODE_ID, WORKFLOW = "hello-1", "my-cache", "wf-123", "wf"
LABELS = {argo.WORKFLOW_LABEL: WORKFLOW, names.RESULT: names.RESULT_IN_POD}


def container(*options: str, name: str = names.CAPTURE_CONTAINER) -> Object:
    """A container of ours, with these options."""
    command = [names.IMAGE_ENTRYPOINT, "capture", *options, "--", *names.SIDECAR_COMMAND]
    return {"name": name, "image": "stepmemo", "command": command}


CONTAINERS = [container("-c", "2000", "-t", "2000")]


def annotations(**changes: str) -> dict[str, str]:
    """Of a step Pod; `key`, `cache`, `max_age`."""
    said = {argo.NODE_ID: NODE_ID, names.KEY: KEY, names.CACHE: CACHE}
    short = {"key": names.KEY, "cache": names.CACHE, "max_age": names.MAX_AGE}
    return {**said, **{short[name]: value for name, value in changes.items()}}


def make_pod(
    cluster: Cluster,
    namespace: str,
    name: str = "wf-a-123",
    *,
    ours: list[Object] | None = None,
    **metadata: Any,
) -> Object:
    """Create a step Pod that was injected, by default to look its key up and to store its outputs."""
    made: Object = {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": LABELS,
            "annotations": annotations(),
            **metadata,
        },
        "spec": {
            "serviceAccountName": "default",
            "containers": [{"name": "main", "image": "x"}, *(CONTAINERS if ours is None else ours)],
        },
    }
    status, body = cluster.create(made)
    assert status == 201, body
    created: Object = body
    return created


def token_of(cluster: Cluster, pod: Object, audience: str = names.TOKEN_AUDIENCE) -> str:
    """What the kubelet would mount into this Pod."""
    metadata = pod["metadata"]
    reference = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"audiences": [audience], "boundObjectRef": reference, "expirationSeconds": 3600}
    path = cluster.path("ServiceAccount", metadata["namespace"], "default", "token")
    status, body, _ = cluster.request("POST", path, {"spec": spec})
    assert status == 201, body
    token: str = body["status"]["token"]
    return token


def entry(**fields: Any) -> str:
    """The text of an entry as the step's sidecar sends it."""
    made = {
        "nodeID": NODE_ID,
        "outputs": {"result": "r"},
        "creationTimestamp": "2026-07-31T11:00:00Z",
        "lastHitTimestamp": "2026-07-31T11:00:00Z",
        "stepmemo": {"pod": "wf-a-123", "workflow": WORKFLOW},
    }
    return json.dumps({**made, **fields})
