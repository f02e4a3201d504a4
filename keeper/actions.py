"""What is done to a held Pod: its result is posted, its status written, its gate taken away, its label set.

Each action may be repeated after any of its requests, by this process or another: it carries preconditions
(the Pod's uid and version, the result's version, the annotation that says for which Pod we posted it), and
where the API server refuses one of them it looks again. Whatever else goes wrong is raised (kube.ApiError),
for the keeper to try later.

No step may run beside an answer of ours. A result is taken back only in the version that we alone have
written: before its Pod's gate goes, or where the status could not be written since the gate had gone. What
the step itself reported since makes another version.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from urllib.parse import quote

from keeper import patches, steppods
from keeper.patches import Request
from keeper.requests import Requests
from keeper.steppods import GatedStep, ObservedPod, Phase
from keeper.task_results import Posted, Results, posted
from kube.errors import ApiError, Conflict
from memoize import configmap, names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.taskresult import completed, kept_out, posted_by_us

_TRIES = 5
"""Looks at one object that somebody else keeps changing, before the keeper is left to try later."""
_LOOK_AGAIN = (404, 409, 422)
"""How a precondition fails: no such Pod, another resourceVersion or uid, the test of a JSON patch."""
_REFUSED_CONTENT = (400, 403, 413, 422)
"""How an API server, or a webhook or policy of somebody's, refuses what a request would make of a Pod."""
_REFUSED_OUTPUTS = (400, 413, 422)


class ActionResult(Enum):
    """How an action on a Pod ended."""

    DONE = "done"
    """As it was to be, now or before."""
    POD_GONE = "pod gone"
    """The Pod is not there any more, or about to go."""
    NOT_GATED = "not gated"
    """The Pod is not held any more, or not for a keeper: somebody else let it run, or answered it."""
    CHANGED = "changed"
    """The Pod is held, and not to be answered as it was to be: it was told to run, or is another step."""


class KeepsChangingError(Conflict):
    """Others changed the object as often as it was looked at."""


