"""One Workflow's run: its templates are walked, its Pods made and awaited, its status written."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argo import names as argo
from devcluster import pods, workflows
from devcluster.client import PODS, TASK_RESULTS, WORKFLOWS, ApiError, Client, Object
from devcluster.clock import now
from devcluster.observed import Observed
from devcluster.workflows import Scope, WorkflowError

SUCCEEDED, FAILED, ERROR, RUNNING = "Succeeded", "Failed", "Error", "Running"
_PHASE_LABEL = f"{argo.DOMAIN}/phase"
_SIGTERM = 15

Kill = Callable[[str, str, str, int], Awaitable[object]]
"""(namespace, pod, container, signal): what Argo does by running `argoexec kill` in a container."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run works with.

    `store` is the directory of artifacts; `kill_seconds` is how long the other containers of a Pod may run
    after main's end before they are signalled; `requeue_seconds` is how long a Pod's end is not noticed.
    """

    client: Client
    observed: Observed
    store: Path
    kill: Kill
    kill_seconds: float
    requeue_seconds: float


@dataclass(slots=True)
class Node:
    """One entry of `status.nodes`."""

    id: str
    name: str
    type: str
    template: str = ""
    phase: str = RUNNING
    message: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=now)
    finished: str = ""

    def status(self) -> dict[str, Any]:
        """As Argo writes it."""
        fields = {
            "id": self.id,
            "name": self.name,
            "displayName": self.name.rpartition(".")[2],
            "type": self.type,
            "templateName": self.template,
            "phase": self.phase,
            "message": self.message,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "startedAt": self.started,
            "finishedAt": self.finished,
        }
        return {name: value for name, value in fields.items() if value}


class WorkflowRun:
    """One Workflow from its start to its end."""

    def __init__(self, workflow: Object, surroundings: Surroundings) -> None:
        self._workflow = workflow
        self._with = surroundings
        self._name: str = workflow["metadata"]["name"]
        self._namespace: str = workflow["metadata"]["namespace"]
        self._started = now()
        self._nodes: dict[str, Node] = {}
        self._scope: Scope = {}

    async def run(self) -> None:
        """Walk the entrypoint; whatever happens, the Workflow ends with a phase."""
        try:
            await self._end(*await self._walk())
        except* ApiError:
            """Deleted under our hands, or the API server is gone: nobody is left to tell."""

    async def _walk(self) -> tuple[str, str]:
        """Run the entrypoint; phase and message."""
        spec = self._workflow["spec"]
        try:
            workflows.check_supported(spec)
            self._scope = workflows.workflow_scope(self._workflow)
        except WorkflowError as error:
            return ERROR, str(error)
        node = await self._execute(self._name, spec.get("entrypoint", ""), spec.get("arguments") or {})
        return node.phase, node.message

    async def _execute(
        self,
        node_name: str,
        template_name: str,
        arguments: Mapping[str, Any],
        *,
        include_result: bool = False,
    ) -> Node:
        """Run one template as the node `node_name`."""
        node = Node(workflows.node_id(self._name, node_name), node_name, "Pod", template_name)
        self._nodes[node.id] = node
        try:
            template = workflows.template_named(self._workflow["spec"], template_name)
            template = workflows.with_inputs(template, arguments, self._scope)
            node.inputs = template["inputs"]
            if "steps" in template:
                node.type = "Steps"
                await self._run_steps(node, template)
            else:
                await self._run_pod(node, template, include_result=include_result)
        except (WorkflowError, ApiError) as error:
            node.phase, node.message = ERROR, str(error)
        node.finished = now()
        await self._write(RUNNING)
        return node

    async def _run_steps(self, node: Node, template: Mapping[str, Any]) -> None:
        """Groups one after the other, the steps of a group side by side."""
        scope = dict(self._scope)
        for number, group in enumerate(template["steps"]):
            made = {step["name"]: workflows.expanded(step) for step in group}
            async with asyncio.TaskGroup() as running:
                tasks = {
                    name: [
                        running.create_task(
                            self._execute(
                                f"{node.name}[{number}].{shown}",
                                step["template"],
                                workflows.arguments_of(step, scope),
                                include_result=workflows.uses_result(name, template),
                            )
                        )
                        for shown, step in steps
                    ]
                    for name, steps in made.items()
                }
            for step in group:
                children = [task.result() for task in tasks[step["name"]]]
                for child in children:
                    if child.phase != SUCCEEDED:
                        node.phase, node.message = child.phase, f"child '{child.id}' failed"
                        return
                prefix = f"steps.{step['name']}"
                if "withItems" in step:
                    scope |= workflows.tags_of_all(prefix, [child.outputs for child in children])
                else:
                    scope |= workflows.tags_of(prefix, children[0].outputs)
        node.outputs = workflows.own_outputs(template, scope)
        node.phase = SUCCEEDED

    async def _run_pod(self, node: Node, template: Mapping[str, Any], *, include_result: bool) -> None:
        """Make the node's Pod, wait for its end and for its outputs."""
        body = pods.build(
            self._workflow,
            template,
            name=workflows.pod_name(self._name, node.name, node.template),
            node_id=node.id,
            node_name=node.name,
            include_result=include_result,
            store=self._with.store,
        )
        await self._write(RUNNING)
        created = await self._with.client.create(PODS, self._namespace, body)
        observed = self._with.observed
        signals = asyncio.create_task(self._signal_leftovers(created))
        try:
            await observed.until(lambda: self._is_over(created, node))
            await asyncio.sleep(self._with.requeue_seconds)
        finally:
            signals.cancel()
            await asyncio.wait([signals])
        pod = observed.pod(created)
        result = observed.result(self._namespace, node.id) or {}
        node.outputs = dict(result.get("outputs") or {})
        node.phase, node.message = pods.verdict(pod)
        if node.phase == RUNNING:
            node.phase, node.message = ERROR, "pod deleted"
        if (code := pods.exit_code(pod)) is not None:
            node.outputs["exitCode"] = str(code)

    def _is_over(self, created: Object, node: Node) -> bool:
        """Pod and result reach a controller through two watches; a success needs both, a failure one."""
        observed = self._with.observed
        if observed.is_deleted(created):
            return True
        phase, _ = pods.verdict(observed.pod(created))
        result = observed.result(self._namespace, node.id) or {"metadata": {}}
        completed = (result["metadata"].get("labels") or {}).get(argo.OUTPUTS_COMPLETED) == "true"
        return phase in (FAILED, ERROR) or (phase == SUCCEEDED and completed)

    async def _signal_leftovers(self, created: Object) -> None:
        """Once main has ended, end what still runs beside it, the way Argo does."""
        observed = self._with.observed
        await observed.until(lambda: pods.exit_code(observed.pod(created)) is not None)
        await asyncio.sleep(self._with.kill_seconds)
        for container in pods.running(observed.pod(created)):
            await self._with.kill(self._namespace, created["metadata"]["name"], container, _SIGTERM)

    async def _end(self, phase: str, message: str) -> None:
        """The results go, as they do with Argo, and the last status is written."""
        for node in self._nodes.values():
            if node.type == "Pod":
                await self._with.client.delete(TASK_RESULTS, self._namespace, node.id)
        await self._write(phase, message, finished=now())

    async def _write(self, phase: str, message: str = "", finished: str | None = None) -> None:
        status = {
            "phase": phase,
            "message": message or None,
            "startedAt": self._started,
            "finishedAt": finished,
            "nodes": {node.id: node.status() for node in self._nodes.values()},
        }
        completed = "true" if finished else "false"
        labels = {_PHASE_LABEL: phase, pods.COMPLETED: completed}
        change = {"metadata": {"labels": labels}, "status": status}
        await self._with.client.patch(WORKFLOWS, self._namespace, self._name, change)
