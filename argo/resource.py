"""Resources that go with the workflow that made them: an entry that names one would outlive it."""

import re
from collections.abc import Mapping
from typing import Any

from argo import tags
from argo.shape import mapping

_UID = re.compile(r"\bworkflow\s*(?:\??\.\s*uid\b|(?:\?\.)?\[\s*(['\"`])uid\1\s*\])")
"""In both forms of a tag: `workflow.uid`, and in an expression `workflow['uid']`."""


def goes_with_workflow(template: Mapping[str, Any], workflow_uid: str = "") -> str | None:
    """Why what a `resource` template makes goes when its Workflow goes; None: nothing says that it does.

    For a template as its author wrote it, and for one in a Pod, whose tags are resolved: there `workflow_uid`
    tells what became of `{{workflow.uid}}`. What a `manifestFrom` artifact says is seen where it is `raw`.
    (ResourceTemplate, pkg/apis/workflow/v1alpha1/workflow_types.go, v3.5 to v4.1. For `setOwnerReference` the
    controller adds an owner reference to the Workflow (executeResource in workflow/controller/operator.go);
    in a manifest nothing but the uid can name an owner that Kubernetes' garbage collector follows.)
    """
    resource = mapping(template.get("resource"))
    if resource.get("setOwnerReference") is True:
        return "setOwnerReference"
    artifact = mapping(mapping(resource.get("manifestFrom")).get("artifact"))
    for manifest in (resource.get("manifest"), mapping(artifact.get("raw")).get("data")):
        if isinstance(manifest, str) and _names_workflow(manifest, workflow_uid):
            return "workflow.uid in its manifest"
    return None


def _names_workflow(manifest: str, workflow_uid: str) -> bool:
    if workflow_uid and workflow_uid in manifest:
        return True
    return any(_UID.search(tag.text) for tag in tags.find(manifest))
