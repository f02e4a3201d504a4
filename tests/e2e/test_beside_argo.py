"""Every kind of hit, with Argo's own memoization and with stepmemo, beside a run without either."""

import base64
import gzip
import json
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from argo import names as argo_names
from memoize import names
from tests.e2e import hits_table, record
from tests.e2e.cluster import CONTROLLER, Namespace, fresh_namespace, grant
from tests.e2e.compare import unresolved
from tests.e2e.hits import KINDS, METRIC, RETRY, ROWS, WORLD, Kind
from tests.e2e.hits_table import AGAIN, FIRST, Outcome
from tests.e2e.judge import HOOK, Ended, Fault, faults, hits
from tests.e2e.kube import PATIENCE, create_all, get, kubectl, patch, wait_for
from tests.e2e.many import Watch, run_all
from tests.e2e.outcome import memoization
from tests.e2e.probe import Setting
from tests.e2e.ways import ARGO, PLAIN, STEPMEMO, WAYS, made, memoized, objects

ALTOGETHER = 4 * PATIENCE
"""Seconds that all first or all second runs may take."""
CLI = os.environ.get("STEPMEMO_E2E_ARGO_CLI") or shutil.which("argo")
"""The argo CLI, for rows in which a workflow is retried or resubmitted."""
METRICS = os.environ.get("STEPMEMO_E2E_METRICS")
"""Where the controller tells its metrics, as it is reached from here."""
COLLECTED = f"{argo_names.DOMAIN}/artifact-gc"
"""Finalizer of a Workflow whose artifacts are still to be collected."""
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowartifactgctasks"], "verbs": ["list", "watch"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowartifactgctasks/status"], "verbs": ["patch"]},
]
"""What steps need that make a resource, and what Argo's garbage collection needs."""

Json = Any
Job = tuple[str, str]
"""A row and a way."""


class Lanes:
    """A namespace for each way, and the workflows of some rows in them."""

    def __init__(self, by_way: Mapping[str, Namespace], rows: list[str], setting: Setting) -> None:
        self.by_way = by_way
        self.rows = rows
        self.more = {"key": "unused"} if setting.is_before(4) else {}
        self.names: dict[str, list[str]] = {row: [] for row in rows}
        """Of each row: the workflows that it has had, in any lane."""
        self._watch = Watch()

    def cache(self, row: str, way: str) -> str:
        """A cache of this row, and of no other run of the suite."""
        return f"{self.by_way[way].name}-{self.rows.index(row)}"

    def config_map(self, row: str, way: str) -> dict[str, str]:
        """The same, as a block names it."""
        return {"name": self.cache(row, way)} | self.more

    def prepare(self) -> None:
        for way, ns in self.by_way.items():
            grant(ns.name, "rows", RULES)
            needed = [
                one for row in self.rows for one in objects(ROWS[row].shape, way, self.config_map(row, way))
            ]
            if needed:
                create_all(ns.name, needed)
        for row in self.rows:
            if text := ROWS[row].entry:
                for way, where in ((ARGO, CONTROLLER), (STEPMEMO, self.by_way[STEPMEMO].name)):
                    Namespace(where).put("k", text, cache=self.cache(row, way))

    def run(self, ways: tuple[str, ...]) -> dict[Job, Ended]:
        """Every row these ways, at once, and what follows it."""
        self._mend("no")
        manifests = {
            (row, way): made(ROWS[row].shape, way, self.config_map(row, way))
            for row in self.rows
            for way in ways
        }
        control = made(ROWS["a single step"].shape, PLAIN, {})
        finished = run_all(self.by_way, manifests, self._watch, control, ALTOGETHER)
        self._wait_for_the_end_of_storing(finished.names)
        self._mend("yes")
        names_now, refused = dict(finished.names), dict[Job, str]()
        for (row, way), name in finished.names.items():
            if then := ROWS[row].then:
                names_now[row, way], refused[row, way] = _command(then, self.by_way[way].name, name)
            self.names[row] += {name, names_now[row, way]}
        later = run_all(self.by_way, {}, self._watch, control, ALTOGETHER) if refused else finished
        hanging = finished.hanging | later.hanging
        known = {
            way: {one["metadata"]["name"]: one for one in get(ns.name, "workflows")["items"]}
            for way, ns in self.by_way.items()
        }
        emitted = _emitted()
        return {
            (row, way): Ended(
                _unpacked(known[way][name]),
                (self.by_way[way].name, name) in hanging,
                refused.get((row, way), ""),
                name in emitted,
            )
            for (row, way), name in names_now.items()
        }

    def clean(self) -> None:
        """Takes away what would stay: caches that Argo keeps, and finalizers that outlive rights."""
        caches = [self.cache(row, way) for row in self.rows for way in (ARGO, STEPMEMO)]
        kubectl("-n", CONTROLLER, "delete", "configmap", "--ignore-not-found", *caches)
        for ns in self.by_way.values():
            for one in get(ns.name, "workflows")["items"]:
                if COLLECTED in _finalizers(one):
                    patch(ns.name, "workflow", one["metadata"]["name"], {"metadata": {"finalizers": None}})

    def _mend(self, works: str) -> None:
        for ns in self.by_way.values():
            ns.config_map(WORLD, {"works": works})

    def _wait_for_the_end_of_storing(self, made: Mapping[Job, str]) -> None:
        """Until stepmemo has decided every Pod, and Argo has collected what it collects."""
        ours = self.by_way[STEPMEMO].name

        def decided() -> bool | None:
            return all(memoization(pod).reason for pod in _memoized_pods(ours)) or None

        _wait("last word of every Pod", decided)
        for (row, way), name in made.items():
            if "artifactGC" in ROWS[row].shape.spec:
                get_it = (self.by_way[way].name, "workflow", name)
                _wait(
                    f"end of the artifacts of {name}",
                    lambda get_it=get_it: COLLECTED not in _finalizers(get(*get_it)) or None,
                )


