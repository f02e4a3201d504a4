"""Finds gated Pods, and lets them run.

What a Pod's annotations say is not asked: a Pod that has our gate is released, whatever became of it.
A keeper may be at work at the same moment. So the Pod is first taken from its hands by the label that it goes
by: with another version of the Pod it can complete it no more. Then an answer that it may have posted already
is taken back, and the gate goes last: from there on the step runs, and reports outputs of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple

from kubernetes_asyncio.client import ApiClient

from argo.steppod import StepPod
from keeper import paths
from kube import client, jsonpatch
from kube.errors import ApiError, Conflict, Invalid, NotFound
from kube.jsonpatch import Op
from kube.pages import pages
from memoize import names, spec, taskresult
from memoize.reasons import Reason

SELECTOR = ("fieldSelector", "status.phase=Pending")
"""Where gated Pods are, whatever became of their labels: a keeper finds one that lost ours minutes later."""
PAGE = 100
"""Pods of a page at most; fewer where they are large (kube.pages)."""
SECONDS = 10.0
"""For one request."""
ATTEMPTS = 5
"""How often a Pod is looked at again that others change at the same moment."""
AT_ONCE = 8
_CHANGED = (Conflict, Invalid)
"""Somebody else was faster: a precondition, or the test of a JSON patch, failed."""


class Pod(NamedTuple):
    """Which Pod."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return paths.pod(self.namespace, self.name)


class Ending(Enum):
    """What became of one Pod."""

    RELEASED = "released"
    NOT_GATED = "not gated"
    NOT_FOUND = "not found"
    FAILED = "not released"


class ReleaseResult(NamedTuple):
    """What became of one Pod, and why if it failed."""

    pod: Pod
    ending: Ending
    why: str = ""


async def find(api: ApiClient, namespace: str) -> list[Pod]:
    """Gated Pods of a Namespace, of all for ""; raises a kube.ApiError."""
    path = paths.pods(namespace)
    listed = pages(api, path, [SELECTOR], name=path, most=PAGE, seconds=SECONDS)
    return [
        Pod(pod["metadata"]["namespace"], pod["metadata"]["name"])
        async for page in listed
        for pod in page.get("items") or ()
        if _gate(pod) is not None
    ]


async def release(api: ApiClient, wanted: Sequence[Pod]) -> AsyncIterator[ReleaseResult]:
    """Release these Pods, some side by side; yields what became of each, as it comes.

    Whoever stops this early waits for those that are being released: none is left half way.
    """
    left = iter(wanted)
    running = {asyncio.create_task(_release(api, pod)) for pod in islice(left, AT_ONCE)}
    try:
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (pod := next(left, None)) is not None:
                    running.add(asyncio.create_task(_release(api, pod)))
                yield task.result()
    finally:
        if running:
            await asyncio.wait(running)


async def _release(api: ApiClient, pod: Pod) -> ReleaseResult:
    try:
        for _ in range(ATTEMPTS):
            found = await client.request(api, "GET", pod.path, seconds=SECONDS)
            if _gate(found) is None:
                return ReleaseResult(pod, Ending.NOT_GATED)
            try:
                await _free(api, pod, found)
            except _CHANGED:
                pass
            else:
                return ReleaseResult(pod, Ending.RELEASED)
    except NotFound:
        return ReleaseResult(pod, Ending.NOT_FOUND)
    except ApiError as error:
        return ReleaseResult(pod, Ending.FAILED, str(error))
    return ReleaseResult(pod, Ending.FAILED, "others kept changing it")


async def _free(api: ApiClient, pod: Pod, found: Mapping[str, Any]) -> None:
    """Release a Pod that is as it was found; Conflict or Invalid where it is not."""
    uid, result = found["metadata"]["uid"], result_path(found)
    await _posted(api, result, uid)  # who has no right to see it does not begin
    take, reason = _take(found)
    try:
        taken = await _patch(api, pod, [*take, reason])
    except _CHANGED:
        # Its annotations may be full; where it is the Pod that has changed, this is refused as well.
        taken = await _patch(api, pod, take)
    try:
        if posted := await _posted(api, result, uid):
            await client.request(api, "DELETE", result, seconds=SECONDS, body=posted)
        await _patch(api, pod, _ungate(taken))
    except ApiError:
        with suppress(ApiError):
            await _patch(api, pod, _give_back(taken))
        raise


