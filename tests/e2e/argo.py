"""What the Argo CLI and server do to a Workflow object (workflow/util/util.go), as far as the suite needs it.

There is no API for it: the CLI or the server reads the object, changes it and writes it back.
"""

import copy
from typing import Any

from argo import names as argo
from tests.e2e import kube

COMPLETED = f"{argo.DOMAIN}/completed"
"""Label of a Workflow that is over, and of a Pod that Argo is done with."""
_PHASE = f"{argo.DOMAIN}/phase"

Workflow = dict[str, Any]


def resubmission(workflow: Workflow) -> Workflow:
    """`argo resubmit`: a new Workflow of the same spec, as it is stored, with the old one's labels."""
    old = workflow["metadata"]
    labels = {k: v for k, v in old.get("labels", {}).items() if k not in (COMPLETED, _PHASE)}
    labels[f"{argo.DOMAIN}/resubmitted-from-workflow"] = old["name"]
    metadata = {"generateName": old["generateName"], "labels": labels}
    metadata["annotations"] = dict(old.get("annotations", {}))
    return kube.argo("Workflow", metadata, workflow["spec"])


def formulate_retry(workflow: Workflow) -> tuple[Workflow, list[str]]:
    """`argo retry` of a workflow of steps in a row whose last one failed: what to write back, Pods to delete.

    Failed Pod nodes go, their groups run again, everything else stays as it is.
    """
    retried = copy.deepcopy(workflow)
    status = retried["status"]
    nodes = status["nodes"]
    failed = {
        i for i, node in nodes.items() if node["type"] == "Pod" and node["phase"] in ("Failed", "Error")
    }
    pods = [_pod_name(retried, nodes[node]) for node in failed]
    for node in failed:
        del nodes[node]
    for node in nodes.values():
        for edge in ("children", "outboundNodes"):
            node[edge] = [other for other in node.get(edge) or () if other not in failed]
        if node["phase"] in ("Failed", "Error"):
            node |= {"phase": "Running", "finishedAt": None}
            node.pop("message", None)
    retried["metadata"]["labels"].pop(COMPLETED, None)
    for condition in status.get("conditions", ()):
        if condition["type"] == "Completed":
            condition["status"] = "False"
    status |= {"phase": "", "message": "", "finishedAt": None}
    return retried, pods


def _pod_name(workflow: Workflow, node: dict[str, Any]) -> str:
    name, number = workflow["metadata"]["name"], node["id"].rpartition("-")[2]
    return f"{name}-{node['templateName']}-{number}"
