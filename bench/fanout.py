"""Two hundred hits at once on a cluster, ours and Argo's own, in a small cache and in a full one."""

import sys
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from argo import names as argo
from bench import machine
from bench.chain import NO_STORE, Object
from bench.cluster import prepared_namespace, versions
from bench.figures import Figure, Report, Target, compare
from bench.kube import Kube, KubeError, connected
from bench.measure import Series
from bench.steppod import entry
from memoize import names

NAME = "fanout"
_METHOD = """One step over so many items, all of them in the cache, whose entries were put there by hand; from
the moment before the Workflow is created until a watch shows it finished, in turns. Before each there is a
rest, since what the controller still writes of the run before (Events, labels of Pods) shares its 20 requests
a second. Ours are proved by Pods that never met a node, Argo's by there being no Pod, both by the outputs.
The full cache holds a large value beside the same entries. Then single Pods, each from the moment a watch
shows it new until the same watch shows it Succeeded: of a trivial workflow (`true`) that nobody memoizes, and
of a hit."""
_SMALL, _FULL = "small", "full"
_OURS, _ARGOS = "ours", "Argo's own"
_SIDES = (_OURS, _ARGOS)
_HALF = Target("at most", 0.5)
_THIRTY = Target("at least", 30)
_ANY_SIZE = Target("at most", 1.15)
_WORKFLOWS = f"/apis/{argo.API_VERSION}/namespaces/{{}}/workflows"
_PODS = "/api/v1/namespaces/{}/pods"
_CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"


def add_arguments(parser: ArgumentParser) -> None:
    """What to run where."""
    parser.add_argument("--requeue", required=True, help="the controller's DEFAULT_REQUEUE_TIME, as a label")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="default %(default)s")
    parser.add_argument("--width", type=int, default=200, metavar="N", help="items (default %(default)s)")
    parser.add_argument("--pods", type=int, default=5, metavar="N", help="single Pods (default %(default)s)")
    parser.add_argument("--bytes", type=int, default=900_000, metavar="N", help="of the full cache")
    parser.add_argument("--image", default="busybox", help="of the steps (default %(default)s)")
    parser.add_argument("--instance-id", default="", metavar="ID", help="of the controller, if it has one")
    parser.add_argument("--controller-namespace", default="argo", metavar="NAME", help="default %(default)s")
    parser.add_argument("--rest", type=float, default=30, metavar="S", help="before each run")
    parser.add_argument("--patience", type=float, default=300, metavar="S", help="longest time for one run")


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs workflows in one namespace."""

    kube: Kube
    namespace: str
    arguments: Namespace

    def create(self, template: Object, steps: Object, cache: str) -> tuple[Object, str, float]:
        """Create a workflow; the object, where its kind is listed, and when that was begun."""
        ours = cache.startswith(_OURS)
        labels = {argo.INSTANCE_ID: self.arguments.instance_id} if self.arguments.instance_id else {}
        metadata = {"generateName": "fanout-", "labels": labels}
        metadata |= {"annotations": {names.MEMOIZE: "true" if ours else "false"}}
        main = {"name": "main", "steps": [[steps]]}
        made = {
            "apiVersion": argo.API_VERSION,
            "kind": "Workflow",
            "metadata": metadata,
            "spec": {
                "entrypoint": "main",
                "artifactRepositoryRef": NO_STORE,
                "serviceAccountName": "default",
                "templates": [main, template],
            },
        }
        path, began = _WORKFLOWS.format(self.namespace), time.perf_counter()
        return self.kube.request("POST", path, made), path, began

    def fan_out(self, cache: str) -> float:
        """Seconds of one fan-out that hits. KubeError where it is not what it is called."""
        width = self.arguments.width
        call: Object = {"name": "a", "template": "step", "withSequence": {"count": str(width)}}
        call |= {"arguments": {"parameters": [{"name": "key", "value": "{{item}}"}]}}
        created, path, began = self.create(_step(cache, self.arguments.image), call, cache)
        name = created["metadata"]["name"]
        seen = {"fieldSelector": f"metadata.name={name}"}
        for now in self.kube.watch(path, seconds=self.arguments.patience, **seen):
            if now.get("status", {}).get("finishedAt"):
                seconds = time.perf_counter() - began
                self._prove(now, cache)
                self.kube.request("DELETE", f"{path}/{name}")
                return seconds
        raise KubeError(f"{name} does not end within {self.arguments.patience:.0f} s")

    def single(self, cache: str) -> float:
        """Seconds from a step's Pod to its end: a hit, or without a cache a trivial one."""
        call: Object = {"name": "a", "template": "step"}
        call |= {"arguments": {"parameters": [{"name": "key", "value": "0"}]}}
        created, path, _ = self.create(_step(cache, self.arguments.image), call, cache)
        name = created["metadata"]["name"]
        seen = {"labelSelector": f"{argo.WORKFLOW_LABEL}={name}"}
        began: float | None = None
        watched = self.kube.watch(_PODS.format(self.namespace), seconds=self.arguments.patience, **seen)
        for pod in watched:
            began = began or time.perf_counter()
            if pod["status"]["phase"] == "Succeeded":
                ended = time.perf_counter()
                if bool(pod["spec"].get("nodeName")) is bool(cache):
                    raise KubeError(f"{name}: on node {pod['spec'].get('nodeName')}")
                self._until_over(path, name)
                return ended - began
        raise KubeError(f"the Pod of {name} does not end")

    def _until_over(self, path: str, name: str) -> None:
        seen = {"fieldSelector": f"metadata.name={name}"}
        for now in self.kube.watch(path, seconds=self.arguments.patience, **seen):
            if now.get("status", {}).get("finishedAt"):
                return

    def _prove(self, finished: Object, cache: str) -> None:
        name, status = finished["metadata"]["name"], finished["status"]
        if status["phase"] != "Succeeded":
            raise KubeError(f"{name}: {status['phase']} {status.get('message')}")
        nodes = [node for node in status["nodes"].values() if node.get("templateName") == "step"]
        values = {p["value"] for node in nodes for p in node.get("outputs", {}).get("parameters", ())}
        expected = {f"answer {number}" for number in range(self.arguments.width)}
        selector = f"{argo.WORKFLOW_LABEL}={name}"
        pods = self.kube.request("GET", _PODS.format(self.namespace), labelSelector=selector)["items"]
        scheduled = [pod for pod in pods if pod["spec"].get("nodeName")]
        if values != expected or scheduled or bool(pods) is not cache.startswith(_OURS):
            raise KubeError(
                f"{name}: not hits of {cache}: {len(values)} outputs, {len(scheduled)} of {len(pods)} ran"
            )


