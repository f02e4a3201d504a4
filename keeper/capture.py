"""Storing what a step reported, once its Pod is over: the keeper's part of a miss.

A Pod that is over tells by its container statuses whether Argo takes the step for a success, which is more
than exit codes of 0: a step that was asked to stop may end with 0 as well, and what it reports is unfinished.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from argo import artifact_gc
from argo import names as argo
from argo.shape import mapping
from argo.steppod import Owner
from keeper import paths
from keeper.artifacts.verifier import LONG, Verifier
from keeper.requests import Requests
from keeper.steppods import GatedStep
from keeper.store import NOT_NOW, Store
from keeper.task_results import TaskResults
from kube import client, cost
from kube.caching import TtlCache
from memoize import names
from memoize.entry import BrokenEntry, Entry
from memoize.outcome import Outcome
from memoize.outputs import Declared
from memoize.reasons import Reason
from memoize.report import new_entry, reported, taken_over

_KILLED = (137, 143)
"""Exit codes of a sidecar that Argo ended: SIGKILL and SIGTERM (inferFailedReason in operator.go)."""
_SUCCEEDED = "Succeeded"
_AUXILIARIES = (argo.WAIT_CONTAINER, argo.SUPERVISOR_CONTAINER)
_DISRUPTED = "DisruptionTarget"
_GRACE = 30
"""Seconds; Kubernetes' default where a deletion names none."""
GATHER = 0.25
"""Seconds from one read of a Workflow to the next: all steps that end meanwhile share that one."""
_REMEMBERED = 120.0
"""Seconds that what a Workflow said is of use to steps that ended before it was read …"""
_MOST_REMEMBERED = 1000
"""… and of how many Workflows it is remembered, some hundred bytes each; one more read where it is not."""

Json = Mapping[str, Any]


class End(NamedTuple):
    """How a step ended."""

    failed: Outcome | None
    """Why its outputs are not kept, None where they are."""
    took: float = 0
    """Seconds that its main containers ran."""


def ended(pod: Json, declared: Declared, deadline: str) -> End:
    """Read the end of a Pod that is over. `deadline` is when Argo ends the step, "" for never."""
    failed = next(_failures(pod, declared.mains), None)
    if failed is not None:
        return End(failed)
    statuses = _statuses(mapping(pod.get("status")), "containerStatuses")
    mains = [_terminated(one) for one in statuses if _name(one) in declared.mains]
    begun = [_time(main.get("startedAt")) for main in mains]
    over = [_time(main.get("finishedAt")) for main in mains]
    if None in begun or None in over or len(mains) != len(declared.mains):
        return End(Outcome(Reason.STEP_FAILED, "the end of a main container is not known"))
    last = max(filter(None, over))
    if stopped := _why_stopped(pod, deadline, last):
        return End(Outcome(Reason.STEP_FAILED, stopped))
    return End(None, (last - min(filter(None, begun))).total_seconds())


def _failures(pod: Json, mains: tuple[str, ...]) -> Iterator[Outcome]:
    """Why Argo will fail the node, or had a hand in its end."""
    status = mapping(pod.get("status"))
    if reason := status.get("reason"):
        yield Outcome(Reason.STEP_FAILED, f"its Pod ended as {str(reason)[:80]}")
    if status.get("phase") != _SUCCEEDED and status.get("message"):
        yield Outcome(Reason.STEP_FAILED, "its Pod failed as a whole")
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if mapping(condition).get("type") == _DISRUPTED and condition.get("status") == "True":
            yield Outcome(Reason.STEP_FAILED, "its Pod was to make room")
    must_succeed = {*mains, *_AUXILIARIES, *_init_containers(pod)}
    for one in (*_statuses(status, "initContainerStatuses"), *_statuses(status, "containerStatuses")):
        name, code = _name(one), _terminated(one).get("exitCode")
        if code == 0 or (name not in must_succeed and (code in _KILLED or status.get("phase") == _SUCCEEDED)):
            continue
        reason = Reason.OUTPUTS_FAILED if name in _AUXILIARIES else Reason.STEP_FAILED
        yield Outcome(
            reason, f"container {name} " + ("did not end" if code is None else f"ended with {code}")
        )


