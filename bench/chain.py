"""The workflow that is timed on a cluster: short steps in a row, in each way there is to memoize them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from argo import names as argo
from memoize import names

Object = dict[str, Any]
INIT_CONTAINER, IMAGE_VOLUME = "init-container", "image-volume"
"""Values of the server's `--injection`, where it runs with `--access direct`."""
SERVICE = "service"
"""Its `--access service`: keys are looked up outside of the Pods, whatever the injection."""
MISS, HIT = "miss", "hit"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the chain. `lookup` is how the server must look keys up, "" where any way will do.

    `native` leaves the memoize block to Argo; `mode` is the value of stepmemo.dev/mode.
    """

    name: str
    title: str
    memoized: bool = False
    native: bool = False
    mode: str = ""
    lookup: str = ""

    @property
    def runs(self) -> tuple[str, ...]:
        """What one round of it consists of."""
        answers = self.native or self.lookup
        return (MISS, HIT) if answers else (MISS,)


PLAIN = Variant("plain", "plain Argo")
VARIANTS = (
    PLAIN,
    Variant("capture", "capture alone (mode refresh)", memoized=True, mode="refresh"),
    Variant("native", "Argo's own memoization", memoized=True, native=True),
    Variant("service", "look-up and capture outside of the Pod", memoized=True, lookup=SERVICE),
    Variant("init-container", "check and capture, init container", memoized=True, lookup=INIT_CONTAINER),
    Variant("image-volume", "check and capture, image volume", memoized=True, lookup=IMAGE_VOLUME),
)


NO_STORE = {"configMap": "bench-artifacts", "key": "no-store"}
"""The `artifactRepositoryRef` of every workflow, to an entry of …"""
REPOSITORY: Object = {
    "metadata": {"name": NO_STORE["configMap"]},
    "data": {NO_STORE["key"]: "archiveLogs: false\n"},
}
"""… a ConfigMap that the workflow's namespace must have: a controller that uploads logs would upload the
steps' logs too, and no other field of a workflow keeps it from that (Argo, workflowpod.go, IsArchiveLogs)."""


def workflow(variant: Variant, key: str, cache: str, *, steps: int, seconds: float, image: str) -> Object:
    """A chain of steps, each about `seconds` long with a random output; `key` begins every memoize key."""
    ours = variant.memoized and not variant.native
    annotations = {names.MEMOIZE: "true" if ours else "false"}
    if variant.mode:
        annotations[names.MODE] = variant.mode
    groups = [[_call(key, number)] for number in range(steps)]
    template = _step(cache if variant.memoized else "", seconds, image)
    return submitted(f"bench-{variant.name}-", groups, template, annotations)


def submitted(
    name: str,
    groups: Sequence[Sequence[Object]],
    template: Object,
    annotations: Mapping[str, str],
    instance_id: str = "",
) -> Object:
    """A Workflow whose entry runs these groups of steps, one after the other, all of the one template.

    `name` begins its name; `instance_id` is the controller's, if it has one.
    """
    labels = {argo.INSTANCE_ID: instance_id} if instance_id else {}
    return {
        "apiVersion": argo.API_VERSION,
        "kind": "Workflow",
        "metadata": {"generateName": name, "labels": labels, "annotations": dict(annotations)},
        "spec": {
            "entrypoint": "main",
            "artifactRepositoryRef": NO_STORE,
            "serviceAccountName": "default",
            "templates": [{"name": "main", "steps": [list(group) for group in groups]}, template],
        },
    }


def memoize(cache: str) -> Object:
    """The block of a template whose parameter `key` is its key; Argo's full CRDs want every field of it."""
    configmap = {"name": cache, "key": ""}
    return {"key": "{{inputs.parameters.key}}", "maxAge": "876000h", "cache": {"configMap": configmap}}


def outputs(finished: Mapping[str, Any]) -> list[str]:
    """The random output of every step of a finished chain, in their order."""
    nodes = finished["status"].get("nodes", {}).values()
    made = [node for node in nodes if node.get("templateName") == "step"]
    return [
        parameter["value"]
        for node in sorted(made, key=lambda node: str(node["displayName"]))
        for parameter in node.get("outputs", {}).get("parameters", ())
    ]


def delivery(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """Where keys of these Pods were looked up: `service`, `init`, `image-volume`, or "" for nowhere."""
    return {_delivery(pod) for pod in pods}


def _delivery(pod: Mapping[str, Any]) -> str:
    spec = pod["spec"]
    if any(volume["name"] == names.IMAGE_VOLUME for volume in spec.get("volumes", ())):
        return IMAGE_VOLUME
    if any(one["name"] == names.CHECK_CONTAINER for one in spec.get("initContainers", ())):
        return INIT_CONTAINER
    return SERVICE if names.PLAN in pod.get("metadata", {}).get("annotations", {}) else ""


def _call(key: str, number: int) -> Object:
    return {
        "name": f"step-{number}",
        "template": "step",
        "arguments": {"parameters": [{"name": "key", "value": f"{key}-{number}"}]},
    }


def _step(cache: str, seconds: float, image: str) -> Object:
    script = f"sleep {seconds:g}; cat /proc/sys/kernel/random/uuid > /tmp/out"
    template: Object = {
        "name": "step",
        "inputs": {"parameters": [{"name": "key"}]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
        "container": {"image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]},
    }
    if cache:
        template["memoize"] = memoize(cache)
    return template
