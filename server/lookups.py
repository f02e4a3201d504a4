"""What is looked up of a Namespace, a Workflow or a step's Secrets: for a review, before the keeper answers.

A look-up never raises. What cannot be read in time is None, which the decision turns into a reason to leave
things alone: memoization is not worth a step's delay. Who calls the webhooks may be anybody, so requests are
bounded, of all and about one Namespace. Those of all are shared by the Namespaces that are there; all others,
which a caller may have made up, have one share. Made-up names push nothing out of what is remembered.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from kubernetes_asyncio.client import ApiClient

from argo import artifact_gc
from argo import names as argo
from argo.shape import mapping
from argo.steppod import Owner
from kube import client
from kube.caching import CachedReads, TtlCache
from kube.errors import ApiError, NotFound
from memoize import names, spec
from memoize.autokey import ObjectReference, Version
from server.logs import fields
from server.rate_limit import FairLimit, RateLimits

_log = logging.getLogger(__name__)

TIMEOUT = 1.0
"""Seconds for one request: with four in a row below the webhooks' time-out of 5 s."""
FRESH = 5.0
"""Seconds that an answer serves: a fan-out of hundreds of Pods then reads its Workflow once."""
FRESH_VERSION = 1.0
"""Seconds that the version of a Secret or ConfigMap serves: the step after a change is to see it."""
FRESH_NOTHING = 1.0
"""Seconds that a failure serves: long enough to spare a struggling API server, short enough to be over."""
RATE, BURST = 200.0, 200
"""Requests a second, and after a rest, of all …"""
NAMESPACE_RATE, NAMESPACE_BURST = 50.0, 100
"""… and for Workflows of one Namespace. Who calls the webhooks is not known, and names whom it likes: a name
that is not there takes what a new one takes, and is not held against its Namespace. The Namespace's own
labels are out of this, or forged names would hide them; they are read once a second at most. One that is
there, and got nothing in the last second, may ask beyond the burst of all, up to once more as much."""
WHOLE_RATE, WHOLE_BURST = 20.0, 40
"""Of these, requests for whole objects, of up to a megabyte or two, of all …"""
WHOLE_NAMESPACE_RATE, WHOLE_NAMESPACE_BURST = 5.0, 20
"""… and about one Namespace."""
KNOWN = 600.0
"""Seconds for which one that was there is asked for again whatever the rates: a flood of forged names then
takes nothing from workflows that are running."""
KNOWN_NAMESPACE = 86_400.0
"""Seconds for which a Namespace that was there, or one of its Workflows, is taken to be there."""
MOST, MOST_OF_ONE = 5_000, 500
"""Workflows kept, and those of one Namespace; of each some hundred bytes."""
MOST_NAMESPACES = 10_000
"""Namespaces kept that are there: no caller can make up one."""
_ABSENT = 2_000
"""Names kept that brought nothing."""
_WORDS = frozenset({names.MEMOIZE, names.MODE, argo.PHASE})
"""Labels and annotations of a Workflow that decide over memoization …"""
_WORD = 64
"""… and the characters of one that are kept: longer ones are none of ours."""
_UNKNOWN = ""
"""The one share of all Namespaces that were not seen to be there."""
_LABEL = 63
"""Characters of a Namespace's name."""

Json = Mapping[str, Any]
_Object = tuple[str, ObjectReference]
"""A Secret or ConfigMap, by its Namespace."""
_RESOURCES = {"Secret": "secrets", "ConfigMap": "configmaps"}


class OfStep(NamedTuple):
    """What is looked up for a step; None is what could not be read."""

    metadata: Json | None
    """Its Workflow's: uid, and of the rest what decides over memoization."""
    labels: Mapping[str, str] | None
    """Its Namespace's."""
    limited: bool
    """Whether the Workflow was not read since too many others were."""


_LIMITED: Json = MappingProxyType({})
"""Instead of an answer: nothing was asked, since too much was."""


