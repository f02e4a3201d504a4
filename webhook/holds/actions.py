"""What is done to a held Pod: its result is posted, its status written, its gate taken away, its label set.

Each action may be repeated after any of its requests, by this process or another: it carries preconditions
(the Pod's uid and version, the result's version, the annotation that says for which Pod we posted it), and
where the API server refuses one of them it looks again. Whatever else goes wrong is raised (kube.FAILURES),
for the keeper to try later.

No step may run beside an answer of ours. A result is taken back only in the version that we alone have
written: before its Pod's gate goes, or where the status could not be written since the gate had gone. What
the step itself reported since makes another version.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.exceptions import ApiException

from memoize import names
from memoize.entry import Entry
from memoize.outcome import Outcome
from memoize.reasons import Reason
from memoize.report import completed, posted_by_us, version
from webhook import kube
from webhook.holds import finish, tended
from webhook.holds.pace import Bucket
from webhook.holds.tended import Found, Phase, Tended

TIMEOUT = 5.0
"""Seconds for one request."""
_TRIES = 5
"""Looks at one object that somebody else keeps changing, before the keeper is left to try later."""
_NOT_FOUND = 404
_CONFLICT = 409
_LOOK_AGAIN = (404, 409, 422)
"""How a precondition fails: no such Pod, another resourceVersion or uid, the test of a JSON patch."""
_REFUSED_OUTPUTS = (400, 413, 422)
_NO_VERSION = "unseen"
"""A resourceVersion that no object has."""

Json = dict[str, Any]


class Ended(Enum):
    """How an action on a Pod ended."""

    DONE = "done"
    """As it was to be, now or before."""
    GONE = "gone"
    """The Pod is not there any more, or about to go."""
    LEFT = "left"
    """The Pod is not held any more: somebody else let it run, or answered it."""


class Posted(NamedTuple):
    """Our result is there; `version` is the one in which nobody but us has written it."""

    version: str


class KeepsChangingError(ValueError):
    """Others changed the object as often as it was looked at; one of kube.FAILURES."""


class Actions:
    """The requests of the keeper, as many a second as `bucket` lets through."""

    def __init__(self, api: ApiClient, bucket: Bucket, now: Callable[[], datetime]) -> None:
        self._api, self._bucket, self._now = api, bucket, now

    async def post(self, pod: Tended, entry: Entry) -> Posted | Outcome | Ended:
        """Create the Pod's result with the outputs of the entry.

        An Outcome says why it cannot be answered with it, an Ended that it is not held any more.
        """
        for _ in range(_TRIES):
            try:
                made = await self._request("POST", _results(pod), finish.task_result(pod, entry))
                return Posted(version(made))
            except ApiException as error:
                if error.status in _REFUSED_OUTPUTS:
                    return Outcome(Reason.BROKEN_ENTRY, f"its outputs are refused: {error.status}")
                if error.status != _CONFLICT:
                    raise
            found = await self._result(pod)
            if found is None:
                continue
            posted_for = posted_by_us(found)
            if posted_for == pod.uid and completed(found):
                # Read before the Pod: if that is held then, what was read is not the step's.
                held = await self._held(pod)
                return held if isinstance(held, Ended) else Posted(version(found))
            if not posted_for:
                return Outcome(Reason.UNDECIDED, "the node has a result already")
            # Of an earlier Pod of this node, which is gone: its controller wants another answer.
            await self._delete_result(pod, found)
        raise KeepsChangingError("the result keeps changing")

    async def finish(self, pod: Tended, entry: Entry, posted: Posted) -> Ended:
        """Write the Pod's status; where it is not held any more, take our result back from beside it."""
        held: Tended | Ended = pod
        for _ in range(_TRIES):
            if isinstance(held, Ended):
                if held is Ended.LEFT:
                    await self._take_back(pod, posted.version)
                return held
            try:
                await self._request(
                    "PATCH", f"{_pod(pod)}/status", finish.status(held, entry, self._now()), kube.MERGE_PATCH
                )
                return Ended.DONE
            except ApiException as error:
                if error.status not in _LOOK_AGAIN:
                    raise
                refused = error
            again = await self._held(pod)
            if again == held:
                raise refused  # the Pod is what the patch is for: it will be refused again
            held = again
        raise KeepsChangingError("the Pod keeps changing")

    async def withdraw(self, pod: Tended, posted: Posted) -> None:
        """Take our result back if the Pod has left the hold without being answered with it."""
        if await self._held(pod) is Ended.LEFT:
            await self._take_back(pod, posted.version)

    async def release(self, pod: Found, label: str, outcome: Outcome, *, doubtful: bool) -> Ended:
        """Let the Pod run. `doubtful`: a result of ours may be there, or on its way, which goes first."""
        held: Found | Ended = pod
        for _ in range(_TRIES):
            if isinstance(held, Ended):
                return held
            if doubtful and isinstance(held, Tended):
                left = await self._retract(held)
                if left is not None:
                    return left
            try:
                patch = finish.release(held, label, outcome)
                await self._request("PATCH", _pod(pod), patch, kube.JSON_PATCH)
                return Ended.DONE
            except ApiException as error:
                if error.status not in _LOOK_AGAIN:
                    raise
                refused = error
            again = await self._held(pod)
            if again == held:
                raise refused  # the Pod is what the patch is for: it will be refused again
            held = again
        raise KeepsChangingError("the Pod keeps changing")

    async def mark(self, pod: Found, label: str, outcome: Outcome) -> None:
        """Write how the step's memoization ended on its Pod, which is over."""
        for _ in range(_TRIES):
            try:
                patch = finish.outcome(pod, label, outcome)
                await self._request("PATCH", _pod(pod), patch, kube.MERGE_PATCH)
                return
            except ApiException as error:
                if error.status not in _LOOK_AGAIN:
                    raise
                refused = error
            fresh = await self._get(_pod(pod))
            found = tended.read(fresh) if fresh is not None else None
            if found is None or found.uid != pod.uid:
                return
            if found == pod:
                raise refused
            pod = found
        raise KeepsChangingError("the Pod keeps changing")

    async def _held(self, pod: Found) -> Any:
        """The Pod as it is now, if it is held; else how that ended."""
        fresh = await self._get(_pod(pod))
        if fresh is None or (fresh.get("metadata") or {}).get("uid") != pod.uid:
            return Ended.GONE
        found = tended.read(fresh)
        if found is not None and found.phase is Phase.HELD and type(found) is type(pod):
            return Ended.GONE if found.deleting else found
        labels = fresh["metadata"].get("labels") or {}
        return Ended.DONE if labels.get(names.RESULT) == names.RESULT_HIT else Ended.LEFT

    async def _retract(self, pod: Tended) -> Ended | None:
        """Take back what we posted for the Pod, or keep it from getting there; None: that is done.

        Where no result is, an empty one takes its place, so that a POST of ours that is still on its way
        meets a conflict; Argo's own containers report into it as readily as they create one. The result is
        read before the Pod: if that is held then, what was read is not the step's.
        """
        for _ in range(_TRIES):
            found = await self._result(pod)
            if found is None:
                if await self._keep_out(pod):
                    return None
                continue
            if not posted_by_us(found):
                return None
            held = await self._held(pod)
            if isinstance(held, Ended):
                return held
            if await self._take_back(pod, version(found)):
                return None
        raise KeepsChangingError("the result keeps changing")

    async def _take_back(self, pod: Tended, seen: str) -> bool:
        """Make our result one that was not reported yet, in this version alone; False: it has another."""
        taken_back = {
            "metadata": {
                "labels": {names.OUTPUTS_COMPLETED: "false"},
                "annotations": {names.POSTED_FOR: None},
                "resourceVersion": seen or _NO_VERSION,
            },
            "outputs": None,
        }
        try:
            await self._request("PATCH", _result(pod), taken_back, kube.MERGE_PATCH)
        except ApiException as error:
            if error.status not in (_CONFLICT, _NOT_FOUND):
                raise
            return False
        return True

    async def _keep_out(self, pod: Tended) -> bool:
        """Create an empty result, not reported yet; False: there is one."""
        body = finish.task_result(pod, Entry(pod.step.node_id, None, None, None))
        body["metadata"]["labels"][names.OUTPUTS_COMPLETED] = "false"
        del body["metadata"]["annotations"]
        body.pop("outputs", None)
        try:
            await self._request("POST", _results(pod), body)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise
            return False
        return True

    async def _delete_result(self, pod: Tended, found: Mapping[str, Any]) -> None:
        only = {"uid": found["metadata"].get("uid"), "resourceVersion": version(found)}
        options = {"preconditions": only}
        try:
            await self._request("DELETE", _result(pod), options)
        except ApiException as error:
            if error.status not in (_CONFLICT, _NOT_FOUND):
                raise

    async def _result(self, pod: Tended) -> Json | None:
        return await self._get(_result(pod))

    async def _get(self, path: str) -> Json | None:
        """The whole object; None where there is none."""
        try:
            return await self._request("GET", path, accept=kube.JSON)
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    async def _request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = kube.JSON,
        accept: str = kube.METADATA_ONLY,
    ) -> Json:
        await self._bucket.take()
        answer = await kube.request(
            self._api, method, path, seconds=TIMEOUT, body=body, accept=accept, content_type=content_type
        )
        if not isinstance(answer, dict):
            raise ValueError("the answer is not an object")  # noqa: TRY004 - one of kube.FAILURES
        return answer


def _pod(pod: Found) -> str:
    return f"/api/v1/namespaces/{_quoted(pod.namespace)}/pods/{_quoted(pod.name)}"


def _results(pod: Tended) -> str:
    return f"/apis/{names.ARGO_API_VERSION}/namespaces/{_quoted(pod.namespace)}/workflowtaskresults"


def _result(pod: Tended) -> str:
    return f"{_results(pod)}/{_quoted(pod.step.node_id)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")