async def _patch(api: ApiClient, pod: Pod, ops: Sequence[Op]) -> Any:
    return await client.request(
        api, "PATCH", pod.path, seconds=SECONDS, body=ops, content_type=client.JSON_PATCH
    )


async def _posted(api: ApiClient, path: str, uid: str) -> dict[str, Any] | None:
    """How to delete the answer that was posted for this Pod; None where there is none."""
    if not path:
        return None
    try:
        result = await client.request(api, "GET", path, seconds=SECONDS, accept=client.METADATA_ONLY)
    except NotFound:
        return None
    if taskresult.posted_by_us(result) != uid:
        return None
    return {"preconditions": {name: result["metadata"][name] for name in ("uid", "resourceVersion")}}


def result_path(pod: Mapping[str, Any]) -> str:
    """Where an answer for this Pod would lie; "" where its node can have none."""
    namespace = pod["metadata"]["namespace"]
    node = StepPod.parse(pod, namespace).node_id
    return paths.task_result(namespace, node) if spec.is_dns1123_subdomain(node) else ""


def _gate(pod: Mapping[str, Any]) -> int | None:
    """The index of our gate in a Pod that waits behind it."""
    over = (pod.get("status") or {}).get("phase") not in (None, "Pending")
    if over or pod["metadata"].get("deletionTimestamp"):
        return None
    gates = [gate.get("name") for gate in (pod.get("spec") or {}).get("schedulingGates") or ()]
    return gates.index(names.SCHEDULING_GATE) if names.SCHEDULING_GATE in gates else None


def _take(pod: Mapping[str, Any]) -> tuple[list[Op], Op]:
    """Take it from the keeper, as long as that has not decided, and say why; the gate stays."""
    metadata = pod["metadata"]
    word = (metadata.get("labels") or {}).get(names.RESULT)
    take = [*_unchanged(pod, word), _put(metadata, "labels", names.RESULT, names.RESULT_SKIPPED)]
    return take, _put(metadata, "annotations", names.REASON, Reason.RELEASED.value)


def _ungate(taken: Mapping[str, Any]) -> list[Op]:
    return [
        *_unchanged(taken, names.RESULT_SKIPPED),
        jsonpatch.remove(("spec", "schedulingGates", _index(taken))),
    ]


def _give_back(taken: Mapping[str, Any]) -> list[Op]:
    """Let the keeper decide again."""
    back = [
        *_unchanged(taken, names.RESULT_SKIPPED),
        jsonpatch.replace((*_METADATA, "labels", names.RESULT), names.RESULT_GATED),
    ]
    if names.REASON not in (taken["metadata"].get("annotations") or {}):
        return back
    return [*back, jsonpatch.remove((*_METADATA, "annotations", names.REASON))]


def _unchanged(pod: Mapping[str, Any], word: str | None) -> list[Op]:
    """The same Pod, still gated, with the same word: a keeper that has completed it wrote another one."""
    ops = [
        jsonpatch.test((*_METADATA, "uid"), pod["metadata"]["uid"]),
        jsonpatch.test(("spec", "schedulingGates", _index(pod), "name"), names.SCHEDULING_GATE),
    ]
    return ops if word is None else [*ops, jsonpatch.test((*_METADATA, "labels", names.RESULT), word)]


def _index(pod: Mapping[str, Any]) -> int:
    gate = _gate(pod)
    if gate is None:
        raise Conflict
    return gate


def _put(metadata: Mapping[str, Any], field: str, name: str, value: str) -> Op:
    return jsonpatch.put((*_METADATA, field), name, value, there=metadata.get(field))


_METADATA = ("metadata",)
