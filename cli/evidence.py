"""The requests behind `stepmemo why`, and what it prints."""

import argparse
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from argo import names as argo
from argo.shape import mapping
from argo.steppod import NotAStep, StepPod
from cli import installation, kept, output, session
from cli.explanation import Explanation, Facts, earlier_in, explain, told
from cli.output import Field
from cli.session import DONE, CommandError, Session
from kube import pages
from kube.errors import ApiError
from memoize import configmap, names
from memoize.outcome import Outcome
from webhook.pods.decision import screen

STEPS = (
    Field("STEP", yields=True),
    Field("POD", yields=True),
    Field("RESULT"),
    Field("CODE"),
    Field("DETAIL", wide=True),
)
PAGE = 500
"""Pods or Events of one request at most."""


async def why(connected: Session, args: argparse.Namespace) -> int:
    """Explain a Pod's step, a Workflow's, or list those of a Workflow."""
    kind, _, name = args.target.rpartition("/")
    if kind not in ("", "pod", "pods", "po", "workflow", "workflows", "wf") or not session.is_name(name):
        raise CommandError(f"{args.target!r} names no Pod, Workflow or reason code", session.USAGE)
    if not kind.startswith("w") and not args.step:
        pod = await connected.find(f"get the Pod {name}", _path(connected, "pods", name))
        if pod is not None:
            found = await _of_pod(connected, pod, args)
            return _print(args.output, [(found, explain(found, session.now()))])
        if kind:
            raise CommandError(f"no Pod {name} in the Namespace {connected.namespace}")
    steps = [facts async for facts in _of_workflow(connected, name)]
    if args.step:
        steps = _named(args.step, steps)
        if not steps:
            raise CommandError(f"the Workflow {name} has no step {args.step!r}, or it is gone")
    if len(steps) == 1:
        steps = [await _more(connected, steps[0], args)]
    return _print(args.output, [(facts, explain(facts, session.now())) for facts in steps])


def _print(form: str, found: Sequence[tuple[Facts, Explanation]]) -> int:
    if form in ("table", "wide") and len(found) == 1:
        output.paragraph(found[0][1].text)
        return DONE
    items = (_item(*one) for one in found)
    if form in ("json", "yaml") and len(found) == 1:
        output.document(next(items), form)
        return DONE
    rows = [
        [
            facts.step,
            facts.pod_name,
            facts.label,
            str(explained.outcome.reason) if explained.outcome else "",
            explained.outcome.detail if explained.outcome else explained.text,
        ]
        for facts, explained in found
    ]
    output.show(form, STEPS, rows, items)
    if form in ("table", "wide"):
        session.say("why", "say a STEP, or its POD, to read more of it")
    return DONE


def _item(facts: Facts, explained: Explanation) -> dict[str, Any]:
    outcome = explained.outcome
    return {
        "namespace": facts.namespace,
        "workflow": facts.workflow_name or None,
        "step": facts.step,
        "pod": facts.pod_name or None,
        "result": facts.label or None,
        "code": str(outcome.reason) if outcome else None,
        "detail": outcome.detail if outcome else None,
        "cache": facts.cache or None,
        "key": facts.annotations.get(names.KEY),
        "comparedWith": facts.earlier.data_key if explained.changed is not None and facts.earlier else None,
        "changedParts": explained.changed,
        "text": explained.text,
    }


def _named(step: str, steps: Sequence[Facts]) -> list[Facts]:
    """Those that are known by that name; where there are none, those of the template of that name."""
    found = [
        facts
        for facts in steps
        if step in (facts.step, facts.pod_name, *map(facts.annotations.get, (argo.NODE_ID, argo.NODE_NAME)))
        or step in map(mapping(facts.node).get, ("id", "name", "displayName"))
    ]
    return found or [facts for facts in steps if mapping(facts.node).get("templateName") == step]


