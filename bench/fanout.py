"""Two hundred hits at once on a cluster, ours and Argo's own, in a small cache and in a full one."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from argo import names as argo
from bench import hits, machine
from bench.chain import Object
from bench.cluster import prepared_namespace, versions
from bench.figures import Figure, Report, Target, compare
from bench.hits import Side
from bench.kube import KubeError, connected
from bench.measure import Series
from bench.steps import entry
from bench.workflows import PODS, WORKFLOWS, Runner

NAME = "fanout"
_METHOD = """One step over so many items, all of them in the cache, whose entries were put there by hand; from
the moment before the Workflow is created until a watch shows it finished, in turns. Before each there is a
rest, since what the controller still writes of the run before (Events, labels of Pods) shares its 20 requests
a second. Ours are proved by Pods that never met a node, Argo's by there being no Pod, both by the outputs.
The full cache holds a large value beside the same entries. Then single Pods, each from the moment a watch
shows it new until the same watch shows it Succeeded: of a trivial workflow (`true`) that nobody memoizes, and
of a hit."""
_SMALL, _FULL = "small", "full"
_SIDES = (Side.OURS, Side.ARGOS)
HALF = Target("at most", 0.5)
"""Of the time that Argo's own memoization takes for a fan-out."""
_THIRTY = Target("at least", 30)
_ANY_SIZE = Target("at most", 1.15)


def add_arguments(parser: ArgumentParser) -> None:
    """What to run where."""
    parser.add_argument("--requeue", required=True, help="the controller's DEFAULT_REQUEUE_TIME, as a label")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="default %(default)s")
    parser.add_argument("--width", type=int, default=200, metavar="N", help="items (default %(default)s)")
    parser.add_argument("--pods", type=int, default=5, metavar="N", help="single Pods (default %(default)s)")
    parser.add_argument("--bytes", type=int, default=900_000, metavar="N", help="of the full cache")
    parser.add_argument("--rest", type=float, default=30, metavar="S", help="before each run")
    parser.add_argument("--patience", type=float, default=300, metavar="S", help="longest time for one run")
    add_surroundings(parser)


def add_surroundings(parser: ArgumentParser) -> None:
    """What a benchmark of hits must know of the cluster."""
    parser.add_argument("--image", default="busybox", help="of the steps (default %(default)s)")
    parser.add_argument("--instance-id", default="", metavar="ID", help="of the controller, if it has one")
    parser.add_argument("--controller-namespace", default="argo", metavar="NAME", help="default %(default)s")


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs workflows in one namespace."""

    runner: Runner
    arguments: Namespace

    def fan_out(self, side: Side, cache: str) -> float:
        """Seconds of one fan-out that hits. KubeError where it is not what it is called."""
        width = self.arguments.width
        seconds, (finished,) = self.runner.run(self._workflow(hits.at_once(width), side, cache))
        hits.prove(finished, self.runner.pods(finished), side, width)
        path = WORKFLOWS.format(self.runner.namespace)
        self.runner.kube.request("DELETE", f"{path}/{finished['metadata']['name']}")
        return seconds

    def single(self, side: Side, cache: str = "") -> float:
        """Seconds from a step's Pod to its end: a hit, or a trivial one."""
        kube, namespace = self.runner.kube, self.runner.namespace
        made = self._workflow(hits.in_a_row(1), side, cache)
        name = kube.request("POST", WORKFLOWS.format(namespace), made)["metadata"]["name"]
        seen = {"labelSelector": f"{argo.WORKFLOW_LABEL}={name}"}
        began: float | None = None
        for pod in kube.watch(PODS.format(namespace), seconds=self.runner.patience, **seen):
            began = began or time.perf_counter()
            if pod["status"]["phase"] == "Succeeded":
                ended = time.perf_counter()
                if bool(pod["spec"].get("nodeName")) is (side is Side.OURS):
                    raise KubeError(f"{name}: on node {pod['spec'].get('nodeName')}")
                self._until_over(name)
                return ended - began
        raise KubeError(f"the Pod of {name} does not end")

    def _workflow(self, groups: hits.Groups, side: Side, cache: str) -> Object:
        ours = self.arguments
        return hits.workflow(groups, side, image=ours.image, cache=cache, instance_id=ours.instance_id)

    def _until_over(self, name: str) -> None:
        path, seen = WORKFLOWS.format(self.runner.namespace), {"fieldSelector": f"metadata.name={name}"}
        for now in self.runner.kube.watch(path, seconds=self.runner.patience, **seen):
            if now.get("status", {}).get("finishedAt"):
                return


def run(arguments: Namespace) -> Report:
    """Run both sides with both caches in rounds, then single Pods in turn."""
    described = machine.describe()
    with connected() as kube, prepared_namespace(kube) as namespace:
        bench = Bench(Runner(kube, namespace, arguments.patience), arguments)
        with _caches(bench) as caches:
            series = _rounds(bench, caches)
            for _ in range(arguments.pods):
                series.setdefault("trivial", []).append(bench.single(Side.PLAIN))
                series.setdefault("hit", []).append(bench.single(Side.OURS, caches[Side.OURS, _SMALL]))
        pods = kube.request("GET", PODS.format(namespace))["items"]
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
    ours = {size: series[f"{Side.OURS} {size}"] for size in (_SMALL, _FULL)}
    argos = {size: series[f"{Side.ARGOS} {size}"] for size in (_SMALL, _FULL)}
    what, against = f"{width} hits, a {{}} cache", "Argo's own, {} cache"
    return (
        *(
            compare(what.format(size), "s", ours[size], against.format(size), argos[size], HALF)
            for size in (_SMALL, _FULL)
        ),
        compare(what.format(_FULL), "s", ours[_FULL], "ours, small cache", ours[_SMALL], _ANY_SIZE),
        compare("Argo's own, full cache", "s", argos[_FULL], "Argo's own, small cache", argos[_SMALL]),
        compare("a trivial Pod, new to Succeeded", "s", series["trivial"], "a hit's", series["hit"], _THIRTY),
    )


def _rounds(bench: Bench, caches: dict[tuple[Side, str], str]) -> Series:
    series: Series = {}
    turns = [(side, size) for size in (_SMALL, _FULL) for side in _SIDES]
    for number in range(bench.arguments.rounds):
        for side, size in turns if number % 2 == 0 else turns[::-1]:
            time.sleep(bench.arguments.rest)
            seconds = bench.fan_out(side, caches[side, size])
            series.setdefault(f"{side} {size}", []).append(seconds)
            print(f"  round {number + 1}: {side}, {size} cache: {seconds:.1f} s", file=sys.stderr)
    return series


@contextmanager
def _caches(bench: Bench) -> Iterator[dict[tuple[Side, str], str]]:
    """Caches of both sizes by side and size."""
    kube, arguments = bench.runner.kube, bench.arguments
    homes = {Side.OURS: bench.runner.namespace, Side.ARGOS: arguments.controller_namespace}
    small = hits.answers(arguments.width)
    large = entry("x" * (arguments.bytes - sum(map(len, small.values()))))
    contents = {_SMALL: small, _FULL: {**small, "large": large}}
    with ExitStack() as stack:
        yield {
            (side, size): stack.enter_context(hits.cache(kube, homes[side], f"bench-{size}", contents[size]))
            for side in _SIDES
            for size in contents
        }
