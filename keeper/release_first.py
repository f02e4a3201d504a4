"""A start that releases first: the gated Pods run, before anything is built that may end this keeper again.

Gated Pods wait for a keeper, and nothing in Kubernetes lets a gate run out. Where keepers are killed at every
start, by an object that nobody thought of, the steps are let run by their Pods' metadata alone: none of their
specs is asked for, of their annotations only those that name the node are understood, and a page of the list
is all that is in memory.
The cost is hits: these steps run, and are not stored.

It does so while it holds the Lease. If another keeper renews that, the Pods are in good hands, and stay.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from typing import Any

from kubernetes_asyncio.client import ApiClient

from argo.shape import mapping
from argo.steppod import StepPod
from keeper import identity, paths
from keeper.gated import result_path
from keeper.patches import WITHOUT_GATE
from keeper.steppods import SELECTOR, UNSCHEDULED
from kube import client
from kube.backoff import Backoff
from kube.errors import TEMPORARY, ApiError, Forbidden, NotFound
from kube.leader_election import DURATION, Lease
from kube.pages import pages
from memoize import names, taskresult
from memoize.outcome import Outcome
from memoize.reasons import Reason
from server.events import Events
from server.logs import fields
from server.metrics import Metrics

_log = logging.getLogger(__name__)

DEADLINE = 60.0
"""Seconds after which the start goes on, whatever could not be released."""
LEASE_SECONDS = 2 * DURATION
"""For the Lease of a keeper that was killed to run out."""
PAGE = 10
"""Pods of a page at most, released side by side; fewer where their metadata are large (kube.pages)."""
SECONDS = 5.0
"""For one request."""
_NOT_LABELLED = f"!{names.RESULT}"
"""Somebody may have taken the label away: the plan is there still."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_OUTCOME = Outcome(
    Reason.UNDECIDED, "the keeper was killed at its last starts, and released it before this one"
)

Json = dict[str, Any]


async def release_first(
    api: ApiClient, lease: Lease, namespaces: Sequence[str], metrics: Metrics, events: Events
) -> None:
    """Release the gated Pods of these Namespaces, of all where none is named; for DEADLINE seconds at most.

    Every failure is said in the log and tried again.
    """
    standing = asyncio.create_task(lease.run())
    try:
        async with asyncio.timeout(DEADLINE):
            await _until_nobody_else_acts(lease)
            if lease.is_held_by_another:
                _log.warning("another keeper acts: gated Pods are left to it")
                return
            backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
            left = list(product(namespaces or ("",), (SELECTOR, _NOT_LABELLED)))
            # What was released once is not listed again for the sake of a Namespace where something fails.
            while left := [one for one in left if not await _all_released(api, *one, metrics, events)]:  # noqa: ASYNC110
                await asyncio.sleep(backoff.next())
    except TimeoutError:
        _log.warning("some Pods may be gated still: the start goes on", extra=fields(seconds=DEADLINE))
    finally:
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)


async def _until_nobody_else_acts(lease: Lease) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LEASE_SECONDS):
            while not lease.is_leader:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def _all_released(
    api: ApiClient, namespace: str, selector: str, metrics: Metrics, events: Events
) -> bool:
    """Release what one list names, "" for that of all Namespaces; False where something failed."""
    done = True
    path = paths.pods(namespace)
    query = [("labelSelector", selector), ("fieldSelector", UNSCHEDULED)]
    try:
        async for page in pages(api, path, query, name=path, most=PAGE, metadata_only=True, seconds=SECONDS):
            pods = filter(_may_be_gated, page.get("items") or ())
            ended = await asyncio.gather(*(_is_released(api, pod, metrics, events) for pod in pods))
            done = done and all(ended)
    except ApiError as error:
        _log.warning("cannot list gated Pods", extra=fields(namespace=namespace, error=str(error)))
        return False
    except Exception:
        _log.exception("cannot list gated Pods: an answer that makes no sense, or a bug of ours")
        return False
    return done


