"""What is done to a gated Pod: its result is posted, its status written, its gate taken away, its label set.

Each action may be repeated after any of its requests, by this process or another: it carries preconditions
(the Pod's uid and version, the result's version, the annotation that says for which Pod we posted it), and
where the API server refuses one of them it reads again. Whatever else goes wrong is raised (kube.ApiError),
for the keeper to try later.

No step may run beside an answer of ours. A result is taken back only in the version that we alone have
written: before its Pod's gate goes, or where the status could not be written since the gate had gone. What
the step itself reported since makes another version.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import TypeVar

from keeper import patches, paths, steppods
from keeper.patches import PatchRequest
from keeper.requests import Requests
from keeper.steppods import GatedStep, ObservedPod, Phase
from keeper.task_results import PostedResult, TaskResults, posted_result
from kube.errors import ApiError, Conflict
from memoize import configmap, names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.taskresult import completed, placeholder_for, posted_by_us

_MAX_READS = 5
"""Reads of one object that somebody else keeps changing, before the keeper is left to try later."""
_CHANGED = (404, 409, 422)
"""How a precondition fails: no such Pod, another resourceVersion or uid, the test of a JSON patch."""
_REFUSED_CONTENT = (400, 403, 413, 422)
"""How an API server, or a webhook or policy of somebody's, refuses what a request would make of a Pod."""
_REFUSED_OUTPUTS = (400, 413, 422)

T = TypeVar("T")


class ActionResult(Enum):
    """How an action on a Pod ended."""

    DONE = "done"
    """As it was to be, now or before."""
    POD_GONE = "pod gone"
    """The Pod is not there any more, or about to go."""
    NOT_GATED = "not gated"
    """The Pod is not gated any more, or not for a keeper: somebody else let it run."""
    ANSWERED = "answered"
    """The Pod has succeeded with an answer."""
    CHANGED = "changed"
    """The Pod is gated, and not to be answered as it was to be: it is to run, or is another step."""


class KeepsChangingError(Conflict):
    """Others changed the object as often as it was read."""


