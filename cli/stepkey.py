"""What a step's key is made of, for people; pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from argo import names as argo
from argo import shape, templates
from argo.shape import mapping
from argo.steppod import NotAStep, StepPod
from argo.templates import TemplateRef
from cli import documents
from cli.keychange import form_of
from memoize import autokey, keyparts, names, spec
from memoize.autokey import AutoKey
from memoize.spec import Memo

DIGEST = 8
"""Hex digits of a part's digest that are shown in a table, as many as an entry holds."""
_NOT_IN_A_POD = frozenset({"dependencies", "mirrorVolumeMounts", "source"})
"""Fields of Argo's containers (ContainerNode, UserContainer, ScriptTemplate) that Kubernetes' have not."""
_SCRIPT = "/argo/staging/script"
"""What Argo appends to the arguments of a `script` (ExecutorScriptSourcePath in workflow/common)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKey:
    """The key of a step, or of a template whose steps will have one each."""

    subject: str
    """What it is the key of, as words."""
    template: str
    key: str = ""
    """"" where only a Pod will show it, or where a long key is not in the Pod."""
    data_key: str = ""
    auto: AutoKey | None = None
    """None for a key that its author wrote."""
    note: str = ""
    """What else there is to know, "" for nothing."""

    def facts(self) -> Iterator[tuple[str, str]]:
        """What is told above the parts, as a name and a text each."""
        yield "Step" if self.data_key else "Template", self.subject
        if self.auto is None:
            yield "Key", self.key or "too long to be in the Pod"
            if self.data_key:
                yield "Data key", self.data_key
            yield "Auto", "no: its author wrote the key"
        else:
            yield "Key", self.key or "only a Pod has one: every tag is filled in there"
            yield "Auto", f"yes, a digest of these parts in the form {autokey.FORM}"

    def rows(self) -> list[list[str]]:
        """Name, digest and value of each part."""
        return [[name, digest[:DIGEST], _text(value)] for name, digest, value in self._parts()]

    def item(self) -> dict[str, Any]:
        """The same for programs."""
        common = {
            "subject": self.subject,
            "template": self.template or None,
            "auto": self.auto is not None,
            "key": self.key or None,
            "dataKey": self.data_key or None,
        }
        if self.auto is None:
            return common
        parts = [
            {"name": name, **({"digest": digest} if digest else {}), "value": value}
            for name, digest, value in self._parts()
        ]
        return {**common, "form": autokey.FORM, "parts": parts}

    def _parts(self) -> Iterator[tuple[str, str, Any]]:
        """With "" in the place of a digest that is no step's."""
        for name, value in self.auto.shown.items() if self.auto is not None else ():
            yield name, self.auto.digests[name] if self.auto is not None and self.key else "", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- Keys of Pods and templates ---------------------------------------------------------------------------


def of_pod(pod: Mapping[str, Any], namespace: str) -> StepKey | str:
    """The key of a step Pod, before or after stepmemo has seen it; or why it has none."""
    step = StepPod.parse(pod, namespace)
    if isinstance(step, NotAStep):
        return f"it is not a step of a workflow: {step.reason}"
    said = step.annotations.get(names.KEY)
    if said is None and names.KEY_DIGEST not in step.annotations:
        return f"its Pod has no annotation {names.KEY}, so it is not memoized by stepmemo"
    template = str(mapping(step.layout.template).get("name") or "")
    subject = _subject(step)
    if said != names.AUTO_KEY and names.KEY_PARTS not in step.annotations:
        memo, errors = spec.from_pod(step.annotations, "metadata")
        if memo is None:
            return "; ".join(map(str, errors))
        return StepKey(subject=subject, template=template, key=memo.key, data_key=memo.data_key)
    found = autokey.of_pod(step)
    if isinstance(found, str):
        return f"its key is {names.AUTO_KEY}, and cannot be told: {found}"
    key, note = found.key, ""
    written = autokey.parts_of(step.annotations)
    shown = autokey.without_versions(written)
    if len(shown) < len(written) and not keyparts.changed(shown, found.short):
        key = str(said)
        note = "the versions of Secrets and ConfigMaps, which the webhook read, count too, and are not here"
    elif said not in (names.AUTO_KEY, found.key):
        note = _another(str(said))
    return StepKey(subject=subject, template=template, key=key, data_key=key, auto=found, note=note)


def _another(said: str) -> str:
    if (form := form_of(said)) == autokey.FORM:
        return f"the Pod says {said}: it was changed after that was computed"
    return f"the Pod says {said}, of the form {form or 'none'}: another release of stepmemo computed that"


