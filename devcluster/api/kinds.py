"""The kinds that the devcluster serves, with the names Kubernetes and Argo give them."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: where it is served and how error texts name it."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True
    status_subresource: bool = False
    stored: bool = True
    """False for a question that is asked by a create and answered at once."""

    @property
    def api_version(self) -> str:
        """`v1`, `argoproj.io/v1alpha1`, as objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`configmaps`, `workflows.argoproj.io`: the resource as error texts name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """`ConfigMap`, `Workflow.argoproj.io`: the kind as error texts name it."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def unconditional(self) -> bool:
        """Whether an update may leave its resourceVersion out (AllowUnconditionalUpdate)."""
        return not self.custom and self.name != "Lease"

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition would define it: a few rules differ for those."""
        return self.group == ARGO


ARGO = "argoproj.io"
RBAC = "rbac.authorization.k8s.io"

NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
POD = Kind("", "v1", "Pod", "pods", status_subresource=True)
POD_TEMPLATE = Kind("", "v1", "PodTemplate", "podtemplates")
EVENT = Kind("", "v1", "Event", "events")
ROLE = Kind(RBAC, "v1", "Role", "roles")
ROLE_BINDING = Kind(RBAC, "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)
MUTATING_WEBHOOKS = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    namespaced=False,
)
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
TOKEN_REVIEW = Kind(
    "authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False, stored=False
)

KINDS = (
    NAMESPACE,
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    SECRET,
    POD,
    POD_TEMPLATE,
    EVENT,
    ROLE,
    ROLE_BINDING,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    MUTATING_WEBHOOKS,
    LEASE,
    TOKEN_REVIEW,
    Kind(ARGO, "v1alpha1", "Workflow", "workflows"),
    Kind(ARGO, "v1alpha1", "WorkflowTemplate", "workflowtemplates"),
    Kind(ARGO, "v1alpha1", "ClusterWorkflowTemplate", "clusterworkflowtemplates", namespaced=False),
    Kind(ARGO, "v1alpha1", "CronWorkflow", "cronworkflows"),
    Kind(ARGO, "v1alpha1", "WorkflowTaskResult", "workflowtaskresults"),
)

_BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_NAME = {kind.name: kind for kind in KINDS}


def by_resource(group: str, version: str, plural: str) -> Kind | None:
    """The kind served at a path, None if there is none."""
    return _BY_RESOURCE.get((group, version, plural))


def by_name(name: str) -> Kind:
    """The kind of that name (no two groups here share one); KeyError if there is none."""
    return _BY_NAME[name]