class Actions:
    """What the keeper does to Pods and their results."""

    def __init__(self, requests: Requests, now: Callable[[], datetime]) -> None:
        self._requests, self._results, self._now = requests, TaskResults(requests), now

    async def post(self, pod: GatedStep, entry: Entry) -> PostedResult | Outcome | ActionResult:
        """Create the Pod's result with the outputs of the entry.

        An Outcome says why it cannot be answered with it, an ActionResult that it is not gated any more.
        """

        async def attempt(_: ObservedPod) -> PostedResult | Outcome | ActionResult | ObservedPod:
            # 1. Create it.
            try:
                return await self._results.answer(pod, entry.outputs)
            except ApiError as error:
                if error.status in _REFUSED_OUTPUTS:
                    return Outcome(Reason.BROKEN_ENTRY, f"its outputs are refused: {error.status}")
                if not isinstance(error, Conflict):
                    raise
            # 2. There is one: whose?
            found = await self._results.read(pod)
            if found is None:
                return pod
            posted_for = posted_by_us(found)
            if posted_for == pod.uid and completed(found):
                # Read before the Pod: if that is gated then, what was read is not the step's.
                gated = await self._read_gated(pod)
                return gated if isinstance(gated, ActionResult) else posted_result(found)
            if not posted_for:
                return Outcome(Reason.UNDECIDED, "the node has a result already")
            # 3. Of an earlier Pod of this node, which is gone: its controller wants another answer.
            await self._results.delete(pod, posted_result(found))
            return pod

        return await _read_again(pod, attempt)

    async def finish(self, pod: GatedStep, entry: Entry, answer: PostedResult) -> ActionResult:
        """Write the Pod's status; where it is not gated any more, take our result back.

        After CHANGED the result is there still: whoever releases the Pod takes it back.
        """

        async def attempt(seen: ObservedPod) -> ActionResult | ObservedPod:
            if not isinstance(seen, GatedStep) or seen.release_reason or not pod.is_same_step(seen):
                return ActionResult.CHANGED
            requests = patches.complete(seen, entry, self._now())
            return await self._patch(f"{_path(pod)}/status", requests, seen, self._read_gated)

        ended = await _read_again(pod, attempt)
        if ended in (ActionResult.NOT_GATED, ActionResult.POD_GONE):
            await self._results.delete(pod, answer)
        return ActionResult.DONE if ended is ActionResult.ANSWERED else ended

    async def withdraw(self, pod: GatedStep, answer: PostedResult) -> None:
        """Take our result back if the Pod is gone, or is not gated, without being answered with it."""
        if await self._read_gated(pod) in (ActionResult.NOT_GATED, ActionResult.POD_GONE):
            await self._results.delete(pod, answer)

    async def release(
        self,
        pod: ObservedPod,
        label: str,
        reason: Outcome,
        *,
        result_may_exist: bool,
        valid: GatedStep | None = None,
    ) -> ActionResult:
        """Let the Pod run. `valid` is what it was when it could be decided, if it cannot be any more.

        No answer may be beside it then, of this Pod or of an earlier one of its node, which was deleted: so
        the result is read each time. That costs a step that runs one more request; memory of earlier Pods
        would not, but another keeper may have posted, or may be about to, whatever this one has seen. Where
        an API server lets nobody write on the Pod that it is to run, it lets nobody write an answer on it
        either: the gate goes all the same.
        """

        async def attempt(seen: ObservedPod) -> ActionResult | ObservedPod:
            step = seen if isinstance(seen, GatedStep) else valid or seen
            if result_may_exist or await self._is_answered(step):
                # 1. Say on the Pod that it is to run: nobody can finish it after that.
                if (ended := await self._announce(seen, reason)) is not ActionResult.DONE:
                    return ended
                # 2. Take the answer back, or keep it out.
                if (ended := await self._retract(step)) is not ActionResult.DONE:
                    return ended
            # 3. The gate goes last.
            return await self._patch(_path(pod), patches.release(seen, label, reason), seen, self._read_gated)

        ended = await _read_again(pod, attempt)
        if ended is ActionResult.POD_GONE:
            await self._clear(valid or pod)
        return ActionResult.NOT_GATED if ended is ActionResult.ANSWERED else ended

    async def _announce(self, seen: ObservedPod, reason: Outcome) -> ActionResult | ObservedPod:
        """Write on a gated Pod that it is to run, if the API server takes that; see `_patch`."""
        try:
            return await self._patch(
                _path(seen), patches.announce_release(seen, reason), seen, self._read_gated
            )
        except ApiError as error:
            if not _is_refused(error):
                raise
            return ActionResult.DONE

    async def close(self, pod: ObservedPod) -> None:
        """The Pod is over. If it reported nothing into the result that kept answers out, have Argo go on.

        A workflow is not over as long as one of its results is incomplete (markWorkflowPhase in
        workflow/controller/operator.go) and that Pod is there; for ten minutes at most where
        argo.version.GIVES_INCOMPLETE_RESULTS_UP.
        """

        async def attempt(_: ObservedPod) -> ObservedPod | None:
            found = await self._results.read(pod)
            if found is None or placeholder_for(found) != pod.uid or completed(found):
                return None
            fresh = await self._requests.get(_path(pod))
            if fresh is None or fresh["metadata"].get("uid") != pod.uid:
                return None  # the node's next Pod may be reporting into it
            return None if await self._results.close(pod, posted_result(found)) else pod

        await _read_again(pod, attempt)

    async def label(self, pod: ObservedPod, label: str, outcome: Outcome) -> None:
        """Write how the step's memoization ended on its Pod, which is over."""

        async def attempt(seen: ObservedPod) -> ActionResult | ObservedPod:
            return await self._patch(
                _path(pod), patches.final_label(seen, label, outcome), seen, self._read_observed
            )

        await _read_again(pod, attempt)

    async def _patch(
        self,
        path: str,
        requests: Sequence[PatchRequest],
        seen: ObservedPod,
        read: Callable[[ObservedPod], Awaitable[ObservedPod | ActionResult]],
    ) -> ObservedPod | ActionResult:
        """Send the first of the requests that the API server takes.

        Instead of DONE, the Pod as it is by now, or how it ended, if it is not what it was when it was read.
        If it is, a request was refused for what is in it, and the next one has less; the last refusal is
        raised.
        """
        for number, (body, content_type) in enumerate(requests, start=1):
            try:
                await self._requests.send("PATCH", path, body, content_type)
            except ApiError as error:
                if not _is_refused(error):
                    raise
                now = await read(seen)
                if now != seen:
                    return now
                if number == len(requests):
                    raise
            else:
                break
        return ActionResult.DONE

    async def _read_observed(self, pod: ObservedPod) -> ObservedPod | ActionResult:
        """The Pod as it is now; POD_GONE where it does not have our label any more."""
        fresh = await self._requests.get(_path(pod))
        found = steppods.read(fresh) if fresh is not None else None
        return found if found is not None and found.uid == pod.uid else ActionResult.POD_GONE

    async def _read_gated(self, pod: ObservedPod) -> ObservedPod | ActionResult:
        """The Pod as it is now, whatever it shows, if it is gated for a keeper; else how that ended."""
        fresh = await self._requests.get(_path(pod))
        if fresh is None or (fresh.get("metadata") or {}).get("uid") != pod.uid:
            return ActionResult.POD_GONE
        found = steppods.read(fresh)
        if found is not None and found.phase is Phase.GATED:
            return ActionResult.POD_GONE if found.deleting else found
        labels = fresh["metadata"].get("labels") or {}
        answered = labels.get(names.RESULT) == names.RESULT_HIT
        return ActionResult.ANSWERED if answered else ActionResult.NOT_GATED

    async def _is_answered(self, pod: ObservedPod) -> bool:
        found = await self._results.read(pod)
        return found is not None and _is_ours(posted_by_us(found), pod)

    async def _retract(self, pod: ObservedPod) -> ActionResult:
        """Take back what we posted for the Pod, or keep it from getting there.

        Where no result is, an empty one takes its place, so that a POST of ours that is still on its way
        meets a conflict; Argo's own containers report into it as readily as they create one. Where one is,
        that POST has arrived. The result is read before the Pod: if that is gated then, what was read is not
        the step's.
        """

        async def attempt(_: ObservedPod) -> ActionResult | ObservedPod:
            found = await self._results.read(pod)
            if found is None:
                reserved = not isinstance(pod, GatedStep) or await self._results.reserve(pod)
                return ActionResult.DONE if reserved else pod
            if not _is_ours(posted_by_us(found), pod):
                return ActionResult.DONE
            gated = await self._read_gated(pod)
            if isinstance(gated, ActionResult):
                return gated
            return ActionResult.DONE if await self._results.delete(pod, posted_result(found)) else pod

        return await _read_again(pod, attempt)

    async def _clear(self, pod: ObservedPod) -> None:
        """The Pod is gone: leave no answer of it to the next one of its node."""
        found = await self._results.read(pod)
        if found is not None and posted_by_us(found) == pod.uid:
            await self._results.delete(pod, posted_result(found))


async def _read_again(pod: ObservedPod, attempt: Callable[[ObservedPod], Awaitable[ObservedPod | T]]) -> T:
    """What `attempt` comes to: where it returns a Pod instead, it is made once more on the Pod as it is now.

    Raises KeepsChangingError.
    """
    for _ in range(_MAX_READS):
        ended = await attempt(pod)
        if not isinstance(ended, ObservedPod):
            return ended
        pod = ended
    raise KeepsChangingError("the Pod, or its result, keeps changing")


def _is_ours(posted_for: str, pod: ObservedPod) -> bool:
    """Whether a result is an answer for this Pod, or for an earlier one of the node that it proves to be."""
    return posted_for == pod.uid or (bool(posted_for) and isinstance(pod, GatedStep))


def _is_refused(error: ApiError) -> bool:
    """Whether the API server refuses what it was asked for, rather than cannot do it."""
    too_large = configmap.too_large(error.status, error.causes, error.message)
    return error.status in (*_CHANGED, *_REFUSED_CONTENT) or too_large


def _path(pod: ObservedPod) -> str:
    return paths.pod(pod.namespace, pod.name)