def run(arguments: Namespace) -> Report:
    """Run both sides with both caches in rounds, then single Pods in turn."""
    described = machine.describe()
    with connected() as kube, prepared_namespace(kube) as namespace:
        bench = Bench(kube, namespace, arguments)
        with _caches(bench) as caches:
            series = _rounds(bench, caches)
            for _ in range(arguments.pods):
                series.setdefault("trivial", []).append(bench.single(""))
                series.setdefault("hit", []).append(bench.single(caches[_OURS, _SMALL]))
        pods = kube.request("GET", _PODS.format(namespace))["items"]
        facts = {**versions(kube, pods), "controller's requeue time": arguments.requeue}
        facts |= {"items": str(arguments.width), "rounds": str(arguments.rounds)}
        facts |= {"the full cache": f"{arguments.bytes:,} bytes"}
    return Report(
        f"{NAME}-{arguments.requeue}",
        f"{arguments.width} hits at once on a cluster, the controller at {arguments.requeue} requeue",
        _METHOD,
        facts,
        described,
        _figures(series, arguments.width),
    )


def _figures(series: Series, width: int) -> tuple[Figure, ...]:
    ours = {size: series[f"{_OURS} {size}"] for size in (_SMALL, _FULL)}
    argos = {size: series[f"{_ARGOS} {size}"] for size in (_SMALL, _FULL)}
    what, against = f"{width} hits, a {{}} cache", "Argo's own, {} cache"
    return (
        *(
            compare(what.format(size), "s", ours[size], against.format(size), argos[size], _HALF)
            for size in (_SMALL, _FULL)
        ),
        compare(what.format(_FULL), "s", ours[_FULL], "ours, small cache", ours[_SMALL], _ANY_SIZE),
        compare("Argo's own, full cache", "s", argos[_FULL], "Argo's own, small cache", argos[_SMALL]),
        compare("a trivial Pod, new to Succeeded", "s", series["trivial"], "a hit's", series["hit"], _THIRTY),
    )


def _rounds(bench: Bench, caches: dict[tuple[str, str], str]) -> Series:
    series: Series = {}
    turns = [(side, size) for size in (_SMALL, _FULL) for side in _SIDES]
    for number in range(bench.arguments.rounds):
        for side, size in turns if number % 2 == 0 else turns[::-1]:
            time.sleep(bench.arguments.rest)
            seconds = bench.fan_out(caches[side, size])
            series.setdefault(f"{side} {size}", []).append(seconds)
            print(f"  round {number + 1}: {side}, {size} cache: {seconds:.1f} s", file=sys.stderr)
    return series


@contextmanager
def _caches(bench: Bench) -> Iterator[dict[tuple[str, str], str]]:
    """Caches of both sizes by side and size. Argo reads its own beside its controller alone."""
    made: dict[tuple[str, str], str] = {}
    kube, arguments = bench.kube, bench.arguments
    homes = {_OURS: bench.namespace, _ARGOS: arguments.controller_namespace}
    data = {str(number): entry(f"answer {number}") for number in range(arguments.width)}
    large = entry("x" * (arguments.bytes - sum(map(len, data.values()))))
    try:
        for side in _SIDES:
            for size in (_SMALL, _FULL):
                name = f"{'ours' if side == _OURS else 'argos'}-{size}-{uuid.uuid4().hex[:8]}"
                labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
                body: Object = {"metadata": {"name": name, "labels": labels}, "data": dict(data)}
                if size == _FULL:
                    body["data"]["large"] = large
                kube.request("POST", _CONFIG_MAPS.format(homes[side]), body)
                made[side, size] = name
        yield made
    finally:
        for (side, _), name in made.items():
            with suppress(KubeError):
                kube.request("DELETE", f"{_CONFIG_MAPS.format(homes[side])}/{name}")


def _step(cache: str, image: str) -> Object:
    template: Object = {
        "name": "step",
        "inputs": {"parameters": [{"name": "key"}]},
        "container": {"image": image, "imagePullPolicy": "IfNotPresent", "command": ["true"]},
    }
    if cache:
        template["outputs"] = {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}
        template["memoize"] = {
            "key": "{{inputs.parameters.key}}",
            "cache": {"configMap": {"name": cache}},
        }
    return template
