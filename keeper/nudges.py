"""Nudges: has Argo's controller look at a workflow at once, one of whose steps was served from the cache.

The controller looks at a workflow DEFAULT_REQUEUE_TIME (10 s) after an event of a Pod or a result, but where
argo.version.TAKES_UPDATES_AT_ONCE at once after an update of the Workflow by somebody else. So one annotation
of ours is written on it, some milliseconds after a hit, for all hits until then.

A nudge is worth no harm and no wait to anybody, so it is left out wherever it might do any:

- Only a Workflow that runs is written to, which the patch itself asks for; and none in which a value could
  change with it (argo.annotation_uses).
- Not where the controller bounds how many workflows run at once (argo.parallelism), or may. There the
  throttler keeps a nudged workflow in the line of those that wait, and gives it the next place that comes
  free, which it does not need (multi_throttler.go, Add and queueThrottled, 3.5.14 to 3.7).
- Not soon after a hit whose outputs the controller may not have seen yet (SETTLE).
- A large Workflow is not read, and not written to: each nudge has the API server, its database and the
  controller write and read all of it.
- It has slots of its own, which it keeps until what it cost is paid for (LOOP_REST, BYTES_PER_SECOND), and
  each of its requests is sent only while the bucket of requests has one left. It is never sent again. A nudge
  that does not arrive costs what it costs without nudges: the controller looks later.

If the controller is at work on the workflow meanwhile, its own update meets a conflict, which it takes by
applying its changes to the Workflow as it is then, up to five times (reapplyUpdate in
workflow/controller/operator.go, 3.5 to 3.7). So one Workflow is nudged ten times a second at most, and a
large one less.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from argo import names as argo
from argo.annotation_uses import uses_annotations
from argo.parallelism import instance_id, limited_by
from argo.steppod import Owner
from keeper import paths
from keeper.requests import NothingLeftError, SpareRequests
from keeper.steppods import GatedStep
from kube import client
from kube.caching import CachedReads, TtlCache
from kube.cost import Cost, charge, metered
from kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unreadable,
)
from kube.fair_queue import FairQueue
from kube.jsonpatch import Op, add, test
from memoize import names
from server.lookups import Lookups

_log = logging.getLogger(__name__)

GATHER = 0.05
"""Seconds from a hit to the nudge that is for all hits until then."""
SETTLE = 2.0
"""Seconds from a hit that `needs_pause` to a nudge of its Workflow at least: three from its result. The
controller may learn of the Pod's end first, and looks for the outputs once."""
SPACING = 0.1
"""Seconds from one nudge of a Workflow to the next at least …"""
SPACING_BY_TIME = 10
"""… and that many times what the last one took: a large Workflow, or a slow API server, is nudged less."""
REQUESTS_TIMEOUT = 10.0
"""Seconds that a nudge waits for requests to be left: after the controller's own time it is of no use."""
MOST, MOST_OF_ONE = 5_000, 500
"""Workflows that are to be nudged, or are remembered, and those of one Namespace; some hundred bytes each."""
SLOTS = 4
"""Nudges under way; half as many of one Namespace."""
LARGEST = 128 << 10
"""Bytes of a Workflow as JSON: a larger one is not nudged."""
BYTES_PER_SECOND = 512 << 10
"""Of Workflows, for one slot: 2 MiB in all are 600 MiB between two compactions of etcd, whose default quota
is 2 GiB."""
LOOP_REST = 30.0
"""For how many times as long as it kept the event loop busy a nudge keeps its slot: a seventh of the loop is
theirs at most, and a fifteenth one Namespace's."""
KNOWN = 600.0
"""Seconds for which it is remembered what was found in a Workflow …"""
NOT_KNOWN = 1.0
"""… and that it cannot be told yet: it is read again then, since Argo's controller may be about to store
there what it has just begun; and each time twice as long."""
CONFIG_KNOWN = 60.0
"""Seconds for which it is remembered what a controller's ConfigMap says."""
REST = 5.0
"""Seconds without nudges in a Namespace for which the API server was in trouble …"""
SEVERAL = 3
"""… and in all, where it was so for so many of them …"""
REST_OF_A_NAMESPACE = 300.0
"""… and in a Namespace where we may not send them."""


