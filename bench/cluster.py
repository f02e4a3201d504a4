"""Whole workflows on a cluster that runs Argo Workflows and stepmemo, named by KUBECONFIG."""

import sys
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from argo import names as argo
from bench import api, machine
from bench.chain import HIT, MISS, PLAIN, REPOSITORY, VARIANTS, Object, Variant, delivery, outputs, workflow
from bench.figures import Figure, Report, compare
from bench.installation import Server
from bench.kube import Kube, KubeError, connected
from bench.measure import Series
from bench.workflows import CONFIG_MAPS, Runner

NAME = "cluster"
_METHOD = """Steps in a row, one Pod each, every one a second of `sleep` and a random output. From the moment
before the Workflow is created until a watch shows it finished. In a round every variant runs once with new
keys (misses) and, where it can answer, once more with the same (hits), before the next round begins; hits
are proved by equal outputs, misses by new ones, and the delivery by what is in the Pods. Between two runs
every Pod has ended."""
_PLURAL = {MISS: "misses", HIT: "hits"}


def add_arguments(parser: ArgumentParser) -> None:
    """What to run where."""
    parser.add_argument("--requeue", required=True, help="the controller's DEFAULT_REQUEUE_TIME, as a label")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default %(default)s")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="in a row (default %(default)s)")
    parser.add_argument("--image", default="busybox", help="of the steps (default %(default)s)")
    parser.add_argument(
        "--variants",
        default=",".join(variant.name for variant in VARIANTS),
        metavar="NAME,…",
        help="default %(default)s; plain always runs",
    )
    parser.add_argument(
        "--switch-lookup",
        action="store_true",
        help="patch stepmemo's Deployment to measure every way to look keys up, not only the one that is set",
    )
    parser.add_argument("--server-namespace", default="stepmemo", metavar="NAME", help="default %(default)s")
    parser.add_argument(
        "--controller-namespace", default="argo", metavar="NAME", help="where Argo's own caches are kept"
    )
    parser.add_argument("--patience", type=float, default=180, metavar="S", help="longest time for one run")


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the chain: seconds, the steps' outputs, and the Pods it left."""

    seconds: float
    outputs: list[str]
    pods: list[Object]


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs chains in one namespace."""

    runner: Runner
    arguments: Namespace

    def run(self, variant: Variant, key: str, cache: str) -> Ran:
        """Run the chain to its end and until every Pod has ended. KubeError where it fails."""
        chain = self.arguments
        made = workflow(variant, key, cache, steps=chain.steps, seconds=1, image=chain.image)
        seconds, (finished,) = self.runner.run(made)
        return Ran(seconds, outputs(finished), self.runner.ended_pods(finished))


def run(arguments: Namespace) -> Report:
    """Run all variants in rounds."""
    described = machine.describe()
    with connected() as kube, prepared_namespace(kube) as namespace:
        bench = Bench(Runner(kube, namespace, arguments.patience), arguments)
        server = Server.of(kube, arguments.server_namespace)
        variants = chosen(arguments.variants, None if arguments.switch_lookup else server.lookup())
        with server.restored():
            series, seen = _rounds(bench, server, variants)
        facts = {**versions(kube, seen), "controller's requeue time": arguments.requeue}
        facts |= {"steps in a row": str(arguments.steps), "rounds": str(arguments.rounds)}
    return Report(
        f"{NAME}-{arguments.requeue}",
        f"On a cluster, the controller at {arguments.requeue} requeue",
        _METHOD,
        facts,
        described,
        figures(variants, series, arguments.steps),
    )


def chosen(wanted: str, lookup: str | None) -> list[Variant]:
    """The variants by name, `plain` always; with a `lookup` those that can be measured under it alone."""
    wishes = {PLAIN.name, *wanted.split(",")}
    if unknown := wishes - {variant.name for variant in VARIANTS}:
        raise SystemExit(f"--variants: no such variant: {', '.join(sorted(unknown))}")
    return [
        variant
        for variant in VARIANTS
        if variant.name in wishes and (lookup is None or variant.lookup in ("", lookup))
    ]


def figures(variants: Sequence[Variant], series: Series, steps: int) -> tuple[Figure, ...]:
    """Every variant against plain Argo in the same rounds."""
    plain = series[f"{PLAIN.name} {MISS}"]
    return tuple(
        compare(
            f"{variant.title}: {steps} {_PLURAL[kind] if len(variant.runs) > 1 else 'runs'}",
            "s",
            series[f"{variant.name} {kind}"],
            PLAIN.title,
            plain,
        )
        for variant in variants
        for kind in variant.runs
        if variant is not PLAIN
    )


def _rounds(bench: Bench, server: Server, variants: Sequence[Variant]) -> tuple[Series, list[Object]]:
    """The seconds of every variant and kind of run, and the Pods of a plain run."""
    series: Series = {}
    plain: list[Object] = []
    for number in range(bench.arguments.rounds):
        # Every other round backwards: half as many roll-outs, and none always comes after the same one.
        for variant in variants if number % 2 == 0 else variants[::-1]:
            if variant.lookup and server.lookup() != variant.lookup:
                server.switch(variant.lookup)
            for kind, ran in _round(bench, variant):
                series.setdefault(f"{variant.name} {kind}", []).append(ran.seconds)
                if variant is PLAIN:
                    plain = ran.pods
                print(f"  round {number + 1}: {variant.name} {kind} {ran.seconds:.1f} s", file=sys.stderr)
    return series, plain


def _round(bench: Bench, variant: Variant) -> Iterator[tuple[str, Ran]]:
    """Run the variant once for every kind of run it has. KubeError where it was not what it is called."""
    key = cache = f"bench-{uuid.uuid4().hex[:8]}"
    made: list[str] = []
    try:
        for kind in variant.runs:
            ran = bench.run(variant, key, cache)
            if len(ran.outputs) != bench.arguments.steps or (ran.outputs == made) is not (kind == HIT):
                raise KubeError(f"{variant.name}: not a {kind}: {made} then {ran.outputs}")
            expected = {variant.lookup} if variant.lookup else {""} if variant.mode == "" else None
            if ran.pods and expected is not None and delivery(ran.pods) != expected:
                raise KubeError(f"{variant.name}: the Pods have {delivery(ran.pods)}, not {expected}")
            made = ran.outputs
            yield kind, ran
    finally:
        if variant.native:
            path = f"{CONFIG_MAPS.format(bench.arguments.controller_namespace)}/{cache}"
            with suppress(KubeError):
                bench.runner.kube.request("DELETE", path)


@contextmanager
def prepared_namespace(kube: Kube) -> Iterator[str]:
    """A namespace of our own whose account `default` may do what steps need."""
    name = f"stepmemo-bench-{uuid.uuid4().hex[:8]}"
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        group = "rbac.authorization.k8s.io"
        rights = f"/apis/{group}/v1/namespaces/{name}"
        role = {"metadata": {"name": "step"}, "rules": api.step_rules()}
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": name}
        binding = {
            "metadata": {"name": "step"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "step"},
            "subjects": [subject],
        }
        kube.request("POST", f"{rights}/roles", role)
        kube.request("POST", f"{rights}/rolebindings", binding)
        kube.request("POST", CONFIG_MAPS.format(name), REPOSITORY)
        yield name
    finally:
        kube.request("DELETE", f"/api/v1/namespaces/{name}")


def versions(kube: Kube, pods: Sequence[Object]) -> dict[str, str]:
    """What ran: Kubernetes and its node as they say, Argo by the image of its executor."""
    node = kube.request("GET", "/api/v1/nodes", limit="1")["items"][0]["status"]["nodeInfo"]
    containers = {one["name"]: one["image"] for pod in pods for one in pod["spec"]["containers"]}
    layout = "init-less" if argo.SUPERVISOR_CONTAINER in containers else "with init and wait"
    executor = containers.get(argo.SUPERVISOR_CONTAINER) or containers.get(argo.WAIT_CONTAINER) or "unknown"
    return {
        "Kubernetes": f"{node['kubeletVersion']} on {node['osImage']}, {node['containerRuntimeVersion']}",
        "Argo": f"{executor.rpartition(':')[2]}, {layout}",
    }
