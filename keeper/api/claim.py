"""What the calling Pod may have: the one key that it carries, in the one cache that it names."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kubernetes_asyncio.client import ApiClient

from argo import names as argo
from argo import tags
from argo.fields import FieldError, Kind, annotation
from keeper import container_status, paths
from keeper.api.auth import Caller
from keeper.api.errors import ErrorAnswer, unavailable
from keeper.api.request import Claim
from kube import client
from kube.errors import ApiError, NotFound
from memoize import names, spec

TIMEOUT = 2.0
"""Seconds to read a Pod."""
_OVER = ("Succeeded", "Failed")
_METADATA = "metadata"


async def read(api: ApiClient, caller: Caller) -> Claim | ErrorAnswer:
    """The claim of a caller; a 403 for one that has none, a 503 where the API server does not say."""
    path = paths.pod(caller.namespace, caller.pod)
    try:
        pod = await client.request(api, "GET", path, seconds=TIMEOUT)
    except NotFound:
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "the Pod is gone")
    except ApiError as error:
        return unavailable(f"the API server did not show the Pod: {error}")
    return claim(pod, caller)


def claim(pod: Mapping[str, Any], caller: Caller) -> Claim | ErrorAnswer:
    """The claim of a caller by its Pod; a 403 says what the Pod lacks."""
    metadata = pod.get(_METADATA) or {}
    if metadata.get("uid") != caller.uid:
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "the token is of an earlier Pod of that name")
    if metadata.get("deletionTimestamp") or (pod.get("status") or {}).get("phase") in _OVER:
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "the Pod is over")
    labels = metadata.get("labels") or {}
    ours = list(container_status.of_ours(pod.get("spec") or {}))
    if labels.get(names.RESULT) != names.RESULT_IN_POD or not ours:
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "nothing was injected into the Pod")
    annotations = metadata.get("annotations") or {}
    memo, errors = spec.from_pod(annotations, _METADATA)
    errors += [
        FieldError(annotation(_METADATA, name), Kind.INVALID, "a tag was not resolved")
        for name in (names.KEY, names.CACHE, names.MAX_AGE)
        if tags.has_tags(str(annotations.get(name, "")))
    ]
    node_id = annotations.get(argo.NODE_ID)
    if not node_id:
        errors.append(FieldError(annotation(_METADATA, argo.NODE_ID), Kind.REQUIRED, "set by Argo"))
    if memo is None and not errors:
        errors.append(FieldError(annotation(_METADATA, names.KEY), Kind.REQUIRED, "the memoize key"))
    if memo is None or not node_id or errors:
        return ErrorAnswer(HTTPStatus.FORBIDDEN, "the Pod is no memoized step", errors)
    return Claim(
        namespace=caller.namespace,
        pod=caller.pod,
        memo=memo,
        data_key=memo.data_key,
        node_id=node_id,
        workflow=labels.get(argo.WORKFLOW_LABEL, ""),
        looks_up=any(map(container_status.looks_up, ours)),
        stores=any(map(container_status.stores, ours)),
    )