async def _is_released(api: ApiClient, pod: Json, metrics: Metrics, events: Events) -> bool:
    """Let one Pod run; False where that failed."""
    namespace, name = str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])
    about = {"namespace": namespace, "pod": name}
    path = paths.pod(namespace, name)
    try:
        if not await _release(api, pod, path):
            return True
    except NotFound:
        return True
    except ApiError as error:
        _log.warning("cannot release a gated Pod", extra=fields(**about, error=str(error)))
        return False
    except Exception:  # a Pod that nobody thought of: the others are not to wait for it
        _log.exception("cannot release a gated Pod: a bug of ours", extra=fields(**about))
        return False
    _log.warning("released a gated Pod", extra=fields(**about, **_OUTCOME._asdict()))
    metrics.step_outcome(namespace, _OUTCOME.reason)
    if isinstance(step := StepPod.parse(pod, namespace), StepPod):
        events.skipped(step.owner, step.node_id, *_OUTCOME)
    return True


async def _release(api: ApiClient, pod: Json, path: str) -> bool:
    """Let the Pod run, without an answer of ours beside it; False where it had no gate of ours."""
    uid = pod["metadata"]["uid"]
    seen = {"uid": uid, "resourceVersion": pod["metadata"]["resourceVersion"]}
    # 1. An answer that was posted for it is taken back, if the Pod is still as it was listed: one that has
    #    succeeded meanwhile needs its answer. Whoever is about to finish it is refused from here on: the mark
    #    makes another version of the Pod, and says that it is to run.
    result = result_path(pod)
    if result and (posted := await _posted(api, result, pod)):
        mark = {"labels": {names.RESULT: names.RESULT_MISS}}
        marked = await _patch(api, path, {"metadata": {**seen, **mark}})
        seen["resourceVersion"] = marked["metadata"]["resourceVersion"]
        with suppress(NotFound):
            await client.request(api, "DELETE", result, seconds=SECONDS, body=posted)
    # 2. The gate goes, and with it comes a final label, so that no keeper looks at the Pod again …
    if _label(pod) == names.RESULT_GATED:
        said = {"annotations": {names.REASON: f"{_OUTCOME.reason}: {_OUTCOME.detail}"}}
        marks = {**seen, **said, "labels": {names.RESULT: names.RESULT_SKIPPED}}
        try:
            await _patch(api, path, {"metadata": marks, "spec": WITHOUT_GATE})
        except (NotFound, *TEMPORARY):
            raise
        except ApiError as error:
            _log.info("a Pod takes no label of ours", extra=fields(pod=path, error=str(error)))
        else:
            return True
    # 3. … or, where it takes no label of ours, at last nothing but the gate's removal. Where our
    #    gate was gone that makes no other version of the Pod, or is refused: without gate and label it is
    #    none of ours to the policies.
    try:
        after = await _patch(api, path, {"metadata": {"uid": uid}, "spec": WITHOUT_GATE})
    except Forbidden:
        if _label(pod):
            raise
        return False
    return bool(after["metadata"]["resourceVersion"] != seen["resourceVersion"])


async def _posted(api: ApiClient, path: str, pod: Json) -> Json | None:
    """How to delete the answer that was posted for this Pod; None where there is none.

    One for an earlier Pod of the node counts where this one proves to be the node's too (`identity`).
    """
    try:
        result = await client.request(api, "GET", path, seconds=SECONDS, accept=client.METADATA_ONLY)
    except NotFound:
        return None
    posted_for = taskresult.posted_by_us(result)
    step = StepPod.parse(pod, pod["metadata"]["namespace"])
    proved = isinstance(step, StepPod) and identity.mismatch(step) is None
    if not posted_for or (posted_for != pod["metadata"]["uid"] and not proved):
        return None
    return {"preconditions": {name: result["metadata"][name] for name in ("uid", "resourceVersion")}}


async def _patch(api: ApiClient, path: str, body: Json) -> Json:
    return await client.request(
        api,
        "PATCH",
        path,
        seconds=SECONDS,
        body=body,
        accept=client.METADATA_ONLY,
        content_type=client.STRATEGIC_MERGE_PATCH,
    )


def _may_be_gated(pod: Json) -> bool:
    """Of a Pod that waits for a node, whether it is one of ours; one that is about to go is left alone."""
    annotations = mapping(pod["metadata"].get("annotations"))
    return not pod["metadata"].get("deletionTimestamp") and (bool(_label(pod)) or names.PLAN in annotations)


def _label(pod: Json) -> object:
    return mapping(pod["metadata"].get("labels")).get(names.RESULT)
