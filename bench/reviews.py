"""The reviews that the webhook is measured with: what an API server would send."""

import json
from collections.abc import Mapping
from typing import Any

from argo import names as argo
from bench.api import ROOT
from memoize import names

_POD = ROOT / "tests/data/pods/v4.1.2-legacy/sidecars-and-init.json"
"""The largest of the recorded Pods that is taken over whole, check and capture."""
_LISTED_BY = ("name", "containerPort", "mountPath", "uid", "key", "ip")
"""Keys of the associative lists in a Pod, as far as they occur."""
Object = dict[str, Any]


def of_pod(namespace: str, workflow: str, workflow_uid: str) -> Object:
    """A recorded step Pod, as a step of this Workflow, with the managedFields that the API server adds."""
    pod: Object = json.loads(_POD.read_text(encoding="utf-8"))
    metadata = pod["metadata"]
    metadata["namespace"] = namespace
    metadata["labels"][argo.WORKFLOW_LABEL] = workflow
    for owner in metadata["ownerReferences"]:
        owner |= {"name": workflow, "uid": workflow_uid}
    fields = {"f:metadata": managed(metadata), "f:spec": managed(pod["spec"])}
    writer = {
        "manager": "workflow-controller",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2025-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    metadata["managedFields"] = [writer]
    return _review({"group": "", "version": "v1", "kind": "Pod"}, "pods", pod)


def of_workflow(namespace: str, size: int, templates: int) -> Object:
    """A Workflow of about `size` bytes with so many templates, all memoized and opted in."""
    review = _workflow(namespace, templates, "")
    missing = size - len(json.dumps(review))
    if missing < 0:
        raise ValueError(f"{templates} templates need more than {size} bytes")
    return _workflow(namespace, templates, "x" * (missing // templates))


def hostile(namespace: str) -> dict[str, Object]:
    """Reviews that a tenant makes others wait with: what is many in each is in its name."""
    empty = {"metadata": {"generateName": "h-", "namespace": namespace}, "spec": {"entrypoint": "main"}}
    parameters = [{"name": f"p{number}"} for number in range(15_000)]
    tags = "".join(f"{{{{q{number}}}}}" for number in range(16_000))
    annotations = {f"stepmemo.dev/kye-{number}": "x" for number in range(40_000)}
    block = {"key": tags, "cache": {"configMap": {"name": "c"}}}
    wrong = {"name": "t", "container": {}, "memoize": {"key": "{{input.a}}", "cache": {}, "maxAge": 1}}
    specs: dict[str, Object] = {
        "15,000 default parameters, 15,000 templates": {
            "templateDefaults": {"inputs": {"parameters": parameters}},
            "templates": [{}] * 15_000,
        },
        "16,000 wrong tags": {"templates": [{"name": "main", "container": {}, "memoize": block}]},
        "9,000 templates with three errors": {"templates": [wrong] * 9_000},
        "40,000 unknown annotations": {"templates": []},
    }
    made = {name: {**empty, "spec": {**empty["spec"], **spec}} for name, spec in specs.items()}
    made["40,000 unknown annotations"]["metadata"] = {**empty["metadata"], "annotations": annotations}
    return {
        **{name: _review(_WORKFLOW, "workflows", workflow) for name, workflow in made.items()},
        "16,000 containers": _many_containers(namespace),
    }


def _many_containers(namespace: str) -> Object:
    review = of_pod(namespace, "w", "u")
    spec = review["request"]["object"]["spec"]
    env = [{"name": "ARGO_CONTAINER_NAME", "value": "c"}]
    many = [{"name": f"c{number}", "command": ["x"], "env": env} for number in range(16_000)]
    spec["containers"] = [*spec["containers"], *many]
    return review


_WORKFLOW = {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow"}


def managed(value: object) -> Object:
    """FieldsV1 for what a client wrote: its fields, members of named lists by their key, and no values."""
    if isinstance(value, Mapping):
        return {f"f:{name}": managed(item) for name, item in value.items()}
    if isinstance(value, list):
        return {
            f"k:{json.dumps({key: item[key]})}": {".": {}, **managed(item)}
            for item in value
            if isinstance(item, Mapping)
            for key in [next((key for key in _LISTED_BY if key in item), None)]
            if key is not None
        }
    return {}


def _workflow(namespace: str, templates: int, padding: str) -> Object:
    workflow = {
        "apiVersion": argo.API_VERSION,
        "kind": "Workflow",
        "metadata": {
            "generateName": "large-",
            "namespace": namespace,
            "annotations": {names.MEMOIZE: "true"},
        },
        "spec": {
            "entrypoint": "main",
            "templates": [
                {"name": "main", "steps": [[_call(number)] for number in range(templates)]},
                *(_template(number, padding) for number in range(templates)),
            ],
        },
    }
    return _review(_WORKFLOW, "workflows", workflow)


def _call(number: int) -> Object:
    argument = {"name": "message", "value": f"hello {number}"}
    return {
        "name": f"call-{number}",
        "template": f"step-{number}",
        "arguments": {"parameters": [argument]},
    }


def _template(number: int, padding: str) -> Object:
    key = f"step-{number}-{{{{inputs.parameters.message}}}}"
    return {
        "name": f"step-{number}",
        "inputs": {"parameters": [{"name": "message"}]},
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]},
        "memoize": {"key": key, "maxAge": "24h", "cache": {"configMap": {"name": "cache"}}},
        "script": {
            "image": "busybox",
            "command": ["sh"],
            "source": f"echo '{{{{inputs.parameters.message}}}}' > /tmp/out\n# {padding}\n",
        },
    }


def _review(kind: Mapping[str, str], resource: str, obj: Object) -> Object:
    metadata = obj["metadata"]
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": {"group": kind["group"], "version": kind["version"], "resource": resource},
            "requestKind": kind,
            "requestResource": {"group": kind["group"], "version": kind["version"], "resource": resource},
            "name": metadata.get("name", ""),
            "namespace": metadata["namespace"],
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:argo:argo", "groups": ["system:authenticated"]},
            "object": obj,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }
