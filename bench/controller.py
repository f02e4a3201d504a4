"""Argo's controller from outside: its requeue time set and set back, and what it says that it has used.

It says so on its metrics endpoint (docs/metrics.md of Argo; `metricsConfig` of its ConfigMap, on by
default): the processor time of its process, and every request that it sent to the API server. The endpoint is
read through the API server, which needs the right to `get` `pods/proxy` in its namespace, or by a URL.
"""

import shlex
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from bench.installation import Deployment, Object
from bench.kube import Kube, KubeError
from cli.checks import REQUEUE_VARIABLE, is_controller

_CPU = "process_cpu_seconds_total"
_REQUESTS = "argo_workflows_k8s_request_total"
_WAITED = "argo_workflows_client_rate_limiter_latency_sum"
_LEASES = "leases"
_WATCH = "Watch"
_START_SECONDS = 120.0
_PORT = 9090


@dataclass(frozen=True, slots=True)
class Used:
    """What a controller has used since it started, or between two such moments by `-`.

    `cpu`: seconds. `requests`: to the API server, by verb and kind (`Create pods`); watches and its leader
    election are left out. `waited`: seconds that requests spent in its own rate limiter, all of them added
    up; None where it does not tell (before Argo 4).
    """

    cpu: float
    requests: Mapping[str, float]
    waited: float | None = None

    @property
    def sent(self) -> float:
        """All requests."""
        return sum(self.requests.values())

    def __sub__(self, before: "Used") -> "Used":
        since = {kind: sent - before.requests.get(kind, 0.0) for kind, sent in self.requests.items()}
        waited = None if self.waited is None else self.waited - (before.waited or 0.0)
        return Used(self.cpu - before.cpu, {kind: sent for kind, sent in since.items() if sent}, waited)


def used(metrics: str) -> Used | None:
    """What the text of the metrics endpoint says; None where the controller does not work (yet).

    One that does not lead has an endpoint that answers with nothing.
    """
    cpu: float | None = None
    waited: float | None = None
    requests: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == _CPU:
                cpu = sample.value
            elif sample.name == _WAITED:
                waited = sample.value
            elif sample.name == _REQUESTS:
                verb, kind = sample.labels["verb"], sample.labels["kind"]
                if verb != _WATCH and kind != _LEASES:
                    what = f"{verb} {kind}"
                    requests[what] = requests.get(what, 0.0) + sample.value
    return Used(cpu, requests, waited) if cpu is not None and requests else None


@dataclass(frozen=True, slots=True)
class Controller:
    """`apply` has it run with a requeue time, `restore` with that of before, and `metrics` is their text."""

    apply: Callable[[str], None]
    restore: Callable[[], None]
    metrics: Callable[[], str]

    def set(self, requeue: str) -> None:
        """Have it run with this requeue time, and wait until it works. KubeError where it does not."""
        self.apply(requeue)
        deadline, said = time.monotonic() + _START_SECONDS, ""
        while time.monotonic() < deadline:
            try:
                self.used()
                return
            except KubeError as error:
                said = str(error)
                time.sleep(1)
        raise KubeError(f"the controller does not work after {_START_SECONDS:.0f} s: {said}")

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Set its requeue time back when the block ends, however it does; where that fails it is told."""
        try:
            yield
        finally:
            try:
                self.restore()
            except KubeError as error:
                print(f"THE REQUEUE TIME IS NOT SET BACK: {error}", file=sys.stderr)

    def used(self) -> Used:
        """What it has used since it started; KubeError where it does not say so."""
        try:
            found = used(self.metrics())
        except (OSError, ValueError) as error:
            raise KubeError(f"the controller's metrics: {error}") from error
        if found is None:
            raise KubeError("the controller's metrics say nothing of requests: does it lead, are they on?")
        return found


def deployed(kube: Kube, namespace: str, name: str, url: str) -> Controller:
    """The controller of a Deployment; `url` is that of its metrics, "" for through the API server."""
    deployment = Deployment(kube, namespace, name)
    container = next((one for one in deployment.containers() if is_controller(one)), None)
    if container is None:
        raise KubeError(f"no container of the Deployment {name} in {namespace} is Argo's controller")
    before = next((one for one in container.get("env") or () if one["name"] == REQUEUE_VARIABLE), None)

    def set_to(entry: Object | None) -> None:
        deployment.set_variables(container["name"], {REQUEUE_VARIABLE: entry})

    return Controller(
        lambda requeue: set_to({"name": REQUEUE_VARIABLE, "value": requeue}),
        lambda: set_to(before),
        lambda: fetched(url) if url else _of_its_pods(deployment),
    )


def started_by(command: str, now: str, url: str) -> Controller:
    """A controller that a command starts anew, `{requeue}` in it replaced; `now` is what it is set to."""

    def start(requeue: str) -> None:
        words = [word.replace("{requeue}", requeue) for word in shlex.split(command)]
        try:
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise KubeError(f"--set-requeue: {error}") from error

    return Controller(start, lambda: start(now), lambda: fetched(url))


def fetched(url: str) -> str:
    """The text at a URL; OSError. The controller signs its certificate itself, so that is not verified."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return str(answer.read().decode())


def _of_its_pods(deployment: Deployment) -> str:
    """The metrics of the Pod that says any; KubeError with why each does not."""
    said: list[str] = []
    for pod in deployment.pods():
        where = f"/api/v1/namespaces/{deployment.namespace}/pods"
        for scheme in ("https", "http"):  # `secure` of metricsConfig, on by default
            try:
                text = deployment.kube.text(
                    f"{where}/{scheme}:{pod['metadata']['name']}:{_PORT}/proxy/metrics"
                )
            except KubeError as error:
                said.append(str(error))
                continue
            if used(text) is not None:
                return text
    raise KubeError("; ".join(said) or f"no Pod of the Deployment {deployment.name} leads")
