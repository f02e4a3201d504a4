"""Steps whose entries were put there by hand: answered by us or by Argo, or run by plain Argo."""

import base64
import gzip
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum

from argo import names as argo
from bench.chain import Object, memoize, submitted
from bench.kube import Kube, KubeError
from bench.steps import entry
from bench.workflows import CONFIG_MAPS
from memoize.names import MEMOIZE

Groups = Sequence[Sequence[Object]]


class Side(StrEnum):
    """Who answers the steps. The value is for people."""

    OURS = "ours"
    ARGOS = "Argo's own"
    PLAIN = "plain Argo"
    """Nobody: they run."""


def in_a_row(steps: int) -> Groups:
    """So many steps one after the other, whose keys count from 0."""
    return [[_call(f"step-{number}", str(number))] for number in range(steps)]


def at_once(width: int) -> Groups:
    """One step over so many items, which are their keys."""
    return [[{**_call("a", "{{item}}"), "withSequence": {"count": str(width)}}]]


def workflow(
    groups: Groups, side: Side, *, image: str, cache: str = "", instance_id: str = "", name: str = "hits-"
) -> Object:
    """A Workflow of these steps, looked up in the cache; without a cache they are trivial ones (`true`)."""
    annotations = {MEMOIZE: "true" if side is Side.OURS else "false"}
    return submitted(name, groups, step(cache, image), annotations, instance_id)


def step(cache: str, image: str) -> Object:
    """The template of such a step."""
    template: Object = {
        "name": "step",
        "inputs": {"parameters": [{"name": "key"}]},
        "container": {"image": image, "imagePullPolicy": "IfNotPresent", "command": ["true"]},
    }
    if cache:
        template["outputs"] = {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}
        template["memoize"] = memoize(cache)
    return template


def answers(count: int) -> dict[str, str]:
    """Entries of so many keys."""
    return {str(number): entry(_answer(number)) for number in range(count)}


@contextmanager
def cache(kube: Kube, namespace: str, name: str, data: dict[str, str]) -> Iterator[str]:
    """A cache of these entries until the block ends, whose name begins with `name`; its whole name.

    Ours is in the workflows' namespace. Argo reads its own beside its controller alone.
    """
    whole = f"{name}-{uuid.uuid4().hex[:8]}"
    labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
    body: Object = {"metadata": {"name": whole, "labels": labels}, "data": data}
    kube.request("POST", CONFIG_MAPS.format(namespace), body)
    try:
        yield whole
    finally:
        with suppress(KubeError):
            kube.request("DELETE", f"{CONFIG_MAPS.format(namespace)}/{whole}")


def prove(finished: Object, pods: Sequence[Object], side: Side, count: int) -> None:
    """KubeError unless the workflow's steps were answered as they are called.

    Ours are proved by Pods that never met a node, Argo's by there being no Pod, both by the outputs; those of
    plain Argo by Pods that all met one.
    """
    name = finished["metadata"]["name"]
    steps = [node for node in _nodes(finished) if node.get("templateName") == "step"]
    values = {p["value"] for node in steps for p in node.get("outputs", {}).get("parameters", ())}
    expected = set() if side is Side.PLAIN else {_answer(number) for number in range(count)}
    scheduled = sum(bool(pod["spec"].get("nodeName")) for pod in pods)
    wanted = {Side.OURS: (count, 0), Side.ARGOS: (0, 0), Side.PLAIN: (count, count)}[side]
    if values != expected or (len(pods), scheduled) != wanted:
        raise KubeError(
            f"{name}: not {count} steps of {side}: {len(values)} outputs, {scheduled} of {len(pods)} Pods ran"
        )


def _nodes(finished: Object) -> list[Object]:
    """Of its status; Argo compresses them from 1 MiB on (workflow/packer)."""
    status = finished["status"]
    packed = status.get("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes") or {}
    return list(nodes.values())


def _answer(number: int) -> str:
    return f"answer {number}"


def _call(name: str, key: str) -> Object:
    arguments = {"parameters": [{"name": "key", "value": key}]}
    return {"name": name, "template": "step", "arguments": arguments}