def _init_containers(pod: Json) -> Iterator[str]:
    """Those that end by themselves; a native sidecar is ended as other sidecars are."""
    containers = mapping(pod.get("spec")).get("initContainers")
    for container in containers if isinstance(containers, list) else ():
        if container.get("restartPolicy") != "Always":
            yield _name(container)


def _why_stopped(pod: Json, deadline: str, last: datetime) -> str | None:
    """Who ended the step before its end, None where nobody did. Kubernetes and Argo tell whole seconds.

    `last`, when the last main container ended, is such a second's beginning.
    """
    if deadline:
        limit = _time(deadline)
        if limit is None or last >= limit:
            return "ended after its deadline"
    metadata = mapping(pod.get("metadata"))
    if metadata.get("deletionTimestamp"):
        grace = metadata.get("deletionGracePeriodSeconds")
        asked = _time(metadata["deletionTimestamp"])
        seconds = grace if isinstance(grace, int) else _GRACE
        if asked is None or (asked - last).total_seconds() <= seconds:
            return "its Pod was deleted before it ended"
    return None


def ended_inside(pod: Json) -> tuple[str, Outcome]:
    """How a step ended whose look-up was made inside its Pod: its final label, and the outcome.

    Our containers' termination messages tell (sidecar/outcome.py), the capture's before the check's.
    """
    status = mapping(pod.get("status"))
    said = {
        _name(one): _terminated(one).get("message")
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in _statuses(status, kind)
    }
    outcomes = [
        _termination_outcome(said.get(name)) for name in (names.CHECK_CONTAINER, names.CAPTURE_CONTAINER)
    ]
    known = [outcome for outcome in outcomes if outcome is not None]
    for outcome in known:
        if outcome.reason is Reason.HIT:
            return names.RESULT_HIT, outcome
    last = known[-1] if known else Outcome(Reason.STOPPED, "our containers left no termination message")
    return (names.RESULT_STORED if last.reason is Reason.STORED else names.RESULT_SKIPPED), last