class Actions:
    """What the keeper does to Pods and their results."""

    def __init__(self, requests: Requests, now: Callable[[], datetime]) -> None:
        self._requests, self._results, self._now = requests, Results(requests), now

    async def post(self, pod: GatedStep, entry: Entry) -> Posted | Outcome | ActionResult:
        """Create the Pod's result with the outputs of the entry.

        An Outcome says why it cannot be answered with it, an Ended that it is not held any more.
        """
        for _ in range(_TRIES):
            try:
                return await self._results.answer(pod, entry.outputs)
            except ApiError as error:
                if error.status in _REFUSED_OUTPUTS:
                    return Outcome(Reason.BROKEN_ENTRY, f"its outputs are refused: {error.status}")
                if not isinstance(error, Conflict):
                    raise
            found = await self._results.read(pod)
            if found is None:
                continue
            posted_for = posted_by_us(found)
            if posted_for == pod.uid and completed(found):
                # Read before the Pod: if that is held then, what was read is not the step's.
                held = await self._held(pod)
                return held if isinstance(held, ActionResult) else posted(found)
            if not posted_for:
                return Outcome(Reason.UNDECIDED, "the node has a result already")
            # Of an earlier Pod of this node, which is gone: its controller wants another answer.
            await self._results.delete(pod, posted(found))
        raise KeepsChangingError("the result keeps changing")

    async def finish(self, pod: GatedStep, entry: Entry, answer: Posted) -> ActionResult:
        """Write the Pod's status; where it is not held any more, take our result back.

        After CHANGED the result is there still: whoever releases the Pod takes it back.
        """
        held: ObservedPod | ActionResult = pod
        for _ in range(_TRIES):
            if isinstance(held, ActionResult):
                if held is not ActionResult.DONE:
                    await self._results.delete(pod, answer)
                return held
            if not isinstance(held, GatedStep) or held.told or (held.key, held.step) != (pod.key, pod.step):
                return ActionResult.CHANGED
            requests = patches.complete(held, entry, self._now())
            again = await self._patch(f"{_path(pod)}/status", requests, held, self._held)
            if again is None:
                return ActionResult.DONE
            held = again
        raise KeepsChangingError("the Pod keeps changing")

    async def withdraw(self, pod: GatedStep, answer: Posted) -> None:
        """Take our result back if the Pod is gone, or has left the hold, without being answered with it."""
        if await self._held(pod) in (ActionResult.NOT_GATED, ActionResult.POD_GONE):
            await self._results.delete(pod, answer)

    async def release(
        self,
        pod: ObservedPod,
        label: str,
        outcome: Outcome,
        *,
        doubtful: bool,
        known: GatedStep | None = None,
    ) -> ActionResult:
        """Let the Pod run. `known` is what it was when it could be decided, if it cannot be any more.

        No answer may be beside it then, of this Pod or of an earlier one of its node, which was deleted: so
        the result is looked at each time. That costs a step that runs one more request; memory of earlier
        Pods would not, but a keeper that starts anew has none. Where there is an answer, or one may be on its
        way (`doubtful`), the Pod is told first that it is to run, which nobody can finish after that; the
        answer is taken back or kept out next; the gate goes last. Where an API server lets nobody write that
        word on the Pod, it lets nobody write the word of an answer either: the gate goes all the same.
        """
        held: ObservedPod | ActionResult = pod
        for _ in range(_TRIES):
            if held is ActionResult.POD_GONE:
                await self._clear(known or pod)
            if isinstance(held, ActionResult):
                return ActionResult.NOT_GATED if held is ActionResult.DONE else held
            of = held if isinstance(held, GatedStep) else known or held
            again: ObservedPod | ActionResult | None = None
            if doubtful or await self._is_answered(of):
                again = await self._tell(pod, held, outcome) or await self._retract(of)
            if again is None:
                requests = patches.release(held, label, outcome)
                again = await self._patch(_path(pod), requests, held, self._held)
            if again is None:
                return ActionResult.DONE
            held = again
        raise KeepsChangingError("the Pod keeps changing")

    async def _tell(
        self, pod: ObservedPod, held: ObservedPod, outcome: Outcome
    ) -> ObservedPod | ActionResult | None:
        """Write on a held Pod that it is to run, if the API server takes that; see `_patch`."""
        try:
            return await self._patch(_path(pod), patches.tell(held, outcome), held, self._held)
        except ApiError as error:
            if not _is_refused(error):
                raise
            return None

    async def close(self, pod: ObservedPod) -> None:
        """The Pod is over. If it reported nothing into the result that kept answers out, have Argo go on.

        A workflow is not over as long as one of its results is incomplete (markWorkflowPhase in
        workflow/controller/operator.go) and that Pod is there; for ten minutes at most where
        argo.version.GIVES_INCOMPLETE_RESULTS_UP.
        """
        for _ in range(_TRIES):
            found = await self._results.read(pod)
            if found is None or kept_out(found) != pod.uid or completed(found):
                return
            fresh = await self._requests.get(_path(pod))
            if fresh is None or fresh["metadata"].get("uid") != pod.uid:
                return  # the node's next Pod may be reporting into it
            if await self._results.close(pod, posted(found)):
                return
        raise KeepsChangingError("the result keeps changing")

    async def mark(self, pod: ObservedPod, label: str, outcome: Outcome) -> None:
        """Write how the step's memoization ended on its Pod, which is over."""
        for _ in range(_TRIES):
            again = await self._patch(_path(pod), patches.outcome(pod, label, outcome), pod, self._read)
            if not isinstance(again, ObservedPod):
                return
            pod = again
        raise KeepsChangingError("the Pod keeps changing")

    async def _patch(
        self,
        path: str,
        requests: Sequence[Request],
        pod: ObservedPod,
        look: Callable[[ObservedPod], Awaitable[ObservedPod | ActionResult]],
    ) -> ObservedPod | ActionResult | None:
        """Send the first of the requests that the API server takes; None: it is done.

        Otherwise the Pod, or how it ended, if it is not what it was when it was looked at. If it is, a
        request was refused for what is in it, and the next one has less; the last refusal is raised.
        """
        for number, (body, content_type) in enumerate(requests, start=1):
            try:
                await self._requests.send("PATCH", path, body, content_type)
                return None
            except ApiError as error:
                if not _is_refused(error):
                    raise
                again = await look(pod)
                if again != pod:
                    return again
                if number == len(requests):
                    raise
        return None

    async def _read(self, pod: ObservedPod) -> ObservedPod | ActionResult:
        """The Pod as it is now; GONE where it is not tended any more."""
        fresh = await self._requests.get(_path(pod))
        found = steppods.read(fresh) if fresh is not None else None
        return found if found is not None and found.uid == pod.uid else ActionResult.POD_GONE

    async def _held(self, pod: ObservedPod) -> ObservedPod | ActionResult:
        """The Pod as it is now, whatever it shows, if it is held for a keeper; else how that ended."""
        fresh = await self._requests.get(_path(pod))
        if fresh is None or (fresh.get("metadata") or {}).get("uid") != pod.uid:
            return ActionResult.POD_GONE
        found = steppods.read(fresh)
        if found is not None and found.phase is Phase.GATED:
            return ActionResult.POD_GONE if found.deleting else found
        labels = fresh["metadata"].get("labels") or {}
        return ActionResult.DONE if labels.get(names.RESULT) == names.RESULT_HIT else ActionResult.NOT_GATED

    async def _is_answered(self, pod: ObservedPod) -> bool:
        found = await self._results.read(pod)
        return found is not None and _is_ours(posted_by_us(found), pod)

    async def _retract(self, pod: ObservedPod) -> ActionResult | None:
        """Take back what we posted for the Pod, or keep it from getting there; None: that is done.

        Where no result is, an empty one takes its place, so that a POST of ours that is still on its way
        meets a conflict; Argo's own containers report into it as readily as they create one. Where one is,
        that POST has arrived. The result is read before the Pod: if that is held then, what was read is not
        the step's.
        """
        for _ in range(_TRIES):
            found = await self._results.read(pod)
            if found is None:
                if not isinstance(pod, GatedStep) or await self._results.keep_out(pod):
                    return None
                continue
            if not _is_ours(posted_by_us(found), pod):
                return None
            held = await self._held(pod)
            if isinstance(held, ActionResult):
                return held
            if await self._results.delete(pod, posted(found)):
                return None
        raise KeepsChangingError("the result keeps changing")

    async def _clear(self, pod: ObservedPod) -> None:
        """The Pod is gone: leave no answer of it to the next one of its node."""
        found = await self._results.read(pod)
        if found is not None and posted_by_us(found) == pod.uid:
            await self._results.delete(pod, posted(found))


def _is_ours(posted_for: str, pod: ObservedPod) -> bool:
    """Whether a result is an answer for this Pod, or for an earlier one of the node that it proves to be."""
    return posted_for == pod.uid or (bool(posted_for) and isinstance(pod, GatedStep))


def _is_refused(error: ApiError) -> bool:
    """Whether the API server refuses what it was asked for, rather than cannot do it."""
    too_large = configmap.too_large(error.status, error.causes, error.message)
    return error.status in (*_LOOK_AGAIN, *_REFUSED_CONTENT) or too_large


def _path(pod: ObservedPod) -> str:
    return f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/pods/{quote(pod.name, safe='')}"