class NudgeResult(StrEnum):
    """What became of a nudge; a label of a metric."""

    SENT = "sent"
    NOT_RUNNING = "not-running"
    """The Workflow is over, or gone."""
    ANNOTATIONS_USED = "annotations-used"
    """A value in it depends on its annotations."""
    NOT_SEEN = "template-not-seen"
    """One may: a template that it refers to has not begun, and so nobody has seen it."""
    TOO_LARGE = "too-large"
    PARALLELISM = "parallelism"
    """The controller bounds how many workflows run at once."""
    CONTROLLER_UNKNOWN = "controller-unknown"
    """Whether it does cannot be read, or it is none of those that are known."""
    CONFLICT = "conflict"
    FORBIDDEN = "forbidden"
    FAILED = "failed"
    """The API server could not be reached or was in trouble, now or in the last seconds."""
    DROPPED = "dropped"
    """Steps needed the requests, or too many nudges waited."""


class _Pending(NamedTuple):
    owner: Owner
    instance_id: str
    """Of the controller whose Workflow it is, "" for none."""
    due: float
    again: bool = False
    """It could not be told a moment ago whether the Workflow may be nudged."""


class _Known(NamedTuple):
    """What was found in a Workflow: why it is not to be nudged, if it is not."""

    result: NudgeResult | None
    until: float
    wait: float = KNOWN
    """Seconds from when it was read until then."""


_FOUND = {True: NudgeResult.ANNOTATIONS_USED, None: NudgeResult.NOT_SEEN, False: None}
"""By uses_annotations."""