async def _of_pod(connected: Session, pod: Mapping[str, Any], args: argparse.Namespace) -> Facts:
    parsed = StepPod.parse(pod, connected.namespace)
    if isinstance(parsed, NotAStep):
        return Facts(namespace=connected.namespace, workflow_name="", pod=pod)
    facts = Facts(namespace=connected.namespace, workflow_name=parsed.owner.name, pod=pod)
    seen = Unseen()
    workflow = await seen.find(connected, "workflows", parsed.owner.name)
    node = mapping(mapping(mapping(workflow).get("status")).get("nodes")).get(parsed.node_id)
    events = await _events(connected, parsed.owner.name, seen)
    facts = replace(
        facts,
        workflow=workflow,
        node=mapping(node) or None,
        told=events[parsed.node_id],
        unseen=seen.told,
    )
    return await _more(connected, facts, args)


async def _of_workflow(connected: Session, name: str) -> AsyncIterator[Facts]:
    """Its steps that have a Pod, or had one, as its nodes and its Pods show them."""
    seen = Unseen()
    workflow = await seen.find(connected, "workflows", name)
    pods: dict[str, Mapping[str, Any]] = {}
    query = [("labelSelector", f"{argo.WORKFLOW_LABEL}={name}")]
    async for pod in seen.listed(connected, "pods", query):
        annotations = mapping(mapping(pod.get("metadata")).get("annotations"))
        pods[str(annotations.get(argo.NODE_ID) or pod["metadata"]["name"])] = light(pod, connected.namespace)
    if workflow is None and not pods:
        why_not = f" ({'; '.join(seen.told)})" if seen.told else ""
        raise CommandError(f"no Pod or Workflow {name} in the Namespace {connected.namespace}{why_not}")
    events = await _events(connected, name, seen)
    status = mapping(mapping(workflow).get("status"))
    if status.get("compressedNodes") or status.get("offloadNodeStatusVersion"):
        # Argo packs the nodes of large workflows, or keeps them in a database (workflow/packer, persist).
        seen.remember("the nodes of this large workflow are not readable here, only its Pods")
    nodes = mapping(status.get("nodes"))
    steps = {key for key, node in nodes.items() if mapping(node).get("type") == "Pod"}
    common = Facts(namespace=connected.namespace, workflow_name=name, workflow=workflow, unseen=seen.told)
    if not all(replace(common, pod=pod).label for pod in pods.values()):
        common = replace(common, namespace_labels=await _labels(connected, seen))

    def order(node_id: str) -> tuple[str, str, str]:
        node = mapping(nodes.get(node_id))
        return str(node.get("startedAt") or ""), str(node.get("name") or ""), node_id

    for node_id in sorted(steps | pods.keys(), key=order):
        yield replace(
            common, pod=pods.get(node_id), node=mapping(nodes.get(node_id)) or None, told=events[node_id]
        )


async def _more(connected: Session, facts: Facts, args: argparse.Namespace) -> Facts:
    """The same, with what is read for a single step."""
    seen = Unseen(facts.unseen)
    node_id = str(facts.annotations.get(argo.NODE_ID) or mapping(facts.node).get("id") or "")
    result = await seen.find(connected, "workflowtaskresults", node_id) if node_id else None
    labels = facts.namespace_labels
    if labels is None and facts.pod is not None and not facts.label:
        labels = await _labels(connected, seen)
    elsewhere: bool | None = False
    config_map, there, earlier = None, None, None
    compared = bool(facts.key_parts)
    if facts.cache:
        settings = await installation.keepers(connected, args.stepmemo_namespace)
        elsewhere = installation.keeps_entries_elsewhere(settings)
    if elsewhere and facts.place:
        try:
            asked = kept.keeper_of(connected, args)
            there = await kept.text_of(asked, facts.cache, facts.place)
            if compared:
                earlier = await kept.earlier(asked, facts)
        except CommandError as error:
            seen.remember(str(error))
            compared = False
    elif facts.cache and not elsewhere:
        config_map = await seen.find(connected, "configmaps", facts.cache)
        compared = compared and config_map is not None
        if compared:
            earlier = earlier_in(configmap.data(config_map or {}), facts)
    return replace(
        facts,
        result=result,
        config_map=config_map,
        kept=there,
        compared=compared,
        earlier=earlier,
        namespace_labels=labels,
        elsewhere=elsewhere,
        unseen=seen.told,
    )