class Lookups:
    """The look-ups. `on_failed` is told which resource could not be read, for the metrics."""

    def __init__(
        self,
        api: ApiClient,
        on_failed: Callable[[str], None],
        *,
        seconds: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._on_failed, self._seconds = api, on_failed, seconds
        self._namespaces = CachedReads[str, Json | None](_serves, most=MOST_NAMESPACES, clock=clock)
        self._workflows = CachedReads[Owner, Json | None](
            _serves, most=MOST, clock=clock, group=_namespace_of, most_of_one=MOST_OF_ONE
        )
        self._deletions = CachedReads[Owner, bool | None](
            _serves, most=MOST, clock=clock, group=_namespace_of, most_of_one=MOST_OF_ONE
        )
        self._known = TtlCache[tuple[str, Hashable], bool](
            MOST + MOST_NAMESPACES, clock, group=lambda key: key[0], most_of_one=MOST_OF_ONE
        )
        self._absent = TtlCache[tuple[str, Hashable], bool](
            _ABSENT, clock, group=lambda key: key[0], most_of_one=MOST_OF_ONE
        )
        self._created = TtlCache[str, datetime](MOST_NAMESPACES, clock)
        self._of_namespace = RateLimits(NAMESPACE_RATE, NAMESPACE_BURST, clock=clock)
        self._of_all = FairLimit(RATE, BURST, clock=clock)
        self._whole_of_namespace = RateLimits(WHOLE_NAMESPACE_RATE, WHOLE_NAMESPACE_BURST, clock=clock)
        self._whole_of_all = FairLimit(WHOLE_RATE, WHOLE_BURST, clock=clock)
        self._objects = CachedReads[_Object, Version | None](
            lambda _: FRESH_VERSION, most=MOST, clock=clock, group=lambda one: one[0], most_of_one=MOST_OF_ONE
        )
        self._objects_of_namespace = RateLimits(NAMESPACE_RATE, NAMESPACE_BURST, clock=clock)
        self._objects_of_all = FairLimit(RATE, BURST, clock=clock)

    async def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a Namespace; None where it could not be read."""
        found = await self._namespaces.get(name, partial(self._read_namespace, name))
        return None if found is _LIMITED else found

    async def namespace_created(self, name: str) -> datetime | None:
        """When the Namespace was created; None where that is not known.

        Where it cannot be read now, as it was when it last could, in the last day.
        """
        await self.namespace_labels(name)
        return self._created.get(name)

    async def of_step(self, owner: Owner) -> OfStep:
        """What is looked up for a step, its Workflow and its Namespace read side by side."""
        self._namespaces.begin(owner.namespace, partial(self._read_namespace, owner.namespace))
        found = await self._workflows.get(owner, partial(self._read_workflow, owner))
        limited = found is _LIMITED
        return OfStep(None if limited else found, await self.namespace_labels(owner.namespace), limited)

    async def workflow_metadata(self, owner: Owner) -> Json | None:
        """The Workflow's with this name and UID, as in OfStep; None where there is none to be read."""
        found = await self._workflows.get(owner, partial(self._read_workflow, owner))
        return None if found is _LIMITED else found

    def has_read(self, owner: Owner) -> bool:
        """Whether the Workflow with this name and UID was there when it was read, in the last minutes."""
        return self._known.get((owner.namespace, owner)) is True

    def has_seen(self, namespace: str) -> bool:
        """Whether the Namespace, or a Workflow in it, was there when it was read, in the last day."""
        return self._known.get((namespace, namespace)) is True

    async def deletes_artifacts(self, owner: Owner) -> bool | None:
        """Whether the specs of the Workflow and of the template it refers to have its artifacts deleted.

        None where one could not be read. This reads whole objects: ask where the metadata do not tell.
        """
        return await self._deletions.get(owner, partial(self._read_deletion, owner))

    async def versions(
        self, namespace: str, references: Sequence[ObjectReference]
    ) -> Mapping[ObjectReference, Version]:
        """The versions of these objects, read side by side; without those that could not be read.

        Of an object its metadata alone are sent, and its uid and resourceVersion kept. These have bounds of
        their own, as wide as those of Workflows. Who asks has read a Workflow of the Namespace before, whose
        uid nobody can make up.
        """
        objects = [(namespace, one) for one in references]
        found = await asyncio.gather(
            *(self._objects.get(one, partial(self._read_version, one)) for one in objects)
        )
        return {one: version for one, version in zip(references, found, strict=True) if version is not None}

    async def _read_namespace(self, name: str) -> Json | None:
        async def labels() -> Json | None:
            found = await self._read("namespaces", f"/api/v1/namespaces/{name}", client.METADATA_ONLY)
            if found is None:
                return None
            with suppress(TypeError, ValueError, KeyError):
                created = datetime.fromisoformat(found["metadata"]["creationTimestamp"])
                self._created.put(name, created, KNOWN_NAMESPACE)
            return mapping(found["metadata"].get("labels"))

        if not _is_label(name):
            return None
        return await self._within_limits(
            (name, name), lambda: not self._of_all.take(_UNKNOWN), "namespaces", labels
        )

    async def _read_workflow(self, owner: Owner) -> Json | None:
        path = _argo(owner.namespace, "workflows", owner.name)

        async def metadata() -> Json | None:
            found = await self._read("workflows", path, client.METADATA_ONLY)
            return None if found is None or found["metadata"].get("uid") != owner.uid else _kept(found)

        if path is None:
            return None
        is_over = partial(self._is_over, self._of_namespace, self._of_all, owner.namespace)
        return await self._within_limits((owner.namespace, owner), is_over, "workflows", metadata)

    async def _within_limits(
        self,
        who: tuple[str, Hashable],
        is_over: Callable[[], bool],
        resource: str,
        read: Callable[[], Awaitable[Json | None]],
    ) -> Json | None:
        """What `read` brings, or _LIMITED; remembers whether `who`, a Namespace and a key, was there."""
        if self._absent.get(who):
            return None
        if not self._known.get(who) and is_over():
            self._on_failed(resource)
            return _LIMITED
        found = await read()
        if found is None:
            self._absent.put(who, True, FRESH_NOTHING)
        else:
            self._known.put(who, True, KNOWN)
            self._known.put((who[0], who[0]), True, KNOWN_NAMESPACE)
        return found

    def _is_over(self, of_namespace: RateLimits, of_all: FairLimit, namespace: str) -> bool:
        """Whether one more request is too many: for the Namespace, then for all."""
        share = namespace if self.has_seen(namespace) else _UNKNOWN
        return of_namespace.take(namespace) > 0 or not of_all.take(share)

    async def _read_deletion(self, owner: Owner) -> bool | None:
        path = _argo(owner.namespace, "workflows", owner.name)
        if path is None:
            return None
        if self._is_over(self._whole_of_namespace, self._whole_of_all, owner.namespace):
            self._on_failed("workflows")
            return None
        workflow = await self._read("workflows", path)
        if workflow is None or workflow["metadata"].get("uid") != owner.uid:
            return None
        own = artifact_gc.strategy(mapping(workflow.get("spec")))
        template = artifact_gc.reference(workflow)
        if own or template is None:
            return artifact_gc.deletes(own)
        resource = "clusterworkflowtemplates" if template.cluster else "workflowtemplates"
        holder = await self._read(
            resource, _argo(None if template.cluster else owner.namespace, resource, template.name)
        )
        return (
            None if holder is None else artifact_gc.deletes(artifact_gc.strategy(mapping(holder.get("spec"))))
        )

    async def _read_version(self, one: _Object) -> Version | None:
        """The Version; None for what could not be read."""
        namespace, (kind, name) = one
        if not _is_label(namespace):
            return None
        if not spec.is_dns1123_subdomain(name):
            return ()  # no object has such a name
        if self._is_over(self._objects_of_namespace, self._objects_of_all, namespace):
            self._on_failed(_RESOURCES[kind])
            return None
        path = f"/api/v1/namespaces/{namespace}/{_RESOURCES[kind]}/{name}"
        found = await self._read(_RESOURCES[kind], path, client.METADATA_ONLY, absent=_NOT_THERE)
        return None if found is None else _version(found)

    async def _read(
        self, resource: str, path: str | None, accept: str = client.JSON, *, absent: Json | None = None
    ) -> Json | None:
        """The object, `absent` for one that is not there; None where there is nothing to go by."""
        if path is None:
            return None
        try:
            answer = await client.request(self._api, "GET", path, seconds=self._seconds, accept=accept)
        except ApiError as error:
            if absent is not None and isinstance(error, NotFound):
                return absent
            problem = str(error)
        else:
            if isinstance(answer.get("metadata"), dict):
                return answer
            problem = "the answer holds no metadata"
        self._on_failed(resource)
        _log.warning("cannot read %s", path, extra=fields(error=problem))
        return None


def _kept(workflow: Json) -> Json:
    """Of a Workflow's metadata what anybody asks for: an object's annotations may weigh 256 KiB."""
    metadata = workflow["metadata"]
    finalizers = metadata.get("finalizers")
    kept = [one for one in finalizers if one == argo.ARTIFACT_GC_FINALIZER] if finalizers else []
    words = {
        field: {
            name: word[:_WORD] if isinstance(word, str) else None
            for name, word in mapping(metadata.get(field)).items()
            if name in _WORDS
        }
        for field in ("labels", "annotations")
    }
    return {"uid": metadata["uid"], "finalizers": kept, **words}


_NOT_THERE: Json = MappingProxyType({})


def _version(found: Json) -> Version | None:
    """None where an answer holds no version."""
    if found is _NOT_THERE:
        return ()
    version = tuple(found["metadata"].get(field) for field in ("uid", "resourceVersion"))
    return version if all(isinstance(one, str) and one for one in version) else None


def _serves(found: object) -> float:
    """The seconds that an answer serves; what was not there is remembered apart."""
    return 0 if found is None or found is _LIMITED else FRESH


def _namespace_of(owner: Owner) -> str:
    return owner.namespace


def _is_label(name: str) -> bool:
    """Whether it can be a Namespace's name: a caller wrote it, and it must not lead a request elsewhere."""
    return len(name) <= _LABEL and "." not in name and spec.is_dns1123_subdomain(name)


def _argo(namespace: str | None, resource: str, name: str) -> str | None:
    """The path of an object of Argo's, without a Namespace for one that is in none.

    None for names that are none: a tenant wrote them, and they must not lead the request elsewhere.
    """
    if not spec.is_dns1123_subdomain(name) or (namespace is not None and not _is_label(namespace)):
        return None
    within = "" if namespace is None else f"namespaces/{namespace}/"
    return f"/apis/{argo.API_VERSION}/{within}{resource}/{name}"
