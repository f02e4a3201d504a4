"""The demo: the example workflow runs, runs again, and is answered from the cache, before a reader's eyes.

Everything it prints has happened just then: a step is said to be a hit because its Pod says so and never had
a node. Where what happens is not what stepmemo promises, `BrokenPromiseError` says what.
"""

import asyncio
import json
import tempfile
import textwrap
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from argo import names as argo
from devcluster import sandbox
from devcluster.client import CONFIG_MAPS, EVENTS, PODS, ApiError, Object
from devcluster.cluster import DevCluster, start
from devcluster.terminal import Terminal
from memoize import names

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_NAMESPACE = "demo"
_LAST_WORDS = (names.RESULT_HIT, names.RESULT_STORED, names.RESULT_SKIPPED)
_PATIENCE_SECONDS = 10
"""How long stepmemo may take to label a Pod and write an Event after the workflow's end."""
_POLL_SECONDS = 0.05
_KEPT_APART = {
    sandbox.NO_NAMESPACE: "plain processes: this kernel gives them no namespaces of their own",
    sandbox.ROOT_NAMESPACE: "processes with a file system and a process table of their own",
    sandbox.USER_NAMESPACE: "processes with a file system and a process table of their own, without root",
}


class BrokenPromiseError(Exception):
    """What the demo saw is not what stepmemo promises."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step of the examples works and how long its entry lives, in seconds."""

    step: float = 5
    max_age: int = 15


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an example: how many of its steps ran, how long it took, what each of them put out."""

    title: str
    steps: int
    ran: int
    seconds: float
    output: str

    def row(self) -> tuple[str, str, str, str, str]:
        """For the table at the end."""
        answered = self.steps - self.ran
        return self.title, str(self.ran), str(answered), f"{self.seconds:.1f} s", self.output


async def run(terminal: Terminal, pace: Pace | None = None) -> None:
    """The whole demo. Nothing runs and no file is left when it returns, raises or is cancelled."""
    with tempfile.TemporaryDirectory(prefix="stepmemo-demo-") as directory:
        terminal.title("stepmemo: a workflow runs, runs again, and is answered from the cache")
        terminal.section("A cluster on this machine")
        terminal.say("A Kubernetes API, an Argo-shaped controller and a node, with stepmemo from manifests/.")
        began = time.perf_counter()
        async with start(Path(directory)) as cluster:
            await cluster.namespace(_NAMESPACE)
            terminal.say(f"Containers are {_KEPT_APART[cluster.isolation]}.")
            terminal.say("Behind a $ stands what you would type; the demo does the same through the API.")
            terminal.good(f"ready after {time.perf_counter() - began:.1f} s")
            await _Demo(cluster, terminal, pace or Pace()).tell()


class _Demo:
    """The demo's story, one section per method."""

    def __init__(self, cluster: DevCluster, terminal: Terminal, pace: Pace) -> None:
        self._cluster = cluster
        self._terminal = terminal
        self._pace = pace
        self._greet = example("greet.yaml", pace)

    async def tell(self) -> None:
        await self._broken()
        first = await self._first()
        again = await self._again(first)
        created = await self._cache()
        fan_out = await self._fan_out()
        late = await self._late(created)
        self._terminal.section("All runs")
        runs = (first, again, fan_out, late)
        self._terminal.table(
            [("run", "steps that ran", "answered", "time", "output"), *(each.row() for each in runs)]
        )

    async def _broken(self) -> None:
        self._terminal.section("A broken memoize block: refused at submit, every mistake at once")
        self._terminal.command("kubectl create -f examples/broken.yaml")
        try:
            broken = yaml.safe_load((EXAMPLES / "broken.yaml").read_text(encoding="utf-8"))
            await self._cluster.submit(broken, _NAMESPACE)
        except ApiError as error:
            self._terminal.quote(kubectl_error(error.status))
        else:
            raise BrokenPromiseError("the API server took examples/broken.yaml")

    async def _first(self) -> Run:
        self._terminal.section("The first run: nothing in the cache, so the step does its work")
        self._terminal.say("The step of examples/greet.yaml, as its author wrote it:")
        self._terminal.quote(textwrap.dedent(self._greet[self._greet.index("    - name: greet") :]))
        return await self._run("first run", "greet.yaml", self._greet, ran=1)

    async def _again(self, first: Run) -> Run:
        self._terminal.section("The same input again: answered from the cache, without a node")
        again = await self._run("same input again", "greet.yaml", self._greet, ran=0)
        if again.output != first.output:
            raise BrokenPromiseError(f"answered with {again.output!r} instead of {first.output!r}")
        return again

    async def _cache(self) -> datetime:
        """Show the cache; when its entry was created."""
        template = yaml.safe_load(self._greet)["spec"]["templates"][0]
        name = template["memoize"]["cache"]["configMap"]["name"]
        self._terminal.section("The cache: a ConfigMap beside the workflows, in Argo's own format")
        self._terminal.command(f"kubectl get configmap {name} -o yaml")
        found = await self._cluster.client.get(CONFIG_MAPS, _NAMESPACE, name)
        labels = found["metadata"].get("labels") or {}
        if labels.get(argo.CONFIGMAP_TYPE) != argo.CONFIGMAP_TYPE_CACHE:
            raise BrokenPromiseError(f"ConfigMap {name} has no label {argo.CONFIGMAP_TYPE}")
        self._terminal.quote(yaml.safe_dump({"metadata": {"name": name, "labels": labels}}))
        [(key, value)] = found["data"].items()
        entry = json.loads(value)
        self._terminal.quote(f"data:\n  {key}: |\n" + _indented(json.dumps(entry, indent=2), 4))
        self._terminal.say("(the entry is one line of JSON; spread out here)")
        return datetime.fromisoformat(entry["creationTimestamp"])

    async def _fan_out(self) -> Run:
        self._terminal.section("Five equal steps at once: one runs, the others wait for what it puts out")
        text = example("fan-out.yaml", self._pace)
        return await self._run("five at once", "fan-out.yaml", text, ran=1)

    async def _late(self, created: datetime) -> Run:
        self._terminal.section("The first input again, after maxAge: too old to answer")
        left = self._pace.max_age + 1 - (datetime.now(UTC) - created).total_seconds()
        if left > 0:
            self._terminal.say(f"waiting {left:.0f} s, until the entry is older than {self._pace.max_age}s …")
            await asyncio.sleep(left)
        return await self._run("after maxAge", "greet.yaml", self._greet, ran=1)

    async def _run(self, title: str, file: str, text: str, *, ran: int) -> Run:
        """Submit an example, wait for its end, show what became of its Pods: `ran` of them had a node."""
        self._terminal.command(f"argo submit --wait examples/{file}")
        began = time.perf_counter()
        finished = await self._cluster.run(yaml.safe_load(text), _NAMESPACE)
        seconds = time.perf_counter() - began
        name, status = finished["metadata"]["name"], finished["status"]
        if status["phase"] != "Succeeded":
            raise BrokenPromiseError(f"workflow {name} {status['phase']}: {status.get('message', '')}")
        pods = await self._pods(name)
        self._show(name, pods)
        on_nodes = [pod for pod in pods if pod["spec"].get("nodeName")]
        words = sorted(pod["metadata"]["labels"][names.RESULT] for pod in pods)
        answered = len(pods) - ran
        if words != [names.RESULT_HIT] * answered + [names.RESULT_STORED] * ran or len(on_nodes) != ran:
            raise BrokenPromiseError(
                f"of {len(pods)} Pods of workflow {name} {len(on_nodes)} ran, with the results {words}"
            )
        events = await self._events(name, len(pods))
        if len([event for event in events if event["reason"] == "MemoizationHit"]) != answered:
            raise BrokenPromiseError(f"the Events on workflow {name} do not tell of {answered} hits")
        values = {
            node["outputs"]["parameters"][0]["value"]
            for node in status["nodes"].values()
            if node["type"] == "Pod"
        }
        if len(values) != 1:
            raise BrokenPromiseError(f"equal steps of workflow {name} differ in their outputs: {values}")
        [output] = values
        self._terminal.good(f"{ran} ran, {answered} answered: {seconds:.1f} s, output: {output}")
        return Run(title, len(pods), ran, seconds, output)

    async def _pods(self, workflow: str) -> list[Object]:
        """The workflow's Pods, once stepmemo is done with each of them."""

        async def settled() -> list[Object]:
            selector = f"{argo.WORKFLOW_LABEL}={workflow}"
            while True:
                found: list[Object] = (await self._cluster.client.list(PODS, _NAMESPACE, selector))["items"]
                if all(pod["metadata"]["labels"].get(names.RESULT) in _LAST_WORDS for pod in found):
                    return found
                await asyncio.sleep(_POLL_SECONDS)

        try:
            return await self._cluster.unless_broken(settled(), _PATIENCE_SECONDS)
        except TimeoutError as error:
            raise BrokenPromiseError(f"no label says what became of workflow {workflow}'s steps") from error

    def _show(self, workflow: str, pods: list[Object]) -> None:
        """The workflow's Pods, in the columns of kubectl that matter here, and what one of them says."""
        selector = f"-l {argo.WORKFLOW_LABEL}={workflow}"
        self._terminal.command(f"kubectl get pods {selector} -o wide -L {names.RESULT}")
        rows = [("NAME", "STATUS", "NODE", "RESULT")]
        for pod in pods:
            metadata, container = pod["metadata"], pod["status"]["containerStatuses"][0]
            status = container["state"]["terminated"]["reason"]
            node = pod["spec"].get("nodeName", "<none>")
            rows.append((metadata["name"], status, node, metadata["labels"][names.RESULT]))
        self._terminal.table(rows)
        if told := [pod for pod in pods if pod["status"].get("message")]:
            self._terminal.command(
                f"kubectl get pod {told[0]['metadata']['name']} -o jsonpath={{.status.message}}"
            )
            self._terminal.quote(told[0]["status"]["message"])

    async def _events(self, workflow: str, count: int) -> list[Object]:
        """What stepmemo wrote on the Workflow, where Argo's UI and kubectl show it: so many Events."""
        found: list[Object] = []

        async def written() -> None:
            while len(found) < count:
                listed = (await self._cluster.client.list(EVENTS, _NAMESPACE))["items"]
                found[:] = [each for each in listed if each["involvedObject"]["name"] == workflow]
                await asyncio.sleep(_POLL_SECONDS)

        self._terminal.command(f"kubectl events --for workflow/{workflow}")
        try:
            await self._cluster.unless_broken(written(), _PATIENCE_SECONDS)
        except TimeoutError as error:
            raise BrokenPromiseError(
                f"of {count} Events on workflow {workflow} there are {len(found)}"
            ) from error
        for event in found:
            self._terminal.quote(f"{event['reason']}  {event['message']}")
        return found


def example(file: str, pace: Pace) -> str:
    """A workflow of examples/, at another pace."""
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    return text.replace("sleep 5", f"sleep {pace.step:g}").replace("maxAge: 24h", f"maxAge: {pace.max_age}s")


def kubectl_error(status: Object) -> str:
    """How `kubectl create` words a Status with causes (kubectl, pkg/cmd/util/helpers.go)."""
    details = status["details"]
    causes = [f"{cause['field']}: {cause['message']}" for cause in details["causes"]]
    head = f'The {details["kind"]} "{details["name"]}" is invalid: '
    return head + (causes[0] if len(causes) == 1 else "".join(f"\n* {cause}" for cause in causes))


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())
