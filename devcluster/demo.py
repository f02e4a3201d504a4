"""The demo: the README's workflow runs, runs again, and is answered from the cache, before a reader's eyes.

Everything it prints has happened just then: a step is said to be a hit because the sidecar's own log says so.
Where what happens is not what stepmemo promises, `BrokenPromiseError` says what.
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

from devcluster import sandbox
from devcluster.client import CONFIG_MAPS, ApiError, Object
from devcluster.cluster import DevCluster, start
from devcluster.terminal import Terminal
from memoize import names
from memoize.reasons import Reason

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_NAMESPACE = "demo"
_KEPT_APART = {
    sandbox.NO_NAMESPACE: "plain processes: this kernel gives them no namespaces of their own",
    sandbox.ROOT_NAMESPACE: "processes with a file system and a process table of their own",
    sandbox.USER_NAMESPACE: "processes with a file system and a process table of their own, without root",
}


class BrokenPromiseError(Exception):
    """What the demo saw is not what stepmemo promises."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the example's step works and how long its entry lives, in seconds."""

    step: float = 5
    max_age: int = 15


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the example: how it was decided, how long it took, what it put out."""

    title: str
    decision: Reason
    seconds: float
    greeting: str

    def row(self) -> tuple[str, str, str, str, str]:
        """For the table at the end."""
        command = "not started" if self.decision == Reason.HIT else "ran"
        return self.title, self.decision, command, f"{self.seconds:.1f} s", self.greeting


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
        self._text = greet(pace)

    async def tell(self) -> None:
        await self._broken()
        first = await self._first()
        again = await self._again(first)
        created = await self._cache()
        other = await self._other()
        late = await self._late(created)
        self._terminal.section("All runs")
        runs = (first, again, other, late)
        self._terminal.table(
            [("run", "decision", "command", "time", "output"), *(each.row() for each in runs)]
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
        self._terminal.quote(textwrap.dedent(self._text[self._text.index("    - name: greet") :]))
        self._terminal.say(f"(maxAge is 24h in the file; {self._pace.max_age}s here, to see it pass)")
        return await self._run("first run", "world", Reason.MISS)

    async def _again(self, first: Run) -> Run:
        self._terminal.section("The same workflow again: the step is answered, its command never starts")
        again = await self._run("same input again", "world", Reason.HIT)
        if again.greeting != first.greeting:
            raise BrokenPromiseError("the answer is not what the first run put out")
        if again.seconds >= first.seconds:
            raise BrokenPromiseError("the answer took as long as the work")
        return again

    async def _cache(self) -> datetime:
        """Show the ConfigMap; when its entry was created."""
        template = yaml.safe_load(self._text)["spec"]["templates"][0]
        name = template["memoize"]["cache"]["configMap"]["name"]
        self._terminal.section("The cache: a ConfigMap beside the workflows, in Argo's own format")
        self._terminal.command(f"kubectl get configmap {name} -o yaml")
        found = await self._cluster.client.get(CONFIG_MAPS, _NAMESPACE, name)
        labels = found["metadata"].get("labels") or {}
        if labels.get(names.CONFIGMAP_TYPE) != names.CONFIGMAP_TYPE_CACHE:
            raise BrokenPromiseError(f"ConfigMap {name} has no label {names.CONFIGMAP_TYPE}")
        self._terminal.quote(yaml.safe_dump({"metadata": {"name": name, "labels": labels}}))
        [(key, value)] = found["data"].items()
        entry = json.loads(value)
        self._terminal.quote(f"data:\n  {key}: |\n" + _indented(json.dumps(entry, indent=2), 4))
        self._terminal.say("(the entry is one line of JSON; spread out here)")
        return datetime.fromisoformat(entry["creationTimestamp"])

    async def _other(self) -> Run:
        self._terminal.section("Another input: another key, so the step does its work")
        return await self._run("another input", "moon", Reason.MISS)

    async def _late(self, created: datetime) -> Run:
        self._terminal.section("The first input again, after maxAge: too old to answer")
        left = self._pace.max_age + 1 - (datetime.now(UTC) - created).total_seconds()
        if left > 0:
            self._terminal.say(f"waiting {left:.0f} s, until the entry is older than {self._pace.max_age}s …")
            await asyncio.sleep(left)
        return await self._run("after maxAge", "world", Reason.EXPIRED)

    async def _run(self, title: str, who: str, expected: Reason) -> Run:
        """Submit the example with one input, wait for its end, show what was decided and what came out."""
        workflow = yaml.safe_load(self._text)
        workflow["spec"]["arguments"]["parameters"][0]["value"] = who
        self._terminal.command(f"argo submit --wait examples/greet.yaml -p who={who}")
        began = time.perf_counter()
        finished = await self._cluster.run(workflow, _NAMESPACE)
        seconds = time.perf_counter() - began
        name, status = finished["metadata"]["name"], finished["status"]
        if status["phase"] != "Succeeded":
            raise BrokenPromiseError(f"workflow {name} {status['phase']}: {status.get('message', '')}")
        greeting = status["nodes"][name]["outputs"]["parameters"][0]["value"]
        self._expect(name, names.CHECK_CONTAINER, expected)
        if expected == Reason.HIT:
            self._expect(name, names.MAIN_CONTAINER, Reason.HIT)
        else:
            self._expect(name, names.CAPTURE_CONTAINER, Reason.STORED)
        self._terminal.good(f"{expected}: {seconds:.1f} s, output: {greeting}")
        return Run(title, expected, seconds, greeting)

    def _expect(self, pod: str, container: str, reason: Reason) -> None:
        """Show a container's log, in which stepmemo says `reason`."""
        log = self._cluster.log(_NAMESPACE, pod, container).strip()
        self._terminal.command(f"kubectl logs {pod} -c {container}")
        self._terminal.quote(log)
        if f"stepmemo: reason={reason} " not in log:
            raise BrokenPromiseError(f"the log of {container} in Pod {pod} does not say reason={reason}")


def greet(pace: Pace) -> str:
    """The README's workflow, at another pace."""
    text = (EXAMPLES / "greet.yaml").read_text(encoding="utf-8")
    return text.replace("sleep 5", f"sleep {pace.step:g}").replace("maxAge: 24h", f"maxAge: {pace.max_age}s")


def kubectl_error(status: Object) -> str:
    """How `kubectl create` words a Status with causes (kubectl, pkg/cmd/util/helpers.go)."""
    details = status["details"]
    causes = [f"{cause['field']}: {cause['message']}" for cause in details["causes"]]
    head = f'The {details["kind"]} "{details["name"]}" is invalid: '
    return head + (causes[0] if len(causes) == 1 else "".join(f"\n* {cause}" for cause in causes))


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())
