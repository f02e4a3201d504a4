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
- It has slots of its own, and is sent only while the bucket of requests has some left; it is never sent
  again. A nudge that does not arrive costs what it costs without nudges: the controller looks later.

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
from argo.parallelism import limited_by
from argo.steppod import Owner
from keeper import paths
from keeper.requests import Requests
from keeper.steppods import GatedStep
from kube import client
from kube.caching import CachedReads, TtlCache
from kube.cost import Cost, metered
from kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
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
SPACING = 0.1
"""Seconds from one nudge of a Workflow to the next at least …"""
SPACING_BY_TIME = 10
"""… and that many times what the last one took: a large Workflow, or a slow API server, is nudged less."""
PATIENCE = 10.0
"""Seconds that a nudge waits for requests to be left: after the controller's own time it is of no use."""
MOST, MOST_OF_ONE = 5_000, 500
"""Workflows that are to be nudged, or are remembered, and those of one Namespace; some hundred bytes each."""
SLOTS = 4
"""Nudges under way; half as many of one Namespace."""
KNOWN = 600.0
"""Seconds for which it is remembered whether a value of a Workflow depends on annotations …"""
NOT_KNOWN = 1.0
"""… and that it cannot be told yet: the Workflow, which may weigh a megabyte, is read again then, since
Argo's controller may be about to store there what it has just begun."""
CONFIG_KNOWN = 60.0
"""Seconds for which it is remembered what a controller's ConfigMap says."""
REST = 5.0
"""Seconds without nudges after an API server that was in trouble …"""
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
    PARALLELISM = "parallelism"
    """The controller bounds how many workflows run at once."""
    CONTROLLER_UNKNOWN = "controller-unknown"
    """Whether it does cannot be read."""
    CONFLICT = "conflict"
    FORBIDDEN = "forbidden"
    FAILED = "failed"
    """The API server could not be reached or was in trouble, now or in the last seconds."""
    DROPPED = "dropped"
    """Steps needed the requests, or too many nudges waited."""


class _Pending(NamedTuple):
    owner: Owner
    due: float
    again: bool = False
    """It could not be told a moment ago whether the Workflow may be nudged."""


class Nudges:
    """The nudges of one keeper, which are sent while `acts`.

    `controllers` are the ConfigMaps of Argo's controllers, by Namespace and name. `on_result` is told what
    became of each nudge. `clock` counts seconds, `now` is aware.
    """

    def __init__(
        self,
        requests: Requests,
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
        self._uses = TtlCache[Owner, tuple[bool | None]](
            MOST, clock, group=_namespace_of, most_of_one=MOST_OF_ONE
        )
        self._rests = TtlCache[Owner, float](MOST, clock, group=_namespace_of, most_of_one=MOST_OF_ONE)
        """When the next nudge of a Workflow may go."""
        self._forbidden = TtlCache[str, bool](MOST, clock)
        """Namespaces."""
        self._configs = CachedReads[tuple[str, str], NudgeResult | None](
            lambda found: CONFIG_KNOWN, clock=clock
        )
        self._in_trouble_until = clock()
        self._said: dict[object, object] = {}
        """What the log was last told, by what of."""

    def on_hit(self, step: GatedStep) -> None:
        """A gated Pod has succeeded with an answer: nudge its Workflow soon, if that is of use."""
        owner = step.owner
        if not step.may_nudge or owner.uid in self._pending:
            return
        if len(self._pending) >= MOST or self._of_namespace[owner.namespace] >= MOST_OF_ONE:
            self._on_result(NudgeResult.DROPPED)
            return
        self._put(_Pending(owner, self._clock() + GATHER))

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
            await metered(cost, self._nudge(uid), self._clock)
        except Exception:
            _log.exception("cannot nudge a Workflow")
            self._on_result(NudgeResult.FAILED)
        finally:
            self._queue.done(uid, cost.total)
            slots.release()

    async def _nudge(self, uid: str) -> None:
        # 1. Whoever waits in the queue meanwhile waits for the same.
        late = self._pending[uid].due + PATIENCE
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
        if (rest := self._rests.get(owner)) is not None:
            self._put(pending._replace(due=rest))
            return
        # 3. Send it.
        try:
            result = await self._why_not(owner) or await self._send(owner)
        except ApiError as error:
            result = self._failed(owner, error)
        if result is not NudgeResult.NOT_SEEN or pending.again:
            self._on_result(result)
        elif uid not in self._pending:
            self._put(_Pending(owner, self._clock() + NOT_KNOWN, again=True))

    async def _why_not(self, owner: Owner) -> NudgeResult | None:
        """Why this Workflow is not to be nudged, if it is not."""
        if self._clock() < self._in_trouble_until:
            return NudgeResult.FAILED
        if self._forbidden.get(owner.namespace):
            return NudgeResult.FORBIDDEN
        labels = await self._lookups.namespace_labels(owner.namespace)
        if labels is None:
            return NudgeResult.CONTROLLER_UNKNOWN
        if argo.PARALLELISM_LIMIT in labels:
            return NudgeResult.PARALLELISM
        for controller in self._controllers:
            if result := await self._configs.get(controller, partial(self._read_config, controller)):
                return result
        if (known := self._uses.get(owner)) is None:
            workflow = await self._requests.get(_path(owner))
            if workflow is None or workflow["metadata"].get("uid") != owner.uid:
                return NudgeResult.NOT_RUNNING
            known = (uses_annotations(workflow),)
            self._uses.put(owner, known, NOT_KNOWN if known[0] is None else KNOWN)
        match known[0]:
            case False:
                return None
            case None:
                return NudgeResult.NOT_SEEN
        return NudgeResult.ANNOTATIONS_USED

    async def _read_config(self, controller: tuple[str, str]) -> NudgeResult | None:
        namespace, name = controller
        problem, result = "there is no such ConfigMap", NudgeResult.CONTROLLER_UNKNOWN
        try:
            found = await self._requests.get(paths.config_map(namespace, name))
        except ApiError as error:
            found, problem = None, str(error)
        if found is not None:
            if not limited_by(found):
                self._say(controller)
                return None
            problem, result = "it bounds how many workflows run at once", NudgeResult.PARALLELISM
        self._say(controller, result, f"no Workflow is nudged: the ConfigMap {namespace}/{name}: {problem}")
        return result

    async def _send(self, owner: Owner) -> NudgeResult:
        begun = self._clock()
        try:
            await self._requests.send("PATCH", _path(owner), self._patch(owner), client.JSON_PATCH)
        finally:
            rest = max(SPACING, SPACING_BY_TIME * (self._clock() - begun))
            self._rests.put(owner, begun + rest, rest)
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
            case Unreadable():  # a tenant made it, and it will not become another one
                self._uses.put(owner, (True,), KNOWN)
            case TooManyRequests() | Unavailable():
                self._in_trouble_until = self._clock() + REST
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
