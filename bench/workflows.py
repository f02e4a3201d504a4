"""Workflows on a cluster: made, watched to their end, and the Pods that they leave."""

import time
import uuid
from dataclasses import dataclass

from argo import names as argo
from bench.kube import Kube, KubeError, Object

WORKFLOWS = f"/apis/{argo.API_VERSION}/namespaces/{{}}/workflows"
PODS = "/api/v1/namespaces/{}/pods"
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
_RUN = "stepmemo-bench/run"
_OVER = f"{argo.DOMAIN}/completed=true"
"""What Argo labels a Workflow with, in the write that ends it (workflow/controller/operator.go)."""
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs workflows in one namespace, each at most `patience` seconds."""

    kube: Kube
    namespace: str
    patience: float

    def run(self, *made: Object) -> tuple[float, list[Object]]:
        """Create them and wait until all are finished; the seconds of that, and the finished.

        KubeError where one does not succeed, or not in time.
        """
        path, run = WORKFLOWS.format(self.namespace), uuid.uuid4().hex[:8]
        began = time.perf_counter()
        for one in made:
            labels = {**one["metadata"].get("labels", {}), _RUN: run}
            self.kube.request("POST", path, {**one, "metadata": {**one["metadata"], "labels": labels}})
        finished: dict[str, Object] = {}
        # The many changes before the end are not sent, so that reading them does not delay the clock.
        for now in self.kube.watch(path, seconds=self.patience, labelSelector=f"{_RUN}={run},{_OVER}"):
            finished[now["metadata"]["name"]] = now
            if len(finished) == len(made):
                seconds = time.perf_counter() - began
                for name, one in finished.items():
                    if one["status"]["phase"] != "Succeeded":
                        raise KubeError(f"{name}: {one['status']['phase']} {one['status'].get('message')}")
                return seconds, list(finished.values())
        unfinished = len(made) - len(finished)
        raise KubeError(f"{unfinished} of {len(made)} workflows do not end within {self.patience:.0f} s")

    def pods(self, workflow: Object) -> list[Object]:
        """The Pods of a workflow."""
        selector = f"{argo.WORKFLOW_LABEL}={workflow['metadata']['name']}"
        found = self.kube.request("GET", PODS.format(self.namespace), labelSelector=selector)
        return list(found["items"])

    def ended_pods(self, workflow: Object) -> list[Object]:
        """The same once all are over: an entry is stored by then."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            pods = self.pods(workflow)
            if all(pod["status"].get("phase") in _ENDED for pod in pods):
                return pods
            time.sleep(0.2)
        raise KubeError(f"the Pods of {workflow['metadata']['name']} do not end")