def _subject(step: StepPod) -> str:
    name = str(step.annotations.get(argo.NODE_NAME) or "").rpartition(".")[2] or step.node_id
    pod = str(mapping(step.pod.get("metadata")).get("name") or "")
    return f"{name} of workflow {step.owner.name}" + (f" (Pod {pod})" if pod else "")


def of_object(obj: Mapping[str, Any]) -> list[StepKey | str]:
    """The keys of the templates of a Workflow, or of another of Argo's objects, with tags left in."""
    kind, metadata = str(obj["kind"]), mapping(obj.get("metadata"))
    name = metadata.get("name") or metadata.get("generateName") or "(no name)"
    spec = templates.workflow_spec(kind, obj)
    return [
        f"{kind}/{name}: {found}" if isinstance(found, str) else found
        for ref in templates.template_refs(kind, obj)
        if (found := _of_template(ref, f"{kind}/{name}", spec)) is not None
    ]


def _of_template(ref: TemplateRef, holder: str, spec: Mapping[str, Any]) -> StepKey | str | None:
    """None for a template without a key."""
    memo, errors = _memo(ref)
    if errors:
        return "; ".join(errors)
    if memo is None:
        return None
    name = str(ref.template.get("name") or "")
    subject = f"{name or ref.path} of {holder}"
    if memo.key != names.AUTO_KEY:
        return StepKey(subject=subject, template=name, key=memo.key)
    if wrong := documents.fault(ref.template, shape.TEMPLATE, ref.path):
        return wrong
    found = autokey.of_pod(_as_pod(ref, spec))
    if isinstance(found, str):
        return f"{ref.path}: its key is {names.AUTO_KEY}, and cannot be told: {found}"
    return StepKey(
        subject=subject,
        template=name,
        auto=found,
        note="tags are left in, and what templateDefaults, podSpecPatch and Argo's own settings add is not "
        "here: `stepmemo key pod/NAME` shows what a step's key is made of",
    )


def _memo(ref: TemplateRef) -> tuple[Memo | None, list[str]]:
    block = ref.said("memoize")
    annotations = {**ref.default_annotations, **ref.annotations}
    if names.KEY in annotations or block is None:
        memo, errors = spec.from_annotations(annotations, f"{ref.path}.metadata")
    else:
        memo, errors = spec.from_block(block, f"{ref.path}.memoize")
    return memo, list(map(str, errors))


def _as_pod(ref: TemplateRef, of_workflow: Mapping[str, Any]) -> StepPod:
    """What a Pod would show of the template (createWorkflowPod in Argo's controller, workflowpod.go).

    `of_workflow` is the spec of its Workflow.
    """
    template = ref.template
    main = mapping(template.get("container") or template.get("script"))
    if "script" in template:
        main = {**main, "args": [*templates.items(main.get("args")), _SCRIPT]}
    workers = templates.objects(mapping(template.get("containerSet")).get("containers"))
    containers = [*(workers or [{**main, "name": argo.MAIN_CONTAINER}]), *_listed(template, "sidecars")]
    placed = {f: template.get(f) or of_workflow.get(f) for f in ("nodeSelector", "affinity")}
    spec = {
        **placed,
        "initContainers": [_as_argos(one, template) for one in _listed(template, "initContainers")],
        "containers": [_as_argos(one, template) for one in containers],
        "volumes": [*_listed(of_workflow, "volumes"), *_listed(template, "volumes")],
    }
    annotations = {**ref.default_annotations, **ref.annotations}
    owner = {"apiVersion": argo.API_VERSION, "kind": "Workflow", "name": "w", "uid": "u", "controller": True}
    labels = mapping(mapping(template.get("metadata")).get("labels"))
    metadata = {
        "name": "p",
        "annotations": annotations,
        "labels": {**labels, argo.WORKFLOW_LABEL: "w"},
        "ownerReferences": [owner],
    }
    pod = StepPod.parse({"metadata": metadata, "spec": spec}, "default")
    assert isinstance(pod, StepPod)
    return pod


def _as_argos(container: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """A container with what Argo marks its own by."""
    added = [
        {"name": argo.ENV_CONTAINER_NAME, "value": str(container.get("name"))},
        {"name": argo.ENV_TEMPLATE, "value": json.dumps(template)},
    ]
    return {
        **{field: value for field, value in container.items() if field not in _NOT_IN_A_POD},
        "env": [*_listed(container, "env"), *added],
        "volumeMounts": _listed(container, "volumeMounts"),
        "command": templates.items(container.get("command")),
        "args": templates.items(container.get("args")),
    }


def _listed(holder: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    return templates.objects(holder.get(field))