def _termination_outcome(message: object) -> Outcome | None:
    """The outcome in a termination message; None for anything else. A tenant may have written it."""
    try:
        said = json.loads(message) if isinstance(message, str) else None
        return (
            Outcome(Reason(said["reason"]), str(said.get("detail", ""))) if isinstance(said, dict) else None
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Later(NamedTuple):
    """Ask again after so many seconds."""

    seconds: float


class _Run(NamedTuple):
    """What matters of a Workflow that a step of it is over."""

    shut_down: bool
    gc: bool
    """Argo will delete its artifacts."""


class _Metadata(msgspec.Struct):
    uid: Any = None
    finalizers: Any = None


class _Spec(msgspec.Struct):
    shutdown: Any = None


class _Shown(msgspec.Struct):
    """Of a Workflow no more than is asked for at each step's end: all of it may be megabytes."""

    metadata: _Metadata
    spec: _Spec | None = None


@dataclass
class _Workflow:
    """A Workflow as it was read."""

    text: bytes

    @cached_property
    def shown(self) -> _Shown:
        return client.part(self.text, _Shown)

    @cached_property
    def whole(self) -> Json:
        return client.parsed(self.text)


class _Read(NamedTuple):
    begun: float
    read: "asyncio.Task[_Run | None]"

    @property
    def failed(self) -> bool:
        return self.read.done() and (self.read.cancelled() or self.read.exception() is not None)


class Capture:
    """Reads what a step reported and stores it; raises a kube.ApiError for what may go better later.

    `now` is aware, `clock` counts seconds. A `verifier` knows the artifacts' ETags.
    """

    def __init__(
        self,
        requests: Requests,
        store: Store,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        verifier: Verifier | None = None,
    ) -> None:
        self._verifier = verifier
        self._requests, self._results = requests, TaskResults(requests)
        self._store, self._now, self._clock = store, now, clock
        self._runs: TtlCache[Owner, _Read] = TtlCache(_MOST_REMEMBERED, clock)
        self._begun: dict[Owner, asyncio.Task[_Workflow | None]] = {}
        self._next: dict[Owner, asyncio.Task[_Workflow | None]] = {}

    async def run(self, pod: GatedStep, end: End, seen: float) -> Outcome | Later:
        """Store the outputs of a step whose Pod ended like this, or say why not.

        `seen`: since when it is known that the Pod is over, by the clock.
        """
        if end.failed is not None:
            return end.failed
        run = await self._run_of(pod.owner, seen)
        if isinstance(run, Later):
            return run
        if run is None:
            return Outcome(Reason.OUTPUTS_INCOMPLETE, "its Workflow is gone")
        if run.shut_down:
            return Outcome(Reason.STEP_FAILED, "its Workflow is shut down")
        result = await self._results.read(pod)
        if result is not None:
            outputs = reported(result, pod.declared)
        elif stored := await self._stored_before(pod):
            return stored
        else:  # the workflow ended before we came, and what is left of the step is in its status
            workflow = await self._workflow(pod.owner)
            outputs = taken_over(workflow.whole if workflow else {}, pod.step.node_id, pod.declared)
        if isinstance(outputs, Outcome):
            return outputs
        step, now = pod.step._replace(gc=pod.step.gc or run.gc), self._now()
        entry = new_entry(step, pod.declared, outputs, now, pod.name, end.took)
        if isinstance(entry, Outcome):
            return entry
        text = entry.dump()
        if self._verifier is not None and len(text) < LONG:
            text = (await self._verifier.with_etags(pod.namespace, entry)).dump()
        return await self._store.put(*pod.key, text, now)

    async def _stored_before(self, pod: GatedStep) -> Outcome | None:
        """Say that a keeper stored the outputs before, and ended; or why that is not known; None for no."""
        text = await self._store.read(*pod.key)
        if isinstance(text, Outcome):
            return text if text.reason in NOT_NOW else None
        try:
            entry = Entry.parse(text)
        except BrokenEntry:
            entry = None
        if entry is None or (entry.pod, entry.workflow) != (pod.name, pod.step.workflow):
            return None
        # After a retry of the workflow another Pod had this name.
        if entry.created is not None and entry.created >= pod.created_at.replace(microsecond=0):
            return Outcome(Reason.STORED, "before")
        return None

    async def _run_of(self, owner: Owner, seen: float) -> _Run | Later | None:
        """What a read of the Workflow says that began after `seen`; None where there is none of that uid.

        A Workflow may weigh megabytes, and a thousand of its steps may end at once.
        """
        last, now = self._runs.get(owner), self._clock()
        if last is None or ((last.begun < seen or last.failed) and now >= last.begun + GATHER):
            last = _Read(now, cost.create_task(self._read_run(owner)))
            self._runs.put(owner, last, _REMEMBERED)
        elif last.begun < seen or last.failed:
            return Later(last.begun + GATHER - now)
        return await asyncio.shield(last.read)

    async def _read_run(self, owner: Owner) -> _Run | None:
        workflow = await self._workflow(owner)
        if workflow is None:
            return None
        metadata, spec = workflow.shown.metadata, workflow.shown.spec or _Spec()
        gc = artifact_gc.told_by({"finalizers": metadata.finalizers}) is True
        return _Run(bool(spec.shutdown), gc)

    async def _workflow(self, owner: Owner) -> _Workflow | None:
        """The Workflow as it is after this call; None where there is none of that uid.

        A Workflow may weigh a megabyte: those who ask while it is being read share the next read.
        """
        task = self._next.get(owner)
        if task is None:
            before = self._begun.get(owner)
            task = self._next[owner] = cost.create_task(self._read_after(owner, before))
        return await asyncio.shield(task)

    async def _read_after(
        self, owner: Owner, before: asyncio.Task[_Workflow | None] | None
    ) -> _Workflow | None:
        if before is not None:
            await asyncio.wait([before])
        task = self._begun[owner] = self._next.pop(owner)
        try:
            text = await self._requests.read(paths.workflow(owner.namespace, owner.name))
        finally:
            if self._begun.get(owner) is task:
                del self._begun[owner]
        workflow = _Workflow(text) if text is not None else None
        return workflow if workflow and workflow.shown.metadata.uid == owner.uid else None


def _statuses(status: Json, kind: str) -> Iterable[Json]:
    found = status.get(kind)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _name(status: Json) -> str:
    return str(status.get("name", ""))


def _terminated(status: Json) -> Json:
    return mapping(mapping(status.get("state")).get("terminated"))


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
