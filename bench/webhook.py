"""The two webhooks under load, against a server that does nothing but parse."""

import base64
import json
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import api, machine, reviews
from bench.figures import Figure, Report, Target, compare
from bench.load import Connection, Load, request
from bench.measure import Series, interleave, percentile
from bench.servers import Server, started
from certs import bundle
from memoize import names
from server.listener import READY_PATH
from webhook.hooks import PODS_PATH, WORKFLOWS_PATH

NAME = "webhook"
_METHOD = """`python -m webhook`, beside a keeper that has nothing to do, against an aiohttp server
(`bench/constant.py`) that reads the same body, parses its JSON and answers a constant: both single processes
with the same TLS settings, driven in turn by one client process over kept-alive TLS connections. The client
is threads over plain sockets, cheaper than either server. Every value is that of one round; p99 is taken
within each round. CPU time is the server's own, so that it holds whatever the client costs, without that of
the child process, which decides the Workflows. Workflow and Namespace are looked up as ever, and remembered
for five seconds. The Pod is gated."""
_OURS, _CONSTANT = "stepmemo", "constant"
_AGAINST = "parse and answer a constant"
_THROUGHPUT = {PODS_PATH: Target("at least", 0.5), WORKFLOWS_PATH: Target("at least", 0.4)}
_P99 = Target("at most", 5)
_PATIENCE = 120.0


def add_arguments(parser: ArgumentParser) -> None:
    """How often, how many, how large."""
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument(
        "--pods", type=int, default=1000, metavar="N", help="Pods in a round (default %(default)s)"
    )
    parser.add_argument(
        "--workflows", type=int, default=100, metavar="N", help="Workflows in a round (default %(default)s)"
    )
    parser.add_argument("--concurrency", type=int, default=8, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--bytes", type=int, default=1_000_000, metavar="N", help="of a Workflow (default %(default)s)"
    )
    parser.add_argument(
        "--templates",
        type=int,
        nargs="+",
        default=[40, 400],
        metavar="N",
        help="how many templates make up those bytes (default %(default)s)",
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of review, and how many of them make a round."""

    name: str
    title: str
    path: str
    body: Path
    requests: int


def run(arguments: Namespace) -> Report:
    """Measure both webhooks."""
    described = machine.describe()
    with api.scratch() as (cluster, directory), ExitStack() as stack:
        namespace = cluster.namespace()
        cases = _cases(directory, namespace, api.workflow(cluster, namespace), arguments)
        servers = _servers(stack, directory, cluster.kubeconfig, namespace)
        for case in cases:
            patched(servers[0], case)
        series = {
            case.name: interleave(
                arguments.rounds,
                [partial(driven, case, server, arguments.concurrency) for server in servers],
            )
            for case in cases
        }
        facts = {
            "API server": api.describe(cluster),
            "connections": str(arguments.concurrency),
            **{
                case.title: f"{case.body.stat().st_size:,} bytes, {case.requests} in a round"
                for case in cases
            },
        }
    figures = tuple(figure for case in cases for figure in _figures(case, series[case.name]))
    return Report(NAME, "The webhooks", _METHOD, facts, described, figures)


def _cases(directory: Path, namespace: str, workflow_uid: str, arguments: Namespace) -> list[Case]:
    """The Pod, and Workflows of one size made of few large templates and of many small ones, all memoized."""
    pod = write(directory / "pod.json", reviews.of_pod(namespace, "wf", workflow_uid))
    cases = [Case("pod", "a Pod", PODS_PATH, pod, arguments.pods)]
    for templates in arguments.templates:
        name, title = f"workflow-{templates}", f"a Workflow of {templates} templates"
        review = reviews.of_workflow(namespace, arguments.bytes, templates)
        body = write(directory / f"{name}.json", review)
        cases.append(Case(name, title, WORKFLOWS_PATH, body, arguments.workflows))
    return cases


def _servers(stack: ExitStack, directory: Path, kubeconfig: Path, namespace: str) -> Sequence[Server]:
    certificates = directory / "certs"
    bundle.write(bundle.new(["bench"], datetime.now(UTC)), certificates)
    flags = ["--listen=127.0.0.1:{port}", "--certs=files", f"--cert-dir={certificates}"]
    flags += [f"--namespace={namespace}", "--metrics-listen=off"]
    environment = {"KUBECONFIG": str(kubeconfig)}
    constant = ["{port}", str(certificates), READY_PATH, PODS_PATH, WORKFLOWS_PATH]
    state = f"--state-dir={directory / 'state'}"
    stack.enter_context(started("keeper", "keeper", [*flags, state], directory, environment))
    return [
        stack.enter_context(started(_OURS, "webhook", [*flags, "--image=bench"], directory, environment)),
        stack.enter_context(started(_CONSTANT, "bench.constant", constant, directory, {})),
    ]


def patched(server: Server, case: Case) -> None:
    """See that the review takes the whole way, for a Pod to its gate; RuntimeError otherwise.

    It may have to wait until the webhook has seen its keeper.
    """
    deadline, answer = time.monotonic() + _PATIENCE, ""
    while time.monotonic() < deadline:
        connection = Connection(server.port)
        try:
            answer = connection.ask(request(case.path, case.body.read_bytes())).decode()
        finally:
            connection.close()
        patch = base64.b64decode(json.loads(answer)["response"].get("patch", ""))
        if patch and (case.path != PODS_PATH or names.SCHEDULING_GATE.encode() in patch):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{case.name}: not patched: {answer}")


def driven(case: Case, server: Server, concurrency: int) -> Mapping[str, float]:
    """One round: `rate` in a second, `median`, `p99` and `cpu` in milliseconds, after the server's name."""
    before = server.cpu_seconds()
    load = _drive(case, server.port, concurrency)
    cpu = server.cpu_seconds() - before
    sent = case.requests + concurrency  # those that warm the connections up included
    return {
        f"{server.name} rate": load.rate,
        f"{server.name} median": 1000 * percentile(load.latencies, 50),
        f"{server.name} p99": 1000 * percentile(load.latencies, 99),
        f"{server.name} cpu": 1000 * cpu / sent,
    }


def _drive(case: Case, port: int, concurrency: int) -> Load:
    command = [sys.executable, "-B", "-m", "bench.load", str(port), case.path, str(case.body)]
    sizes = [f"--requests={case.requests}", f"--concurrency={concurrency}"]
    done = subprocess.run([*command, *sizes], cwd=api.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed:\n{done.stderr}")
    return Load(**json.loads(done.stdout))


def _figures(case: Case, series: Series) -> list[Figure]:
    def figure(what: str, unit: str, measured: str, target: Target | None = None) -> Figure:
        ours, constant = series[f"{_OURS} {measured}"], series[f"{_CONSTANT} {measured}"]
        return compare(f"`{case.path}`, {case.title}: {what}", unit, ours, _AGAINST, constant, target)

    return [
        figure("throughput", "/s", "rate", _THROUGHPUT[case.path]),
        figure("p99 of a round", "ms", "p99", _P99),
        figure("median of a round", "ms", "median"),
        figure("CPU of one request", "ms", "cpu"),
    ]


def write(path: Path, review: reviews.Object) -> Path:
    """The review as a file, which the client reads."""
    path.write_text(json.dumps(review, separators=(",", ":")), encoding="utf-8")
    return path
