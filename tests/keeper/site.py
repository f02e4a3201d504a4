"""A Namespace with a Workflow whose steps are held or watched; and what Argo and a node do there."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from argo import names as argo
from keeper import identity
from memoize import names
from memoize.entry import Entry
from memoize.key import data_key
from memoize.plan import Plan
from tests.cluster import Cluster
from tests.keeper.gatedsteps import GATE, recorded

Json = dict[str, Any]

CACHE = "memo"
KEY = "some-key"
OUT = "from the cache"
RAN = "of the step itself"
SIMPLE = "v4.1.2-legacy/container"
"""One output parameter, and no need of a pause."""
PAUSED = "v3.5.15-legacy/container"
"""The same, of a version that could miss the result."""


def outputs(value: str, *artifacts: Json) -> Json:
    found: Json = {"parameters": [{"name": "out", "value": value}], "exitCode": "0"}
    return {**found, "artifacts": [*artifacts]} if artifacts else found


@dataclass
class Site:
    cluster: Cluster
    namespace: str
    workflow: Json
    now: datetime

    @classmethod
    def new(cls, cluster: Cluster) -> "Site":
        namespace = cluster.namespace()
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": "wf", "namespace": namespace},
            "spec": {},
        }
        status, workflow = cluster.create(workflow)
        assert status == 201, workflow
        return cls(cluster, namespace, workflow, datetime.now(UTC))

    # --- the cache

    def store(self, value: str = OUT, **changes: Any) -> None:
        """Put an entry into the cache, as another step would."""
        entry = Entry("wf-0", outputs(value), self.now, self.now, workflow="earlier", took=7.0)
        self.put({data_key(KEY): entry._replace(**changes).dump()})

    def put(self, data: Json) -> None:
        labels = {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE}
        metadata = {"name": CACHE, "namespace": self.namespace, "labels": labels}
        status, body = self.cluster.create({"kind": "ConfigMap", "metadata": metadata, "data": data})
        if status == 409:
            status, body = self.cluster.patch("ConfigMap", self.namespace, CACHE, {"data": data})
        assert status in (200, 201), body

    def entry(self, key: str = KEY) -> Entry | None:
        status, found = self.cluster.get("ConfigMap", self.namespace, CACHE)
        text = (found.get("data") or {}).get(data_key(key)) if status == 200 else None
        return Entry.parse(text) if text else None

    # --- Pods

    def pod(
        self,
        number: int = 0,
        *,
        case: str = SIMPLE,
        key: str = KEY,
        held: bool = True,
        share: bool = True,
        capture: bool = True,
        seconds: float = 600,
        change: Json | None = None,
    ) -> str:
        """Create a step Pod as admission leaves it; its name."""
        node = f"wf[{number}].step"
        name = identity.node_id("wf", node)
        note = Plan(CACHE, data_key(key), share, capture, gc=False, wait_seconds=int(seconds))
        pod = recorded(case)
        del pod["status"]
        owner = pod["metadata"]["ownerReferences"][0]
        owner |= {"name": "wf", "uid": self.workflow["metadata"]["uid"]}
        pod["metadata"] = {
            "name": name,
            "namespace": self.namespace,
            "labels": {
                argo.WORKFLOW_LABEL: "wf",
                names.RESULT: names.RESULT_GATED if held else names.RESULT_MISS,
            },
            "annotations": {
                names.KEY: key,
                names.CACHE: CACHE,
                argo.NODE_ID: name,
                argo.NODE_NAME: node,
                names.PLAN: note.to_json(),
                **(change or {}),
            },
            "ownerReferences": [owner],
        }
        pod["spec"]["serviceAccountName"] = "default"
        if held:
            pod["spec"]["schedulingGates"] = [GATE]
        status, body = self.cluster.create({"apiVersion": "v1", "kind": "Pod", **pod})
        assert status == 201, body
        return name

    def get(self, name: str) -> Json:
        status, pod = self.cluster.get("Pod", self.namespace, name)
        assert status == 200, pod
        return pod

    def label(self, name: str) -> str:
        return str(self.get(name)["metadata"]["labels"][names.RESULT])

    def reason(self, name: str) -> str:
        return str(self.get(name)["metadata"]["annotations"].get(names.REASON, "")).partition(":")[0]

    def held(self, name: str) -> bool:
        return bool(self.get(name)["spec"].get("schedulingGates"))

    def succeeded(self, name: str) -> bool:
        return self.get(name)["status"]["phase"] == "Succeeded"

    def labels(self, pods: Iterable[str]) -> list[str]:
        return sorted(self.label(name) for name in pods)

    def result(self, name: str) -> Json | None:
        status, found = self.cluster.get("WorkflowTaskResult", self.namespace, name)
        return found if status == 200 else None

    def value(self, name: str) -> str:
        """The parameter that the controller would take from the result, "" while there is none."""
        found = self.result(name) or {}
        parameters = (found.get("outputs") or {}).get("parameters") or [{"value": ""}]
        return str(parameters[0]["value"])

    # --- what Argo and a node do

    def report(self, name: str, value: str = RAN, *artifacts: Json) -> None:
        """Do as Argo's `wait`: create the result, or report into the one that is there."""
        labels = {argo.WORKFLOW_LABEL: "wf", argo.OUTPUTS_COMPLETED: "true"}
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        kind, found = (
            {"apiVersion": argo.API_VERSION, "kind": "WorkflowTaskResult"},
            outputs(value, *artifacts),
        )
        status, body = self.cluster.create({**kind, "metadata": metadata, "outputs": found})
        if status == 409:
            patch = {"metadata": {"labels": labels}, "outputs": found}
            status, body = self.cluster.patch("WorkflowTaskResult", self.namespace, name, patch)
        assert status in (200, 201), body

    def end(self, name: str, *, phase: str = "Succeeded", code: int = 0, **changes: Any) -> None:
        """The Pod ran on a node, and is over."""
        assert not self.held(name), "it was never scheduled"
        pod = self.get(name)
        begun, over = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
        state = {"terminated": {"exitCode": 0, "startedAt": begun, "finishedAt": over, "reason": "Completed"}}
        failed = {"terminated": {**state["terminated"], "exitCode": code}}
        status = {"phase": phase, **changes}
        for kind, of in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
            status[of] = [
                {
                    "name": c["name"],
                    "image": c["image"],
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": failed if c["name"] == "main" else state,
                }
                for c in pod["spec"].get(kind) or ()
            ]
        answer, body = self.cluster.patch(
            "Pod", self.namespace, name, {"status": status}, subresource="status"
        )
        assert answer == 200, body

    def run(self, name: str, value: str = RAN, *artifacts: Json) -> None:
        """The step runs, reports, and succeeds."""
        self.report(name, value, *artifacts)
        self.end(name)

    def delete(self, name: str) -> None:
        path = self.cluster.path("Pod", self.namespace, name)
        status, body, _ = self.cluster.request("DELETE", path, {"gracePeriodSeconds": 0})
        assert status in (200, 202), body

    def shut_down(self) -> None:
        status, body = self.cluster.patch("Workflow", self.namespace, "wf", {"spec": {"shutdown": "Stop"}})
        assert status == 200, body

    def events(self) -> list[str]:
        return [json.dumps(event) for event in self.cluster.list("Event", self.namespace)[1]["items"]]
