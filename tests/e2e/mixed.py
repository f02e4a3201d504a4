"""Workflows of many steps, some answered from the cache, some run and some fail; and whether each was right.

Each run of a step prints an id that it makes and hands out, so that its log says whether it ran, and its
output whether what it ran for is what counts.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from threading import Event
from typing import Any

from argo import names as argo
from memoize import names
from tests.e2e.cluster import Namespace
from tests.e2e.kube import kubectl
from tests.e2e.outcome import is_unscheduled_hit
from tests.e2e.run import Run
from tests.e2e.steps import answer, arguments, container, in_a_row, opted_in

HIT, MISS, FAIL = "hit", "miss", "fail"
"""How keys begin: of entries that are there, of steps that run, and of those that run and fail."""
ANSWERED, RAN, FAILED = "answered", "ran", "failed"
HANGS_SECONDS = 900.0
"""After which a workflow is taken to hang."""
_HITS = 200
_LANES_PODS = 1000
_MARK = "ran="
_SCRIPT = f"""id=$(cat /proc/sys/kernel/random/uuid)
echo {_MARK}$id
case '{{{{inputs.parameters.key}}}}' in {FAIL}*) exit 1;; esac
echo -n $id > /tmp/out"""
_LINE = re.compile(rf"^\[pod/([^/]+)/[^\]]+\] {_MARK}(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Mix:
    """How many steps of each kind a workflow has; `equal`: misses in pairs of one key."""

    hits: int
    misses: int
    equal: int = 0
    failures: int = 0
    parallelism: int = 10


class Load:
    """Workflows of a mix in one Namespace, each with keys of its own but for those of the entries."""

    def __init__(self, ns: Namespace, mix: Mix) -> None:
        self._ns, self._mix, self._numbers = ns, mix, count()
        self._newer = defaultdict[str, set[str]](set)
        data = {_hit(number): answer(_cached(_hit(number))) for number in range(_HITS)}
        ns.config_map(ns.cache, data, {argo.CONFIGMAP_TYPE: argo.CONFIGMAP_TYPE_CACHE})

    def run(self) -> Counter[str]:
        """One workflow: how many of its steps were answered, ran and failed. AssertionError for any wrong."""
        name = self._ns.submit(*self._templates(), entrypoint="main", parallelism=self._mix.parallelism)
        found = self._ended_right(self._ns.finished(name, HANGS_SECONDS))
        kubectl("-n", self._ns.name, "delete", "workflow", name, "--wait=false")
        return found

    def run_until(self, over: Event) -> tuple[Counter[str], int]:
        """One workflow after the other, one at least; steps in all, and workflows."""
        total, workflows = self.run(), 1
        while not over.is_set():
            total, workflows = total + self.run(), workflows + 1
        return total, workflows

    def _ended_right(self, run: Run) -> Counter[str]:
        """Asserts of a workflow that is over that each step ran or was answered, as its output says."""
        assert run.phase == "Succeeded", run.said()
        pods = {pod["metadata"]["annotations"][argo.NODE_ID]: pod for pod in run.pods()}
        marks = _marks(run.namespace, f"{argo.WORKFLOW_LABEL}={run.name}", len(pods))
        found = Counter[str]()
        for node in run.nodes():
            key, said = _value(node, "inputs", "key"), f"{node['displayName']}{run.said()}"
            out, pod = _value(node, "outputs", "out"), pods[node["id"]]
            mark = marks.get(pod["metadata"]["name"])
            if key.startswith(FAIL):
                assert (node["phase"], bool(mark)) == ("Failed", True), said
                found[FAILED] += 1
            elif mark:
                assert out == mark, f"it ran beside an answer: {said}"
                assert not is_unscheduled_hit(pod), said
                self._newer[key].add(mark)
                found[RAN] += 1
            else:
                there = key.startswith(HIT)
                assert self._is_an_entry(key, out) if there else out in marks.values(), said
                found[ANSWERED] += 1
        return found

    def _is_an_entry(self, key: str, out: str) -> bool:
        """Whether it is what the cache had of the key, or has since a store was away and the step ran.

        That run may be of another lane's workflow, which is not judged yet: then its Pod is still there.
        """
        if out == _cached(key) or out in self._newer[key]:
            return True
        return out in _marks(self._ns.name, argo.WORKFLOW_LABEL, _LANES_PODS).values()

    def _templates(self) -> Sequence[dict[str, Any]]:
        mix, own = self._mix, f"{time.time_ns():x}-{next(self._numbers)}"
        keys = [
            *(_hit(number % _HITS) for number in range(mix.hits)),
            *(f"{MISS}-{own}-{number}" for number in range(mix.misses)),
            *(f"{MISS}-{own}-pair-{number // 2}" for number in range(mix.equal)),
            *(f"{FAIL}-{own}-{number}" for number in range(mix.failures)),
        ]
        # Those that run stand between those that are answered.
        keys = [key for start in range(7) for key in keys[start::7]]
        fan = {
            "template": "step",
            "withItems": keys,
            "arguments": arguments(key="{{item}}"),
            "continueOn": {"failed": True},
        }
        annotations = {names.KEY: "{{inputs.parameters.key}}", names.CACHE: self._ns.cache}
        step = container(_SCRIPT, metadata=opted_in(**annotations), inputs={"parameters": [{"name": "key"}]})
        del step["memoize"]  # Argo would memoize by it where no webhook takes it away
        return in_a_row(fan), step


def _marks(namespace: str, selector: str, pods: int) -> dict[str, str]:
    """What each Pod printed that ran, of so many at most."""
    words = ("logs", "-l", selector, "-c", "main", "--prefix", "--tail=-1")
    most = f"--max-log-requests={max(1, pods)}"
    said = kubectl("-n", namespace, *words, most, "--ignore-errors", check=False).stdout
    return dict(_LINE.findall(said))


def _value(node: dict[str, Any], which: str, name: str) -> str:
    found = node.get(which, {}).get("parameters", ())
    return next((one.get("value", "") for one in found if one["name"] == name), "")


def _hit(number: int) -> str:
    return f"{HIT}-{number}"


def _cached(key: str) -> str:
    return f"cached-{key}"