def _memoized_pods(namespace: str) -> list[Json]:
    pods = get(namespace, "pods")["items"]
    return [pod for pod in pods if names.KEY in pod["metadata"].get("annotations", {})]


def _finalizers(workflow: Json) -> list[str]:
    return workflow["metadata"].get("finalizers", [])


def _wait(what: str, probe: Callable[[], bool | None]) -> None:
    try:
        wait_for(what, probe, PATIENCE / 2)
    except AssertionError as error:
        print(error)  # the rows that it matters to fail on their own


def _command(then: str, namespace: str, workflow: str) -> tuple[str, str]:
    """What the CLI is to do with a workflow: the name of the one that goes on, or why there is none."""
    assert CLI
    words = [CLI, *then.split(), workflow, "-n", namespace, "-o", "name"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        return workflow, done.stderr.strip() or done.stdout.strip()
    return (workflow if then == RETRY else done.stdout.strip()), ""


def _emitted() -> set[str]:
    """The workflows that the controller tells METRIC of."""
    if not METRICS:
        return set()
    context = ssl._create_unverified_context()  # the controller's certificate is its own
    with urllib.request.urlopen(METRICS, context=context, timeout=10) as response:
        text = response.read().decode()
    return {
        found[1]
        for line in text.splitlines()
        if METRIC in line and (found := re.search(r'run="([^"]+)"', line))
    }


def _unpacked(workflow: Json) -> Json:
    """Argo packs the nodes of a Workflow of more than 1 MiB."""
    status = workflow.get("status", {})
    if packed := status.get("compressedNodes"):
        status["nodes"] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return workflow


def _why_not(kind: Kind) -> str:
    """Why a row cannot be run here, or ""."""
    if kind.then and not CLI:
        return "the argo CLI is not there: STEPMEMO_E2E_ARGO_CLI"
    if kind.metric and not METRICS:
        return "the controller's metrics are not known: STEPMEMO_E2E_METRICS"
    return ""


Outcomes = dict[str, dict[str, dict[str, Outcome]]]
"""By row, way, and FIRST or AGAIN. A plain workflow runs once."""


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, setting: Setting) -> Outcomes:
    """Both runs of each row that this session asks for, every way; recorded."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [item.callspec.params["row"] for item in items if item.function is test_stepmemo_is_right]
    rows = [row for row in asked if not _why_not(ROWS[row])]
    with ExitStack() as stack:
        lanes = Lanes({way: stack.enter_context(fresh_namespace()) for way in WAYS}, rows, setting)
        try:
            lanes.prepare()
            first = lanes.run(WAYS)
            again = lanes.run((ARGO, STEPMEMO))
            found = _judged(lanes, first, again)
        finally:
            lanes.clean()
    if path := os.environ.get(record.VARIABLE):
        told = {row: hits_table.told({way: found[row][way] for way in (ARGO, STEPMEMO)}) for row in found}
        record.rewrite(
            Path(path).with_name(hits_table.SOURCE.name),
            lambda table: hits_table.merge(table, setting, record.today(), told),
        )
    return found


def _judged(lanes: Lanes, first: Mapping[Job, Ended], again: Mapping[Job, Ended]) -> Outcomes:
    """Of each row that was run all its ways."""
    results: dict[str, list[bool]] = {}
    for pod in _memoized_pods(lanes.by_way[STEPMEMO].name):
        workflow = pod["metadata"]["labels"][argo_names.WORKFLOW_LABEL]
        results.setdefault(workflow, []).append(memoization(pod).result == names.RESULT_HIT)

    def outcome(row: str, run: Ended) -> Outcome:
        kind = ROWS[row]
        wrong = faults(first[row, PLAIN], run, memoized(kind.shape), lanes.names[row], kind.apart)
        return Outcome(wrong, hits(run.workflow, results.get(run.name, ())))

    found: Outcomes = {}
    for row in lanes.rows:
        if all((row, way) in first and ((row, way) in again or way == PLAIN) for way in WAYS):
            found[row] = {way: {FIRST: outcome(row, first[row, way])} for way in WAYS}
            for way in (ARGO, STEPMEMO):
                found[row][way][AGAIN] = outcome(row, again[row, way])
            found[row][PLAIN][FIRST].faults.extend(_not_as_meant(row, first[row, PLAIN]))
    return found


def _not_as_meant(row: str, plain: Ended) -> list[Fault]:
    """What is wrong with the run that others are measured by."""
    kind, phase = ROWS[row], plain.workflow["status"].get("phase")
    wanted = kind.shape.phase
    found = [] if phase == wanted else [Fault("phase", f"{phase} instead of {wanted}")]
    found += [Fault("tag", text) for text in unresolved(plain.workflow)]
    return found + ([Fault("metric", "not emitted")] if kind.metric and not plain.metric else [])


@pytest.mark.timeout(3 * ALTOGETHER)
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{group}: {row}") for group, kinds in KINDS.items() for row in kinds]
)
def test_stepmemo_is_right(request: pytest.FixtureRequest, row: str) -> None:
    """A run that stores and a run of hits do what the workflow does without memoization."""
    if why := _why_not(ROWS[row]):
        pytest.skip(why)
    kind, outcomes = ROWS[row], request.getfixturevalue("outcomes")
    assert row in outcomes, "not begun in time"
    found = outcomes[row]
    assert found[PLAIN][FIRST].faults == [], "without memoization"
    first, again = found[STEPMEMO][FIRST], found[STEPMEMO][AGAIN]
    assert first.faults == []
    wrong = [one for one in again.faults if one.kind != HOOK or not re.search(kind.lacks, one.detail)]
    assert wrong == []
    if not kind.shape.runs:
        hit, _, of = again.hits.partition(" of ")
        assert hit == of, "not all hits"