class Nudges:
    """The nudges of one keeper, which are sent while `acts`.

    `controllers` are the ConfigMaps of Argo's controllers, by Namespace and name. `on_result` is told what
    became of each nudge. `clock` counts seconds, `now` is aware.
    """

    def __init__(
        self,
        requests: SpareRequests,
        lookups: Lookups,
        controllers: Sequence[tuple[str, str]],
        acts: Callable[[], bool],
        on_result: Callable[[NudgeResult], None],
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._requests, self._lookups, self._controllers = requests, lookups, controllers
        self._acts, self._on_result, self._clock, self._now = acts, on_result, clock, now
        self._queue = FairQueue(max(1, SLOTS // 2), clock)
        self._pending: dict[str, _Pending] = {}
        """By the Workflow's uid."""
        self._of_namespace: Counter[str] = Counter()
        self._known = TtlCache[Owner, _Known](MOST, clock, group=_namespace_of, most_of_one=MOST_OF_ONE)
        self._rests = TtlCache[Owner, float](MOST, clock, group=_namespace_of)
        """When the next nudge of a Workflow may go."""
        self._forbidden = TtlCache[str, bool](MOST, clock)
        """Namespaces."""
        self._in_trouble = TtlCache[str, bool](SEVERAL, clock)
        """Namespaces."""
        self._configs = CachedReads[tuple[str, str], tuple[NudgeResult | None, str | None]](
            lambda found: CONFIG_KNOWN, clock=clock
        )
        """Why not to nudge, and whose workflows are meant: the controller's instanceID."""
        self._said: dict[object, object] = {}
        """What the log was last told, by what of."""

    def on_hit(self, step: GatedStep) -> None:
        """A gated Pod has succeeded with an answer: nudge its Workflow soon, if that is of use."""
        owner = step.owner
        if not step.may_nudge:
            return
        if step.needs_pause:
            self._put_off(owner, SETTLE)
        if owner.uid in self._pending:
            return
        if len(self._pending) >= MOST or self._of_namespace[owner.namespace] >= MOST_OF_ONE:
            self._on_result(NudgeResult.DROPPED)
            return
        self._put(_Pending(owner, step.step.instance_id, self._clock() + GATHER))

    async def run(self) -> None:
        """Send them for ever."""
        slots = asyncio.Semaphore(SLOTS)
        async with asyncio.TaskGroup() as turns:
            while True:
                await slots.acquire()
                turns.create_task(self._take_turn(await self._queue.take(), slots))

    def _put(self, pending: _Pending) -> None:
        owner = pending.owner
        self._pending[owner.uid] = pending
        self._of_namespace[owner.namespace] += 1
        self._queue.add_later(owner.namespace, owner.uid, pending.due - self._clock())

    def _put_off(self, owner: Owner, seconds: float) -> None:
        until = self._clock() + seconds
        if until > (self._rests.get(owner) or 0.0):
            self._rests.put(owner, until, seconds)

    def _pop(self, uid: str) -> _Pending:
        pending = self._pending.pop(uid)
        owner = pending.owner
        self._of_namespace[owner.namespace] -= 1
        if not self._of_namespace[owner.namespace]:
            del self._of_namespace[owner.namespace]
        return pending

    async def _take_turn(self, uid: str, slots: asyncio.Semaphore) -> None:
        cost = Cost()
        try:
            try:
                await metered(cost, self._nudge(uid, cost), self._clock)
            except Exception:
                _log.exception("cannot nudge a Workflow")
                self._on_result(NudgeResult.FAILED)
            await asyncio.sleep(
                min(REQUESTS_TIMEOUT, max(cost.seconds * LOOP_REST, cost.bytes / BYTES_PER_SECOND))
            )
        finally:
            self._queue.done(uid, cost.total)
            slots.release()

    async def _nudge(self, uid: str, cost: Cost) -> None:
        # 1. Whoever waits in the queue meanwhile waits for the same.
        late = self._pending[uid].due + REQUESTS_TIMEOUT
        while True:
            if self._requests.has_left or self._clock() >= late:
                break
            await asyncio.sleep(GATHER)
        # 2. Hits from here on ask for another one.
        pending = self._pop(uid)
        owner = pending.owner
        if not self._acts():
            return
        if self._clock() >= late:
            self._on_result(NudgeResult.DROPPED)
            return
        # 3. Send it, or put it back.
        try:
            result = await self._why_not(pending)
            if result is None and (rest := self._rests.get(owner)) is not None:
                pending = pending._replace(due=rest)
            elif result is NudgeResult.NOT_SEEN and not pending.again and (again := self._seen_at(owner)):
                pending = pending._replace(due=again, again=True)
            else:
                self._on_result(result or await self._send(owner, cost))
                return
        except NothingLeftError:
            pass  # it is put back, to be late when it would have been
        except ApiError as error:
            self._on_result(self._failed(owner, error))
            return
        if uid not in self._pending:
            self._put(pending)

    def _seen_at(self, owner: Owner) -> float | None:
        """When the Workflow may be read again; None where a nudge would be of no use any more then."""
        known = self._known.get(owner)
        return known.until if known and known.wait < REQUESTS_TIMEOUT else None

    async def _why_not(self, pending: _Pending) -> NudgeResult | None:
        """Why this Workflow is not to be nudged, if it is not."""
        owner = pending.owner
        if self._in_trouble.get(owner.namespace) or len(self._in_trouble.values()) >= SEVERAL:
            return NudgeResult.FAILED
        if self._forbidden.get(owner.namespace):
            return NudgeResult.FORBIDDEN
        labels = await self._lookups.namespace_labels(owner.namespace)
        if labels is None:
            return NudgeResult.CONTROLLER_UNKNOWN
        if argo.PARALLELISM_LIMIT in labels:
            return NudgeResult.PARALLELISM
        is_known = False
        for controller in self._controllers:
            result, whose = await self._configs.get(controller, partial(self._read_config, controller))
            if result is not None:
                return result
            is_known |= whose == pending.instance_id
        if not is_known:
            return NudgeResult.CONTROLLER_UNKNOWN
        known = self._known.get(owner)
        if known is None or known.until <= self._clock():
            text = await self._requests.read(_path(owner), LARGEST)
            workflow = None if text is None else client.parsed(text)
            if workflow is None or workflow["metadata"].get("uid") != owner.uid:
                return NudgeResult.NOT_RUNNING
            known = self._remember(owner, _FOUND[uses_annotations(workflow)], known)
        return known.result

    def _remember(self, owner: Owner, result: NudgeResult | None, before: _Known | None = None) -> _Known:
        wait = KNOWN
        if result is NudgeResult.NOT_SEEN:
            wait = min(2 * before.wait, KNOWN) if before else NOT_KNOWN
        known = _Known(result, self._clock() + wait, wait)
        self._known.put(owner, known, 2 * wait)
        return known

    async def _read_config(self, controller: tuple[str, str]) -> tuple[NudgeResult | None, str | None]:
        namespace, name = controller
        problem, result = "there is no such ConfigMap", NudgeResult.CONTROLLER_UNKNOWN
        try:
            found = await self._requests.get(paths.config_map(namespace, name))
        except ApiError as error:
            found, problem = None, str(error)
        if found is not None:
            if not limited_by(found):
                self._say(controller)
                return None, instance_id(found)
            problem, result = "it bounds how many workflows run at once", NudgeResult.PARALLELISM
        self._say(controller, result, f"no Workflow is nudged: the ConfigMap {namespace}/{name}: {problem}")
        return result, None

    async def _send(self, owner: Owner, cost: Cost) -> NudgeResult:
        begun, before = self._clock(), cost.bytes
        try:
            # The whole Workflow is asked for: its size is what the nudge cost.
            await self._requests.send(
                "PATCH", _path(owner), self._patch(owner), client.JSON_PATCH, client.JSON
            )
        finally:
            took = self._clock() - begun
            self._put_off(owner, max(SPACING, SPACING_BY_TIME * took) - took)
        if cost.bytes - before > LARGEST:
            self._remember(owner, NudgeResult.TOO_LARGE)
        self._say(owner.namespace)
        return NudgeResult.SENT

    def _patch(self, owner: Owner) -> list[Op]:
        """One key of the annotations, which Argo's controller always leaves some of on what runs.

        Not a merge-patch: that could ask neither for the uid nor that the Workflow runs still.
        """
        return [
            test(("metadata", "uid"), owner.uid),
            test(("metadata", "labels", argo.PHASE), argo.RUNNING),
            add(("metadata", "annotations", names.NUDGED), self._now().isoformat(timespec="milliseconds")),
        ]

    def _failed(self, owner: Owner, error: ApiError) -> NudgeResult:
        """What a request that failed comes to: it is not sent again."""
        match error:
            case NotFound() | Invalid():
                return NudgeResult.NOT_RUNNING
            case Conflict():
                return NudgeResult.CONFLICT
            case Forbidden():
                self._forbidden.put(owner.namespace, True, REST_OF_A_NAMESPACE)
                self._say(
                    owner.namespace, error.status, f"no Workflow is nudged in {owner.namespace}: {error}"
                )
                return NudgeResult.FORBIDDEN
            case TooLarge():
                charge(bytes=LARGEST)
                self._remember(owner, NudgeResult.TOO_LARGE)
                return NudgeResult.TOO_LARGE
            case Unreadable():  # a tenant made it, and it will not become another one
                self._remember(owner, NudgeResult.ANNOTATIONS_USED)
            case TooManyRequests() | Unavailable():
                self._in_trouble.put(owner.namespace, True, REST)
        return NudgeResult.FAILED

    def _say(self, what: object, how: object = None, text: str = "") -> None:
        """Log what keeps nudges from being sent, once until it changes; `how` is None where nothing does."""
        if how is None:
            self._said.pop(what, None)
        elif self._said.get(what) != how:
            self._said[what] = how
            _log.warning("%s", text)


def _namespace_of(owner: Owner) -> str:
    return owner.namespace


def _path(owner: Owner) -> str:
    return paths.workflow(owner.namespace, owner.name)
