"""A step Pod of Argo's, as its metadata and its containers show it: parsed once, and passed on as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from argo import layout, names
from argo.layout import Layout
from argo.shape import mapping

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """The Workflow that a step Pod belongs to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class NotAStep:
    """A Pod that is not one of Argo's steps; `reason` says why."""

    reason: str
    node_id: str
    """What its metadata names as its node, "" for nothing: for log lines, it belongs to no Workflow."""


@dataclass(frozen=True)
class StepPod:
    """A Pod that a Workflow controls. Whether it is the step that it says it is, is another question."""

    pod: Json
    """As the API server sent it. Not to be changed any more: `layout` is read when it is first needed."""
    owner: Owner
    node_id: str
    """The annotation, else the Pod's name (workflow/common/common.go)."""
    annotations: Json
    labels: Json

    @classmethod
    def parse(cls, pod: Json, namespace: str) -> "StepPod | NotAStep":
        """Read any Pod of this Namespace.

        Its owner is the Workflow that controls it and that its label names.
        """
        metadata = mapping(pod.get("metadata"))
        annotations, labels = mapping(metadata.get("annotations")), mapping(metadata.get("labels"))
        node = str(annotations.get(names.NODE_ID) or metadata.get("name") or "")
        owner = _controller(metadata, namespace)
        if owner is None or owner.name != labels.get(names.WORKFLOW_LABEL):
            why = f"its controller is not the Workflow that {names.WORKFLOW_LABEL} names"
            return NotAStep(why, node)
        if not node:
            return NotAStep(f"it has neither {names.NODE_ID} nor a name", node)
        return cls(pod, owner, node, annotations, labels)

    @property
    def spec(self) -> Json:
        """The Pod's spec, empty if it has none."""
        return mapping(self.pod.get("spec"))

    @property
    def instance_id(self) -> str:
        """The instanceID of the controller that made the Pod, "" for one without."""
        return str(self.labels.get(names.INSTANCE_ID, ""))

    @property
    def component(self) -> str | None:
        """The part of Argo that the Pod runs beside the steps (names.COMPONENT); None for a step."""
        return self.labels.get(names.COMPONENT)

    def with_annotations(self, changed: Mapping[str, str]) -> "StepPod":
        """The same Pod with these annotations beside, or in the place of, its own."""
        annotations = {**self.annotations, **changed}
        metadata = {**mapping(self.pod.get("metadata")), "annotations": annotations}
        other = replace(self, pod={**self.pod, "metadata": metadata}, annotations=annotations)
        other.__dict__["layout"] = self.layout  # it is of the containers, and took long to read
        return other

    @cached_property
    def layout(self) -> Layout:
        """Its containers, and what they say."""
        return layout.read(self.pod)


def _controller(metadata: Json, namespace: str) -> Owner | None:
    references = metadata.get("ownerReferences")
    for reference in map(mapping, references if isinstance(references, list) else ()):
        group = str(reference.get("apiVersion", "")).partition("/")[0]
        if reference.get("controller") and reference.get("kind") == "Workflow" and group == names.GROUP:
            found = Owner(namespace, str(reference.get("name", "")), str(reference.get("uid", "")))
            return found if found.name and found.uid else None
    return None
