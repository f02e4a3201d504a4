"""Where the API server has the objects that the keeper asks for; names are tenants', and quoted here."""

from urllib.parse import quote

from argo import names as argo


def pods(namespace: str) -> str:
    """The Pods of a Namespace; of all for ""."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"


def pod(namespace: str, name: str) -> str:
    """One Pod."""
    return f"{pods(namespace)}/{quote(name, safe='')}"


def task_results(namespace: str) -> str:
    """The WorkflowTaskResults of a Namespace."""
    return f"/apis/{argo.API_VERSION}/namespaces/{quote(namespace, safe='')}/workflowtaskresults"


def task_result(namespace: str, node_id: str) -> str:
    """That of one node."""
    return f"{task_results(namespace)}/{quote(node_id, safe='')}"


def workflow(namespace: str, name: str) -> str:
    """One Workflow."""
    return f"/apis/{argo.API_VERSION}/namespaces/{quote(namespace, safe='')}/workflows/{quote(name, safe='')}"


def config_map(namespace: str, name: str) -> str:
    """One ConfigMap."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"
