"""A workflow that has come to its end, and what can be told of it.

Executions are counted by a side effect of the step's own containers, a line that they print: a step answered
from the cache prints nothing. Hits are proved by equal random outputs.
"""

from dataclasses import dataclass
from typing import Any

from argo import names as argo
from memoize import names
from tests.e2e import server
from tests.e2e.kube import get, kubectl, wait_for
from tests.e2e.outcome import Memoization, memoization

RAN = "this step ran"
"""What every container of a step prints first, on a line of its own."""


@dataclass
class Run:
    """A workflow, as it was when it ended."""

    namespace: str
    workflow: dict[str, Any]

    @property
    def name(self) -> str:
        return self.workflow["metadata"]["name"]

    @property
    def phase(self) -> str:
        return self.workflow["status"]["phase"]

    def nodes(self, template: str = "step") -> list[dict[str, Any]]:
        """The Pod nodes made from a template, oldest first."""
        found = self.workflow.get("status", {}).get("nodes", {}).values()
        pods = [node for node in found if node["type"] == "Pod" and template_of(node) == template]
        return sorted(pods, key=lambda node: node["startedAt"])

    def output(self, name: str = "out", template: str = "step") -> str:
        (parameter,) = (p for p in self.nodes(template)[-1]["outputs"]["parameters"] if p["name"] == name)
        return parameter["value"]

    def result(self, template: str = "step") -> str:
        return self.nodes(template)[-1]["outputs"]["result"]

    def answers(self, template: str = "step") -> list[dict[str, str]]:
        """Output parameters and result of each of the template's nodes, in the order of their names."""
        return [
            {parameter["name"]: parameter["value"] for parameter in outputs.get("parameters", ())}
            | ({"result": outputs["result"]} if "result" in outputs else {})
            for node in sorted(self.nodes(template), key=lambda node: node["displayName"])
            for outputs in [node.get("outputs", {})]
        ]

    def pods(self) -> list[dict[str, Any]]:
        return get(self.namespace, "pods", "-l", f"{argo.WORKFLOW_LABEL}={self.name}")["items"]

    def pods_are_over(self) -> bool:
        return all(pod["status"]["phase"] in ("Failed", "Succeeded") for pod in self.pods())

    def executions(self) -> int:
        """How many of the workflow's Pods really ran a command of their user's, in any container."""
        return sum(
            RAN in self.logs(pod["metadata"]["name"], "--all-containers", "--ignore-errors").splitlines()
            for pod in self.pods()
        )

    def logs(self, pod: str, *which: str) -> str:
        return kubectl("-n", self.namespace, "logs", pod, *which, check=False).stdout

    def memoized_pods(self) -> list[dict[str, Any]]:
        """Those of steps with a key, in the order of their names."""
        found = [pod for pod in self.pods() if names.KEY in pod["metadata"].get("annotations", {})]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def memoizations(self) -> list[Memoization]:
        """What became of each memoized Pod; waits while one is not decided."""

        def told() -> list[Memoization] | None:
            found = [memoization(pod) for pod in self.memoized_pods()]
            return found if all(one.reason for one in found) else None

        return wait_for(f"word of what became of {self.name}", told, 30)

    def settled(self) -> "Run":
        """Waits until every Pod is over and nothing more will be stored."""

        def decided() -> bool:
            by_keeper = server.access() == server.SERVICE
            return not by_keeper or all(memoization(pod).reason for pod in self.memoized_pods())

        wait_for(f"end of the Pods of {self.name}", lambda: (self.pods_are_over() and decided()) or None)
        return self

    def reasons(self) -> set[str]:
        """The reason codes of its Pods."""
        return {one.reason for one in self.memoizations()}

    def events(self, reason: str) -> list[dict[str, Any]]:
        """The Events of this reason on the Workflow."""
        selector = f"involvedObject.name={self.name},reason={reason}"
        return get(self.namespace, "events", "--field-selector", selector)["items"]

    def said(self) -> str:
        """The text of a failed assertion: phases and messages, and what became of each Pod."""
        status = self.workflow.get("status", {})
        nodes = [
            f"{node['displayName']}: {node.get('phase')} {node.get('message', '')}"
            for node in status.get("nodes", {}).values()
        ]
        ours = [
            f"{pod['metadata']['name']}: {pod['status'].get('phase')} {' '.join(memoization(pod))}"
            for pod in self.pods()
        ]
        head = f"{self.name}: {status.get('phase')} {status.get('message', '')}"
        return "\n".join(["", head, *nodes, *ours])


def template_of(node: dict[str, Any]) -> str:
    """A template's name; one of another object is named by a reference."""
    return node.get("templateName") or node.get("templateRef", {}).get("template", "")


def twice(*runs: Run, ran: tuple[int, ...] = (1, 0), template: str = "step") -> None:
    """Asserts the main thing: all succeeded, so many Pods ran in each, and the answers are the same."""
    said = "".join(run.said() for run in runs)
    assert [run.phase for run in runs] == ["Succeeded"] * len(runs), said
    assert tuple(run.executions() for run in runs) == ran, said
    first, *others = (run.answers(template) for run in runs)
    assert first, said
    assert all(answer == first for answer in others), said