def light(pod: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """The Pod without what is not asked of it again: a workflow may have thousands.

    It is left whole where the whole of it says why it was left alone (classify_pod).
    """
    parsed = StepPod.parse(pod, namespace)
    if isinstance(parsed, StepPod) and names.RESULT not in parsed.labels and screen(parsed) is None:
        return pod
    kept_of = {
        "metadata": ("name", "uid", "labels", "annotations", "ownerReferences"),
        "status": ("initContainerStatuses", "containerStatuses"),
    }
    slim: dict[str, Any] = {
        part: {field: mapping(pod.get(part)).get(field) for field in fields}
        for part, fields in kept_of.items()
    }
    lists = {kind: mapping(pod.get("spec")).get(kind) for kind in ("initContainers", "containers")}
    slim["spec"] = {
        kind: [{"name": mapping(one).get("name")} for one in found]
        for kind, found in lists.items()
        if isinstance(found, list)
    }
    return slim


async def _labels(connected: Session, seen: "Unseen") -> Mapping[str, Any] | None:
    """The Namespace's; None where it cannot be read."""
    found = await seen.find(connected, "namespaces", connected.namespace)
    return mapping(mapping(found.get("metadata")).get("labels")) if found else None


async def _events(connected: Session, workflow: str, seen: "Unseen") -> Mapping[str, list[Outcome]]:
    """What Events of ours on the Workflow say, by node id; of each step the oldest first."""
    found: defaultdict[str, list[tuple[str, Outcome]]] = defaultdict(list)
    query = [("fieldSelector", f"involvedObject.kind=Workflow,involvedObject.name={workflow}")]
    async for event in seen.listed(connected, "events", query):
        if str(event.get("reason", "")).startswith("Memoization") and (
            one := told(str(event.get("message")))
        ):
            found[one.node_id].append((str(event.get("lastTimestamp")), one.outcome))
    in_order = {
        node_id: [outcome for _, outcome in sorted(of_one, key=lambda one: one[0])]
        for node_id, of_one in found.items()
    }
    return defaultdict(list, in_order)


class Unseen:
    """Reads what may be missing, and remembers what could not be read, for want of a right most often."""

    def __init__(self, already: Sequence[str] = ()) -> None:
        self.told = list(already)

    async def find(self, connected: Session, resource: str, name: str) -> dict[str, Any] | None:
        """An object of the Namespace (or the Namespace); None where it is not there, or cannot be read."""
        try:
            return await connected.find(f"get {resource}", _path(connected, resource, name))
        except CommandError as error:
            self.remember(str(error))
            return None

    async def listed(
        self, connected: Session, resource: str, query: Sequence[tuple[str, str]]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Objects of the Namespace; none, or not all of them, where they cannot be read."""
        try:
            path = _path(connected, resource)
            async for page in pages.pages(connected.api, path, query, name=resource, most=PAGE):
                for one in page.get("items") or ():
                    yield one
        except ApiError as error:
            self.remember(str(session.failure(f"list {resource}", error)))

    def remember(self, why: str) -> None:
        """Tell it once."""
        if why not in self.told:
            self.told.append(why)


_ARGOS = ("workflows", "workflowtaskresults")


def _path(connected: Session, resource: str, name: str = "") -> str:
    group = f"/apis/{argo.API_VERSION}" if resource in _ARGOS else "/api/v1"
    if resource == "namespaces":
        return f"{group}/namespaces/{quote(name, safe='')}"
    within = f"{group}/namespaces/{connected.namespace}/{resource}"
    return f"{within}/{quote(name, safe='')}" if name else within
